"""The demo: its baselines are right, and its four parts come."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lstmlm import demo
from lstmlm.demo import KneserNey, first_words, split_topics
from lstmlm.text import END

VOCAB_SIZE = 5
ids = st.integers(1, VOCAB_SIZE - 1)
corpora = st.lists(st.lists(ids, max_size=8), min_size=1, max_size=8)
# Each factor of a probability is rounded once, in the last of 16 digits.
EXACT = {"rel": 1e-12}


@given(corpora, st.integers(1, 4), st.data())
def test_kneser_ney_is_a_distribution_after_any_history(texts, order, data):
    model = KneserNey(texts, order, VOCAB_SIZE)
    history = data.draw(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=order - 1).map(tuple))
    probabilities = [model.probability(history, token) for token in range(VOCAB_SIZE)]
    assert all(p > 0 for p in probabilities)
    assert sum(probabilities) == pytest.approx(1, **EXACT)


def test_kneser_ney_by_hand():
    """The bigrams of .12. and .13. (. the end mark) are .1 twice and 12, 2., 13, 3. once."""
    model = KneserNey([[1, 2], [1, 3]], 2, vocab_size=4)
    # Five bigrams are distinct: two end in an end mark, one in each other id. Four ids are seen, so
    # that the four discounts of 3/4 go to the uniform distribution: (n - 3/4) / 5 + 3/5 * 1/4.
    lower = {END: 2 / 5, 1: 1 / 5, 2: 1 / 5, 3: 1 / 5}
    for token, probability in lower.items():
        assert model.probability((), token) == pytest.approx(probability, **EXACT)
    # After the end mark: .1 twice. After 1: 12 and 13 once. After 2: 2. once.
    assert model.probability((END,), 1) == pytest.approx((2 - 3 / 4 + 3 / 4 * 1 / 5) / 2, **EXACT)
    assert model.probability((1,), 2) == pytest.approx((1 - 3 / 4 + 2 * 3 / 4 / 5) / 2, **EXACT)
    assert model.probability((1,), 1) == pytest.approx(2 * 3 / 4 / 5 / 2, **EXACT)
    assert model.probability((2,), END) == pytest.approx(1 / 4 + 3 / 4 * 2 / 5, **EXACT)
    perplexity = (0.7 * 0.275 * 0.55) ** (-1 / 3)
    assert model.perplexity([[1, 2]]) == pytest.approx(perplexity, **EXACT)


def test_unigrams_by_hand():
    model = KneserNey([[1, 1, 2]], 1, vocab_size=4)  # counts: 1 twice, 2 and the end mark once
    spread = 3 * (3 / 4) / 4 * (1 / 4)
    expected = {END: 1 / 16 + spread, 1: 5 / 16 + spread, 2: 1 / 16 + spread, 3: spread}
    for token, probability in expected.items():
        assert model.probability((), token) == pytest.approx(probability, **EXACT)


def test_a_history_never_seen_falls_back_on_a_shorter_one():
    model = KneserNey([[1, 2, 3]] * 3, 3, VOCAB_SIZE)
    assert model.probability((4, 2), 3) == model.probability((2,), 3)
    assert model.probability((4, 4), 3) == model.probability((), 3)


@given(corpora)
def test_perplexity_of_what_was_learned_is_below_blind_guessing(texts):
    assert KneserNey(texts, 3, VOCAB_SIZE).perplexity(texts) < VOCAB_SIZE


def test_topics_are_split_without_overlap():
    train, test = split_topics()
    assert len(train) > 5 * len(test) > 100
    assert not set(train) & set(test)
    assert len(set(train)) == len(train)
    assert all(len(text) >= 40 and text == " ".join(text.split()) for text in train + test)
    assert split_topics() == (train, test)


@pytest.mark.parametrize(
    ("text", "n", "first"),
    [
        ("", 2, ""),
        (" a b", 2, " a b"),
        (" a b c", 2, " a b ..."),
        ("ing a b", 2, "ing a b"),
    ],
)
def test_first_words(text, n, first):
    assert first_words(text, n) == first


def test_the_demo_shows_its_five_parts():
    out = io.StringIO()
    demo.run(Console(file=out, width=100), seconds=4)
    shown = out.getvalue()
    parts = re.split(r"─+ (\d\. \w+) ─+", shown)
    assert parts[1::2] == ["1. Train", "2. Score", "3. Complete", "4. Continue", "5. Write"]
    train, score, completed, continued, written = parts[2::2]
    assert re.search(r"[\d,]+ characters in [\d,]+ paragraphs to learn from", train)
    assert re.search(r"Trained in \d+ s\.", train)
    names = ["every token alike", "token frequencies", "Kneser-Ney trigrams", "LSTM"]
    assert re.findall(f"({'|'.join(names)}) .*", score) == names
    perplexities = [
        float(figure.replace(",", "")) for figure in re.findall(r"│ +([\d,]+\.\d) ", score)
    ]
    alike, frequencies, trigrams, lstm = perplexities[:4]
    assert trigrams < frequencies < alike
    # A busy machine takes few steps in this time: the first weights give what blind guessing does.
    assert 1 < lstm < 1.01 * alike
    for prefix in demo.PREFIXES:
        assert prefix in completed
    for prompt in demo.PROMPTS:
        assert prompt in continued
    assert demo.PROMPTS[0] in written
    assert len(written.split()) > 20
