"""Laws of alignment: which token a piece belongs to, and that nothing is lost."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import pipeline
from spacy.tokens import Doc
from tiny import TEXTS, fitted

KINDS = ["bpe", "char", "word"]
on_kinds = pytest.mark.parametrize("tokenizer", KINDS)
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
AWKWARD = [
    "don't   can't", "  two   runs \n\n of spaces  ", "e\u0301 a\u0308o\u0302", "👩‍👩‍👧🇫🇷",
    "明月几时有", "\u3000 \xa0", "\x1c\x1d", "\u200b", "x\u2028y", "U.S. isn't 3.5km", "a\u0000b",
]  # fmt: skip

texts = st.one_of(
    st.sampled_from(TEXTS),
    st.lists(st.sampled_from([*AWKWARD, *WHITE_SPACE, "the", "dog", "🙂"]), max_size=8).map(
        "".join
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),  # spaCy has no lone surrogates
)


def by_the_rule(doc, scored):
    """What each token owns, and what stays with the Doc: the rule, piece by piece."""
    owned, stays = [[] for _ in doc], 0.0
    holder = {token.idx + n: token.i for token in doc for n in range(len(token.text))}
    for (start, end), log_prob in zip(scored.spans, scored.log_probs, strict=True):
        seen = [at for at in range(start, end) if doc.text[at] not in WHITE_SPACE]
        later = [at for at in range(end, len(doc.text)) if doc.text[at] not in WHITE_SPACE]
        if seen or later:
            owned[holder[(seen or later)[0]]].append(float(log_prob))
        else:
            stays += float(log_prob)
    return [math.fsum(one) if one else None for one in owned], stays


def check(doc, tokenizer):
    scored = next(fitted(tokenizer=tokenizer).pipe([doc.text]))
    owned, stays = by_the_rule(doc, scored)
    found = [token._.lm_log_prob for token in doc]
    assert [one is None for one in found] == [one is None for one in owned]
    np.testing.assert_allclose(
        [one for one in found if one is not None],
        [one for one in owned if one is not None],
        rtol=1e-4,
    )
    parts = math.fsum(one for one in found if one is not None) + stays
    assert parts == pytest.approx(doc._.lm_log_prob, rel=1e-5)


@on_kinds
@given(text=texts)
def test_tokens_and_what_stays_are_the_doc(tokenizer, text):
    check(pipeline_of(tokenizer)(text), tokenizer)


@on_kinds
@given(words=st.lists(st.tuples(st.text("ab é\u0301\u3000字\n🙂", min_size=1), st.booleans())))
def test_so_for_any_tokenizer_of_spacys(tokenizer, words):
    nlp = pipeline_of(tokenizer)
    doc = Doc(nlp.vocab, words=[word for word, _ in words], spaces=[space for _, space in words])
    check(nlp(doc), tokenizer)


@on_kinds
@given(text=texts, cut=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_spans_side_by_side_add_up(tokenizer, text, cut):
    doc = pipeline_of(tokenizer)(text)
    first, second = sorted(min(at, len(doc)) for at in cut)
    spans = [doc[:first], doc[first:second], doc[second:]]
    whole = doc[:]._.lm_log_prob
    parts = [span._.lm_log_prob for span in spans if span._.lm_log_prob is not None]
    assert (whole is None) == (not parts)
    assert math.fsum(parts) == pytest.approx(whole or 0.0, rel=1e-5)


@cache
def pipeline_of(tokenizer):
    return pipeline(tokenizer)
