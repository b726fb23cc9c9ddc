"""Texts in files: plain lines, JSON Lines, whole files; gzip; standard input."""

import gzip
import io
import json
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lstmlm.errors import InputFileError, did_you_mean
from lstmlm.estimator import LSTMLanguageModel
from lstmlm.estimator.reading import scorer_of
from lstmlm.measures import Tally
from lstmlm.scoring import ScoredText

STDIN = "-"
JSON_SUFFIXES = (".jsonl", ".ndjson")
TEXT_SUFFIXES = (".txt", ".text", ".md")
DEFAULT_FIELD = "text"
TALLY_BATCH = 2048  # texts of a file that are read together at most


@dataclass(frozen=True)
class Row:
    """A text in a file.

    Parameters
    ----------
    text : str
        The text: a line, a row's field, or a file.
    where : str
        File and line, for messages.
    fields : dict
        Of a JSON row: all its fields.
    """

    text: str
    where: str
    fields: dict[str, Any] = field(default_factory=dict)


def read_rows(
    inputs: Iterable[str], *, field: str | None = None, whole_files: bool = False
) -> Iterator[Row]:
    r"""Read texts one by one.

    A text is a line (ended by ``\n`` or ``\r\n`` alone; a blank line is a text) or the field of
    a row of JSON Lines, by the file's ending; ``.gz`` is unpacked.

    Parameters
    ----------
    inputs : iterable of str
        Files, folders (their .txt, .text, .md, .jsonl and .ndjson files, gzipped or not, in the
        order of their names), and ``-`` for standard input.
    field : str, optional
        The field that holds the text of a JSON row, "text" by default. If it is given, standard
        input is read as JSON Lines.
    whole_files : bool
        Take each file as one text.

    Raises
    ------
    InputFileError
        If a file can't be read, is not UTF-8, or a row is no JSON object with that field.
    """
    for name in inputs:
        for path in list_files(name):
            with _opened(path) as lines:
                if whole_files:
                    yield Row(_whole(lines, path), path)
                elif _is_json(path) or (path == STDIN and field):
                    yield from _json_rows(lines, path, field or DEFAULT_FIELD)
                else:
                    yield from _line_rows(lines, path)


def score_rows(
    estimator: LSTMLanguageModel, rows: Iterable[Row], batch_size: int
) -> Iterator[tuple[ScoredText, Row]]:
    """Score rows lazily and in order, each as a document, whatever the model's context.

    Parameters
    ----------
    estimator : LSTMLanguageModel
        A fitted one.
    rows : iterable of Row
        What to score.
    batch_size : int
        Rows that are read ahead at most.

    Yields
    ------
    scored : ScoredText
    row : Row
    """
    scorer = scorer_of(estimator, stream=False)
    read: deque[Row] = deque()

    def texts() -> Iterator[str]:
        for row in rows:
            read.append(row)
            yield row.text

    for scored in scorer.pipe(texts(), batch_size):
        yield scored, read.popleft()


def tally_files(
    estimator: LSTMLanguageModel,
    inputs: Iterable[str],
    *,
    field: str | None = None,
    whole_files: bool = False,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Tally]]:
    """Add up the figures of each file; each starts from a fresh state.

    Within a file the model's own context holds: with "stream" the state goes on from text to text,
    as in `LSTMLanguageModel.evaluate`.

    Parameters
    ----------
    estimator : LSTMLanguageModel
        A fitted one.
    inputs, field, whole_files
        See `read_rows`.
    watch : callable
        Called after each text that was read.

    Yields
    ------
    path : str
        A file, or ``-`` for standard input.
    tally : Tally
        Of 0 texts where the file is empty.

    Raises
    ------
    InputFileError
        See `read_rows`; for a file that isn't there before the first is read.
    """
    stream = estimator.params_["context"] == "stream"
    scorer = scorer_of(estimator, stream=stream)

    def texts(path: str) -> Iterator[str]:
        for row in read_rows([path], field=field, whole_files=whole_files):
            yield row.text
            watch()

    for path in [path for name in inputs for path in list_files(name)]:
        yield path, scorer.tally(texts(path), TALLY_BATCH, accuracy=True)


def list_files(name: str) -> list[str]:
    """Return the files that an input of `read_rows` stands for.

    Raises
    ------
    InputFileError
        If there is nothing of that name, or a folder without files of texts.
    """
    path = Path(name)
    if name == STDIN or path.is_file():
        return [name]
    if not path.is_dir():
        raise InputFileError(f"{name}: no such file or folder.")
    found = [str(p) for p in sorted(path.rglob("*")) if p.is_file() and _is_text(p.name)]
    if not found:
        endings = ", ".join(TEXT_SUFFIXES + JSON_SUFFIXES)
        raise InputFileError(
            f"{name}: no file in this folder ends in {endings} (or these and .gz)."
        )
    return found


def _is_text(name: str) -> bool:
    return name.removesuffix(".gz").endswith(TEXT_SUFFIXES + JSON_SUFFIXES)


def _is_json(name: str) -> bool:
    return name.removesuffix(".gz").endswith(JSON_SUFFIXES)


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open a file for its bytes; its faults become InputFileError."""
    try:
        if path == STDIN:
            yield sys.stdin.buffer
        elif path.endswith(".gz"):
            with gzip.open(path, "rb") as unpacked:
                yield io.BufferedReader(unpacked)
        else:
            with Path(path).open("rb") as file:
                yield file
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, InputFileError | BrokenPipeError):
            raise
        raise InputFileError(f"{path} can't be read: {error}.") from error


def _decode(data: bytes, where: str, *, first: bool) -> str:
    try:
        return data.decode().removeprefix("\ufeff" if first else "")
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"{where} is not UTF-8 (byte {error.start} is 0x{data[error.start]:02x}); "
            "convert the file to UTF-8 first."
        ) from error


def _whole(lines: BinaryIO, path: str) -> str:
    return _decode(lines.read(), path, first=True)


def _line_rows(lines: BinaryIO, path: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        text = _decode(line, where, first=number == 1)
        yield Row(text.removesuffix("\n").removesuffix("\r"), where)


def _json_rows(lines: BinaryIO, path: str, field: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        decoded = _decode(line, where, first=number == 1)
        if not decoded.strip():
            continue
        try:
            fields = json.loads(decoded)
        except (ValueError, RecursionError) as error:
            raise InputFileError(f"{where} is not JSON: {error}.") from error
        if not isinstance(fields, dict):
            raise InputFileError(f"{where} is a {type(fields).__name__}; a JSON object is needed.")
        if field not in fields:
            raise InputFileError(
                f"{where} has no field {field!r}; it has {', '.join(map(repr, fields)) or 'none'}. "
                "Name the field of the text with --field." + did_you_mean(field, fields)
            )
        if not isinstance(fields[field], str):
            kind = type(fields[field]).__name__
            raise InputFileError(f"{where}: the field {field!r} is a {kind}; a string is needed.")
        yield Row(fields[field], where, fields)
