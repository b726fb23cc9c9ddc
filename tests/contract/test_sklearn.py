"""scikit-learn's users find the estimator where they expect it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from lstmlm import DecodeConfig, LSTMLanguageModel, TextError

TEXTS = ["the cat sat on the mat", "a dog lay on the log", "the cow is in the barn"] * 8


def small(**changes):
    params = {"tokenizer": "word", "hidden_size": 16, "max_epochs": 2, "random_state": 0}
    return LSTMLanguageModel(**params | changes)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(TEXTS)


def test_parameters_are_kept_as_given_and_cloned():
    config = DecodeConfig(top_k=3)
    lm = small(generation_config=config, dropout=np.float64(0.25))
    copied = clone(lm)
    assert copied.get_params()["dropout"] == 0.25
    assert copied.get_params()["generation_config"] == config
    assert copied.set_params(hidden_size=8).hidden_size == 8
    assert not hasattr(copied, "module_")


def test_init_only_stores():
    LSTMLanguageModel(hidden_size=-1, tokenizer=object())  # wrong values are for fit to refuse


def test_tags_say_one_dimensional_strings_without_labels():
    tags = get_tags(small())
    assert tags.input_tags.string
    assert tags.input_tags.one_d_array
    assert not tags.input_tags.two_d_array
    assert not tags.target_tags.required


@pytest.mark.parametrize(
    "method", ["score", "perplexity", "score_samples", "evaluate", "predict", "generate", "pipe"]
)
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="This LSTMLanguageModel instance is not fitted yet"):
        getattr(small(), method)(TEXTS)


def test_every_kind_of_collection_gives_the_same(fitted):
    scores = fitted.score_samples(TEXTS)
    assert scores.dtype == np.float64
    assert scores.shape == (len(TEXTS),)
    for texts in (
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=range(100, 100 + len(TEXTS))),
        pd.Series(TEXTS, dtype="string"),
        (text for text in TEXTS),
    ):
        again = small().fit(texts) if not isinstance(texts, tuple) else fitted
        given = texts if hasattr(texts, "__len__") else list(TEXTS)
        assert np.array_equal(again.score_samples(given), scores)


def test_y_is_ignored(fitted):
    assert np.array_equal(
        small().fit(TEXTS, y=range(len(TEXTS))).score_samples(TEXTS), fitted.score_samples(TEXTS)
    )
    assert fitted.score(TEXTS, y=None) == fitted.score(TEXTS, y=[1]) == -fitted.perplexity(TEXTS)


def test_pipeline_with_cleaning_before():
    clean = FunctionTransformer(lambda texts: [text.strip().lower() for text in texts])
    pipeline = make_pipeline(clean, small()).fit([f"  {text.upper()}\n" for text in TEXTS])
    direct = small().fit(TEXTS)
    assert pipeline.score([" THE CAT "]) == direct.score(["the cat"])
    assert list(pipeline.predict(["THE"])) == list(direct.predict(["the"]))
    assert list(pipeline.score_samples(["THE"])) == list(direct.score_samples(["the"]))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_grid_search_on_a_list_of_texts(n_jobs):
    grid = {"hidden_size": [4, 16], "learning_rate": [1e-6, 0.03]}
    search = GridSearchCV(small(), grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(TEXTS)
    assert search.best_params_["learning_rate"] == 0.03
    assert search.score(TEXTS) == search.best_estimator_.score(TEXTS)


def test_cross_val_score():
    scores = cross_val_score(small(), TEXTS, cv=3, error_score="raise")
    assert scores.shape == (3,)
    assert (scores < -1).all()  # minus a perplexity


def test_a_failed_fit_leaves_the_estimator_as_it_was(fitted):
    lm = clone(fitted).fit(TEXTS)
    with pytest.raises(TextError):
        lm.fit([])
    assert np.array_equal(lm.score_samples(TEXTS), fitted.score_samples(TEXTS))
