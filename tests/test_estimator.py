"""Whatever comes in: a right result or one clear error, and an estimator that works on."""

import math
import re
import signal
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from lstmlm import (
    DecodeConfig,
    DivergenceError,
    LSTMLanguageModel,
    ModelFolderError,
    ParameterError,
    TextError,
    TextTypeError,
)

TEXTS = ["the cat sat on the mat", "a dog lay on the log", "the cow is in the barn"] * 8
KINDS = ["bpe", "char", "word"]

ONE_STRING = (
    "Iterable over raw text documents expected, string object received. "
    "Put a single text in a list: [text]."
)


def small(**changes):
    params = {"tokenizer": "bpe", "hidden_size": 16, "max_epochs": 1, "random_state": 0}
    return LSTMLanguageModel(**params | changes)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    return small(tokenizer=request.param).fit(TEXTS)


READERS = ["fit", "score", "perplexity", "score_samples", "evaluate", "pipe", "predict", "generate"]


@pytest.mark.parametrize("method", READERS)
@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one text", TextError, ONE_STRING),
        (b"bytes", TextError, ONE_STRING),
        (
            {"a": 1},
            TextError,
            "texts is a dict, which has no texts in an order; give a list, an array or an "
            "iterator of str.",
        ),
        (
            pd.DataFrame({"text": ["a"]}),
            TextError,
            "texts has 2 dimensions; one is needed. Of a table pass one column, for example "
            "table['text'].",
        ),
        (
            7,
            TextTypeError,
            "texts is a int; an iterable of str is needed, for example a list.",
        ),
        (
            ["a", None],
            TextTypeError,
            "texts[1] is None (NoneType); every text must be a str: leave it out or replace it by "
            "a str.",
        ),
        (
            ["a", "b", 3.5],
            TextTypeError,
            "texts[2] is 3.5 (float); every text must be a str: leave it out or replace it by "
            "a str.",
        ),
        (
            [b"a"],
            TextTypeError,
            "texts[0] is b'a' (bytes); every text must be a str: decode it first.",
        ),
    ],
)
def test_what_is_no_collection_of_texts(fitted, method, texts, error, message):
    before = fitted.score_samples(TEXTS)
    with pytest.raises(error) as caught:
        list(getattr(fitted, method)(texts))
    assert str(caught.value) == message
    assert np.array_equal(fitted.score_samples(TEXTS), before)


def test_no_texts(fitted):
    with pytest.raises(TextError) as caught:
        fitted.fit([])
    assert str(caught.value) == "fit needs at least one text; 0 texts came."
    with pytest.raises(TextError) as caught:
        fitted.fit(TEXTS, validation=[])
    assert str(caught.value) == "validation holds 0 texts; at least one is needed, or None."
    for method in (fitted.score, fitted.perplexity, fitted.evaluate):
        with pytest.raises(TextError) as caught:
            method([])
        assert str(caught.value) == "perplexity of no texts: 0 texts came, at least one is needed."
    assert fitted.score_samples([]).shape == (0,)
    assert list(fitted.pipe([])) == []
    assert fitted.generate([]) == []
    assert fitted.predict([]).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", ["document", "stream"])
@pytest.mark.parametrize(
    "texts", [[""], ["", ""], ["a", "b"], ["a"], [" "], ["\x00"], ["\ud800"], ["a" * 5000]],
    ids=repr,
)  # fmt: skip
def test_little_text(kind, context, texts):
    lm = small(tokenizer=kind, context=context).fit(texts)
    scores = lm.score_samples([*texts, "else"])
    assert np.isfinite(scores).all()
    assert (scores < 0).all()
    assert lm.vocab_size_ >= (257 if kind == "bpe" else 2)
    assert all(isinstance(text, str) for text in lm.generate([*texts], max_new_tokens=3))


