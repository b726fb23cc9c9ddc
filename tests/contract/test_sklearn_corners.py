"""The corners of scikit-learn that an estimator on texts is taken to."""

import pickle
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import FitFailedWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (makes the class below)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    ShuffleSplit,
    cross_val_predict,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler
from sklearn.utils import estimator_html_repr

import lstmlm.estimator
from lstmlm import LSTMLanguageModel
from lstmlm.metrics import neg_bits_per_char_scorer, neg_perplexity_scorer

ROOT = Path(__file__).parents[2]
TEXTS = ["the cat sat on the mat", "a dog lay on the log", "the cow is in the barn"] * 8
HELD_OUT = ["the dog sat on the cow", "a cat"]
COLLECTIONS = {
    "list": list,
    "array of str": np.array,
    "array of object": lambda texts: np.array(texts, dtype=object),
    "array of StringDType": lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
    "Series": lambda texts: pd.Series(texts, index=[f"row {i}" for i in range(len(texts))]),
    "Series of string": lambda texts: pd.Series(texts, dtype="string"),
}


def small(**changes):
    params = {
        "tokenizer": "word",
        "hidden_size": 8,
        "max_epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.03,
        "generation_config": {"max_new_tokens": 4},
        "device": "cpu",
        "random_state": 0,
    }
    return LSTMLanguageModel(**params | changes)


def lower(texts):
    return [text.lower() for text in texts]


@pytest.fixture(scope="module")
def fitted():
    return small().fit(TEXTS)


@pytest.fixture(params=COLLECTIONS.values(), ids=COLLECTIONS.keys())
def collect(request):
    return request.param


# ---- cross-validation and searches, on every collection ----


def test_cross_val_predict(collect):
    folds = KFold(3)
    predicted = cross_val_predict(small(), collect(TEXTS), cv=folds)
    assert predicted.shape == (len(TEXTS),)
    for train, test in folds.split(TEXTS):
        lm = small().fit([TEXTS[i] for i in train])
        assert predicted[test].tolist() == lm.predict([TEXTS[i] for i in test]).tolist()
    assert len(set(predicted)) > 1


def test_cross_validate_times_scores_and_keeps(collect):
    scoring = {"ppl": neg_perplexity_scorer, "own": lambda lm, X, y=None: lm.score(X)}
    found = cross_validate(
        small(),
        collect(TEXTS),
        cv=ShuffleSplit(2, test_size=0.3, random_state=0),
        scoring=scoring,
        return_train_score=True,
        return_estimator=True,
        error_score="raise",
    )
    assert found["test_ppl"].tolist() == found["test_own"].tolist()
    assert found["train_ppl"].tolist() == found["train_own"].tolist()
    assert [lm.n_epochs_ for lm in found["estimator"]] == [2, 2]


def test_learning_curve_rises(collect):
    """Of bytes: a tokenizer learned from less text would have another, smaller vocabulary."""
    sizes, train, test = learning_curve(
        small(max_epochs=8, tokenizer="bpe", vocab_size=257),
        collect(TEXTS),
        None,
        cv=KFold(3),
        train_sizes=[4, 16],
        error_score="raise",
    )
    assert sizes.tolist() == [4, 16]
    assert train.shape == test.shape == (2, 3)
    assert test.mean(axis=1)[0] < test.mean(axis=1)[1]


def test_validation_curve():
    train, test = validation_curve(
        small(), TEXTS, None, param_name="max_epochs", param_range=[0, 6], cv=2, error_score="raise"
    )
    assert train[0].mean() < train[1].mean()
    assert test[0].mean() < test[1].mean()


def test_halving_grid_search_over_the_number_of_texts(collect):
    grid = {"learning_rate": [1e-6, 1e-5, 0.03]}
    search = HalvingGridSearchCV(
        small(max_epochs=4), grid, cv=2, factor=2, min_resources=8, random_state=0,
        error_score="raise",
    ).fit(collect(TEXTS))  # fmt: skip
    assert search.n_resources_ == [8, 16]
    assert search.best_params_ == {"learning_rate": 0.03}
    assert search.score(TEXTS) == search.best_estimator_.score(TEXTS)


def test_halving_grid_search_over_the_number_of_epochs():
    search = HalvingGridSearchCV(
        small(), {"hidden_size": [2, 8]}, cv=2, factor=2, resource="max_epochs", max_resources=4,
        min_resources=2, error_score="raise", random_state=0,
    ).fit(TEXTS)  # fmt: skip
    assert search.n_resources_ == [2, 4]
    assert search.best_estimator_.n_epochs_ == 4


