"""A stream's tokens are those of its whole text, however it is cut, kept, copied or served."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import texts
from tiny import TEXTS

from lstmlm import LSTMLanguageModel, ParameterError, ScoredToken, Session
from lstmlm.text import REACH, Incoming

# What tokenizers decide on by what comes later: runs of all lengths, apostrophes, white space.
PARTS = [
    "a",
    "'",
    "'ll",
    "12",
    "e\u0301",
    " ",
    "  \n",
    "\t",
    "\u2003",
    " " * 70,
    "x" * 70,
    "漢" * 130,
]

# The same sums in another order differ in the last bit of a float32, and a network that learnt fast
# makes more of a difference over hundreds of steps: 2.5e-5 was seen after 460.
DRIFT = 1e-4


def long_texts() -> st.SearchStrategy[str]:
    parts = st.lists(st.sampled_from([*PARTS, *TEXTS[:4]]), max_size=12).map("".join)
    return st.one_of(texts(), parts)


@st.composite
def chunked(draw: st.DrawFn) -> list[str]:
    """Draw a text in chunks, of which some may be empty."""
    text = draw(long_texts())
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]


@pytest.fixture(scope="session")
def streaming(lm: LSTMLanguageModel) -> LSTMLanguageModel:
    if not lm.tokenizer_.has_safe_cuts:
        pytest.skip("a foreign tokenizer has no session, as is tested below")
    return lm


def whole(lm: LSTMLanguageModel, text: str) -> list[ScoredToken]:
    """Return a text's tokens by `pipe`, the end mark last."""
    (scored,) = lm.pipe([text])
    rows = zip(scored.tokens, scored.spans.tolist(), scored.log_probs.tolist(), strict=True)
    return [ScoredToken(token, start, end, value) for token, (start, end), value in rows]


def assert_same(tokens: list[ScoredToken], expected: list[ScoredToken]) -> None:
    assert [token[:3] for token in tokens] == [token[:3] for token in expected]
    log_probs = [token.log_prob for token in tokens]
    wanted = [token.log_prob for token in expected]
    np.testing.assert_allclose(log_probs, wanted, rtol=1e-5, atol=DRIFT)


def all_of(session: Session, chunks: list[str] | list[bytes]) -> list[ScoredToken]:
    return [token for chunk in chunks for token in session.feed(chunk)]


@settings(max_examples=30)
@given(chunks=chunked())
def test_chunks_do_not_matter(streaming, chunks):
    session = streaming.session()
    assert_same(all_of(session, chunks) + session.end_text(), whole(streaming, "".join(chunks)))


@settings(max_examples=12)
@given(text=long_texts(), data=st.data())
def test_bytes_may_be_cut_inside_a_character(streaming, text, data):
    text = text.encode("utf-8", "replace").decode()
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8)))
    chunks = [encoded[a:b] for a, b in pairwise([0, *cuts, len(encoded)])]
    session = streaming.session()
    assert_same(all_of(session, chunks) + session.end_text(), whole(streaming, text))


@settings(max_examples=12)
@given(chunks=chunked(), kept=st.integers(0, 8))
def test_a_session_goes_on_from_its_state_and_its_copy_does_too(streaming, chunks, kept):
    session = streaming.session()
    before = all_of(session, chunks[:kept])
    restored, copy = streaming.session(session.state), session.copy()
    session.feed("something else. ")
    expected = whole(streaming, "".join(chunks))
    for other in (restored, copy):
        rest = all_of(other, chunks[kept:]) + other.end_text()
        assert_same(before + rest, expected)


@settings(max_examples=12)
@given(streams=st.lists(chunked(), min_size=1, max_size=5))
def test_one_of_many_is_as_alone(streaming, streams):
    together = streaming.sessions(len(streams))
    got: list[list[ScoredToken]] = [[] for _ in streams]
    for step in range(max(map(len, streams))):
        fed = {i: chunks[step] for i, chunks in enumerate(streams) if step < len(chunks)}
        for i, tokens in together.feed(fed).items():
            got[i] += tokens
    for i, tokens in together.end_text().items():
        assert_same(got[i] + tokens, whole(streaming, "".join(streams[i])))


@settings(max_examples=12)
@given(lines=st.lists(texts(), min_size=1, max_size=5))
def test_an_end_mark_a_line_gives_the_figure_of_evaluate(lm, stream_lm, lines):
    if not lm.tokenizer_.has_safe_cuts:
        return
    for model in (lm, stream_lm):
        session, nats = model.session(), 0.0
        for line in lines:
            nats -= sum(t.log_prob for t in session.feed(line) + session.end_text())
        assert nats == pytest.approx(model.evaluate(lines).nats, rel=1e-5, abs=5e-6)


@settings(max_examples=12)
@given(chunks=chunked())
def test_what_is_held_back_and_the_state_do_not_grow(streaming, chunks):
    session = streaming.session()
    size, incoming = len(session.state), Incoming()
    for chunk in chunks:
        session.feed(chunk)
        assert len(session.state) == size
        _, incoming = incoming.feed(streaming.tokenizer_, chunk)
        assert len(incoming.held) < 2 * REACH[streaming.tokenizer_.kind]


def test_a_foreign_tokenizer_has_no_session(lm):
    if lm.tokenizer_.has_safe_cuts:
        return
    with pytest.raises(ParameterError, match="never changes earlier tokens"):
        lm.session()
