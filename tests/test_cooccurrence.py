"""The first rows of the embedding."""

import numpy as np
import pytest
import torch
from scipy import sparse

from lstmlm import LSTMLanguageModel
from lstmlm.fitting import cooccurrence
from lstmlm.fitting.cooccurrence import (
    count_neighbours,
    first_rows,
    log_frequencies,
    positive_pmi,
)

TEXT = np.array([0, 3, 1, 2, 3, 0])


def counted_by_hand(ids, vocab_size, kept):
    """Return the counts that `count_neighbours` is to give, one pair after the other."""
    counts = np.zeros((vocab_size, 2 * kept))
    for at, of in enumerate(ids):
        for distance in range(1, cooccurrence.REACH + 1):
            if at >= distance and ids[at - distance] < kept:
                counts[of, ids[at - distance]] += 1 / distance
            if at + distance < len(ids) and ids[at + distance] < kept:
                counts[of, kept + ids[at + distance]] += 1 / distance
    return counts


@pytest.mark.parametrize("kept", [2, 5])
def test_neighbours_are_counted_side_by_side_near_ones_more(monkeypatch, kept):
    monkeypatch.setattr(cooccurrence, "NEIGHBOURS", kept)
    counts = count_neighbours(TEXT, 5).toarray()
    np.testing.assert_allclose(counts, counted_by_hand(TEXT, 5, kept), rtol=1e-6)


def test_positive_pmi_is_its_equation():
    counts = np.array([[4.0, 0, 1], [1, 2, 0]])
    joint, smoothed = counts / counts.sum(), counts.sum(0) ** 0.75
    with np.errstate(divide="ignore"):
        pmi = np.log(joint / (joint.sum(1)[:, None] * (smoothed / smoothed.sum())))
    got = positive_pmi(sparse.csr_matrix(counts)).toarray()
    np.testing.assert_allclose(got, np.maximum(pmi, 0), rtol=1e-6)
    assert (got == 0).any()


def test_frequencies_are_counted_and_none_is_zero():
    shares = log_frequencies(np.array([1, 1, 1, 0]), 3).exp()
    torch.testing.assert_close(shares, torch.tensor([1.5, 3.5, 0.5]) / 5.5)


def test_words_among_the_same_neighbours_get_like_rows():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 20, size=3000)  # 20 frames "f a-or-b g": 40 and 41 are interchangeable
    words = rng.choice([40, 41, 42], size=3000)
    frames = np.where(words == 42, frames, frames // 2)  # while 42 stands among others
    ids = np.stack([frames, words, frames + 20], axis=1).ravel()
    rows = first_rows(ids, 43, 16, seed=0)
    alike = rows @ rows[40]
    assert alike[41] > 0.9
    assert alike[41] > alike[42] + 0.3


@pytest.mark.parametrize(("vocab_size", "width"), [(60, 32), (10, 32)])  # of lower rank than wide
@pytest.mark.parametrize("n_tokens", [1, 3, 400])
def test_every_row_has_length_one(vocab_size, width, n_tokens):
    ids = np.random.default_rng(0).integers(0, vocab_size // 2, n_tokens)
    rows = first_rows(ids, vocab_size, width, seed=0)
    assert rows.shape == (vocab_size, width)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(vocab_size))


def test_the_seed_decides_and_torchs_own_numbers_stay():
    ids = np.random.default_rng(0).integers(0, 50, 500)
    before = torch.random.get_rng_state()
    one, same, other = (first_rows(ids, 60, 8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_fit_begins_with_them_where_the_vocabulary_is_one_of_words():
    texts = [" ".join(f"w{(i * k) % 701}" for i in range(30)) for k in range(1, 60)]
    lm = LSTMLanguageModel(
        tokenizer="word", min_frequency=1, hidden_size=8, max_epochs=0, early_stopping=False,
        random_state=0,
    ).fit(texts)  # fmt: skip
    assert lm.vocab_size_ > 512
    lengths = lm.module_.embedding.weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(lm.vocab_size_))


def test_a_fit_begins_as_a_unigram_model():
    texts = ["a b b", "b b c", "b a c c d d"]
    lm = LSTMLanguageModel(
        tokenizer="word", min_frequency=1, hidden_size=8, max_epochs=0, early_stopping=False
    ).fit(texts)
    # Of the end mark, b, c, a, d and the unknown token, half a time more each.
    counts = torch.tensor([3.5, 5.5, 3.5, 2.5, 2.5, 0.5])
    features = torch.zeros(1, lm.module_.head.weight.shape[1])
    shares = lm.module_.head.log_probs(features)[0].exp()
    torch.testing.assert_close(shares.sort().values, (counts / counts.sum()).sort().values)