@pytest.mark.parametrize("scoring", [None, neg_perplexity_scorer])
def test_a_grid_in_two_processes_gives_what_one_gives(scoring, tmp_path):
    pipeline = make_pipeline(FunctionTransformer(lower), small(tokenizer="char"))
    grid = {"lstmlanguagemodel__hidden_size": [4, 8], "lstmlanguagemodel__context": ["stream"]}
    one, two = (
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n, scoring=scoring, error_score="raise")
        for n in (1, 2)
    )
    two = pickle.loads(pickle.dumps(clone(two))).fit(np.array(TEXTS, dtype=object))
    one.fit(TEXTS)
    assert np.array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    joblib.dump(two, tmp_path / "search.joblib")
    again = joblib.load(tmp_path / "search.joblib")
    assert again.score(TEXTS) == two.score(TEXTS) == one.score(TEXTS)
    assert list(again.predict(["the"])) == list(one.predict(["the"]))


def test_a_fit_that_fails_in_a_grid_gets_the_error_score():
    search = GridSearchCV(small(), {"hidden_size": [-1, 4]}, cv=2, error_score=-1e6)
    message = "hidden_size=-1 is not valid; hidden_size is an integer at least 1"
    with pytest.warns(FitFailedWarning, match=f"2 fits failed(?s:.*){message}"):
        search.fit(TEXTS)
    assert search.best_params_ == {"hidden_size": 4}


# ---- pipelines ----


def test_a_pipeline_is_sliced_named_and_replaced(fitted):
    pipeline = Pipeline([("lower", FunctionTransformer(lower)), ("lm", small())]).fit(TEXTS)
    assert pipeline[-1] is pipeline["lm"] is pipeline.named_steps.lm
    assert pipeline[:-1].transform(["A"]) == ["a"]
    assert pipeline[1:].score(TEXTS) == pipeline.score(TEXTS) == fitted.score(TEXTS)
    assert pipeline[-1:].predict(["THE"]).tolist() == fitted.predict(["THE"]).tolist()
    assert pipeline.predict(["THE"]).tolist() == fitted.predict(["the"]).tolist()
    assert pipeline.score_samples(TEXTS).tolist() == fitted.score_samples(TEXTS).tolist()
    assert pipeline.set_params(lm__max_epochs=1).fit(TEXTS)["lm"].n_epochs_ == 1
    assert pipeline.set_params(lm=small(max_epochs=3)).fit(TEXTS)["lm"].n_epochs_ == 3
    with pytest.raises(NotFittedError):
        clone(pipeline).predict(TEXTS)


def test_a_pipeline_keeps_what_it_has_fitted(tmp_path):
    pipeline = make_pipeline(FunctionTransformer(lower), small(), memory=str(tmp_path))
    assert pipeline.fit(TEXTS).score(TEXTS) == pipeline.fit(TEXTS).score(TEXTS)


def test_the_estimator_is_neither_classifier_nor_regressor():
    assert not is_classifier(small())
    assert not is_regressor(small())


class LogProbabilities(TransformerMixin, BaseEstimator):
    """A column of log-probabilities under a language model of the training texts."""

    def __init__(self, lm):
        self.lm = lm

    def fit(self, X, y=None):
        self.lm_ = clone(self.lm).fit(X, y)
        return self

    def transform(self, X):
        return self.lm_.score_samples(X)[:, np.newaxis]


def labelled():
    """Texts in an order of words that a bag of words can't see, and whether it is the usual one."""
    texts = [*TEXTS, *(" ".join(reversed(text.split())) for text in TEXTS)]
    return texts, [1] * len(TEXTS) + [0] * len(TEXTS)


def column(texts, lm):
    return lm.score_samples(texts)[:, np.newaxis]


@pytest.mark.parametrize(
    "feature",
    [
        FunctionTransformer(column, kw_args={"lm": small(max_epochs=8).fit(TEXTS)}),
        LogProbabilities(FrozenEstimator(small(max_epochs=8).fit(TEXTS))),
    ],
    ids=["function", "frozen"],
)
def test_figures_beside_words_in_a_feature_union(feature):
    texts, labels = labelled()
    union = FeatureUnion([("words", TfidfVectorizer()), ("lm", feature)])
    classifier = make_pipeline(union, LogisticRegression(C=100, max_iter=1000))
    assert classifier.fit(texts, labels).score(texts, labels) == 1
    assert union.transform(texts).shape == (len(texts), len(union["words"].vocabulary_) + 1)
    only_words = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100, max_iter=1000))
    assert only_words.fit(texts, labels).score(texts, labels) == 0.5


