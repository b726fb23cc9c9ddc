"""A text's features are those of a loop that reads it token by token, whatever its company."""

import math

import numpy as np
import plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches
from tiny import TEXTS

from lstmlm import scoring
from lstmlm.features import FIGURES
from lstmlm.text import END

MAX_SURPRISAL = FIGURES.index("max_surprisal") - len(FIGURES)


def check_same(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    # DESIGN.md: float32 figures agree to 1e-5 relative on every path. A mean and a deviation are as
    # exact as the largest surprisal that goes into them; states lie in -1 ... 1.
    largest = np.maximum(1.0, expected[:, MAX_SURPRISAL])
    assert (np.abs(found - expected) <= 1e-5 * largest[:, None]).all()


def read_plainly(lm, text):
    """Describe a text by a loop over its tokens, the figures in float64."""
    (ids,) = lm.tokenizer_.encode([text])
    states = []
    state = lm.module_.zero_state(1)
    with torch.inference_mode():
        for token in [END, *map(int, ids)]:
            _, state = lm.module_(torch.tensor([[token]]), state)
            states.append(state.hidden[-1, 0].double().numpy())  # what the last layer put out
    nats, _ = plain.log_probs(lm.module_, ids)
    bits = -np.array(nats) / math.log(2)
    figures = {
        "log_n_tokens": math.log(len(bits)),
        "mean_surprisal": bits.mean(),
        "std_surprisal": bits.std(),
        "max_surprisal": bits.max(),
        "bits_per_char": bits.sum() / (len(text) + 1),
        "unknown_rate": list(ids).count(lm.tokenizer_.unknown_id) / len(bits),
    }
    return np.concatenate([np.mean(states, axis=0), [figures[name] for name in FIGURES]])


@settings(max_examples=15)
@given(batch=batches(max_size=3))
def test_a_text_is_described_as_by_a_plain_loop(lm, batch):
    check_same(lm.transform(batch), np.stack([read_plainly(lm, text) for text in batch]))


@settings(max_examples=20)
@given(batch=batches(), order=st.randoms(use_true_random=False), batch_size=st.integers(1, 9))
def test_company_order_and_batch_size_do_not_matter(lm, batch, order, batch_size):
    alone = {text: lm.transform([text]) for text in batch}
    shuffled = order.sample(batch, len(batch))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstmlm.estimator.describing.DESCRIBE_BATCH", batch_size)
        check_same(lm.transform(shuffled), np.concatenate([alone[text] for text in shuffled]))


@settings(max_examples=15)
@given(batch=batches(max_size=5), width=st.integers(1, 20), rows=st.integers(1, 3))
def test_windows_do_not_matter(lm, batch, width, rows):
    whole = lm.transform(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "WINDOW_WIDTH", width)
        patch.setattr(scoring, "WINDOW_ROWS", rows)
        check_same(lm.transform(batch), whole)


def test_texts_are_documents_to_a_model_of_streams_too(stream_lm):
    texts = list(dict.fromkeys(TEXTS))
    alone = np.concatenate([stream_lm.transform([text]) for text in texts])
    check_same(stream_lm.transform(texts), alone)
    carried = stream_lm.score_samples(texts)
    fresh = np.array([stream_lm.score_samples([text])[0] for text in texts])
    assert np.abs(carried - fresh).max() > 1e-3  # its scores aren't so, by far more than rounding


def test_the_figures_are_those_of_the_scores(lm):
    figures = dict(zip(lm.get_feature_names_out(), lm.transform(TEXTS).T, strict=True))
    scored = list(lm.pipe(TEXTS))
    for name, expected in {
        "log_n_tokens": [math.log(len(text.log_probs)) for text in scored],
        "mean_surprisal": [text.surprisals.mean() for text in scored],
        "max_surprisal": [text.surprisals.max() for text in scored],
        "bits_per_char": [text.bits_per_char for text in scored],
    }.items():
        # The same float32 surprisals, read together with other texts.
        assert figures[name].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5), name
    evaluation = lm.evaluate(TEXTS)
    unknown = (figures["unknown_rate"] * np.exp(figures["log_n_tokens"])).sum()
    assert round(unknown) == round(evaluation.unknown_rate * evaluation.n_tokens)


def test_features_are_the_same_from_any_iterable(lm):
    expected = lm.transform(TEXTS)
    for texts in (iter(TEXTS), tuple(TEXTS), np.array(TEXTS, dtype=object)):
        assert np.array_equal(lm.transform(texts), expected)
