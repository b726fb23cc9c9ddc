"""The estimator's methods that turn texts into numbers for other estimators."""

from collections.abc import Iterable
from functools import wraps
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.features import describe_texts, feature_names
from lstmlm.fitting import rereadable
from lstmlm.model import RecurrentLM
from lstmlm.storage import workspace
from lstmlm.text import Tokenizer, each_text

DESCRIBE_BATCH = 1024  # texts that are read together at most


class DescribesText(TransformerMixin, BaseEstimator):
    """The part of `LSTMLanguageModel` that is a transformer."""

    tokenizer_: Tokenizer
    module_: RecurrentLM
    __metadata_request__transform: ClassVar = {"texts": UNUSED}  # the data, not what goes with them

    def transform(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Turn each text into a row of numbers that say what it is like.

        The first columns, ``hidden0`` and so on, are the mean of the last layer's output over the
        text: over the places before its first token, ..., before its end mark. The last six are the
        text's figures, the end mark counted as one token and one character:

        ``log_n_tokens``
            Natural logarithm of the number of tokens.
        ``mean_surprisal``, ``std_surprisal``, ``max_surprisal``
            Mean, standard deviation and largest value of the tokens' surprisals, in bits.
        ``bits_per_char``
            Sum of the surprisals by the number of characters.
        ``unknown_rate``
            Share of tokens that were the unknown token; always 0 with "bpe".

        The columns differ in scale: put a `StandardScaler` between this and a linear model.

        Parameters
        ----------
        texts : iterable of str
            What to describe. Each is a document of its own, whatever `context` is, and its row
            depends on it alone.

        Returns
        -------
        ndarray of float32, shape (n_texts, hidden_size + 6)
            A DataFrame after ``set_output(transform="pandas")`` or ``"polars"``, with the index of
            a pandas Series of texts.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TextError, TextTypeError
            If the texts are a single str, a mapping or a table, or one of them is not a str.
        """
        check_is_fitted(self)
        parts = describe_texts(self.module_, self.tokenizer_, each_text(texts), DESCRIBE_BATCH)
        none = np.empty((0, len(feature_names(self.module_.hidden_size))), dtype=np.float32)
        return np.concatenate([none, *parts])

    def fit_transform(
        self, texts: Iterable[str], y: Any = None, **fit_params: Any
    ) -> NDArray[np.float32]:
        """Fit on texts and transform them.

        Parameters
        ----------
        texts : iterable of str
            The training text; it may be an iterator, which can be read only once.
        y : ignored
            There for scikit-learn's pipelines, where it holds the labels of a classifier.
        **fit_params
            Of `fit`, for example `validation`.

        Returns
        -------
        ndarray of float32, shape (n_texts, hidden_size + 6)
            What `transform` returns.
        """
        with workspace() as folder:
            kept = rereadable(texts, folder)
            described = cast(Any, self).fit(kept, y, **fit_params).transform(kept)
        return cast(NDArray[np.float32], described)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the columns that `transform` gives.

        Parameters
        ----------
        input_features : ignored
            There for scikit-learn's column transformers.

        Returns
        -------
        ndarray of str objects, shape (hidden_size + 6,)
        """
        check_is_fitted(self)
        return np.array(feature_names(self.module_.hidden_size), dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # float32 comes out, whatever text went in
        return tags


def _naming_texts(wrapped: Any) -> Any:
    """Let a method's texts be given by their name too: scikit-learn's wrapper names them X."""

    @wraps(wrapped)
    def method(self: DescribesText, texts: Iterable[str], *args: Any, **named: Any) -> Any:
        return wrapped(self, texts, *args, **named)

    return method


for _name in ("transform", "fit_transform"):
    setattr(DescribesText, _name, _naming_texts(getattr(DescribesText, _name)))
