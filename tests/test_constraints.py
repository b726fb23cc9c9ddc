"""Text that is what it was asked to be, and prompts that break off inside a word."""

import math
import re
import sys

import numpy as np
import plain
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TEXTS, fitted, unfitted

from lstmlm import LSTMLanguageModel, MissingExtraError, ParameterError
from lstmlm.decoding import starts_of
from lstmlm.text import END, given_and_held

on_kinds = pytest.mark.parametrize("tokenizer", ["bpe", "char", "word"])
PATTERNS = {
    "bpe": ["(?:the|a) (?:cat|dog)", "[a-z]{3,9}[.!]", "床前?明月", "x{40}|", "[^\n]{5}"],
    "char": ["(?:the|a) (?:cat|dog)", "[a-z]{3,9}[.!]", "床前?明月", "x{40}|", "[^\n]{5}"],
    "word": ["(?:the|a) (?:cat|dog)", " ?the( cat)*", "the cat|", "[a-z ]{5,9}"],
}
WAYS = [
    {"do_sample": False},
    {"do_sample": True, "temperature": 3.0, "num_return_sequences": 4},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "top_k": 2, "repetition_penalty": 1.5},
]


# ---- regular expressions ----


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("tokenizer", "pattern"), [(k, p) for k, ps in PATTERNS.items() for p in ps]
)
def test_a_regex_is_matched_by_every_text(tokenizer, pattern, way):
    lm = fitted(tokenizer=tokenizer)
    prompts = ["", "the ", "a dog and "]
    for n_tokens in (9, 45):
        texts = lm.generate(prompts, regex=pattern, max_new_tokens=n_tokens, random_state=1, **way)
        assert texts
        for text in texts:
            assert re.fullmatch(pattern, text), (pattern, text)


@pytest.mark.parametrize(
    "options",
    [
        {"no_repeat_ngram_size": 1},
        {"bad_words": ["a"]},
        {"min_new_tokens": 9},
        {"logits_processor": lambda ids, logits: logits - torch.inf},
        {"num_beams": 3, "bad_words": ["a"]},
    ],
    ids="-".join,
)
def test_what_a_regex_needs_is_written_even_if_it_is_forbidden(options):
    for regex in ("a{4}", "[ab]{2}a"):
        (text,) = fitted(tokenizer="char").generate([""], regex=regex, random_state=0, **options)
        assert re.fullmatch(regex, text)


def test_a_regex_goes_on_from_a_word_with_a_space():
    lm = fitted(tokenizer="word")
    for prompt in ("the cat", "the cat "):
        pattern = "sat on the (mat|log)" if prompt[-1] == " " else " sat on the (mat|log)"
        (text,) = lm.generate([prompt], regex=pattern, random_state=0)
        assert re.fullmatch(pattern, text)


def test_of_what_a_regex_allows_the_model_chooses():
    lm = fitted(tokenizer="char")
    counts = {"cat": 0, "dog": 0}
    for text in lm.generate(["the "] * 400, regex="cat|dog", random_state=0):
        counts[text] += 1
    table, _ = plain.read(lm.module_, lm.tokenizer_.encode(["the "])[0])
    c, d = (float(table[-1][lm.tokenizer_.encode([one])[0][0]].exp()) for one in "cd")
    assert counts["cat"] / 400 == pytest.approx(c / (c + d), abs=0.08)


def test_a_stream_matches_too():
    lm = fitted(tokenizer="bpe")
    pieces = list(lm.generate_stream("the ", regex="[a-z]{4}-[0-9]{2}", random_state=3))
    assert re.fullmatch("[a-z]{4}-[0-9]{2}", "".join(pieces))
    assert len(pieces) > 1


