"""What scikit-learn's checks ask of estimators on rows of numbers, asked of one on texts."""

import copy
import io
import pickle
import random

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils import check_random_state
from sklearn.utils.validation import has_fit_parameter

from lstmlm import LSTMLanguageModel, TextError, TextTypeError

TEXTS = ["the cat sat on the mat", "a dog lay", "the cow is in the barn", "", "it's 3 o'clock"] * 5
OTHER = ["un chien dort", "le chat est sur le toit"] * 8
SMALL = {
    "hidden_size": 12,
    "max_epochs": 5,
    "learning_rate": 0.1,
    "dropout": 0.0,
    "dropout_input": 0.0,
    "batch_size": 4,
    "generation_config": {"max_new_tokens": 6},
    "device": "cpu",
    "random_state": 0,
}
TABLE = {
    "word": {"tokenizer": "word"},
    "bpe": {"tokenizer": "bpe", "output": "adaptive", "num_layers": 2, "cell": "gru"},
    "char, stream": {"tokenizer": "char", "context": "stream", "lowercase": True},
}


# What each method says of texts, as something that == compares.
SAYS = {
    "score": lambda lm, texts: lm.score(texts),
    "perplexity": lambda lm, texts: lm.perplexity(texts, per="char"),
    "evaluate": lambda lm, texts: lm.evaluate(texts),
    "score_samples": lambda lm, texts: lm.score_samples(texts).tolist(),
    "pipe": lambda lm, texts: [(s.tokens, s.log_probs.tolist()) for s in lm.pipe(texts)],
    "predict": lambda lm, texts: lm.predict(texts).tolist(),
    "transform": lambda lm, texts: lm.transform(texts).tolist(),
    "generate": lambda lm, texts: lm.generate(texts, random_state=1),
    "generate_stream": lambda lm, texts: [
        list(lm.generate_stream(t, random_state=1)) for t in texts
    ],
}


def says(lm, texts=TEXTS):
    return {name: call(lm, texts) for name, call in SAYS.items()}


@pytest.fixture(params=TABLE.values(), ids=TABLE.keys())
def lm(request):
    return LSTMLanguageModel(**SMALL | request.param)


@pytest.fixture(scope="module", params=TABLE.values(), ids=TABLE.keys())
def fitted(request):
    return LSTMLanguageModel(**SMALL | request.param).fit(TEXTS)


@pytest.fixture
def documents():
    return LSTMLanguageModel(**SMALL | {"max_epochs": 20}).fit(TEXTS)


def weights(lm):
    return {name: p.detach().clone() for name, p in lm.module_.named_parameters()}


# ---- what fit does ----


def test_fit_is_idempotent_and_returns_self(lm):
    assert lm.fit(TEXTS) is lm
    first, before = says(lm), weights(lm)
    assert lm.fit(TEXTS) is lm
    assert says(lm) == first
    assert all(torch.equal(weight, before[name]) for name, weight in weights(lm).items())
    assert first["predict"] != says(clone(lm).set_params(random_state=1).fit(TEXTS))["predict"]


def test_fit_forgets_what_it_was_fitted_on_before(lm):
    fresh = clone(lm).fit(OTHER)
    assert says(lm.fit(TEXTS).fit(OTHER), OTHER) == says(fresh, OTHER)
    assert lm.vocab_size_ == fresh.vocab_size_


def test_fit_leaves_parameters_alone_and_adds_what_ends_in_an_underscore(lm):
    before = joblib.hash(lm.get_params())
    objects = {name: id(value) for name, value in lm.get_params().items()}
    names = set(vars(lm))
    lm.fit(TEXTS)
    assert joblib.hash(lm.get_params()) == before
    assert {name: id(value) for name, value in lm.get_params().items()} == objects
    added = set(vars(lm)) - names
    assert {"tokenizer_", "vocab_size_", "params_", "n_epochs_", "history_", "module_"} <= added
    assert all(name.endswith("_") and not name.startswith("_") for name in added)


def test_init_sets_its_parameters_alone():
    assert vars(LSTMLanguageModel()) == LSTMLanguageModel().get_params()


def test_fit_leaves_random_numbers_of_others_alone(lm):
    def states():
        numpys = check_random_state(None)  # the one behind np.random's functions
        return numpys.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate()

    before = states()
    says(lm.fit(TEXTS))
    assert states() == before


def test_random_state_may_be_a_generator_that_goes_on():
    lm = LSTMLanguageModel(**SMALL | {"random_state": np.random.RandomState(3)})
    first = lm.fit(TEXTS).score_samples(TEXTS)
    assert not np.array_equal(lm.fit(TEXTS).score_samples(TEXTS), first)
    lm.set_params(random_state=np.random.RandomState(3))
    assert np.array_equal(lm.fit(TEXTS).score_samples(TEXTS), first)


def test_texts_are_not_changed(lm):
    for texts in (list(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object), pd.Series(TEXTS)):
        before = copy.deepcopy(texts)
        says(lm.fit(texts), texts)
        assert list(texts) == list(before)
        assert type(texts) is type(before)


