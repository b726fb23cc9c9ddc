"""What goes in comes out: text through the tokenizer, models through folders and pickles."""

import copy
import pickle
import re

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from strategies import texts
from tiny import TEXTS

from lstmlm import LSTMLanguageModel
from lstmlm.text import UNKNOWN, WHITE_SPACE

PROMPTS = ["", "the cat", "明月", "🙂", "\ud800 \0"]


def expected_back(lm: LSTMLanguageModel, text: str) -> str:
    """Return what a text looks like after a tokenizer of this kind: all of it for bpe."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    known = lm.tokenizer_.backend.get_vocab()
    if lm.params_["tokenizer"] == "char":
        return "".join(character if character in known else "\ufffd" for character in text)
    if lm.params_["tokenizer"] == "word":
        words = filter(None, re.split(f"[{WHITE_SPACE}]", text))
        return " ".join(word if word in known else UNKNOWN for word in words)
    return text


@settings(max_examples=50)
@given(text=texts(max_size=100))
def test_text_comes_back_from_its_ids(lm, text):
    (ids,) = lm.tokenizer_.encode([text])
    assert lm.tokenizer_.decode(ids) == expected_back(lm, text)
    assert all(0 < token < lm.vocab_size_ for token in ids.tolist())  # 0 is the end mark


def through_folder(lm, tmp_path):
    lm.save(tmp_path / "model")
    return LSTMLanguageModel.load(tmp_path / "model", device="cpu")


def through_pickle(lm, tmp_path):
    return pickle.loads(pickle.dumps(lm))


def through_joblib(lm, tmp_path):
    joblib.dump(lm, tmp_path / "model.joblib")
    return joblib.load(tmp_path / "model.joblib")


def through_deepcopy(lm, tmp_path):
    return copy.deepcopy(lm)


@pytest.mark.parametrize("keep", [through_folder, through_pickle, through_joblib, through_deepcopy])
def test_a_kept_model_is_the_model_bit_for_bit(lm, keep, tmp_path):
    kept = keep(lm, tmp_path)
    assert kept.get_params() == lm.get_params()
    assert kept.params_ == lm.params_
    assert kept.history_ == lm.history_
    assert (kept.vocab_size_, kept.n_epochs_) == (lm.vocab_size_, lm.n_epochs_)
    for ours, theirs in zip(lm.pipe(TEXTS), kept.pipe(TEXTS), strict=True):
        assert theirs.tokens == ours.tokens
        np.testing.assert_array_equal(theirs.spans, ours.spans)
        np.testing.assert_array_equal(theirs.log_probs, ours.log_probs)
    for options in ({"do_sample": False}, {"temperature": 0.8, "top_p": 0.9}):
        written = lm.generate(PROMPTS, random_state=1, max_new_tokens=20, **options)
        assert kept.generate(PROMPTS, random_state=1, max_new_tokens=20, **options) == written
    shared = kept.module_.head.weight is kept.module_.embedding.weight
    assert shared == kept.params_["tie_weights"]


def test_a_kept_model_of_a_stream_scores_streams(stream_lm, tmp_path):
    kept = through_folder(stream_lm, tmp_path)
    np.testing.assert_array_equal(kept.score_samples(TEXTS), stream_lm.score_samples(TEXTS))
