"""Streams of text, one or many."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

import numpy as np
import torch

from lstmlm.decoding import Completion, Unit, check_suggestions, suggest
from lstmlm.errors import ParameterError, SessionClosedError, TextTypeError
from lstmlm.nn.state import State
from lstmlm.session.packing import pack, unpack
from lstmlm.session.reader import Reader
from lstmlm.text import END, Incoming


class ScoredToken(NamedTuple):
    """A token of a stream.

    Parameters
    ----------
    text : str
        The characters that it covers; the end mark is ``""``.
    start, end : int
        Where they stand, in characters since the stream began.
    log_prob : float
        Its log-probability given all tokens before it, in nats.
    """

    text: str
    start: int
    end: int
    log_prob: float


class Sessions:
    """Streams that are served together: what has come for any of them is read side by side.

    Parameters
    ----------
    reader : Reader
        The model.
    n : int
        How many streams.
    """

    def __init__(self, reader: Reader, n: int) -> None:
        self._reader = reader
        self._incoming = [Incoming()] * n
        self._closed = bytearray(n)
        self._state = reader.fresh.repeat(n)

    def __len__(self) -> int:
        return len(self._incoming)

    def feed(self, chunks: Mapping[int, str | bytes]) -> dict[int, list[ScoredToken]]:
        """Take a chunk of some streams.

        Parameters
        ----------
        chunks : mapping of int to str or bytes
            What has come, by the stream's number. Bytes are UTF-8, cut anywhere; what is no
            character of it counts as U+FFFD.

        Returns
        -------
        dict of int to list of ScoredToken
            For each of those streams, the tokens that are certain now.

        Raises
        ------
        ParameterError
            If there is no stream of that number.
        SessionClosedError
            If it was finished.
        TextTypeError
            If a chunk is neither str nor bytes. Whatever is raised, no stream has moved.
        """
        rows = self._rows(chunks)
        tokenizer = self._reader.tokenizer
        fed = [self._incoming[row].feed(tokenizer, _checked(chunks[row])) for row in rows]
        return self._advance(rows, fed)

    def end_text(self, streams: Iterable[int] | None = None) -> dict[int, list[ScoredToken]]:
        """End the texts of some streams (or all): score what was held back, and an end mark.

        With ``context="stream"`` the state is carried on to the next text, with "document" the next
        text starts from a fresh one.

        Parameters
        ----------
        streams : iterable of int, optional
            Their numbers.

        Returns
        -------
        dict of int to list of ScoredToken
            The end mark, of no characters, last.
        """
        rows = self._rows(range(len(self)) if streams is None else streams)
        return self._advance(rows, [self._incoming[row].end() for row in rows], marks=True)

    def finish(self, streams: Iterable[int] | None = None) -> dict[int, list[ScoredToken]]:
        """Score what some streams (or all) hold back, without an end mark, and close them.

        Parameters
        ----------
        streams : iterable of int, optional
            Their numbers.

        Returns
        -------
        dict of int to list of ScoredToken
        """
        rows = self._rows(range(len(self)) if streams is None else streams)
        tokens = self._advance(rows, [self._incoming[row].end() for row in rows])
        for row in rows:
            self._closed[row] = True
        return tokens

    def reset(self, stream: int, state: bytes | None = None) -> None:
        """Let a stream begin anew, or go on from a state that `state` gave out.

        Parameters
        ----------
        stream : int
            Its number.
        state : bytes, optional
            Where to go on from.

        Raises
        ------
        SessionStateError
            If the bytes are not a state of a session with this model.
        """
        (row,) = self._rows([stream], closed_too=True)
        incoming, closed, restored = unpack(state, self._reader)
        self._put([row], restored)
        self._incoming[row], self._closed[row] = incoming, closed

    def state(self, stream: int) -> bytes:
        """Return all there is to a stream, to go on from here or in another process.

        Its size depends on the model alone.

        Parameters
        ----------
        stream : int
            Its number.
        """
        (row,) = self._rows([stream], closed_too=True)
        one = self._states_of([row])
        return pack(self._incoming[row], one, self._reader, closed=bool(self._closed[row]))

    def complete(
        self, stream: int, n: int = 5, unit: Unit = "word", *, max_new_tokens: int = 100
    ) -> list[Completion]:
        """Return the n likeliest continuations of a stream, the likeliest first.

        What is held back is taken as begun: a word that is being typed is finished. Bytes of a
        character that has not come whole don't count. The stream does not move.

        Parameters
        ----------
        stream : int
            Its number.
        n : int, default 5
            How many; fewer where no more are found.
        unit : {"token", "word", "line"}, default "word"
            What to suggest; see `LSTMLanguageModel.complete`.
        max_new_tokens : int, default 100
            Tokens of a suggestion at most.
        """
        check_suggestions(n, unit)
        (row,) = self._rows([stream])
        beginnings = self._reader.beginnings(self._states_of([row]))
        held = self._incoming[row].held
        return suggest(beginnings, held, n, unit=unit, max_new_tokens=max_new_tokens)

    def _rows(self, streams: Iterable[int], *, closed_too: bool = False) -> list[int]:
        rows = list(dict.fromkeys(streams))  # one that is named twice moves once
        for row in rows:
            if not isinstance(row, int) or not 0 <= row < len(self):
                raise ParameterError(
                    f"there is no stream {row!r}; the streams are 0 to {len(self) - 1}."
                )
            if self._closed[row] and not closed_too:
                raise SessionClosedError(
                    "this session is finished; begin another one, with session()."
                    if len(self) == 1
                    else f"stream {row} is finished; begin it anew with reset({row})."
                )
        return rows

    def _states_of(self, rows: list[int]) -> State:
        return self._state if len(self) == 1 else self._state.select(torch.tensor(rows))

    def _put(self, rows: list[int], state: State) -> None:
        if len(self) == 1:
            self._state = state
        else:
            self._state.put(torch.tensor(rows), state)

    def _advance(
        self, rows: list[int], fed: list[tuple[str, Incoming]], *, marks: bool = False
    ) -> dict[int, list[ScoredToken]]:
        """Score the texts that are certain now; only when all are scored do the streams move."""
        encoded = self._reader.tokenizer.encode_with_spans([text for text, _ in fed])
        texts = [ids for ids, _ in encoded]
        if marks:
            texts = [np.append(ids, np.int32(END)) for ids in texts]
        reading = [number for number, ids in enumerate(texts) if len(ids)]
        log_probs: list[list[float]] = [[] for _ in rows]
        if reading:
            moved = [rows[number] for number in reading]
            scored, after = self._reader.read(
                [texts[number] for number in reading], self._states_of(moved)
            )
            for number, found in zip(reading, scored, strict=True):
                log_probs[number] = found.tolist()
            if marks and not self._reader.carries:
                after = self._reader.fresh.repeat(len(reading))
            self._put(moved, after)
        tokens = {}
        for row, (text, rest), (_, spans), values in zip(
            rows, fed, encoded, log_probs, strict=True
        ):
            tokens[row] = list(_tokens(text, rest.position - len(text), spans.tolist(), values))
            self._incoming[row] = rest
        return tokens


class Session:
    """One stream of text, scored as it comes, in memory that doesn't grow.

    `LSTMLanguageModel.session` makes it.

    Parameters
    ----------
    reader : Reader
        The model.
    state : bytes, optional
        Where to go on from: another session's `state`.

    Examples
    --------
    >>> from lstmlm import LSTMLanguageModel
    >>> lm = LSTMLanguageModel(tokenizer="word", max_epochs=1).fit(["a b c d"] * 50)
    >>> session = lm.session()
    >>> [token.text for token in session.feed("a b")]
    ['a']
    >>> [(token.text, token.start) for token in session.end_text()]
    [('b', 2), ('', 3)]
    """

    def __init__(self, reader: Reader, state: bytes | None = None) -> None:
        self._reader = reader
        self._streams = Sessions(reader, 1)
        if state is not None:
            self._streams.reset(0, state)

    def feed(self, chunk: str | bytes) -> list[ScoredToken]:
        """Take a chunk; return the tokens that are certain now.

        Parameters
        ----------
        chunk : str or bytes
            What has come. Bytes are UTF-8, cut anywhere; what is no character of it counts as
            U+FFFD.

        Returns
        -------
        list of ScoredToken

        Raises
        ------
        SessionClosedError
            If the session was finished.
        TextTypeError
            If the chunk is neither str nor bytes.
        """
        return self._streams.feed({0: chunk})[0]

    def end_text(self) -> list[ScoredToken]:
        """End a text: score what was held back and an end mark, and go on with the next text.

        With ``context="stream"`` the state is carried on, with "document" it begins anew.

        Returns
        -------
        list of ScoredToken
            The end mark, of no characters, last.
        """
        return self._streams.end_text()[0]

    def finish(self) -> list[ScoredToken]:
        """Score what was held back, without an end mark, and close the session."""
        return self._streams.finish()[0]

    @property
    def state(self) -> bytes:
        """All there is to the session, for ``session(state)``; of a size that doesn't grow."""
        return self._streams.state(0)

    def copy(self) -> Self:
        """Return a session of its own that stands where this one does."""
        return type(self)(self._reader, self.state)

    def complete(
        self, n: int = 5, unit: Unit = "word", *, max_new_tokens: int = 100
    ) -> list[Completion]:
        """Return the n likeliest continuations, the likeliest first; the session does not move.

        Parameters
        ----------
        n : int, default 5
            How many; fewer where no more are found.
        unit : {"token", "word", "line"}, default "word"
            What to suggest; see `LSTMLanguageModel.complete`.
        max_new_tokens : int, default 100
            Tokens of a suggestion at most.
        """
        return self._streams.complete(0, n, unit, max_new_tokens=max_new_tokens)


def _checked(chunk: object) -> str | bytes:
    if isinstance(chunk, str | bytes):
        return chunk
    raise TextTypeError(f"a stream is fed str or bytes, not {type(chunk).__name__}.")


def _tokens(
    text: str, position: int, spans: list[list[int]], log_probs: list[float]
) -> Iterator[ScoredToken]:
    """Yield the tokens of a text that begins at `position`; one beyond the spans is an end mark."""
    for (start, end), log_prob in zip(spans, log_probs, strict=False):
        yield ScoredToken(text[start:end], position + start, position + end, log_prob)
    if len(log_probs) > len(spans):
        end = position + len(text)
        yield ScoredToken("", end, end, log_probs[-1])
