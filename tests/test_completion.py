"""Suggestions: what `complete` ranks, and where words begin and end."""

import math
import re
from functools import cache

import numpy as np
import plain
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import ENGLISH, TEXTS, fitted, unfitted

from lstmlm import LSTMLanguageModel, ParameterError, TextTypeError
from lstmlm.decoding import suggestions
from lstmlm.decoding.beginnings import MOST_KEPT
from lstmlm.decoding.openings import openings
from lstmlm.model import RecurrentLM
from lstmlm.text import END, UNKNOWN, CharClass, char_class, given_and_held, readable

KINDS = ["bpe", "char", "word"]
on_kinds = pytest.mark.parametrize("tokenizer", KINDS)
PREFIXES = ["", "the", "the ", "the c", "the cat s", "a dog and a", "床前明", "it's 3 o'cl", "🙂"]


@cache
def words_of_english():
    """A model that knows a few sentences, with tokens of whole words."""
    texts = [text for text in ENGLISH if text] * 40
    return LSTMLanguageModel(
        tokenizer="bpe", vocab_size=320, hidden_size=48, embedding_dim=24, max_epochs=25,
        batch_size=8, learning_rate=0.01, early_stopping=False, random_state=0, device="cpu",
    ).fit(texts)  # fmt: skip


def word_mass(lm, prefix, word):
    """The probability that a char model goes on with a word and ends it, id by id."""
    ids = lm.tokenizer_.encode([prefix + word])[0].tolist()
    table, _ = plain.read(lm.module_, ids)
    n = len(lm.tokenizer_.encode([prefix])[0])
    total = sum(float(table[n + i][token]) for i, token in enumerate(ids[n:]))
    last = char_class(word[-1])
    if last == CharClass.UNSPACED:
        return total
    pieces = lm.tokenizer_.pieces
    ends = [
        token for token, piece in enumerate(pieces)
        if token in (END, lm.tokenizer_.unknown_id) or char_class(piece.decode()) != last
    ]  # fmt: skip
    return total + float(table[-1][ends].double().logsumexp(0))


# ---- what is ranked ----


@pytest.mark.parametrize("prefix", PREFIXES)
def test_words_have_their_own_probability_and_that_of_their_end(prefix):
    lm = fitted(tokenizer="char")
    for text, log_prob in lm.complete(prefix, n=8, num_beams=64):
        assert log_prob == pytest.approx(word_mass(lm, prefix, text), abs=1e-4)


@pytest.mark.parametrize("prefix", ["the cat s", "床前", "a do"])
def test_a_wide_search_finds_the_likeliest_words_of_all(prefix):
    lm = fitted(tokenizer="char")
    found = lm.complete(prefix, n=5, num_beams=400)
    narrow = lm.complete(prefix, n=5)
    assert [one.text for one in narrow[:2]] == [one.text for one in found[:2]]
    everything = lm.complete(prefix, n=200, num_beams=4000)
    assert [one.text for one in everything[:5]] == [one.text for one in found]
    assert math.fsum(math.exp(one.log_prob) for one in everything) < 1 + 1e-6