@given(st.integers(1, 6), st.integers(0, 3), st.booleans())
@settings(max_examples=20)
def test_the_tokens_that_are_left_suffice(low, more, sampled):
    lm, pattern = fitted(tokenizer="bpe"), f"([a-z]{{2}},){{{low},{low + more}}}"
    (text,) = lm.generate([""], regex=pattern, max_new_tokens=4 * low, do_sample=sampled,
                          random_state=0)  # fmt: skip
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "(a"}, "regex='(a' can't be used"),
        ({"regex": "a(?=b)"}, "without look-around"),
        ({"regex": "Ω"}, "characters that the model knows"),
        ({"regex": "a{30}", "max_new_tokens": 20}, "needs 30 tokens, and max_new_tokens=20"),
        ({"regex": "a", "choices": ["b"]}, "choices and regex can't be had together"),
        ({"regex": "a", "prefix_allowed_tokens": lambda *_: [1]}, "can't be had together"),
        ({"regex": "a", "stop_strings": ["a"]}, "stop_strings can't be had together with regex"),
        ({"regex": ""}, "regex is empty"),
        ({"choices": []}, "choices is empty"),
        ({"line_lengths": 0}, "line_lengths is an integer at least 1, or several"),
    ],
    ids=lambda part: part if isinstance(part, str) else "-".join(part),
)
def test_a_constraint_that_can_t_be_met(options, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        fitted(tokenizer="char").generate(["the"], **options)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "outlines_core", None)
    with pytest.raises(MissingExtraError, match=r"install lstmlm\[regex\]"):
        fitted(tokenizer="char").generate([""], regex="never asked for before")


# ---- verse ----


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("tokenizer", ["bpe", "char"])
def test_lines_have_the_lengths_that_are_wanted(tokenizer, way):
    lm = fitted(tokenizer=tokenizer)
    options = {"line_lengths": [5, 7, 5], "max_new_tokens": 60, "random_state": 0}
    for text in lm.generate(["床前", ""], **options, **way):
        assert [len(line) for line in text.split("\n")] == [5, 7, 5]
    assert len(lm.generate([""], line_lengths=4, random_state=0)[0]) == 4


# ---- choices and callables ----


@on_kinds
def test_a_choice_is_drawn_by_its_probability(tokenizer):
    lm, choices = fitted(tokenizer=tokenizer), ["cat", "dog", "log"]
    ranked = lm.complete("the ", choices=choices)
    likeliest = lm.generate(["the "], choices=choices, do_sample=False)
    assert likeliest == [ranked[0].text]
    assert list(lm.generate_stream("the ", choices=choices, do_sample=False)) == likeliest
    drawn = lm.generate(["the "], choices=choices, num_return_sequences=600, random_state=0)
    shares = np.exp([one.log_prob for one in ranked])
    shares /= shares.sum()
    for one, share in zip(ranked, shares, strict=True):
        assert drawn.count(one.text) / 600 == pytest.approx(share, abs=0.06)
    (record,) = lm.generate_records(["the "], choices=choices, do_sample=False)
    assert record.log_prob == pytest.approx(ranked[0].log_prob, abs=1e-5)


def test_what_shapes_a_distribution_shapes_that_of_choices():
    lm = fitted(tokenizer="char")
    options = {"choices": ["cat", "dog", "log"], "num_return_sequences": 50, "random_state": 0}
    assert set(lm.generate(["the "], **options, temperature=50.0)) == {"cat", "dog", "log"}
    assert len(set(lm.generate(["the "], **options, top_k=1))) == 1


@on_kinds
def test_a_callable_says_which_ids_may_follow(tokenizer):
    lm = fitted(tokenizer=tokenizer)
    seen, allowed = {}, [END, 1, 4]

    def ask(number, ids):
        seen.setdefault(number, []).append(ids.tolist())
        return allowed

    prompts = ["the ", "a dog"]
    texts = lm.generate_records(
        prompts, prefix_allowed_tokens=ask, max_new_tokens=6, random_state=0
    )
    assert sorted(seen) == [0, 1]
    for number, (prompt, record) in enumerate(zip(prompts, texts, strict=True)):
        start = lm.tokenizer_.encode([prompt])[0].tolist()
        assert seen[number][0] == start
        assert [ids[: len(start)] for ids in seen[number]] == [start] * len(seen[number])
        assert {ids[-1] for ids in seen[number][1:]} <= {1, 4}
        assert len(record.tokens) <= 6


