"""Scorers of model selection: their figures, what they may be given, and when they warn."""

import math
import pickle
import re
import warnings

import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from lstmlm import LSTMLanguageModel, ParameterError, TextError
from lstmlm.metrics import neg_bits_per_char_scorer, neg_perplexity_scorer

TEXTS = ["the cat sat on the mat", "a dog lay on the log", "the cow is in the barn"] * 8
SCORERS = [neg_perplexity_scorer, neg_bits_per_char_scorer]
PREFIX = "bits per character are too good here to be compared with another tokenizer's: "


def small(**changes):
    params = {"tokenizer": "char", "hidden_size": 8, "max_epochs": 1, "random_state": 0}
    return LSTMLanguageModel(**params | changes)


def strip(texts):
    return [text.strip() for text in texts]


def upper(texts):
    return [text.upper() for text in texts]


@pytest.fixture(scope="module")
def lm():
    return small().fit(TEXTS)


def test_the_figures(lm):
    evaluation = lm.evaluate(TEXTS)
    assert neg_perplexity_scorer(lm, TEXTS) == lm.score(TEXTS) == -evaluation.perplexity
    assert neg_bits_per_char_scorer(lm, TEXTS) == -evaluation.bits_per_char
    n_chars = sum(len(text) + 1 for text in TEXTS)
    nats = -lm.score_samples(TEXTS).sum()
    assert neg_bits_per_char_scorer(lm, TEXTS) == pytest.approx(-nats / math.log(2) / n_chars)


@pytest.mark.parametrize("scorer", SCORERS)
def test_y_is_ignored(lm, scorer):
    assert scorer(lm, TEXTS, [1] * len(TEXTS)) == scorer(lm, TEXTS, y=None) == scorer(lm, TEXTS)


@pytest.mark.parametrize("scorer", SCORERS)
def test_what_holds_a_language_model(lm, scorer):
    padded = [f" {text} " for text in TEXTS]
    expected, clean = scorer(lm, TEXTS), FunctionTransformer(strip)
    assert scorer(lm, padded) != expected
    pipeline = Pipeline([("clean", clean), ("nothing", "passthrough"), ("lm", lm)])
    assert scorer(pipeline, padded) == expected
    assert scorer(Pipeline([("lm", lm)]), TEXTS) == expected
    assert scorer(Pipeline([("outer", clean), ("inner", pipeline)]), padded) == expected
    assert scorer(FrozenEstimator(lm), TEXTS) == expected
    assert scorer(FrozenEstimator(pipeline), padded) == expected
    assert scorer(make_pipeline(clean, FrozenEstimator(lm)), padded) == expected


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_fitted_search_stands_for_its_best_estimator(scorer):
    padded = [f" {text}\n" for text in TEXTS]
    pipeline = make_pipeline(FunctionTransformer(strip), small())
    grid = {"lstmlanguagemodel__hidden_size": [4, 8]}
    for search in (
        GridSearchCV(pipeline, grid, cv=2),
        RandomizedSearchCV(pipeline, grid, cv=2, n_iter=1, random_state=0),
    ):
        with pytest.raises(NotFittedError):
            scorer(search, padded)
        search.fit(padded)
        assert scorer(search, padded) == scorer(search.best_estimator_[-1], TEXTS)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_in_cross_validation(scorer, n_jobs):
    pipeline = make_pipeline(FunctionTransformer(strip), small())
    scores = cross_val_score(
        pipeline, TEXTS, scoring=scorer, cv=2, n_jobs=n_jobs, error_score="raise"
    )
    half = len(TEXTS) // 2
    by_hand = [
        scorer(clone(pipeline).fit(TEXTS[half:]), TEXTS[:half]),
        scorer(clone(pipeline).fit(TEXTS[:half]), TEXTS[half:]),
    ]
    assert scores.tolist() == by_hand


