"""Text to ids and back: round trips, spans, safe cuts, unknowns, incremental decoding."""

import re
import time
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from strategies import texts
from tiny import TEXTS

from lstmlm import ParameterError, TextError, TextTypeError
from lstmlm.config import TextConfig
from lstmlm.text import (
    END,
    KINDS,
    WHITE_SPACE,
    Tokenizer,
    check_iterable,
    check_text,
    count_bytes,
    count_words,
    each_text,
    in_chunks,
    in_pieces,
    learn_tokenizer,
    readable,
    sample,
    word_spans,
)

SPACE = set(WHITE_SPACE)
SPECIAL = ["<unk>", "</s>", "<s>", "<pad>", "<|endoftext|>", "[UNK]", "[SEP]", "\ufffd"]
AWKWARD = [
    *SPECIAL,
    "\0",
    "\ufeff",
    "\x1c",
    "\x7f",
    "\U0010ffff",
    "e\u0301\u0323",
    "हिन्दी",
    "漢字かな交じり文",
    "שלום עולם",
    "👩‍👩‍👧🏽🇩🇪",
    "İǅßΣς",
    "Ġā",
    "don't we'll O'Neill's",
    "1234567.89",
    " \t\n\r\n\x0b\x85\xa0\u2028\u3000 ",
    "a" * 70,
    "漢" * 130,
    "!?" * 40,
    " " * 65,
    " " * 64 + "x",
    "\n" * 129,
    "8" * 10,
]


def awkward_texts():
    """Texts glued together from pieces that have broken tokenizers, and any others."""
    return st.lists(st.sampled_from(AWKWARD) | texts(12), max_size=8).map("".join)


def learn(kind, texts, **config) -> Tokenizer:
    return learn_tokenizer(kind, texts, TextConfig(**config))[0]


@cache
def learned(kind, **config):
    if kind == "bpe":
        config = {"vocab_size": 420} | config
    return learn(kind, TEXTS + AWKWARD * 2, **config)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode([text])[0].tolist()