def test_a_callable_that_names_no_ids_of_the_model():
    lm = fitted(tokenizer="char")
    with pytest.raises(ParameterError, match="prefix_allowed_tokens gave ids from 4 to 100000"):
        lm.generate(["the"], prefix_allowed_tokens=lambda *_: [100_000, 4])
    with pytest.raises(ParameterError, match="prefix_allowed_tokens=3 is not valid"):
        lm.generate(["the"], prefix_allowed_tokens=3)


def test_where_nothing_may_follow_the_text_ends():
    assert fitted(tokenizer="char").generate(["the"], prefix_allowed_tokens=lambda *_: []) == [""]


# ---- prompts that break off ----

SENTENCES = ["the cat sat on the mat", "the dog sat on the log", "a house had two doors"]


@pytest.fixture(scope="module")
def knows_sentences():
    return LSTMLanguageModel(
        tokenizer="bpe", vocab_size=320, hidden_size=48, embedding_dim=24, max_epochs=25,
        batch_size=8, learning_rate=0.01, early_stopping=False, random_state=0, device="cpu",
    ).fit(SENTENCES * 60)  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"do_sample": False}, {"random_state": 1}, {"num_beams": 3}], ids=str
)
@pytest.mark.parametrize("cut", range(1, 21))
def test_a_prompt_may_break_off_anywhere(knows_sentences, cut, options):
    whole = "a house had two doors"
    assert knows_sentences.generate([whole[:cut]], **options) == [whole[cut:]]


@pytest.mark.parametrize(
    "prompt", ["the ca", "the cat s", "the cat sat on the ", "a house had two"]
)
def test_a_stream_goes_on_from_a_broken_word(knows_sentences, prompt):
    for seed in range(3):
        pieces = list(knows_sentences.generate_stream(prompt, random_state=seed))
        assert all(pieces)
        assert "".join(pieces) == knows_sentences.generate([prompt], random_state=seed)[0]


def test_without_healing_a_prompt_is_taken_as_it_is(knows_sentences):
    lm = knows_sentences
    ids = lm.tokenizer_.encode(["a house had tw"])[0]
    expected = plain.greedy(lm.module_, ids, 5)
    options = {"do_sample": False, "max_new_tokens": 5, "token_healing": False}
    (text,) = lm.generate(["a house had tw"], **options)
    assert text == lm.tokenizer_.decode(expected)
    assert text != "o doors"


def test_records_of_a_healed_prompt_join_to_its_text(knows_sentences):
    (record,) = knows_sentences.generate_records(["a hou"], do_sample=False)
    assert "".join(record.tokens) == record.text == "se had two doors"
    assert len(record.tokens) == len(record.log_probs)


@pytest.mark.parametrize("prompt", ["床", "🙂🙂", "it's 3 o'cl", "the c", "a d"])
def test_a_start_is_as_probable_as_the_texts_that_begin_so(prompt):
    lm = fitted(tokenizer="bpe")
    starts, probs = starts_of(lm.module_, lm.tokenizer_, prompt)
    assert probs.sum() == pytest.approx(1)
    read, _ = given_and_held(lm.tokenizer_, prompt)
    before = len(lm.tokenizer_.encode([read])[0])
    masses = []
    for start in starts:
        table, _ = plain.read(lm.module_, start.ids)
        total = sum(float(table[i][token]) for i, token in enumerate(start.ids) if i >= before)
        if start.firsts is not None:
            total += float(table[-1][start.firsts].double().logsumexp(0))
        masses.append(math.exp(total))
    assert probs == pytest.approx(np.array(masses) / sum(masses), rel=1e-3)


def test_in_a_model_of_lower_case_a_prompt_breaks_off_too():
    lm = unfitted(tokenizer="bpe", lowercase=True, vocab_size=320, hidden_size=32).fit(TEXTS)
    for prompt in ("THE CA", "The ho", "İt's"):
        lower = lm.generate([prompt.lower()], do_sample=False)
        assert lm.generate([prompt], do_sample=False) == lower


def test_a_word_that_the_model_knows_is_whole():
    lm = fitted(tokenizer="word")
    assert lm.generate(["the cat"], do_sample=False)[0].startswith(" ")
    assert lm.generate(["the ca"], do_sample=False)[0].startswith("t")