def test_text_has_no_features_to_count():
    lm = LSTMLanguageModel(**SMALL).fit(pd.Series(TEXTS, name="review"))
    assert not hasattr(lm, "n_features_in_")
    assert not hasattr(lm, "feature_names_in_")


def test_no_sample_weights():
    lm = LSTMLanguageModel(**SMALL)
    assert not has_fit_parameter(lm, "sample_weight")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample_weight'"):
        lm.fit(TEXTS, sample_weight=np.ones(len(TEXTS)))
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample_weight'"):
        lm.fit(TEXTS).score(TEXTS, sample_weight=np.ones(len(TEXTS)))


# ---- what the other methods do ----


@pytest.mark.parametrize("method", SAYS)
def test_a_method_changes_nothing_of_the_estimator(fitted, method):
    before, objects = pickle.dumps(fitted), dict(vars(fitted))
    SAYS[method](fitted, TEXTS)
    assert {name: id(value) for name, value in vars(fitted).items()} == {
        name: id(value) for name, value in objects.items()
    }
    assert says(pickle.loads(before)) == says(fitted)
    assert joblib.hash(fitted.get_params()) == joblib.hash(pickle.loads(before).get_params())


@pytest.mark.parametrize("method", SAYS)
def test_unfitted(method):
    with pytest.raises(NotFittedError) as caught:
        SAYS[method](LSTMLanguageModel(), TEXTS)
    assert str(caught.value) == (
        "This LSTMLanguageModel instance is not fitted yet. Call 'fit' with appropriate arguments "
        "before using this estimator."
    )