@on_kinds
@pytest.mark.parametrize("unit", ["token", "word", "line"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_suggestions_are_distinct_and_ranked(tokenizer, unit, prefix):
    found = fitted(tokenizer=tokenizer).complete(prefix, n=7, unit=unit, max_new_tokens=20)
    texts, values = [one.text for one in found], [one.log_prob for one in found]
    assert len(set(texts)) == len(texts) <= 7
    assert values == sorted(values, reverse=True)
    assert all(texts)
    assert max(values) < 1e-6
    assert not any("\ufffd" in text or UNKNOWN in text for text in texts)
    if unit == "line":
        assert not any("\n" in text for text in texts)


@on_kinds
def test_tokens_are_the_likeliest_next_ones_where_nothing_is_begun(tokenizer):
    lm, prefix = fitted(tokenizer=tokenizer), "the " if tokenizer == "word" else ""
    found = lm.complete(prefix, n=5, unit="token")
    probs = {
        one.text: one.prob
        for one in lm.next_token_probs(prefix, lm.vocab_size_)
        if one.text not in ("", UNKNOWN) and "\ufffd" not in one.text
    }
    best = sorted(probs.items(), key=lambda one: -one[1])[:5]
    assert [one.text for one in found] == [text for text, _ in best]
    assert [math.exp(one.log_prob) for one in found] == pytest.approx([p for _, p in best])


@on_kinds
@pytest.mark.parametrize("prefix", PREFIXES)
def test_all_next_tokens_add_up_to_one(tokenizer, prefix):
    lm = fitted(tokenizer=tokenizer)
    every = lm.next_token_probs(prefix, lm.vocab_size_ + 5)
    assert len(every) == lm.vocab_size_
    assert math.fsum(one.prob for one in every) == pytest.approx(1)
    ids = lm.tokenizer_.encode([prefix])[0].tolist()
    table, _ = plain.read(lm.module_, ids)
    first = sorted(np.exp(table[-1].numpy()), reverse=True)[:4]
    assert [one.prob for one in every[:4]] == pytest.approx(first, rel=1e-5)


# ---- texts that break off ----


@given(st.sampled_from(TEXTS), st.data())
@pytest.mark.parametrize("tokenizer", ["bpe", "word"])
def test_however_a_text_goes_on_one_of_the_openings_has_its_ids(tokenizer, text, data):
    fitted_one = fitted(tokenizer=tokenizer).tokenizer_
    text = readable(text)
    cut = data.draw(st.integers(0, len(text)))
    read, rest = given_and_held(fitted_one, text[:cut])
    ids = fitted_one.encode([text])[0].tolist()[len(fitted_one.encode([read])[0]) :]
    fitting = [
        way for way in openings(fitted_one, rest)
        if ids[: len(way.ids)] == list(way.ids)
        and (
            not way.begun
            or (
                len(ids) > len(way.ids)
                and fitted_one.pieces[ids[len(way.ids)]].startswith(way.begun)
            )
        )
    ]  # fmt: skip
    assert fitting or fitted_one.unknown_id in ids


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_word_is_finished_wherever_it_breaks_off(cut):
    lm, text = words_of_english(), "a dog and a cat ran to the house"
    rest = re.match(r"\s?[a-z]+|\s", text[cut:])[0]
    assert rest in [one.text for one in lm.complete(text[:cut], n=10)]


def test_completing_inside_a_word_is_as_good_as_at_its_start():
    lm = words_of_english()
    at_start, inside = [], []
    for text in {text for text in ENGLISH if re.fullmatch("[a-z ]+", text)}:
        for word in re.finditer(r"[a-z]+", text):
            for cut in range(word.start(), word.end()):
                offered = [one.text for one in lm.complete(text[:cut], n=10)]
                hits = at_start if cut == word.start() else inside
                hits.append(text[cut : word.end()] in offered)
    assert len(inside) > 20
    assert np.mean(inside) >= np.mean(at_start) > 0.8


def test_a_space_is_suggested_where_it_is_due():
    lm = words_of_english()
    assert lm.complete("the cat", n=1)[0].text == " sat"
    assert lm.complete("the cat ", n=1)[0].text == "sat"
    assert lm.complete("the cat s", n=1)[0].text == "at"
    words = fitted(tokenizer="word", hidden_size=32)
    assert words.complete("the cat", n=1)[0].text == " sat"
    assert words.complete("the cat ", n=1)[0].text == "sat"
    assert words.complete("the ca", n=1)[0].text == "t"


def test_words_of_scripts_without_spaces_end_with_their_token():
    found = fitted(tokenizer="char").complete("床前明", n=3)
    assert found[0].text == "月"
    assert all(len(one.text) == 1 for one in found if char_class(one.text[0]) == CharClass.UNSPACED)


def test_lines_end_before_a_line_break():
    texts = ["one two\nthree four", "one two\nthree five"] * 20
    lm = unfitted(tokenizer="char", max_epochs=60, hidden_size=32).fit(texts)
    assert lm.complete("one", n=1, unit="line")[0].text == " two"
    last = {one.text for one in lm.complete("one two\nthr", n=2, unit="line")}
    assert last == {"ee four", "ee five"}


def test_all_lower_case_is_matched_in_lower_case():
    lm = unfitted(tokenizer="bpe", lowercase=True, vocab_size=320).fit(TEXTS)
    upper, lower = lm.complete("THE CA", n=3), lm.complete("the ca", n=3)
    assert upper == lower


# ---- sessions ----


@on_kinds
@pytest.mark.parametrize("unit", ["token", "word", "line"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_session_suggests_what_the_model_does(tokenizer, unit, prefix):
    lm = fitted(tokenizer=tokenizer)
    session = lm.session()
    for character in prefix:
        session.feed(character)
    before = session.state
    found = session.complete(4, unit, max_new_tokens=12)
    expected = lm.complete(prefix, 4, unit, max_new_tokens=12)
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.log_prob for one in found] == pytest.approx(
        [one.log_prob for one in expected], abs=1e-4
    )
    assert session.state == before


@on_kinds
@pytest.mark.parametrize("unit", ["token", "word", "line"])
def test_what_was_read_for_a_letter_before_changes_nothing(tokenizer, unit):
    lm = fitted(tokenizer=tokenizer)
    typing = lm.session()
    for character in "the cat sat on a mat. 床前明 🙂 it's":
        typing.feed(character)
        found = typing.complete(4, unit, max_new_tokens=6)
        expected = lm.session(typing.state).complete(4, unit, max_new_tokens=6)
        assert [one.text for one in found] == [one.text for one in expected]
        assert [one.log_prob for one in found] == pytest.approx(
            [one.log_prob for one in expected], abs=1e-4
        )


def test_for_a_letter_more_less_is_read_than_by_one_who_knows_nothing(monkeypatch):
    network, n_read = RecurrentLM.read, 0

    def read(model, ids, *others, **options):
        nonlocal n_read
        n_read += ids.numel()
        return network(model, ids, *others, **options)

    monkeypatch.setattr(RecurrentLM, "read", read)
    typing, counts = words_of_english().session(), []
    typing.feed("the ho")
    typing.complete(4)
    typing.feed("u")
    for session in (typing, words_of_english().session(typing.state)):
        n_read = 0
        session.complete(4)
        counts.append(n_read)
    assert counts[0] < counts[1]


@pytest.mark.parametrize("tokenizer", ["bpe", "char"])
def test_as_many_are_found_whether_few_are_read_at_a_time_or_all(tokenizer, monkeypatch):
    lm = fitted(tokenizer=tokenizer)
    for prefix in PREFIXES:
        found = lm.complete(prefix, 5)
        with monkeypatch.context() as patch:
            patch.setattr("lstmlm.decoding.suggestions.AT_A_TIME", 1_000)
            everything = lm.complete(prefix, 5)
        assert [one.text for one in found] == [one.text for one in everything]
        least = math.exp(everything[-1].log_prob)
        for one, of_all in zip(found, everything, strict=True):  # a rare cut may be missing
            missing = math.exp(of_all.log_prob) - math.exp(one.log_prob)
            assert -1e-4 < missing < (least if tokenizer == "bpe" else 1e-4)


@pytest.mark.parametrize("unit", ["word", "line"])
def test_the_last_opening_suggests_the_same_read_later_or_at_once(unit, monkeypatch):
    read, steps = suggestions.read_openings, []

    def typed(*, allow_later: bool) -> list:
        def read_openings(beginnings, ways, *, last_later):
            places = read(beginnings, ways, last_later=last_later and allow_later)
            steps.append(places.step)
            return places

        monkeypatch.setattr(suggestions, "read_openings", read_openings)
        session, found = fitted(tokenizer="bpe").session(), []
        for letter in "the dog sat on the h":
            session.feed(letter)
            found.append(session.complete(4, unit))
        return found

    for later, at_once in zip(typed(allow_later=True), typed(allow_later=False), strict=True):
        assert [one.text for one in later] == [one.text for one in at_once]
        assert [one.log_prob for one in later] == pytest.approx(
            [one.log_prob for one in at_once], abs=1e-3
        )
    assert any(steps)


@pytest.mark.parametrize("unit", ["word", "line"])
def test_what_is_known_does_not_grow(unit):
    session = fitted(tokenizer="char").session()
    kept = []
    for _ in range(3):
        session.feed("床前明月光 the dog and a")
        session.complete(5, unit)
        beginnings = session._reader.beginnings(session._streams._state)
        kept.append(len(beginnings._now) + len(beginnings._before))
    assert max(kept) <= 2 * MOST_KEPT


# ---- options and errors ----


def test_suggestions_without_bad_words():
    lm = fitted(tokenizer="char")
    free = [one.text for one in lm.complete("the cat s", n=4)]
    without = [one.text for one in lm.complete("the cat s", n=4, bad_words=["cat sat"])]
    assert "at" in free
    assert "at" not in without
    lm = unfitted(tokenizer="char", generation_config={"bad_words": ["sat"]}).fit(TEXTS)
    assert "at" not in [one.text for one in lm.complete("the cat s", n=4)]


def test_a_suggestion_has_no_more_tokens_than_are_wanted():
    found = fitted(tokenizer="char").complete("the", n=4, unit="line", max_new_tokens=3)
    assert max(len(one.text) for one in found) == 3


@on_kinds
@pytest.mark.parametrize("prefix", ["", "the ", "the c"])
def test_choices_are_ranked_by_probability(tokenizer, prefix):
    lm = fitted(tokenizer=tokenizer)
    choices = ["cat", "cat sat", "at on the mat", "dog", "dog"]
    found = lm.complete(prefix, n=10, choices=choices)
    assert sorted(one.text for one in found) == sorted(set(choices))
    assert [one.log_prob for one in found] == sorted((o.log_prob for o in found), reverse=True)
    assert lm.complete(prefix, n=1, choices=choices) == found[:1]


def test_a_choice_has_the_log_probability_of_its_tokens():
    lm, prefix = fitted(tokenizer="char"), "the "
    for text, log_prob in lm.complete(prefix, n=9, choices=["cat", "dog sat", "x"]):
        ids = lm.tokenizer_.encode([prefix + text])[0].tolist()
        values, _ = plain.log_probs(lm.module_, ids)
        assert log_prob == pytest.approx(sum(values[len(prefix) : -1]), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n=0 is not valid; n is an integer at least 1."),
        ({"unit": "words"}, "Did you mean 'word'?"),
        ({"temperature": 2.0}, "temperature is no option of complete"),
        ({"max_new_token": 2}, "Did you mean 'max_new_tokens'?"),
    ],
    ids=str,
)
def test_a_wrong_argument(arguments, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        fitted(tokenizer="char").complete("the", **arguments)


@pytest.mark.parametrize("prefix", [None, b"the", ["the"], 3])
def test_a_prefix_that_is_no_str(prefix):
    lm = fitted(tokenizer="char")
    for ask in (lm.complete, lm.next_token_probs):
        with pytest.raises(TextTypeError, match="prefix is a"):
            ask(prefix)


def test_how_many_next_tokens():
    with pytest.raises(ParameterError, match="k=0 is not valid; k is an integer at least 1"):
        fitted(tokenizer="char").next_token_probs("the", 0)


def test_half_a_character_does_not_count():
    session = fitted(tokenizer="bpe").session()
    session.feed("床前".encode())
    expected = session.complete(3)
    session.feed("明".encode()[:2])
    assert session.complete(3) == expected