def test_bits_per_char_choose_among_tokenizers_where_perplexity_would_mislead():
    """Longer tokens are fewer and harder to guess, so that figures per token favour the shorter."""
    texts = [f"{a} {b}" for a in ("wonderful", "terrible") for b in ("weather", "journey")] * 10
    grid = {"tokenizer": ["bpe", "char"]}
    lm = small(max_epochs=8, vocab_size=300, learning_rate=0.02)
    chosen = {}
    for scorer in SCORERS:
        search = GridSearchCV(lm, grid, scoring=scorer, cv=2, error_score="raise").fit(texts)
        chosen[scorer] = search.best_params_["tokenizer"]
    assert chosen == {neg_perplexity_scorer: "char", neg_bits_per_char_scorer: "bpe"}


def test_several_scorers_in_one_search_with_routing_too():
    scoring = {"ppl": neg_perplexity_scorer, "bits": neg_bits_per_char_scorer}
    search = GridSearchCV(
        small(), {"hidden_size": [4]}, scoring=scoring, refit="bits", cv=2, error_score="raise"
    )
    plain = clone(search).fit(TEXTS)
    with config_context(enable_metadata_routing=True):
        routed = clone(search).fit(TEXTS)
    for name in scoring:
        assert plain.cv_results_[f"mean_test_{name}"] == routed.cv_results_[f"mean_test_{name}"]
    assert plain.score(TEXTS) == neg_bits_per_char_scorer(plain, TEXTS)


@pytest.mark.parametrize("scorer", SCORERS)
def test_they_can_be_pickled_and_cloned(scorer):
    assert pickle.loads(pickle.dumps(scorer)) is scorer
    assert clone(GridSearchCV(small(), {}, scoring=scorer)).scoring is scorer


# ---- warnings ----


@pytest.mark.parametrize(
    ("params", "texts", "reason"),
    [
        ({"tokenizer": "word"}, TEXTS, "tokenizer='word' forgets which white space stood between"),
        ({}, ["the cat\x00"], "11.1% of the tokens are the unknown token."),
        ({"tokenizer": "bpe", "lowercase": True}, ["The"], "lowercase=True forgets which letters"),
        (
            {"tokenizer": "word", "lowercase": True},
            ["The zebra"],
            "tokenizer='word' forgets which white space stood between words and 33.3% of the "
            "tokens are the unknown token and lowercase=True forgets which letters were capitals.",
        ),
    ],
)
def test_bits_per_char_warn_where_a_part_of_the_text_is_lost(params, texts, reason):
    lm = small(**params).fit(TEXTS)
    with pytest.warns(UserWarning, match=f"^{re.escape(PREFIX + reason)}") as caught:
        figure = neg_bits_per_char_scorer(lm, texts)
    assert figure == -lm.evaluate(texts).bits_per_char
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "params", [{"tokenizer": "bpe"}, {}, {"tokenizer": "bpe", "lowercase": True}]
)
def test_no_warning_where_nothing_is_lost(params):
    lm = small(**params).fit(TEXTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        neg_bits_per_char_scorer(lm, iter(TEXTS))
        neg_perplexity_scorer(small(tokenizer="word").fit(TEXTS), ["Unknown words"])


def test_texts_are_looked_at_as_they_reach_the_model():
    lm = small(tokenizer="bpe", lowercase=True)
    with pytest.warns(UserWarning, match="capitals"):
        neg_bits_per_char_scorer(make_pipeline(FunctionTransformer(upper), lm).fit(TEXTS), TEXTS)


# ---- errors ----


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize(
    "wrong", [CountVectorizer(), make_pipeline("passthrough", CountVectorizer()), None]
)
def test_what_holds_no_language_model(scorer, wrong):
    with pytest.raises(ParameterError) as caught:
        scorer(wrong, TEXTS)
    assert str(caught.value) == (
        f"{type(wrong).__name__} can't be scored; give an LSTMLanguageModel, a Pipeline that ends "
        "in one, a FrozenEstimator around one, or a fitted search over one."
    )


@pytest.mark.parametrize("scorer", SCORERS)
def test_no_texts_or_a_single_one_or_no_fit(lm, scorer):
    with pytest.raises(TextError, match=r"^perplexity of no texts"):
        scorer(lm, [])
    with pytest.raises(TextError, match="string object received"):
        scorer(lm, "a text")
    with pytest.raises(NotFittedError):
        scorer(small(), TEXTS)
