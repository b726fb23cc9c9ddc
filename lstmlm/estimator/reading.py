"""The estimator's methods that read texts and say how probable they are."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import Rule, TrainConfig
from lstmlm.defaults import scoring_precision
from lstmlm.estimator.fingerprints import fingerprint_of
from lstmlm.estimator.workers import in_order, loaded_model, n_workers, one_thread
from lstmlm.fitting import has_fast_bf16
from lstmlm.measures import Evaluation, Tally
from lstmlm.model import RecurrentLM
from lstmlm.scoring import ScoredText, Scorer, pools
from lstmlm.storage import workspace
from lstmlm.text import Tokenizer, check_iterable, check_pair, check_text, each_text

SCORE_BATCH = 2048  # texts that are read together at most
PIPE_BATCH = 256  # texts that pipe reads ahead at most

_BATCH_RULE = Rule(help="Texts that are read ahead at most.", kind=int, low=1)


class ReadsText(BaseEstimator):
    """The half of `LSTMLanguageModel` that scores."""

    tokenizer_: Tokenizer
    module_: RecurrentLM
    params_: dict[str, Any]
    device_: torch.device
    n_jobs: Any
    __metadata_request__score: ClassVar = {"texts": UNUSED}  # the data, not what goes with them

    def score(self, texts: Iterable[str], y: Any = None) -> float:
        """Return minus the perplexity per token: greater is better, as model selection needs.

        Perplexities per token compare models of one tokenizer only. Between tokenizers compare
        ``evaluate(texts).bits_per_char``, and see its ``unknown_rate``.

        Parameters
        ----------
        texts : iterable of str
            What to score; at least one text.
        y : ignored
            There for scikit-learn's pipelines.

        Returns
        -------
        float
        """
        return -self.perplexity(texts)

    def perplexity(self, texts: Iterable[str], per: str = "token") -> float:
        """Return exp(nats / units) over all texts together.

        Parameters
        ----------
        texts : iterable of str
            What to score; at least one text.
        per : {"token", "word", "char", "byte"}
            The unit. Each text's end mark counts as one of any.

        Returns
        -------
        float

        Raises
        ------
        ParameterError
            If `per` is no unit.
        TextError
            If there are no texts.
        """
        Tally().count(per)
        return self._scorer().tally(each_text(texts), SCORE_BATCH).perplexity(per)

    def score_samples(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """Return the log-probability of each text, its end mark included.

        Parameters
        ----------
        texts : iterable of str
            What to score.

        Returns
        -------
        ndarray of float64, shape (n_texts,)
            In nats.
        """
        log_probs = self._scorer().log_probs(each_text(texts), SCORE_BATCH)
        return np.fromiter(log_probs, dtype=np.float64)

    def evaluate(self, texts: Iterable[str]) -> Evaluation:
        """Return all figures of texts taken together.

        Parameters
        ----------
        texts : iterable of str
            What to score; at least one text.

        Returns
        -------
        Evaluation
        """
        tally = self._scorer().tally(each_text(texts), SCORE_BATCH, accuracy=True)
        return Evaluation.from_tally(tally)

    def pipe(
        self,
        texts: Iterable[Any],
        batch_size: int = PIPE_BATCH,
        as_tuples: bool = False,
        error_handler: Callable[[Any, Exception], None] | None = None,
        context: str | None = None,
    ) -> Iterator[Any]:
        """Score texts as they come: lazily, in order, in bounded memory.

        With `n_jobs` worker processes do it, each on one thread, and some more batches are read
        ahead; `batch_size=1`, a GPU or ``context="stream"`` make it one process all the same.

        Parameters
        ----------
        texts : iterable of str
            May be endless. With `as_tuples`, of (text, anything) pairs.
        batch_size : int, default 256
            Texts that are read ahead at most; with 1 each result comes before the next text is
            asked for.
        as_tuples : bool, default False
            Yield (ScoredText, anything) pairs.
        error_handler : callable, optional
            Called with what is no str and the exception, in place of raising it; such a text is
            left out of the results.
        context : {"document", "stream"}, optional
            How to read these texts, in place of the way in which the model was fitted: with
            "document" each starts from a fresh state.

        Yields
        ------
        ScoredText

        Raises
        ------
        ParameterError
            If an argument is out of its range.
        """
        if context is not None:
            TrainConfig.rules()["context"].check("context", context)
        scorer = self._scorer(context)
        _BATCH_RULE.check("batch_size", batch_size)
        check_iterable(texts)

        def score(texts: Iterable[str]) -> Iterator[ScoredText]:
            # A stream's texts depend on each other, and a GPU has one user.
            alone = scorer.stream or batch_size == 1 or self.device_.type != "cpu"
            if alone or n_workers(self.n_jobs) == 1:
                return scorer.pipe(texts, batch_size)
            return _by_workers(self, texts, batch_size)

        return _pipe(score, texts, as_tuples=as_tuples, error_handler=error_handler)

    @property
    def fingerprint_(self) -> str:
        """The sha256, in hexadecimal digits, of all that the model's figures follow from.

        A model that was saved and loaded has the one it had; training changes it.
        """
        check_is_fitted(self)
        return fingerprint_of(self).hex()

    def _scorer(self, context: str | None = None) -> Scorer:
        check_is_fitted(self)
        return scorer_of(self, stream=(context or self.params_["context"]) == "stream")


def scorer_of(estimator: Any, *, stream: bool) -> Scorer:
    """Return what scores texts with a fitted language model, in the precision it is set to."""
    module = estimator.module_
    fast_bf16 = has_fast_bf16(module.device)
    precision = scoring_precision(estimator.precision, module.n_products, fast_bf16=fast_bf16)
    if module.quantized:
        precision = "float32"  # of what isn't in int8
    return Scorer(module, estimator.tokenizer_, stream=stream, precision=precision)


def _by_workers(estimator: Any, texts: Iterable[str], batch_size: int) -> Iterator[ScoredText]:
    """Score texts in other processes, which load the model from a folder."""
    with workspace() as folder:
        estimator.save(folder / "model")
        model = (
            type(estimator).load,
            str(folder / "model"),
            "cpu",
            fingerprint_of(estimator).hex(),
        )
        tasks = ((model, pool) for pool in pools(texts, batch_size))
        for scored in in_order(_score_pool, tasks, estimator.n_jobs):
            yield from scored


def _score_pool(task: tuple[tuple[Any, ...], list[str]]) -> list[ScoredText]:
    """Score a pool of texts: a worker's whole work."""
    model, texts = task
    with one_thread():
        return list(scorer_of(loaded_model(*model), stream=False).pipe(texts, len(texts)))


def _pipe(
    score: Callable[[Iterable[str]], Iterator[ScoredText]],
    items: Iterable[Any],
    *,
    as_tuples: bool,
    error_handler: Callable[[Any, Exception], None] | None,
) -> Iterator[Any]:
    """Score texts, keeping beside each what came with it."""
    companions: deque[Any] = deque()

    def texts() -> Iterator[str]:
        for position, item in enumerate(items):
            try:
                text, companion = check_pair(item, position) if as_tuples else (item, None)
                text = check_text(text, position)
            except (TypeError, ValueError) as error:
                if error_handler is None:
                    raise
                error_handler(item, error)
                continue
            companions.append(companion)
            yield text

    for scored in score(texts()):
        companion = companions.popleft()
        yield (scored, companion) if as_tuples else scored
