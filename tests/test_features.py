import math
from itertools import count, islice

import numpy as np
import pytest
from tiny import TEXTS, fitted, unfitted

from lstmlm import features, scoring
from lstmlm.features import FIGURES, describe_texts, feature_names


@pytest.fixture(scope="module")
def lm():
    return fitted(tokenizer="word")


def column(described, name):
    return described[:, FIGURES.index(name) - len(FIGURES)]


def test_names_are_the_states_and_the_figures():
    assert feature_names(2) == ["hidden0", "hidden1", *FIGURES]


def test_figures_of_known_surprisals(lm, monkeypatch):
    texts = ["the zebra", ""]  # zebra is unknown
    bits = np.array([1.0, 6.0, 2.0, 5.0])
    monkeypatch.setattr(features, "_read", lambda model, corpus: (np.zeros((2, 0)), bits))
    ((first, second),) = describe_texts(lm.module_, lm.tokenizer_, texts, 9)
    assert dict(zip(FIGURES, first.tolist(), strict=True)) == pytest.approx(
        {
            "log_n_tokens": math.log(3),
            "mean_surprisal": 3.0,
            "std_surprisal": math.sqrt((4 + 9 + 1) / 3),
            "max_surprisal": 6.0,
            "bits_per_char": 0.9,
            "unknown_rate": 1 / 3,
        }
    )  # float32 of exact values: pytest's 1e-6
    assert second.tolist() == [0, 5, 0, 5, 5, 0]


def test_a_long_text_has_the_mean_of_all_its_windows(lm, monkeypatch):
    text = " ".join(TEXTS[:3] * 20)
    whole = lm.transform([text, "a"])
    halves = [array[:, :-6] for array in (whole, lm.transform([""]))]
    monkeypatch.setattr(scoring, "WINDOW_WIDTH", 7)
    assert lm.transform([text, "a"]) == pytest.approx(whole, abs=1e-5)  # float32, other windows
    assert np.abs(halves[0][0] - halves[1][0]).max() > 0.1  # more than its first window's start


def test_texts_are_read_ahead_by_a_batch_at_most(lm):
    asked = count()
    parts = describe_texts(lm.module_, lm.tokenizer_, (f"the {next(asked)}" for _ in count()), 3)
    assert [len(part) for part in islice(parts, 4)] == [3] * 4
    assert next(asked) == 12


def test_rows_keep_the_order_of_texts_of_mixed_length(lm):
    texts = [" ".join(["the cat"] * n) for n in (5, 0, 900, 1, 30)]
    n_tokens = np.exp(column(lm.transform(texts), "log_n_tokens"))
    assert n_tokens.round().astype(int).tolist() == [11, 1, 1801, 3, 61]


def test_a_word_that_is_not_known_is_counted_and_bytes_always_are():
    assert column(fitted(tokenizer="word").transform(["the zebra"]), "unknown_rate") == [
        np.float32(1 / 3)
    ]
    assert column(fitted(tokenizer="bpe").transform(["the zebra"]), "unknown_rate") == [0]


def test_texts_may_be_given_by_their_name(lm):
    by_name = lm.transform(texts=TEXTS)
    assert (by_name == lm.transform(TEXTS)).all()
    fresh = unfitted(tokenizer="word", max_epochs=1)
    assert fresh.fit_transform(texts=TEXTS).shape == by_name.shape
