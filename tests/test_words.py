"""What is known of words before training begins."""

import numpy as np
import pytest
import torch
from scipy import sparse

from lstmlm import LSTMLanguageModel
from lstmlm.fitting import words
from lstmlm.fitting.words import (
    count_neighbours,
    first_rows,
    log_frequencies,
    positive_pmi,
    spelling,
)

TEXT = np.array([0, 3, 1, 2, 3, 0])


def written(vocab_size):
    """Return words for ids, the end mark among them, which is written as nothing."""
    return ["", *(f"Word{i}" for i in range(1, vocab_size))]


def counted_by_hand(ids, vocab_size, kept):
    """Return the counts that `count_neighbours` is to give, one pair after the other."""
    counts = np.zeros((vocab_size, 2 * kept))
    for at, of in enumerate(ids):
        for distance in range(1, words.REACH + 1):
            if at >= distance and ids[at - distance] < kept:
                counts[of, ids[at - distance]] += 1 / distance
            if at + distance < len(ids) and ids[at + distance] < kept:
                counts[of, kept + ids[at + distance]] += 1 / distance
    return counts


@pytest.mark.parametrize("kept", [2, 5])
def test_neighbours_are_counted_side_by_side_near_ones_more(monkeypatch, kept):
    monkeypatch.setattr(words, "NEIGHBOURS", kept)
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
    inside = rng.choice([40, 41, 42], size=3000)
    frames = np.where(inside == 42, frames, frames // 2)  # while 42 stands among others
    ids = np.stack([frames, inside, frames + 20], axis=1).ravel()
    rows = first_rows(ids, [""] * 43, 16, seed=0)
    alike = rows @ rows[40]
    assert alike[41] > 0.9
    assert alike[41] > alike[42] + 0.3


def test_words_spelled_alike_get_like_rows_where_the_text_says_nothing_of_them():
    spelled = ["", "of", "walking", "walked", "Einstein", "Epstein", "1987", "1988"]
    rows = first_rows(np.array([0, 1, 0, 1]), spelled, 16, seed=0)
    alike = rows @ rows.T
    for one, other in ((2, 3), (4, 5), (6, 7)):
        strangers = [i for i in range(2, 8) if i not in (one, other)]
        assert alike[one, other] > alike[one, strangers].max() + 0.2


def test_spelling_weighs_what_few_words_have_and_leaves_out_what_one_or_most_have():
    spelled = ["anna", "annb", "anxc", "zzzzz", ""]
    of_each = spelling(spelled).toarray()
    # "<an" is had by three of five, the kinds of letters by all, "nna" by one: left are "ann" and
    # "<ann" of two each; so two rows are alike and three are empty.
    np.testing.assert_allclose(of_each[0], of_each[1], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(of_each, axis=1), [1, 1, 0, 0, 0], rtol=1e-6)
    some = spelling(["aab", "aac", "aad", "xyz", "xyw", *("pqr" * k for k in range(6, 12))])
    shared = some.toarray()[[0, 1, 2, 3, 4]]
    assert (shared[0] @ shared[1]) == pytest.approx(1)
    assert (shared[0] @ shared[3]) == pytest.approx(0)


def test_the_first_columns_hold_what_tells_words_apart_most():
    rng = np.random.default_rng(0)  # ten subjects, each with sixty words of its own
    ids = (rng.integers(0, 10, (400, 1)) * 60 + rng.integers(0, 60, (400, 50))).ravel()
    rows = first_rows(ids, written(600), 64, first=16, seed=0)
    plain = first_rows(ids, written(600), 64, seed=0)
    spread, even = (of.var(dim=0, correction=0) for of in (rows, plain))
    assert spread[:16].mean() > 2 * spread[16:].mean()
    assert spread[:16].mean() > 1.5 * even[:16].mean()
    # Directions differ from each other as much as before: within the columns they are only turned.
    torch.testing.assert_close(rows @ rows.T, plain @ plain.T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("spelled", [[""], ["", "a"], ["一", "二", "三"]])
def test_words_that_share_nothing_have_no_spelling(spelled):
    assert spelling(spelled).nnz == 0


@pytest.mark.parametrize(("vocab_size", "width"), [(60, 32), (10, 32)])  # of lower rank than wide
@pytest.mark.parametrize("n_tokens", [1, 3, 400])
def test_every_row_has_length_one(vocab_size, width, n_tokens):
    ids = np.random.default_rng(0).integers(0, vocab_size // 2, n_tokens)
    rows = first_rows(ids, written(vocab_size), width, seed=0)
    assert rows.shape == (vocab_size, width)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(vocab_size))


def test_the_seed_decides_and_torchs_own_numbers_stay():
    ids = np.random.default_rng(0).integers(0, 50, 500)
    before = torch.random.get_rng_state()
    one, same, other = (first_rows(ids, written(60), 8, seed=seed) for seed in (0, 0, 1))
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