STRANGE = {
    "nul": "a\x00b\x00",
    "lone surrogates": "\ud83d and \ude00",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 family",
    "right to left": "שלום עולם، مرحبا بالعالم",
    "controls": "\u202e\u2066\ufeff\x1c\x85",
    "combining": "e\u0301\u0327 Z̸̢a̷l̴g̵o̶",
    "no space": "x" * 1_000_000,
    "unknown": "zzqx qqzz 龘",
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
def test_strange_text_is_scored(fitted, text):
    (scored,) = fitted.pipe([text])
    assert np.isfinite(scored.log_probs).all()
    assert scored.log_prob == fitted.score_samples([text])[0]
    assert scored.text == text
    assert [text[start:end] for start, end in scored.spans] == scored.tokens


def test_strange_text_is_learned():
    texts = [text[:2000] for text in STRANGE.values()] * 2
    for kind in KINDS:
        lm = small(tokenizer=kind).fit(texts)
        assert np.isfinite(lm.score_samples(texts)).all()


def test_a_text_of_only_unknown_words():
    lm = small(tokenizer="word").fit(TEXTS)
    evaluation = lm.evaluate(["qq ww ee"])
    assert evaluation.unknown_rate == 3 / 4
    assert np.isfinite(evaluation.perplexity)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_larger_than_the_text_has(kind):
    lm = small(tokenizer=kind, vocab_size=50_000, output="softmax").fit(TEXTS)
    assert lm.vocab_size_ < 400
    assert np.isfinite(lm.score_samples(TEXTS)).all()


def test_no_epochs_build_the_first_weights(fitted):
    lm = small(max_epochs=0).fit(TEXTS)
    assert lm.history_ == []
    assert lm.n_epochs_ == 0
    # A unigram model at first, but for half a time for each id and the noise of random weights.
    ids = np.concatenate([np.append(ids, 0) for ids in lm.tokenizer_.encode(TEXTS)])
    shares = np.bincount(ids) / len(ids)
    unigrams = np.exp(-np.log(shares[ids]).mean())
    assert 0.9 * unigrams < lm.perplexity(TEXTS) < 2.5 * unigrams


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"hidden_size": 0},
            'hidden_size=0 is not valid; hidden_size is an integer at least 1 and at most 65536, '
            'or "auto".',
        ),
        (
            {"tokenizer": "words"},
            "tokenizer='words' is not valid; tokenizer is 'bpe' or 'char' or 'word', or the path "
            "of a tokenizer.json that is there, or a tokenizers.Tokenizer. Did you mean 'word'?",
        ),
        (
            {"context": "documents"},
            "context='documents' is not valid; context is 'document' or 'stream'. "
            "Did you mean 'document'?",
        ),
        ({"dropout": 1.0}, 'dropout=1.0 is not valid; dropout is a number at least 0 and less '
                           'than 1, or "auto".'),
        ({"early_stopping": "yes"}, "early_stopping='yes' is not valid; early_stopping is True or "
                                    "False."),
        ({"max_epochs": None}, "max_epochs=None sets no limit; give max_seconds or a number of "
                               "epochs."),
        ({"vocab_size": 100}, "vocab_size=100 is too small for bpe, which needs the 256 bytes and "
                              "the end mark: at least 257."),
        ({"generation_config": {"temprature": 1}},
         "'temprature' is not an option of generation; the options are "
         f"{', '.join(DecodeConfig.rules())}. Did you mean 'temperature'?"),
        ({"verbose": -1}, "verbose=-1 is not valid; verbose is an integer at least 0."),
    ],
)  # fmt: skip
def test_wrong_parameters(params, message):
    with pytest.raises(ParameterError) as caught:
        small(**params).fit(TEXTS)
    assert str(caught.value) == message


def test_a_device_that_is_not_there():
    with pytest.raises(ParameterError, match=r"^device='cuda:99' can't be used \(.*\); give "):
        small(device="cuda:99").fit(TEXTS)
    with pytest.raises(ParameterError, match=r"^device='gpu' can't be used \(.*\); give "):
        small(device="gpu").fit(TEXTS)


def test_a_loss_that_is_not_finite_says_where_and_what_to_try():
    lm = small(learning_rate=1e30, clip_norm=None, max_epochs=30)
    with pytest.raises(DivergenceError, match=r"^the loss became (nan|inf) by step \d+ of epoch "):
        lm.fit(TEXTS)
    assert not hasattr(lm, "module_")
    assert lm.set_params(learning_rate=1e-3).fit(TEXTS).score(TEXTS) < 0


