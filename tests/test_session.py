"""Sessions: what they give out, refuse and keep."""

import copy
import multiprocessing
import re

import pytest
import torch
from tiny import ENGLISH, fitted

from lstmlm import (
    LSTMLanguageModel,
    ParameterError,
    SessionClosedError,
    SessionStateError,
    TextTypeError,
)
from lstmlm.continuing import SingleRow


@pytest.fixture(scope="module")
def lm() -> LSTMLanguageModel:
    return fitted(tokenizer="word")


def test_a_word_is_given_out_once_white_space_follows(lm):
    session = lm.session()
    assert session.feed("a c") == lm.session().feed("a ")
    (token,) = session.feed("at ")
    assert (token.text, token.start, token.end) == ("cat", 2, 5)
    assert session.feed("") == []


def test_positions_count_from_the_beginning_of_the_stream(lm):
    session = lm.session()
    session.feed("a cat\n")
    assert session.end_text()[-1][:3] == ("", 6, 6)
    assert session.feed("b ")[0][:3] == ("b", 6, 7)


def test_finish_scores_what_was_held_back_without_an_end_mark(lm):
    session = lm.session()
    session.feed("a cat")
    assert [token.text for token in session.finish()] == ["cat"]
    for use in (lambda: session.feed("b"), session.end_text, session.finish, session.complete):
        with pytest.raises(SessionClosedError, match="is finished; begin another one"):
            use()
    with pytest.raises(SessionClosedError):
        lm.session(session.state).feed("b")


def test_bytes_that_are_no_character_count_as_the_replacement_character():
    lm = fitted(tokenizer="char")
    session = lm.session()
    tokens = session.feed(b"a\xffb\xe6\xbc") + session.feed("c")
    assert [token.text for token in tokens] == ["a", "\ufffd", "b", "\ufffd", "c"]


def test_a_context_of_documents_begins_each_text_anew(lm):
    session = lm.session()
    first = session.feed("a cat sat") + session.end_text()
    again = session.feed("a cat sat") + session.end_text()
    assert [t.log_prob for t in first] == pytest.approx([t.log_prob for t in again], rel=1e-6)


def test_a_session_completes_with_the_likeliest_tokens(lm):
    session = lm.session()
    session.feed(ENGLISH[0])
    before = session.state
    found = session.complete(3)
    assert session.state == before
    assert len(found) == 3
    assert [one.log_prob for one in found] == sorted((one.log_prob for one in found), reverse=True)
    for one in found:
        (token,) = session.copy().feed(one.text + " ")[1:]  # the first is the one held back
        assert token.text == one.text.strip()
        assert token.log_prob == pytest.approx(one.log_prob, rel=1e-5)
    with pytest.raises(ParameterError, match=re.escape("n=0 is not valid")):
        session.complete(0)


def test_an_impossible_chunk_moves_no_stream(lm):
    sessions = lm.sessions(2)
    before = [sessions.state(0), sessions.state(1)]
    with pytest.raises(TextTypeError, match="a stream is fed str or bytes, not int"):
        sessions.feed({0: "a cat ", 1: 5})
    with pytest.raises(ParameterError, match="there is no stream 2; the streams are 0 to 1"):
        sessions.feed({0: "a cat ", 2: "b"})
    assert [sessions.state(0), sessions.state(1)] == before


def test_an_interrupted_computation_moves_no_stream(lm, monkeypatch):
    session = lm.session()
    session.feed("a ca")
    before = session.state

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SingleRow, "log_prob", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.feed("t sat ")
    assert session.state == before


def test_one_of_many_can_be_finished_and_begun_anew(lm):
    sessions = lm.sessions(3)
    sessions.feed({1: "a cat "})
    sessions.finish([1])
    with pytest.raises(SessionClosedError, match=re.escape("begin it anew with reset(1)")):
        sessions.feed({0: "a ", 1: "b"})
    sessions.reset(1)
    expected = lm.session().feed("b c ")
    assert [t[:3] for t in sessions.feed({1: "b c "})[1]] == [t[:3] for t in expected]
    assert len(sessions) == 3


def _continue(folder: str, state: bytes, results: "multiprocessing.Queue") -> None:
    lm = LSTMLanguageModel.load(folder)
    session = lm.session(state)
    results.put((session.feed("t sat") + session.end_text(), session.state))


def test_a_session_goes_on_in_another_process(lm, tmp_path):
    lm.save(tmp_path / "model")
    session = lm.session()
    session.feed("a ca")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_continue, args=(tmp_path / "model", session.state, results))
    process.start()
    tokens, state = results.get(timeout=60)
    process.join(60)
    assert tokens == session.feed("t sat") + session.end_text()
    assert state == session.state


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: "text", "a session's state is bytes, not str"),
        (lambda state: b"", "these 0 bytes are no session's state"),
        (lambda state: b"x" * 200, "these 200 bytes are no session's state"),
        (lambda state: state[:-1], "cut off or altered"),
        (lambda state: state[:60] + b"\1" + state[61:], "cut off or altered"),
        (lambda state: state[:14] + b"\7" + state[15:], "has version 7"),
    ],
)
def test_a_spoiled_state_is_refused(lm, spoil, message):
    session = lm.session()
    session.feed("a cat ")
    with pytest.raises(SessionStateError, match=message):
        lm.session(spoil(session.state))


def test_a_state_of_another_model_is_refused(lm):
    other = fitted(tokenizer="word", random_state=5)
    with pytest.raises(SessionStateError, match="another model"):
        other.session(lm.session().state)


def test_a_model_that_was_trained_further_is_another_one(tmp_path):
    lm = copy.deepcopy(fitted(tokenizer="word"))
    state = lm.session().state
    lm.session(state)
    lm.partial_fit(ENGLISH)
    with pytest.raises(SessionStateError, match="another model"):
        lm.session(state)


def test_a_stream_that_is_named_twice_moves_once(lm):
    sessions = lm.sessions(2)
    sessions.feed({0: "a cat"})
    assert [token.text for token in sessions.end_text([0, 0])[0]] == ["cat", ""]
    expected = lm.session()
    expected.feed("a cat")
    expected.end_text()
    assert sessions.state(0) == expected.state


def test_sessions_need_a_number(lm):
    with pytest.raises(ParameterError, match="n=0"):
        lm.sessions(0)


def test_states_are_kept_on_their_own(lm):
    sessions = lm.sessions(2)
    state = sessions.state(0)
    sessions.feed({0: "a cat sat "})
    sessions.reset(0, state)
    assert sessions.state(0) == state
    assert not torch.is_inference(sessions._state.hidden)
