"""The estimator's methods for text that never ends."""

from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import Rule
from lstmlm.errors import ParameterError
from lstmlm.estimator.fingerprints import fingerprint_of
from lstmlm.session import Reader, Session, Sessions

_N_RULE = Rule(help="Number of streams.", kind=int, low=1)


class StreamsText(BaseEstimator):
    """The part of `LSTMLanguageModel` that reads streams."""

    params_: dict[str, Any]

    def session(self, state: bytes | None = None) -> Session:
        """Begin a stream: text that comes in chunks, each token scored once it is certain.

        Its tokens and their log-probabilities are those of the whole text, however it is cut. A
        session computes in float32, or in int8 for a model that was quantised.

        Parameters
        ----------
        state : bytes, optional
            Of another session, to go on where it stood; see `Session.state`.

        Returns
        -------
        Session
            With `Session.feed`, `Session.end_text`, `Session.finish`, `Session.copy` and
            `Session.complete`.

        Raises
        ------
        SessionStateError
            If the state is damaged, or of another model.
        ParameterError
            If the tokenizer is a foreign one, which may change earlier tokens when more text comes.
        """
        return Session(_reader(self), state)

    def sessions(self, n: int) -> Sessions:
        """Begin `n` streams that are served together: what has come for them is read side by side.

        Parameters
        ----------
        n : int
            How many. A stream takes the memory of its state alone.

        Returns
        -------
        Sessions
            With the methods of a `Session`, for many streams by their numbers.

        Raises
        ------
        ParameterError
            See `session`.
        """
        _N_RULE.check("n", n)
        return Sessions(_reader(self), n)


def _reader(estimator: Any) -> Reader:
    """Return what streams of a fitted language model share."""
    check_is_fitted(estimator)
    if not estimator.tokenizer_.has_safe_cuts:
        raise ParameterError(
            "a session needs a tokenizer that never changes earlier tokens when more text comes, "
            "which can't be proven of a given one; score whole texts with pipe(), or fit with "
            'tokenizer="bpe", "char" or "word".'
        )
    return Reader(
        estimator.module_,
        estimator.tokenizer_,
        carries=estimator.params_["context"] == "stream",
        fingerprint=fingerprint_of(estimator)[:16],
    )