def test_a_text_is_read_for_itself(documents):
    begun = [text[: len(text) // 2] for text in TEXTS]
    whole, predicted = documents.score_samples(TEXTS), documents.predict(begun).tolist()
    alone = [documents.score_samples([text])[0] for text in TEXTS]
    assert alone == pytest.approx(whole, rel=1e-5)  # float32 in batches of other shapes
    assert [documents.predict([text])[0] for text in begun] == predicted
    order = np.random.RandomState(0).permutation(len(TEXTS))
    shuffled = [TEXTS[i] for i in order]
    assert documents.score_samples(shuffled) == pytest.approx(whole[order], rel=1e-5)
    assert documents.predict([begun[i] for i in order]).tolist() == [predicted[i] for i in order]
    assert len(set(predicted)) > 1


def test_a_stream_is_read_in_its_order():
    lm = LSTMLanguageModel(**SMALL, context="stream").fit(TEXTS)
    after_another, afresh = lm.score_samples(TEXTS[:2])[1], lm.score_samples(TEXTS[1:2])[0]
    assert after_another != pytest.approx(afresh, rel=1e-3)


def test_many_threads_may_ask_at_once(fitted):
    expected = says(fitted)
    asked = joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(says)(fitted) for _ in range(8)
    )
    assert asked == [expected] * 8


# ---- copies ----


def through_joblib(lm, **options):
    file = io.BytesIO()
    joblib.dump(lm, file)
    file.seek(0)
    return joblib.load(file, **options)


COPIES = {
    **{
        f"pickle {protocol}": lambda lm, protocol=protocol: pickle.loads(pickle.dumps(lm, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "joblib": through_joblib,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
def test_a_copy_says_the_same_and_can_be_fitted(fitted, copied):
    again, expected = copied(fitted), says(fitted)
    assert says(again) == expected
    assert again.get_params() == fitted.get_params()
    again.fit(OTHER)
    assert says(fitted) == expected


def test_memory_mapped_read_only_pickle_says_the_same(fitted, tmp_path):
    joblib.dump(fitted, tmp_path / "lm.joblib")
    again = joblib.load(tmp_path / "lm.joblib", mmap_mode="r")
    assert isinstance(again.tokenizer_.ranks, np.memmap)
    assert says(again) == says(fitted)
    assert again.complete("the c", max_new_tokens=5) == fitted.complete("the c", max_new_tokens=5)
    again.save(tmp_path / "folder")
    assert says(LSTMLanguageModel.load(tmp_path / "folder")) == says(fitted)


# ---- parameters ----


def test_parameters_come_and_go(lm):
    shallow, deep = lm.get_params(deep=False), lm.get_params(deep=True)
    assert shallow.items() <= deep.items()
    assert lm.set_params(**deep) is lm
    assert lm.get_params(deep=False) == shallow
    with pytest.raises(ValueError, match=r"^Invalid parameter 'hiden_size' for estimator LSTML"):
        lm.set_params(hiden_size=3)


@pytest.mark.parametrize("name", LSTMLanguageModel().get_params())
@pytest.mark.parametrize("value", [-np.inf, np.nan, "x", -3, {}, [], object, np.array([1, 2])])
def test_setting_any_value_raises_nothing(name, value):
    lm = LSTMLanguageModel().set_params(**{name: value})
    assert lm.get_params()[name] is value
    assert getattr(LSTMLanguageModel(**{name: value}), name) is value


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(LSTMLanguageModel()) == "LSTMLanguageModel()"
    lm = LSTMLanguageModel(tokenizer="char", hidden_size=8, dropout="auto")
    assert repr(lm) == "LSTMLanguageModel(hidden_size=8, tokenizer='char')"


# ---- what may come as texts ----


def read_only(array):
    array.flags.writeable = False
    return array


COLLECTIONS = {
    "tuple": lambda texts, _: tuple(texts),
    "array of str": lambda texts, _: np.array(texts),
    "array of object": lambda texts, _: np.array(texts, dtype=object),
    "array of StringDType": lambda texts, _: np.array(texts, dtype=np.dtypes.StringDType()),
    "read-only array": lambda texts, _: read_only(np.array(texts)),
    "every other row": lambda texts, _: np.repeat(np.array(texts), 2)[::2],
    "reversed view": lambda texts, _: np.array(texts[::-1], dtype=object)[::-1],
    "column of a table": lambda texts, _: np.array([texts, texts])[1],
    "read-only memory map": lambda texts, folder: np.load(saved(texts, folder), mmap_mode="r"),
    "Series": lambda texts, _: pd.Series(texts, index=range(len(texts), 0, -1)),
    "Series of object": lambda texts, _: pd.Series(texts, dtype=object),
    "Series of string": lambda texts, _: pd.Series(texts, dtype="string"),
    "Series of categories": lambda texts, _: pd.Series(texts, dtype="category"),
    "Index": lambda texts, _: pd.Index(texts),
    "keys": lambda texts, _: Keys(texts),
}


class Keys:
    """Iterable again and again, and nothing else."""

    def __init__(self, texts):
        self._texts = texts

    def __iter__(self):
        return iter(self._texts)


def saved(texts, folder):
    path = folder / f"{len(texts)}.npy"
    np.save(path, np.array(texts))
    return path


@pytest.mark.parametrize("collect", COLLECTIONS.values(), ids=COLLECTIONS.keys())
def test_every_collection_of_the_same_texts_gives_the_same(documents, collect, tmp_path):
    texts = collect(TEXTS, tmp_path)
    lm = clone(documents).fit(texts, validation=collect(OTHER, tmp_path))
    assert says(lm, texts) == says(clone(documents).fit(TEXTS, validation=OTHER))


def test_a_single_str_is_refused_in_scikit_learns_own_words(documents):
    with pytest.raises(ValueError, match="string object received") as theirs:
        CountVectorizer().fit("one text")
    for call in (documents.fit, *(getattr(documents, method) for method in ("score", "predict"))):
        with pytest.raises(TextError) as ours:
            call("one text")
        assert str(ours.value).startswith(str(theirs.value))


IS_NO_TEXT = {
    "complex": ([1 + 2j], "(1+2j) (complex)"),
    "number": (np.arange(2.0), "np.float64(0.0) (float64)"),
    "nan": ([np.nan], "nan (float)"),
    "missing of pandas": (pd.Series([None, "a"], dtype="string"), "<NA> (NAType)"),
    "missing of numpy": (
        np.array([np.nan, "a"], dtype=np.dtypes.StringDType(na_object=np.nan)),
        "nan (float)",
    ),
    "list": ([["a", "b"]], "['a', 'b'] (list)"),
    "date": (np.array(["2026-01-01"], "M8[D]"), "np.datetime64('2026-01-01') (datetime64)"),
    "truth": ([True], "True (bool)"),
}


@pytest.mark.parametrize(("texts", "shown"), IS_NO_TEXT.values(), ids=IS_NO_TEXT.keys())
@pytest.mark.parametrize("method", ["fit", *SAYS])
def test_what_is_no_text_is_named_with_its_place(documents, method, texts, shown):
    if method == "generate_stream":
        with pytest.raises(TextTypeError, match=r"^prompt is a \w+; generate_stream takes one str"):
            list(documents.generate_stream(texts[0]))
        return
    with pytest.raises(TextTypeError) as caught:
        documents.fit(texts) if method == "fit" else SAYS[method](documents, texts)
    assert str(caught.value) == (
        f"texts[0] is {shown}; every text must be a str: leave it out or replace it by a str."
    )


@pytest.mark.parametrize("array", [np.array([b"a"]), np.array([b"a"], dtype=object)])
def test_bytes_are_to_be_decoded_first(documents, array):
    with pytest.raises(TextTypeError, match=r"^texts\[0\] is (np\.bytes_\()?b'a'.*decode it first"):
        documents.score_samples(array)


@pytest.mark.parametrize(
    "table",
    [
        np.array("one"),
        np.array([["a", "b"]]),
        np.zeros((2, 2, 2)),
        pd.DataFrame({"text": ["a"]}),
        scipy.sparse.csr_array(np.eye(2)),
    ],
    ids=["no axis", "table", "cube", "DataFrame", "sparse"],
)
def test_what_has_other_than_one_dimension(documents, table):
    for call in (documents.fit, documents.score_samples, documents.predict):
        with pytest.raises(TextError) as caught:
            call(table)
        assert str(caught.value) == (
            f"texts has {table.ndim} dimensions; one is needed. Of a table pass one column, for "
            "example table['text']."
        )
