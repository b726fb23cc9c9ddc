"""`PerplexityDetector`: texts that a language model finds improbable, as outliers."""

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import Rule
from lstmlm.errors import ParameterError
from lstmlm.estimator import LSTMLanguageModel
from lstmlm.estimator.reading import SCORE_BATCH, scorer_of
from lstmlm.fitting import rereadable
from lstmlm.storage import workspace
from lstmlm.text import check_iterable, each_text

_STATISTICS: dict[str, Callable[[NDArray[np.float32]], float]] = {
    "mean": lambda nats: float(nats.mean(dtype=np.float64)),
    "max": lambda nats: float(nats.max()),
}
_RULES = {
    "contamination": Rule(help="Share of outliers.", kind=float, above=0.0, high=0.5),
    "statistic": Rule(help="Of the surprisals.", kind=str, choices=tuple(_STATISTICS)),
}


class PerplexityDetector(OutlierMixin, BaseEstimator):
    """Finds texts that a language model is surprised by.

    A text's score is minus the surprisal of its tokens, in bits: greater is more normal. Each text
    is a document of its own. With a `sklearn.frozen.FrozenEstimator` around a fitted model, `fit`
    only sets the threshold.

    Parameters
    ----------
    estimator : LSTMLanguageModel, FrozenEstimator or None, default None
        The language model; None stands for one with its defaults.
    contamination : float in (0, 0.5], default 0.1
        Share of the texts given to `fit` that are taken to be outliers.
    statistic : {"mean", "max"}, default "mean"
        What is taken of a text's surprisals: their mean finds texts that are odd throughout, the
        largest finds a single odd token.

    Attributes
    ----------
    estimator_ : LSTMLanguageModel or FrozenEstimator
        The fitted model.
    offset_ : float
        The score below which a text is an outlier.

    Examples
    --------
    >>> from lstmlm import LSTMLanguageModel, PerplexityDetector
    >>> lines = [f"GET /page/{number} 200" for number in range(10)] * 20
    >>> lm = LSTMLanguageModel(tokenizer="char", max_epochs=20, random_state=0)
    >>> detector = PerplexityDetector(lm, contamination=0.01).fit(lines)
    >>> detector.predict(["GET /page/7 200", "segmentation fault"]).tolist()
    [1, -1]
    """

    __metadata_request__fit: ClassVar = {"texts": UNUSED}  # the data, not what goes with them
    __metadata_request__predict: ClassVar = {"texts": UNUSED}
    __metadata_request__decision_function: ClassVar = {"texts": UNUSED}

    def __init__(
        self,
        estimator: Any = None,
        *,
        contamination: Any = 0.1,
        statistic: Any = "mean",
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.statistic = statistic

    def fit(self, texts: Iterable[str], y: Any = None) -> Self:
        """Fit the language model, and set the threshold on the same texts.

        Parameters
        ----------
        texts : iterable of str
            Mostly normal ones; it may be an iterator, which can be read only once.
        y : ignored
            There for scikit-learn's pipelines.

        Returns
        -------
        PerplexityDetector
            The detector itself.

        Raises
        ------
        ParameterError
            If a parameter is out of its range.
        """
        for name, rule in _RULES.items():
            rule.check(name, getattr(self, name))
        given = LSTMLanguageModel() if self.estimator is None else self.estimator
        if not isinstance(_inside(given), LSTMLanguageModel):
            raise ParameterError(
                f"estimator is a {type(given).__name__}; an LSTMLanguageModel is needed, or a "
                "FrozenEstimator around a fitted one."
            )
        with workspace() as folder:
            kept = rereadable(check_iterable(texts), folder)
            self.estimator_ = clone(given).fit(kept, None)
            scores = self.score_samples(kept)
        self.offset_ = float(np.percentile(scores, 100 * self.contamination))
        return self

    def score_samples(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """Return how normal each text is: minus the mean (or largest) surprisal of its tokens.

        Parameters
        ----------
        texts : iterable of str
            What to score.

        Returns
        -------
        ndarray of float64, shape (n_texts,)
            In bits a token, 0 or below.
        """
        check_is_fitted(self)
        scorer = scorer_of(_inside(self.estimator_), stream=False)
        statistic = _STATISTICS[self.statistic]
        nats = map(statistic, scorer.nats(each_text(texts), SCORE_BATCH))
        return -np.fromiter(nats, dtype=np.float64) / math.log(2)

    def decision_function(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """Return `score_samples` above the threshold: negative for outliers.

        Parameters
        ----------
        texts : iterable of str
            What to judge.

        Returns
        -------
        ndarray of float64, shape (n_texts,)
        """
        return self.score_samples(texts) - self.offset_

    def predict(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """Say which texts are outliers.

        Parameters
        ----------
        texts : iterable of str
            What to judge.

        Returns
        -------
        ndarray of int64, shape (n_texts,)
            -1 for an outlier, 1 for the others.
        """
        return np.where(self.decision_function(texts) < 0, -1, 1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _inside(estimator: Any) -> Any:
    """Return the estimator that a FrozenEstimator holds, or the estimator itself."""
    return estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
