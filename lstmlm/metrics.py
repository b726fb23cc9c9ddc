"""Scorers for model selection: plain callables, to be given as ``scoring=``.

They take a fitted language model; a `Pipeline` that ends in one, whose earlier steps then transform
the texts first; a `FrozenEstimator` around one; and a fitted search, which stands for its best
estimator.
"""

import warnings
from collections.abc import Iterable
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from lstmlm.errors import ParameterError
from lstmlm.estimator import LSTMLanguageModel
from lstmlm.measures import Evaluation
from lstmlm.text import each_text

__all__ = ["neg_bits_per_char_scorer", "neg_perplexity_scorer"]


def neg_perplexity_scorer(estimator: Any, X: Iterable[str], y: Any = None) -> float:
    """Minus the perplexity per token: compares models of one tokenizer.

    Fit for a search over sizes, dropout or learning rates. A search that varies `tokenizer`,
    `vocab_size`, `min_frequency` or `lowercase` changes what a token is, and with it the unit of
    this figure: it needs `neg_bits_per_char_scorer`.

    Parameters
    ----------
    estimator : LSTMLanguageModel, or what holds a fitted one
        A Pipeline that ends in one, a FrozenEstimator around one, or a fitted search.
    X : iterable of str
        What to score; what the first step of a Pipeline takes.
    y : ignored
        There for scikit-learn.

    Returns
    -------
    float
        Greater is better; -1 is perfect.

    Raises
    ------
    ParameterError
        If there is no language model in `estimator`.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from lstmlm import LSTMLanguageModel, metrics
    >>> lm = LSTMLanguageModel(tokenizer="word", hidden_size=8, max_epochs=1, random_state=0)
    >>> cross_val_score(lm, ["a b", "b a"] * 8, scoring=metrics.neg_perplexity_scorer, cv=2).shape
    (2,)
    """
    lm, texts = _language_model(estimator, X)
    return -lm.perplexity(texts)


def neg_bits_per_char_scorer(estimator: Any, X: Iterable[str], y: Any = None) -> float:
    """Minus the bits per character: compares models of any lossless tokenizers.

    Those are "bpe", and "char" on text without unknown characters. Where the tokenizer loses a part
    of the text, the model need not guess that part and its figure is too good: this warns of
    "word", which forgets white space; of unknown tokens; and of lower-casing text with capitals.

    Parameters
    ----------
    estimator : LSTMLanguageModel, or what holds a fitted one
        A Pipeline that ends in one, a FrozenEstimator around one, or a fitted search.
    X : iterable of str
        What to score; what the first step of a Pipeline takes.
    y : ignored
        There for scikit-learn.

    Returns
    -------
    float
        Greater is better; each text's end mark counts as a character.

    Raises
    ------
    ParameterError
        If there is no language model in `estimator`.

    Warns
    -----
    UserWarning
        If the tokenizer loses a part of the text.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from lstmlm import LSTMLanguageModel, metrics
    >>> search = GridSearchCV(
    ...     LSTMLanguageModel(hidden_size=8, max_epochs=1, random_state=0),
    ...     {"tokenizer": ["bpe", "char"]},
    ...     scoring=metrics.neg_bits_per_char_scorer,
    ...     cv=2,
    ... )
    >>> search.fit(["a b", "b a"] * 8).best_params_["tokenizer"]
    'char'
    """
    lm, texts = _language_model(estimator, X)
    texts = list(each_text(texts))
    evaluation = lm.evaluate(texts)
    if losses := _losses(lm, texts, evaluation):
        warnings.warn(
            f"bits per character are too good here to be compared with another tokenizer's: "
            f"{' and '.join(losses)}.",
            UserWarning,
            stacklevel=2,
        )
    return -evaluation.bits_per_char


def _language_model(estimator: Any, texts: Any) -> tuple[LSTMLanguageModel, Any]:
    """Return the language model at the end of an estimator, and the texts as they reach it."""
    inner, given = estimator, estimator
    while not isinstance(inner, LSTMLanguageModel):
        if isinstance(inner, Pipeline):
            texts = inner[:-1].transform(texts) if len(inner) > 1 else texts
            inner = inner[-1]
        elif isinstance(inner, FrozenEstimator):
            inner = inner.estimator
        elif hasattr(type(inner), "_run_search"):  # scikit-learn's mark of a search
            check_is_fitted(inner, "best_estimator_")
            inner = inner.best_estimator_
        else:
            raise ParameterError(
                f"{type(given).__name__} can't be scored; give an LSTMLanguageModel, a Pipeline "
                "that ends in one, a FrozenEstimator around one, or a fitted search over one."
            )
    return inner, texts


def _losses(lm: LSTMLanguageModel, texts: list[str], evaluation: Evaluation) -> list[str]:
    """Say what of the texts the model need not guess."""
    losses = []
    if lm.tokenizer_.kind == "word":
        losses.append("tokenizer='word' forgets which white space stood between words")
    if evaluation.unknown_rate:
        losses.append(f"{evaluation.unknown_rate:.1%} of the tokens are the unknown token")
    if lm.params_["lowercase"] and any(text != text.lower() for text in texts):
        losses.append("lowercase=True forgets which letters were capitals")
    return losses
