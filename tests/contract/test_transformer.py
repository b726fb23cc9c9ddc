"""As a transformer the estimator is what scikit-learn's users know: names, tables, pipelines."""

from importlib.resources import files
from pydoc_data.topics import topics

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags

from lstmlm import LSTMLanguageModel, TextError, TextTypeError
from lstmlm.features import FIGURES

TEXTS = ["the cat sat on the mat", "a dog lay on the log", "the cow is in the barn"] * 8
LABELS = ["cat", "dog", "cow"] * 8


def small(**changes):
    params = {"tokenizer": "word", "hidden_size": 8, "max_epochs": 2, "random_state": 0}
    return LSTMLanguageModel(**params | changes)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(TEXTS)


def test_shape_type_and_names(fitted):
    described = fitted.transform(TEXTS)
    assert described.shape == (24, 8 + 6)
    assert described.dtype == np.float32
    assert np.isfinite(described).all()
    names = fitted.get_feature_names_out()
    assert names.tolist() == [*(f"hidden{i}" for i in range(8)), *FIGURES]
    assert names.dtype == object
    assert fitted.get_feature_names_out(["text"]).tolist() == names.tolist()
    assert fitted.transform([]).shape == (0, 14)


def test_tags_promise_no_kept_type(fitted):
    assert get_tags(fitted).transformer_tags.preserves_dtype == []
    assert get_tags(fitted).input_tags.string


def test_fit_transform_is_fit_and_transform_and_ignores_y(fitted):
    expected = fitted.transform(TEXTS)
    assert np.array_equal(small().fit_transform(TEXTS), expected)
    assert np.array_equal(small().fit_transform(TEXTS, LABELS), expected)
    assert np.array_equal(small().fit_transform(iter(TEXTS), y=LABELS), expected)


def test_fit_transform_passes_held_out_text_on():
    lm = small()
    lm.fit_transform(TEXTS, validation=["the dog sat on the log"])
    same = small().fit(TEXTS, validation=["the dog sat on the log"])
    assert lm.history_[-1].heldout_loss == same.history_[-1].heldout_loss


@pytest.mark.parametrize("method", ["transform", "get_feature_names_out"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="This LSTMLanguageModel instance is not fitted yet"):
        getattr(small(), method)(TEXTS)


def test_what_is_no_collection_of_texts(fitted):
    with pytest.raises(TextError, match=r"^Iterable over raw text documents expected, string obj"):
        fitted.transform("one text")
    with pytest.raises(TextError, match=r"^texts has 2 dimensions; one is needed"):
        fitted.transform(pd.DataFrame({"text": TEXTS}))
    with pytest.raises(TextTypeError, match=r"^texts\[1\] is None \(NoneType\)"):
        fitted.transform(["one", None])


@pytest.mark.parametrize("method", ["transform", "fit_transform"])
def test_a_data_frame_keeps_the_index_of_a_series(fitted, method):
    lm = small().set_output(transform="pandas").fit(TEXTS)
    series = pd.Series(TEXTS, index=[f"row {i}" for i in range(24)])
    table = getattr(lm, method)(series)
    assert isinstance(table, pd.DataFrame)
    assert table.columns.tolist() == lm.get_feature_names_out().tolist()
    assert table.index.equals(series.index)
    assert set(table.dtypes) == {np.dtype(np.float32)}
    assert np.array_equal(table.to_numpy(), fitted.transform(TEXTS))
    assert getattr(lm, method)(iter(TEXTS)).index.tolist() == list(range(24))
    assert isinstance(lm.set_output(transform="default").transform(TEXTS), np.ndarray)


def test_a_data_frame_of_polars(fitted):
    polars = pytest.importorskip("polars")
    table = clone(fitted).set_output(transform="polars").fit(TEXTS).transform(TEXTS)
    assert isinstance(table, polars.DataFrame)
    assert table.columns == fitted.get_feature_names_out().tolist()
    assert np.array_equal(table.to_numpy(), fitted.transform(TEXTS))


def test_beside_counts_of_words_in_a_union(fitted):
    union = make_union(small(), TfidfVectorizer()).fit(TEXTS)
    both = union.transform(TEXTS)
    n_words = len(union.transformer_list[1][1].vocabulary_)
    assert both.shape == (24, 14 + n_words)
    assert np.array_equal(both[:, :14].toarray().astype(np.float32), fitted.transform(TEXTS))
    names = union.get_feature_names_out()
    assert names[0] == "lstmlanguagemodel__hidden0"
    assert names[14].startswith("tfidfvectorizer__")


def test_a_column_of_a_table():
    table = pd.DataFrame({"text": TEXTS, "length": range(24)}, index=range(50, 74))
    lm = small().set_output(transform="pandas")
    columns = make_column_transformer((lm, "text"), ("passthrough", ["length"]))
    columns.set_output(transform="pandas")
    described = columns.fit_transform(table)
    assert described.index.equals(table.index)
    assert described.columns[0] == "lstmlanguagemodel__hidden0"
    assert described["passthrough__length"].tolist() == list(range(24))
    mixed = ColumnTransformer([("lm", small(), "text"), ("words", TfidfVectorizer(), "text")])
    classifier = make_pipeline(mixed, LogisticRegression(max_iter=1000)).fit(table, LABELS)
    assert classifier.score(table, LABELS) == 1.0


def test_a_classifier_gets_the_labels_and_the_model_ignores_them(fitted):
    pipeline = make_pipeline(small(), StandardScaler(), LogisticRegression()).fit(TEXTS, LABELS)
    assert pipeline.classes_.tolist() == ["cat", "cow", "dog"]
    assert pipeline.predict(["the cow is in the barn"]).tolist() == ["cow"]
    assert pipeline.predict_proba(TEXTS[:2]).shape == (2, 3)
    assert np.array_equal(pipeline[0].score_samples(TEXTS), fitted.score_samples(TEXTS))
    assert pipeline[:-1].get_feature_names_out().tolist() == (
        fitted.get_feature_names_out().tolist()
    )


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_search_over_model_and_classifier(n_jobs):
    pipeline = make_pipeline(small(), StandardScaler(), LogisticRegression())
    grid = {"lstmlanguagemodel__max_epochs": [0, 2], "logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs, error_score="raise")
    search.fit(TEXTS, LABELS)
    assert search.best_params_.keys() == grid.keys()
    assert search.best_score_ > 0.9


def paragraphs(pages, n):
    """Return n paragraphs of prose of one source, in a fixed order, spread over it."""
    found = [" ".join(part.split()) for page in pages for part in page.split("\n\n")]
    prose = [text for text in found if 80 <= len(text) <= 400]
    return prose[:: max(1, len(prose) // n)][:n]


def test_two_sources_of_real_prose_are_told_apart():
    """The Python language reference, and scikit-learn's descriptions of its data sets."""
    folder = files("sklearn.datasets.descr")
    pages = sorted(p.read_text("utf-8") for p in folder.iterdir() if p.name.endswith(".rst"))
    data, python = paragraphs(pages, 100), paragraphs(map(topics.get, sorted(topics)), 100)
    assert len(data) == len(python) == 100
    lm = LSTMLanguageModel(
        vocab_size=300, hidden_size=64, max_epochs=5, batch_size=8, random_state=0
    )
    pipeline = make_pipeline(lm, StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    scores = cross_val_score(pipeline, [*data, *python], [0] * 100 + [1] * 100, cv=folds)
    assert scores.mean() > 0.75  # 0.5 by chance; 100 short texts to learn the languages from
