"""`PerplexityDetector`: what is an outlier, and how it stands in scikit-learn."""

import numpy as np
import pytest
from rows_as_text import texts_of
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data
from tiny import ENGLISH, TEXTS, fitted, unfitted

from lstmlm import LSTMLanguageModel, ParameterError, PerplexityDetector, TextError


@pytest.fixture(scope="module")
def lm() -> LSTMLanguageModel:
    return fitted(tokenizer="word")


@pytest.mark.parametrize("statistic", ["mean", "max"])
def test_scores_are_minus_the_surprisals_in_bits(lm, statistic):
    detector = PerplexityDetector(FrozenEstimator(lm), statistic=statistic).fit(TEXTS)
    expected = [-getattr(scored.surprisals, statistic)() for scored in lm.pipe(ENGLISH)]
    assert detector.score_samples(ENGLISH).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_threshold_is_the_share_of_outliers(lm):
    for share in (0.1, 0.25, 0.5):
        detector = PerplexityDetector(FrozenEstimator(lm), contamination=share).fit(ENGLISH)
        assert detector.offset_ == np.percentile(detector.score_samples(ENGLISH), 100 * share)
        decided = detector.decision_function(ENGLISH)
        assert detector.predict(ENGLISH).tolist() == np.where(decided < 0, -1, 1).tolist()


def test_a_frozen_model_is_left_as_it_is(lm):
    before = lm.module_.embedding.weight.clone()
    detector = PerplexityDetector(FrozenEstimator(lm)).fit(ENGLISH)
    assert detector.estimator_.estimator is lm
    assert (lm.module_.embedding.weight == before).all()


def test_an_unfitted_model_is_fitted_as_a_clone():
    lm = unfitted(max_epochs=1)
    detector = PerplexityDetector(lm).fit(iter(ENGLISH))
    assert not hasattr(lm, "module_")
    assert hasattr(detector.estimator_, "module_")
    assert detector.fit_predict(ENGLISH).shape == (len(ENGLISH),)


def test_texts_are_documents_whatever_the_models_context():
    lm = fitted(tokenizer="word", context="stream")
    detector = PerplexityDetector(FrozenEstimator(lm)).fit(ENGLISH)
    both = detector.score_samples(ENGLISH[:2])
    alone = [detector.score_samples([text])[0] for text in ENGLISH[:2]]
    assert both.tolist() == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"contamination": 0}, "contamination=0"),
        ({"contamination": 0.6}, "contamination=0.6"),
        ({"statistic": "median"}, "statistic='median'"),
        ({"estimator": 3}, "estimator is a int; an LSTMLanguageModel is needed"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ParameterError, match=message):
        PerplexityDetector(**params).fit(ENGLISH)


def test_wrong_texts(lm):
    detector = PerplexityDetector(FrozenEstimator(lm))
    with pytest.raises(NotFittedError):
        detector.predict(ENGLISH)
    with pytest.raises(TextError, match="string object received"):
        detector.fit("a cat")


class RowsDetector(PerplexityDetector):
    """The detector for rows of numbers, so that scikit-learn's checks of outliers can run on it."""

    def fit(self, texts, y=None):
        return super().fit(texts_of(validate_data(self, texts)))

    def score_samples(self, texts):
        check_is_fitted(self)
        # `fit` calls this with texts of its own.
        rows = texts if isinstance(texts, list) and isinstance(texts[0], str) else None
        if rows is None:
            rows = texts_of(validate_data(self, texts, reset=False))
        return super().score_samples(rows)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = False
        tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags


class Float32Detector(RowsDetector):
    """One whose scores say what they are computed in: of float32 scikit-learn asks for 1e-4."""

    def score_samples(self, texts):
        return super().score_samples(texts).astype(np.float32)


SMALL = LSTMLanguageModel(hidden_size=8, max_epochs=2, batch_size=4, device="cpu", random_state=0)
CHECKS = parametrize_with_checks([RowsDetector(SMALL)])


@pytest.mark.parametrize(CHECKS.args[0], list(CHECKS.args[1]), **CHECKS.kwargs)
def test_check(estimator, check):
    if check.func.__name__ == "check_methods_subset_invariance":  # 1e-7 of float64
        estimator = Float32Detector(SMALL)
    check(estimator)


def test_it_can_be_cloned(lm):
    detector = PerplexityDetector(FrozenEstimator(lm), contamination=0.2)
    assert clone(detector).get_params(deep=False)["contamination"] == 0.2