def spans_of(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    return list(map(tuple, tokenizer.encode_with_spans([text])[0][1].tolist()))


def words_of(text: str) -> list[str]:
    return re.sub(f"[{WHITE_SPACE}]", " ", text).split(" ")


# ---- round trips ----


@given(awkward_texts())
@example("\ud83d\ude00 \udfff")
def test_bpe_gives_every_text_back(text):
    tokenizer = learned("bpe")
    assert tokenizer.decode(encode(tokenizer, text)) == readable(text)


@pytest.mark.parametrize("text", AWKWARD)
def test_bpe_gives_back_what_it_never_saw(text):
    tokenizer = learn("bpe", ["plain"], vocab_size=257)
    assert tokenizer.decode(encode(tokenizer, text)) == text


@given(awkward_texts())
def test_char_gives_back_a_text_without_unknowns(text):
    tokenizer = learn("char", [text], min_frequency=1)
    ids = encode(tokenizer, text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == readable(text)


@given(awkward_texts())
def test_word_gives_back_words_between_single_spaces(text):
    tokenizer = learn("word", [text], min_frequency=1)
    words = [word for word in words_of(readable(text)) if word]
    assume(all(len(word) <= 1000 for word in words))
    assert tokenizer.decode(encode(tokenizer, text)) == " ".join(words)


@given(st.text(st.characters(codec=None), max_size=20))
def test_a_lone_surrogate_is_read_as_the_replacement_character(text):
    expected = "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
    assert readable(text) == expected
    assert count_bytes(text) == len(expected.encode())
    for kind in KINDS:
        assert encode(learned(kind), text) == encode(learned(kind), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_encoded_each_on_its_own(kind):
    tokenizer = learned(kind)
    together = tokenizer.encode(TEXTS + AWKWARD)
    for text, ids in zip(TEXTS + AWKWARD, together, strict=True):
        assert ids.tolist() == encode(tokenizer, text)
        assert ids.dtype == np.int32
    assert tokenizer.encode([]) == []
    assert encode(tokenizer, "") == []


# ---- the end mark ----


@pytest.mark.parametrize("kind", KINDS)
@given(text=awkward_texts())
def test_no_text_spells_the_end_mark(kind, text):
    tokenizer = learned(kind)
    ids = encode(tokenizer, text)
    assert END == 0
    assert all(0 < token_id < tokenizer.vocab_size for token_id in ids)


@pytest.mark.parametrize("kind", KINDS)
def test_end_marks_are_passed_over_in_decoding(kind):
    tokenizer = learned(kind)
    ids = encode(tokenizer, "the cat")
    marked = [END] + [token_id for one in ids for token_id in (one, END, END)]
    assert tokenizer.decode(marked) == "the cat"
    assert tokenizer.decode([END]) == tokenizer.decode([]) == ""


@pytest.mark.parametrize("special", SPECIAL)
def test_special_spellings_are_plain_characters_to_char_and_bpe(special):
    char = learned("char")
    assert encode(char, special) == [encode(char, c)[0] for c in special]
    assert char.unknown_id not in encode(char, special)
    plain = learn("bpe", ["plain"], vocab_size=257)
    assert len(encode(plain, special)) == len(special.encode())


# ---- spans ----


@given(awkward_texts())
def test_bpe_spans_cover_every_character_of_which_the_token_holds_a_byte(text):
    tokenizer = learned("bpe")
    of_byte = [i for i, c in enumerate(readable(text)) for _ in c.encode()]
    encoding = tokenizer.backend.encode(readable(text), add_special_tokens=False)
    expected, at = [], 0
    for token in encoding.tokens:  # one character a byte
        expected.append((of_byte[at], of_byte[at + len(token) - 1] + 1))
        at += len(token)
    assert at == len(of_byte)
    assert spans_of(tokenizer, text) == expected


@given(awkward_texts())
def test_char_spans_are_the_characters(text):
    assert spans_of(learned("char"), text) == [(i, i + 1) for i in range(len(text))]


@given(awkward_texts())
def test_word_spans_are_the_words(text):
    tokenizer = learned("word")
    assume(all(len(word) <= 1000 for word in words_of(text)))
    assert spans_of(tokenizer, text) == word_spans(text)


@pytest.mark.parametrize("kind", KINDS)
@given(text=awkward_texts())
def test_spans_slice_the_original_text_in_order(kind, text):
    for tokenizer in (learned(kind), learned(kind, lowercase=True)):
        ((ids, spans),) = tokenizer.encode_with_spans([text])
        assert ids.tolist() == encode(tokenizer, text)
        assert spans.shape == (len(ids), 2)
        assert spans.dtype == np.int64
        for (start, end), token_id in zip(spans.tolist(), ids.tolist(), strict=True):
            assert 0 <= start < end <= len(text)
            piece = readable(text[start:end])
            if kind != "bpe" and not tokenizer.backend.normalizer:
                assert tokenizer.decode([token_id]) in (piece, "\ufffd", "<unk>")
        assert (np.diff(spans, axis=0) >= 0).all()
        covered = {i for start, end in spans.tolist() for i in range(start, end)}
        left_out = {c for i, c in enumerate(text) if i not in covered}
        assert left_out <= (SPACE if kind == "word" else set())


def test_a_character_of_several_tokens_is_the_span_of_each():
    plain = learn("bpe", ["plain"], vocab_size=257)
    assert spans_of(plain, "aé漢") == [(0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3)]


# ---- white space and words ----


def test_white_space_is_unicodes():
    # Python's isspace() adds to the property White_Space the separators U+001C to U+001F alone.
    by_python = {c for c in map(chr, range(0x110000)) if c.isspace()}
    assert by_python - SPACE == set("\x1c\x1d\x1e\x1f")
    assert len(SPACE) == len(WHITE_SPACE) == 25
    assert by_python > SPACE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n", []),
        ("a\x1cb", ["a\x1cb"]),
        ("a\x1c b\x1f", ["a\x1c", "b\x1f"]),
        ("a\x85b\u3000c\u2028d\xa0e", ["a", "b", "c", "d", "e"]),
        ("a\u200bb\ufeffc\u2060d", ["a\u200bb\ufeffc\u2060d"]),  # zero width, no White_Space
        ("  two  words  ", ["two", "words"]),
    ],
)
def test_words(text, words):
    assert [text[start:end] for start, end in word_spans(text)] == words
    assert count_words(text) == len(words)
    tokenizer = learn("word", [text], min_frequency=1)
    assert tokenizer.vocab_size == len(set(words)) + 2
    assert [text[start:end] for start, end in spans_of(tokenizer, text)] == words


@given(awkward_texts())
def test_words_are_counted_as_they_are_found(text):
    assert count_words(text) == len(word_spans(text)) == sum(map(bool, words_of(text)))


# ---- safe cuts ----


def cut_at(text, places):
    return [text[a:b] for a, b in pairwise([0, *places, len(text)])]


@given(awkward_texts())
@example("x" + " " * 64 + "y" + " " * 65 + "z  ")
@example("漢" * 64 + " " + "漢" * 63 + " 's '")
def test_bpe_may_be_cut_before_white_space_that_follows_something_else(text):
    places = [i for i in range(1, len(text)) if text[i] in SPACE and text[i - 1] not in SPACE]
    for tokenizer in (learned("bpe"), learned("bpe", lowercase=True)):
        parts = tokenizer.encode(cut_at(text, places))
        assert np.concatenate(parts).tolist() == encode(tokenizer, text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(several=st.lists(awkward_texts(), max_size=4), n_chars=st.integers(1, 9))
def test_texts_in_pieces_have_the_ids_of_the_whole(kind, several, n_chars):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstmlm.text.raw.PIECE_CHARS", n_chars)
        patch.setattr("lstmlm.text.raw.ENCODE_CHARS", 3 * n_chars)
        chunks = list(in_pieces(several, cut=True))
    pieces = [piece for chunk, _ in chunks for piece in chunk]
    assert "".join(pieces) == "".join(several)
    assert sum(sum(last) for _, last in chunks) == len(several)
    for tokenizer in (learned(kind), learned(kind, lowercase=True)):
        found = [tokenizer.encode_pieces(*chunk) for chunk in chunks]
        ids = [token_id for part, _ in found for token_id in part.tolist()]
        expected = [[*encode(tokenizer, text), END] for text in several]
        assert ids == [token_id for text in expected for token_id in text]
        starts = np.cumsum([0, *(len(part) for part, _ in found)])
        ends = [int(s + e) for s, (_, part) in zip(starts, found, strict=False) for e in part]
        assert ends == np.cumsum(list(map(len, expected))).tolist()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50)
@given(several=st.lists(awkward_texts(), max_size=4), n_chars=st.integers(1, 9))
def test_long_texts_have_the_same_ids_and_spans_as_short_ones(kind, several, n_chars):
    tokenizer = learned(kind)
    whole = tokenizer.encode_with_spans(several)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstmlm.text.tokenizer.LONG_CHARS", 3)
        patch.setattr("lstmlm.text.raw.PIECE_CHARS", n_chars)
        patch.setattr("lstmlm.text.raw.ENCODE_CHARS", 3 * n_chars)
        ids, with_spans = tokenizer.encode(several), tokenizer.encode_with_spans(several)
    for one, (other, spans), (expected, where) in zip(ids, with_spans, whole, strict=True):
        assert one.tolist() == other.tolist() == expected.tolist()
        assert spans.tolist() == where.tolist()


def test_pieces_are_cut_where_they_may_be_and_no_later_than_they_must():
    text = "aa bb  cc\ndd" + "e" * 40 + " f"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstmlm.text.raw.PIECE_CHARS", 4)
        ((pieces, last),) = in_pieces([text, "g h i j"], cut=True)
        assert pieces == ["aa bb", "  cc", "\ndd" + "e" * 40, " f", "g h i", " j"]
        assert last == [False, False, False, True, False, True]
        ((pieces, last),) = in_pieces([text, "g h i j"], cut=False)
        assert (pieces, last) == ([text, "g h i j"], [True, True])


@given(awkward_texts())
def test_char_may_be_cut_anywhere(text):
    for tokenizer in (learned("char"), learned("char", lowercase=True)):
        parts = tokenizer.encode(["", *text])
        assert np.concatenate(parts).tolist() == encode(tokenizer, text)


@given(awkward_texts())
def test_word_may_be_cut_on_either_side_of_white_space(text):
    places = [i for i in range(1, len(text)) if SPACE & {text[i - 1], text[i]}]
    for tokenizer in (learned("word"), learned("word", lowercase=True)):
        parts = tokenizer.encode(cut_at(text, places))
        assert np.concatenate(parts).tolist() == encode(tokenizer, text)


@pytest.mark.parametrize(("kind", "longest"), [("bpe", 64), ("word", 1000)])
@given(text=awkward_texts(), repeat=st.integers(1, 20))
def test_no_pretoken_is_longer_than_its_limit(kind, longest, text, repeat):
    pretokens = learned(kind).backend.pre_tokenizer.pre_tokenize_str(readable(text) * repeat)
    assert all(end - start <= longest for _, (start, end) in pretokens)


@pytest.mark.parametrize("before", ["", " "])
def test_bpe_cuts_runs_at_64_characters_from_their_start(before):
    tokenizer = learn("bpe", ["a" * 64] * 9, vocab_size=300)
    text = before + "a" * 200
    ends = {end for _, end in spans_of(tokenizer, text)}
    assert {64, 128, 192, len(text)} <= ends
    assert len(ends) < 20  # the run was learned: its tokens are long


def test_word_cuts_words_at_1000_characters_from_their_start():
    tokenizer = learned("word")
    assert spans_of(tokenizer, " " + "x" * 2500) == [(1, 1001), (1001, 2001), (2001, 2501)]


@pytest.mark.parametrize("piece", ["ab", "漢", "7", "-", "a\u0301"])
def test_a_megabyte_without_a_space(piece):
    text = piece * (1_000_000 // len(piece.encode()))
    began = time.perf_counter()
    bpe = learn("bpe", [text], vocab_size=300)
    char = learn("char", [text])
    word = learn("word", [text], min_frequency=1)
    for tokenizer in (bpe, char):
        assert tokenizer.decode(encode(tokenizer, text)) == text
    assert word.decode(encode(word, text)).replace(" ", "") == text
    # It takes a second; what is quadratic in the length of a run takes hours.
    assert time.perf_counter() - began < 60


# ---- vocabularies ----


def test_char_types_seen_once_stand_in_for_the_unknown():
    tokenizer = learn("char", ["aab", "bcd"])
    assert tokenizer.vocab_size == 4  # the end mark, the unknown token, a and b
    a, b, c, d = encode(tokenizer, "abcd")
    assert c == d == tokenizer.unknown_id
    assert len({a, b, c}) == 3
    assert tokenizer.decode([a, c, b]) == "a\ufffdb"


def test_word_types_seen_once_stand_in_for_the_unknown():
    tokenizer = learn("word", ["the cat", "the dog"])
    assert tokenizer.vocab_size == 3
    the, cat, new = encode(tokenizer, "the cat <unk>")
    assert cat == new == tokenizer.unknown_id != the
    assert tokenizer.decode([the, cat]) == "the <unk>"


def test_word_keeps_every_type_where_the_text_has_its_own_unknown():
    tokenizer = learn("word", ["the <unk>", "the dog"])
    assert tokenizer.vocab_size == 4
    assert encode(tokenizer, "<unk> new").count(tokenizer.unknown_id) == 2
    assert tokenizer.decode(encode(tokenizer, "the dog <unk>")) == "the dog <unk>"


def test_the_letters_of_unk_are_no_unknown_to_char():
    tokenizer = learn("char", ["<unk>", "a"])
    assert tokenizer.vocab_size == 2  # they are seen but once
    tokenizer = learn("char", ["<unk><unk>", "a"])
    assert tokenizer.unknown_id not in encode(tokenizer, "<unk>")
    assert encode(tokenizer, "a") == [tokenizer.unknown_id]


@pytest.mark.parametrize(
    ("kind", "texts", "given_config", "vocab_size", "min_frequency"),
    [
        ("char", ["aab"], {}, 3, 2),
        ("char", ["aab"], {"min_frequency": 1}, 4, 1),
        ("word", ["a b"], {}, 2, 2),
        ("word", ["a b <unk>"], {}, 4, 1),
        ("word", ["a a b b"], {"vocab_size": 3}, 3, 2),
        ("word", ["a a"], {"vocab_size": 1000}, 3, 2),
        ("bpe", ["abab"], {"vocab_size": 1000}, 258, 2),
    ],
)
def test_what_auto_became(kind, texts, given_config, vocab_size, min_frequency):
    tokenizer, settled = learn_tokenizer(kind, texts, TextConfig(**given_config))
    assert tokenizer.vocab_size == vocab_size
    assert settled == TextConfig(vocab_size=vocab_size, min_frequency=min_frequency)


def test_nothing_is_unknown_to_bpe():
    assert learned("bpe").unknown_id is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_nothing(kind):
    tokenizer = learn(kind, [""], vocab_size=257 if kind == "bpe" else "auto")
    assert tokenizer.vocab_size == {"bpe": 257, "char": 2, "word": 2}[kind]
    assert tokenizer.decode(encode(tokenizer, "x")) == {"bpe": "x", "char": "\ufffd"}.get(
        kind, "<unk>"
    )


@pytest.mark.parametrize("kind", ["char", "word"])
def test_vocab_size_keeps_the_most_frequent(kind):
    text = {"char": "aaabbc" * 9, "word": "a a a b b c " * 9}[kind]
    for vocab_size, kept in ((2, ""), (3, "a"), (4, "ab"), (5, "abc"), (99, "abc")):
        tokenizer = learn(kind, [text], vocab_size=vocab_size)
        assert tokenizer.vocab_size == len(kept) + 2
        ids = encode(tokenizer, " ".join("abc") if kind == "word" else "abc")
        assert [i != tokenizer.unknown_id for i in ids] == [c in kept for c in "abc"]


def test_vocab_size_of_bpe():
    for vocab_size in (257, 258, 300):
        tokenizer = learn("bpe", TEXTS, vocab_size=vocab_size)
        assert tokenizer.vocab_size == vocab_size
    assert learn("bpe", ["abab"], vocab_size=1000).vocab_size == 258


@pytest.mark.parametrize("vocab_size", [2, 256])
def test_vocab_size_too_small_for_bpe(vocab_size):
    with pytest.raises(ParameterError) as caught:
        learn("bpe", TEXTS, vocab_size=vocab_size)
    assert str(caught.value) == (
        f"vocab_size={vocab_size} is too small for bpe, which needs the 256 bytes and the end "
        "mark: at least 257."
    )


@pytest.mark.parametrize(("min_frequency", "kept"), [(1, "abc"), (2, "ab"), (3, "a"), (4, "")])
def test_min_frequency(min_frequency, kept):
    for kind, some in (("char", ["aabbc", "a"]), ("word", ["a b c", "b a a"])):
        tokenizer = learn(kind, some, min_frequency=min_frequency)
        assert tokenizer.vocab_size == len(kept) + 2


def test_min_frequency_of_merges():
    for n_texts, vocab_size in ((2, 257), (3, 258)):
        tokenizer = learn("bpe", ["ab"] * n_texts, vocab_size=300, min_frequency=3)
        assert tokenizer.vocab_size == vocab_size


@pytest.mark.parametrize(
    ("kind", "suggestion"),
    [("cahr", " Did you mean 'char'?"), ("wordpiece", " Did you mean 'word'?"), ("x", "")],
)
def test_unknown_kinds(kind, suggestion):
    with pytest.raises(ParameterError) as caught:
        learn(kind, TEXTS)
    assert str(caught.value) == (
        f"tokenizer={kind!r} is not valid; it is one of 'bpe', 'char', 'word'.{suggestion}"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_learning_reads_a_generator_once_and_gives_the_same(kind):
    tokenizer = learn(kind, (text for text in TEXTS), vocab_size=300)
    again = learn(kind, TEXTS, vocab_size=300)
    assert tokenizer.backend.to_str() == again.backend.to_str()
    assert tokenizer.ranks.tolist() == list(range(1, tokenizer.vocab_size))


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase_reads_capitals_as_small_letters(kind):
    config = {"vocab_size": 300, "lowercase": True}
    capitals, small = ["THE CAT SAT ON ΑΣ"] * 3, ["the cat sat on ας"] * 3
    tokenizer = learn(kind, capitals, **config)
    assert encode(tokenizer, "The Cat SAT") == encode(tokenizer, "the cat sat")
    assert tokenizer.decode(encode(tokenizer, "The Cat SAT")) == "the cat sat"
    # Rust's Lowercase goes character by character: unlike Python's lower() it knows no final sigma.
    assert "ασ" in tokenizer.decode(encode(tokenizer, "ON ΑΣ"))
    assert learn(kind, small, **config).vocab_size == tokenizer.vocab_size


def test_lowercase_spans_are_those_of_the_original():
    text = "İİ X"  # each İ becomes two characters
    for kind in KINDS:
        tokenizer = learned(kind, lowercase=True)
        slices = [text[start:end] for start, end in spans_of(tokenizer, text)]
        assert slices[-1].strip() == "X"
        assert "".join(dict.fromkeys(slices)).replace(" ", "") in ("İX", "İİX")


# ---- order of ids ----


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_reordered_sorts_ids_by_falling_counts(kind, data):
    tokenizer = learned(kind)
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    some = data.draw(st.dictionaries(st.integers(0, len(counts) - 1), st.integers(0, 99)))
    counts[list(some)] = list(some.values())
    ordered = tokenizer.reordered(counts)
    of_type = dict(zip(tokenizer.ranks.tolist(), ordered.ranks.tolist(), strict=True))
    by_new_id = sorted(of_type, key=of_type.get)
    assert sorted(of_type.values()) == list(range(1, tokenizer.vocab_size))
    assert by_new_id == sorted(of_type, key=lambda old: (-counts[old], old))
    for text in AWKWARD:
        assert [of_type[old] for old in encode(tokenizer, text)] == encode(ordered, text)
        assert ordered.decode(encode(ordered, text)) == tokenizer.decode(encode(tokenizer, text))


def test_reordered_leaves_the_tokenizer_as_it_is():
    tokenizer = learned("char")
    before = tokenizer.ranks.copy()
    tokenizer.decode([1])  # makes what decoding keeps
    ordered = tokenizer.reordered(np.arange(tokenizer.vocab_size)[::-1].copy())
    reverse = tokenizer.reordered(np.arange(tokenizer.vocab_size))
    assert (tokenizer.ranks == before).all()
    assert (ordered.ranks == before).all()
    assert reverse.unknown_id == tokenizer.vocab_size - tokenizer.unknown_id
    assert reverse.decode(encode(reverse, "the cat")) == "the cat"


# ---- incremental decoding ----


@pytest.mark.parametrize("kind", KINDS)
@given(text=awkward_texts())
def test_decoding_id_by_id_never_gives_half_a_character(kind, text):
    tokenizer = learned(kind)
    ids = encode(tokenizer, text)
    decoder = tokenizer.decoder()
    pieces = [decoder.feed(token_id) for token_id in ids]
    assert decoder.finish() == ""
    assert "".join(pieces) == tokenizer.decode(ids)
    if kind == "bpe":
        at = 0
        for piece in pieces:
            assert readable(text)[at : at + len(piece)] == piece
            at += len(piece)


@given(st.lists(st.integers(1, 419), max_size=20))
@example([])
def test_any_ids_decode_as_the_rust_library_does(ids):
    tokenizer = learned("bpe")
    backend_id = np.argsort(tokenizer.ranks)
    ids = [token_id for token_id in ids if token_id < tokenizer.vocab_size]
    in_rust = tokenizer.backend.decode([int(backend_id[token_id - 1]) for token_id in ids])
    assert tokenizer.decode(ids) == in_rust


def test_a_character_that_is_not_completed():
    plain = learn("bpe", ["plain"], vocab_size=257)
    decoder = plain.decoder()
    first, second, third = encode(plain, "漢")
    assert [decoder.feed(first), decoder.feed(END), decoder.feed(second)] == ["", "", ""]
    assert decoder.finish() == "\ufffd"
    assert plain.decode([first, second, third]) == "漢"
    assert plain.decode([first, second]) == "\ufffd"


@pytest.mark.parametrize(
    ("after", "text"),
    [("", "the cat"), ("a", " the cat"), ("a ", "the cat"), ("a\u3000", "the cat")],
)
def test_words_continue_a_text_with_a_space_unless_it_ends_in_one(after, text):
    tokenizer = learned("word")
    decoder = tokenizer.decoder(after=after)
    assert "".join(map(decoder.feed, encode(tokenizer, "the cat"))) + decoder.finish() == text


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_what_is_no_word_continues_a_text_as_it_is(kind):
    tokenizer = learned(kind)
    decoder = tokenizer.decoder(after="a")
    assert "".join(map(decoder.feed, encode(tokenizer, "the cat"))) == "the cat"


# ---- what comes in ----


@pytest.mark.parametrize(
    "texts",
    [[], ["a"], ("a",), iter(["a"]), {"a": 1}.keys(), np.array(["a"]), pd.Series(["a"])],
    ids=lambda texts: type(texts).__name__,
)
def test_what_can_hold_texts(texts):
    assert check_iterable(texts) is texts


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (
            "one text",
            TextError,
            "Iterable over raw text documents expected, string object received. Put a single text "
            "in a list: [text].",
        ),
        (
            b"bytes",
            TextError,
            "Iterable over raw text documents expected, string object received. Put a single text "
            "in a list: [text].",
        ),
        (
            Counter(["a"]),
            TextError,
            "texts is a Counter, which has no texts in an order; give a list, an array or an "
            "iterator of str.",
        ),
        (
            {"a"},
            TextError,
            "texts is a set, which has no texts in an order; give a list, an array or an iterator "
            "of str.",
        ),
        (
            np.array([["a"]]),
            TextError,
            "texts has 2 dimensions; one is needed. Of a table pass one column, for example "
            "table['text'].",
        ),
        (
            pd.DataFrame({"text": ["a"]}),
            TextError,
            "texts has 2 dimensions; one is needed. Of a table pass one column, for example "
            "table['text'].",
        ),
        (
            None,
            TextTypeError,
            "texts is a NoneType; an iterable of str is needed, for example a list.",
        ),
    ],
    ids=["str", "bytes", "Mapping", "set", "array", "DataFrame", "None"],
)
def test_what_cant_hold_texts(texts, error, message):
    with pytest.raises(error) as caught:
        check_iterable(texts)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, "None (NoneType); every text must be a str: leave it out or replace it by a str."),
        (3.5, "3.5 (float); every text must be a str: leave it out or replace it by a str."),
        (b"a", "b'a' (bytes); every text must be a str: decode it first."),
        (
            list(range(99)),
            "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11... (list); every text must be a str: leave it "
            "out or replace it by a str.",
        ),
    ],
    ids=["None", "float", "bytes", "list"],
)
def test_what_is_no_text(text, shown):
    with pytest.raises(TextTypeError) as caught:
        check_text(text, 7)
    assert str(caught.value) == f"texts[7] is {shown}"


def test_texts_are_checked_as_they_come():
    came = each_text(iter(["a", np.str_("b"), None, "c"]))
    assert [next(came), next(came)] == ["a", "b"]
    with pytest.raises(TextTypeError, match=r"^texts\[2\] is None"):
        next(came)


@given(st.lists(st.text(max_size=30), max_size=20), st.integers(1, 60))
def test_chunks_hold_all_texts_in_order(some, max_chars):
    chunks = list(in_chunks(some, max_chars))
    assert [text for chunk in chunks for text in chunk] == some
    for chunk in chunks:
        assert chunk
        assert sum(len(text) + 1 for text in chunk[:-1]) < max_chars


@given(st.integers(1, 2000), st.integers(1, 20_000))
def test_a_sample_is_spread_evenly_and_of_about_its_size(n_texts, max_chars):
    some = [f"{number:010}" for number in range(n_texts)]
    drawn = list(sample(some, 10 * n_texts, max_chars))
    assert drawn == sorted(set(drawn))
    assert drawn[0] == some[0]
    # The first text comes in any case; the others by their share, rounded.
    assert abs(len(drawn) - min(n_texts, max_chars / 10)) <= 2
    gaps = np.diff([int(text) for text in drawn])[1:]
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