def test_features_in_a_feature_union_and_a_search():
    texts, labels = labelled()
    union = FeatureUnion([("words", TfidfVectorizer()), ("lm", small())], n_jobs=2)
    classifier = make_pipeline(union, MaxAbsScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(
        classifier,
        {"featureunion__lm__hidden_size": [4, 8], "featureunion__lm__tokenizer": ["word", "char"]},
        cv=2,
        n_jobs=2,
        error_score="raise",
    ).fit(texts, labels)
    assert search.score(texts, labels) > 0.9
    best = search.best_estimator_[0]
    alone = clone(best["lm"]).fit(texts)
    n_words = len(best["words"].vocabulary_)
    assert np.array_equal(best.transform(texts)[:, n_words:].toarray(), alone.transform(texts))
    names = best.get_feature_names_out()[n_words:]
    assert names.tolist() == [f"lm__{name}" for name in alone.get_feature_names_out()]
    assert make_pipeline(alone, MaxAbsScaler())[:-1].transform(texts).shape == (48, len(names))


def test_features_of_a_frozen_model_in_a_union():
    texts, labels = labelled()
    frozen = FrozenEstimator(small(max_epochs=8).fit(TEXTS))
    union = FeatureUnion([("words", TfidfVectorizer()), ("lm", frozen)])
    classifier = make_pipeline(union, MaxAbsScaler(), LogisticRegression(C=100, max_iter=1000))
    assert classifier.fit(texts, labels).score(texts, labels) == 1
    assert classifier[0]["lm"] is frozen


def test_a_column_of_a_table():
    texts, _ = labelled()
    table = pd.DataFrame({"id": range(len(texts)), "text": texts})
    columns = ColumnTransformer(
        [("lm", LogProbabilities(small()), "text")], remainder="passthrough"
    )
    features = columns.fit_transform(table)
    assert features.shape == (len(texts), 2)
    assert features[:, 0].tolist() == small().fit(texts).score_samples(texts).tolist()


# ---- frozen ----


def test_a_frozen_estimator_is_not_fitted_again(fitted):
    frozen = FrozenEstimator(fitted)
    expected = fitted.score_samples(TEXTS).tolist()
    assert clone(frozen) is frozen
    assert frozen.fit(["something else"] * 4, None).score_samples(TEXTS).tolist() == expected
    assert frozen.predict(["the"]).tolist() == fitted.predict(["the"]).tolist()
    assert frozen.score(TEXTS) == fitted.score(TEXTS)
    assert frozen.vocab_size_ == fitted.vocab_size_
    pipeline = make_pipeline(FunctionTransformer(lower), frozen).fit(["others"])
    assert pipeline.score_samples(TEXTS).tolist() == expected
    assert pickle.loads(pickle.dumps(pipeline)).score_samples(TEXTS).tolist() == expected
    with pytest.raises(NotFittedError):
        FrozenEstimator(small()).predict(["the"])


def test_cross_validation_of_a_frozen_estimator_scores_it_on_each_fold(fitted):
    # FrozenEstimator.fit has no default for y, and cross-validation gives it only what it got.
    y = [0] * len(TEXTS)
    found = cross_validate(FrozenEstimator(fitted), TEXTS, y, cv=KFold(3), error_score="raise")
    folds = [test for _, test in KFold(3).split(TEXTS)]
    expected = [fitted.score([TEXTS[i] for i in fold]) for fold in folds]
    assert found["test_score"].tolist() == expected


# ---- metadata ----


@pytest.fixture
def routing():
    with config_context(enable_metadata_routing=True):
        yield


def test_only_validation_can_be_routed():
    requests = small().get_metadata_routing()
    assert requests.fit.requests == {"validation": None}
    assert requests.score.requests == requests.predict.requests == requests.transform.requests == {}
    assert not hasattr(small(), "set_score_request")
    assert not hasattr(small(), "set_predict_request")
    assert not hasattr(small(), "set_transform_request")


@pytest.mark.usefixtures("routing")
def test_validation_reaches_the_end_of_a_pipeline():
    lm = small(max_epochs=5).set_fit_request(validation=True)
    routed = make_pipeline(FunctionTransformer(lower), lm).fit(
        TEXTS, y=[0, 1, 2] * 8, validation=HELD_OUT
    )
    direct = small(max_epochs=5).fit(TEXTS, validation=HELD_OUT)
    losses = [epoch.heldout_loss for epoch in direct.history_]
    assert [epoch.heldout_loss for epoch in routed[-1].history_] == losses
    unrouted = small(max_epochs=5).fit(TEXTS)
    assert [epoch.heldout_loss for epoch in unrouted.history_] != losses


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_validation_reaches_every_fit_of_a_grid(n_jobs):
    """It has another length than the texts, and every fit gets the whole of it."""
    lm = small().set_fit_request(validation=True)
    search = GridSearchCV(
        make_pipeline("passthrough", lm),
        {"lstmlanguagemodel__hidden_size": [4, 8]},
        cv=KFold(2),
        scoring=neg_bits_per_char_of_heldout,
        refit=False,
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(TEXTS, y=[0, 1, 2] * 8, validation=HELD_OUT)
    for size, *scores in zip(
        (4, 8), *(search.cv_results_[f"split{i}_test_score"] for i in range(2)), strict=True
    ):
        for score, (train, _) in zip(scores, KFold(2).split(TEXTS), strict=True):
            direct = small(hidden_size=size).fit([TEXTS[i] for i in train], validation=HELD_OUT)
            assert score == -direct.history_[-1].heldout_loss


def neg_bits_per_char_of_heldout(pipeline, X, y=None):
    return -pipeline[-1].history_[-1].heldout_loss


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("scorer", [neg_perplexity_scorer, neg_bits_per_char_scorer])
def test_the_scorers_go_where_a_pipelines_own_score_fails(scorer):
    """With routing, Pipeline.score fails on all whose score takes no sample weights, as PCA's."""
    lm = small(tokenizer="char").set_fit_request(validation=True)
    pipeline = make_pipeline(FunctionTransformer(lower), lm)
    search = GridSearchCV(pipeline, {}, scoring=scorer, cv=2, error_score="raise")
    search.fit(TEXTS, validation=HELD_OUT)
    assert search.score(TEXTS) == scorer(pipeline.fit(TEXTS, validation=HELD_OUT), TEXTS)


@pytest.mark.usefixtures("routing")
def test_validation_that_nobody_asked_for_is_an_error():
    with pytest.raises(UnsetMetadataPassedError, match="validation"):
        make_pipeline("passthrough", small()).fit(TEXTS, validation=HELD_OUT)
    lm = small().set_fit_request(validation="held_out")
    pipeline = make_pipeline("passthrough", lm).fit(TEXTS, held_out=HELD_OUT)
    direct = small().fit(TEXTS, validation=HELD_OUT)
    assert pipeline[-1].history_[-1].heldout_loss == direct.history_[-1].heldout_loss


def test_without_routing_a_pipeline_takes_it_by_the_name_of_the_step():
    pipeline = make_pipeline("passthrough", small())
    pipeline.fit(TEXTS, lstmlanguagemodel__validation=HELD_OUT)
    direct = small().fit(TEXTS, validation=HELD_OUT)
    assert pipeline[-1].history_[-1].heldout_loss == direct.history_[-1].heldout_loss


# ---- the picture in a notebook ----


class Links(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found, self.open = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs).get("href"))


@pytest.mark.parametrize("state", ["unfitted", "fitted"])
def test_html_repr_links_to_the_documentation(state, fitted):
    lm = fitted if state == "fitted" else small()
    address = lm._get_doc_link()
    for html in (lm._repr_html_(), estimator_html_repr(make_pipeline("passthrough", lm))):
        assert address in Links(html).found
        assert "Documentation for LSTMLanguageModel" in html
        assert not [link for link in Links(html).found if link and "scikit-learn.org" in link] or (
            "Pipeline" in html
        )
    assert ("Not fitted" in lm._repr_html_()) == (state == "unfitted")


def test_the_documentations_address_is_the_projects_and_its_page_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    address = small()._get_doc_link()
    page, anchor = re.fullmatch(
        re.escape(project["urls"]["Documentation"]) + r"(.+)\.html#(.+)", address
    ).groups()
    source = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    module, name = anchor.rsplit(".", 1)
    assert f".. automodule:: {module}\n" in source  # which makes such an anchor of each name
    assert module == lstmlm.estimator.__name__
    assert name in lstmlm.estimator.__all__


def test_bits_per_char_in_a_learning_curve_over_a_pipeline():
    _, _, test = learning_curve(
        make_pipeline(FunctionTransformer(lower), small(tokenizer="bpe")),
        TEXTS,
        None,
        cv=2,
        train_sizes=[0.5, 1.0],
        scoring=neg_bits_per_char_scorer,
        error_score="raise",
    )
    assert (test < 0).all()