def test_max_seconds_too_short_for_a_step_says_so():
    with pytest.warns(UserWarning, match="max_seconds") as caught:
        lm = small(max_seconds=1e-9).fit(TEXTS)
    assert [str(warning.message) for warning in caught] == [
        "max_seconds=1e-09 were over before the first training step; the weights are random."
    ]
    assert lm.score(TEXTS) < 0


INTERRUPTED = """
import warnings
from lstmlm import LSTMLanguageModel
texts = ["the cat sat on the mat", "a dog lay on the log"] * 200
lm = LSTMLanguageModel(max_seconds=60, hidden_size=16, n_iter_no_change=10**6, random_state=0)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    lm.set_params(verbose=1).fit(texts)
print(caught[0].message, lm.perplexity(texts) < lm.vocab_size_)
"""


def test_ctrl_c_keeps_the_best_so_far_and_says_so():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stderr.readline()  # an epoch's line: there are best weights now
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    said = r"fit was interrupted in epoch \d+; the best weights so far, those after epoch \d+, "
    assert re.match(said + r"are kept\. True$", out.strip())


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelFolderError) as caught:
        LSTMLanguageModel.load(tmp_path)
    assert str(caught.value) == f"{tmp_path} is no model folder: it has no MANIFEST.json."


def test_generation_takes_the_estimators_configuration_and_random_state(fitted):
    fitted.set_params(generation_config={"max_new_tokens": 4})
    first = fitted.generate(["the", "a"])
    assert first == fitted.generate(["the", "a"])
    assert first != fitted.generate(["the", "a"], random_state=1, max_new_tokens=40)
    assert fitted.generate(["the"], max_new_tokens=0) == [""]
    fitted.set_params(generation_config=None)


def test_words_are_continued_with_a_space():
    lm = small(tokenizer="word", max_epochs=5).fit(TEXTS)
    (after_word,) = lm.generate(["the cat"], max_new_tokens=3)
    (after_space,) = lm.generate(["the cat "], max_new_tokens=3)
    assert after_word == "" or after_word.startswith(" ")
    assert not after_space.startswith(" ")


def test_verbose_0_is_silent(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().fit(TEXTS)
    assert capsys.readouterr() == ("", "")


def test_training_beats_the_uniform_guess():
    lm = small(tokenizer="char", max_epochs="auto").fit(TEXTS)
    assert lm.perplexity(TEXTS) < lm.vocab_size_ / 3
    assert math.isfinite(lm.history_[-1].heldout_loss)


@pytest.mark.parametrize("context", ["document", "stream"])
def test_pipe_reads_texts_in_the_way_it_is_told(context):
    """Two models of the same weights, each read in the other's way."""
    lm, other = small(context=context).fit(TEXTS), small(context="stream").fit(TEXTS)
    other.module_ = lm.module_
    figures = {
        way: [scored.log_prob for scored in lm.pipe(TEXTS, context=way)]
        for way in ("document", "stream", None)
    }
    assert figures[None] == figures[context]
    assert figures["stream"] == [scored.log_prob for scored in other.pipe(TEXTS)]
    alone = [next(lm.pipe([text])).log_prob for text in TEXTS]
    assert figures["document"] == pytest.approx(alone, rel=1e-5)
    with pytest.raises(ParameterError, match="context='paragraph' is not valid; context is"):
        lm.pipe(TEXTS, context="paragraph")


def test_the_fingerprint_is_of_all_that_figures_follow_from(tmp_path):
    lm, same = small().fit(TEXTS), small().fit(TEXTS)
    other = small(random_state=1).fit(TEXTS)
    assert lm.fingerprint_ == same.fingerprint_ != other.fingerprint_
    lm.save(tmp_path / "model")
    assert LSTMLanguageModel.load(tmp_path / "model").fingerprint_ == lm.fingerprint_
    before = same.fingerprint_
    assert same.partial_fit(TEXTS).fingerprint_ != before
    with pytest.raises(NotFittedError):
        small().fingerprint_  # noqa: B018
