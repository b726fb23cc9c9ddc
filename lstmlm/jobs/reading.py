"""Texts in files: plain lines, JSON Lines, Parquet, whole files; gzip, zstd; standard input."""

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO

from lstmlm.errors import InputFileError, MissingExtraError, did_you_mean

STDIN = "-"
JSON_SUFFIXES = (".jsonl", ".ndjson")
TEXT_SUFFIXES = (".txt", ".text", ".md")
PARQUET_SUFFIX = ".parquet"
PACKED_SUFFIXES = (".gz", ".zst")
DEFAULT_FIELD = "text"
MAX_ROW_BYTES = 1 << 24  # of a line; what is longer is hardly a text, and no row is read in parts
PARQUET_ROWS = 1024  # that are read at a time


@dataclass(frozen=True, slots=True)
class Row:
    """A text in a file.

    Parameters
    ----------
    text : str
        The text: a line, a row's field, or a file.
    where : str
        File and line, for messages.
    fields : dict
        Of a JSON or Parquet row: all its fields.
    """

    text: str
    where: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadRow:
    """What stands in a file in place of a text, or of the rest of the file.

    Parameters
    ----------
    file : str
        The file.
    at : int or None
        Where in it: the byte (of a packed file's content) or the Parquet row; None for a file that
        can't be read on.
    error : str
        What is wrong, with file and line.
    """

    file: str
    at: int | None
    error: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file: its rows that begin in a range of bytes, or of Parquet's row groups.

    Parameters
    ----------
    path : str
        The file.
    begin, end : int
        The range; `end` is None for the file's end.
    """

    path: str
    begin: int = 0
    end: int | None = None


def read_rows(
    inputs: Iterable[str], *, field: str | None = None, whole_files: bool = False
) -> Iterator[Row]:
    r"""Read texts one by one.

    A text is a line (ended by ``\n`` or ``\r\n`` alone; a blank line is a text) or the field of
    a row of JSON Lines or Parquet, by the file's ending; ``.gz`` and ``.zst`` are unpacked.

    Parameters
    ----------
    inputs : iterable of str
        Files, folders (their .txt, .text, .md, .jsonl, .ndjson and .parquet files, packed or not,
        in the order of their names), patterns such as ``logs/*.txt``, and ``-`` for standard input.
    field : str, optional
        The field that holds the text of a JSON or Parquet row, "text" by default. If it is given,
        standard input is read as JSON Lines.
    whole_files : bool
        Take each file as one text.

    Raises
    ------
    InputFileError
        If a file can't be read, is not UTF-8, or a row is no object with that field.
    """
    for name in inputs:
        for path in list_files(name):
            for row in read_piece(Piece(path), field=field, whole_files=whole_files):
                if isinstance(row, BadRow):
                    raise InputFileError(row.error)
                yield row


def read_piece(
    piece: Piece, *, field: str | None = None, whole_files: bool = False
) -> Iterator[Row | BadRow]:
    """Read the rows of a piece, good and bad.

    Raises
    ------
    InputFileError
        If the file can't be read, or not to its end.
    """
    path = piece.path
    if is_parquet(path) and not whole_files:
        yield from _parquet_rows(piece, field or DEFAULT_FIELD)
        return
    with _opened(path) as file:
        if whole_files:
            yield _whole(file, path)
        elif is_json(path) or (path == STDIN and field):
            for row in _lines(file, piece):
                if isinstance(row, BadRow):
                    yield row
                elif row.text.strip():
                    yield _json_row(row, piece.path, field or DEFAULT_FIELD)
        else:
            for row in _lines(file, piece):
                yield row if isinstance(row, BadRow) else Row(row.text, row.where)


def list_files(name: str) -> list[str]:
    """Return the files that an input of `read_rows` stands for.

    Raises
    ------
    InputFileError
        If there is nothing of that name, or a folder without files of texts.
    """
    path = Path(name)
    if name == STDIN or _is_file(name):
        return [name]
    if "\0" not in name and path.is_dir():
        found = [str(p) for p in sorted(path.rglob("*")) if p.is_file() and _is_text(p.name)]
        if not found:
            endings = ", ".join((*TEXT_SUFFIXES, *JSON_SUFFIXES, PARQUET_SUFFIX))
            raise InputFileError(
                f"{name}: no file in this folder ends in {endings} (or these and .gz or .zst)."
            )
        return found
    matching = [] if "\0" in name else sorted(filter(_is_file, _glob(name)))
    if not matching:
        raise InputFileError(f"{name}: no such file or folder.")
    return matching


def is_packed(path: str) -> bool:
    """Return whether a file can only be read from its beginning."""
    return path.endswith(PACKED_SUFFIXES)


def is_parquet(path: str) -> bool:
    """Return whether a file is of Parquet, by its ending."""
    return path.endswith(PARQUET_SUFFIX)


def is_json(path: str) -> bool:
    """Return whether a file is of JSON Lines, by its ending."""
    return _unpacked(path).endswith(JSON_SUFFIXES)


def _glob(pattern: str) -> list[str]:
    return glob(pattern, recursive=True)  # noqa: PTH207 -- pathlib's knows no absolute patterns


def _is_file(name: str) -> bool:
    return "\0" not in name and Path(name).is_file()


def _is_text(name: str) -> bool:
    return _unpacked(name).endswith(TEXT_SUFFIXES + JSON_SUFFIXES) or is_parquet(name)


def _unpacked(name: str) -> str:
    for suffix in PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open a file for its bytes; its faults become InputFileError."""
    faults: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    try:
        if path == STDIN:
            yield sys.stdin.buffer
        elif path.endswith(".gz"):
            with gzip.open(path, "rb") as unpacked:
                yield io.BufferedReader(unpacked)
        elif path.endswith(".zst"):
            zstd = _zstandard()
            faults = (*faults, zstd.ZstdError)
            with (
                Path(path).open("rb") as file,
                zstd.ZstdDecompressor().stream_reader(file, read_across_frames=True) as unpacked,
            ):
                yield io.BufferedReader(unpacked)
        else:
            with Path(path).open("rb") as file:
                yield file
    except faults as error:
        if isinstance(error, InputFileError | BrokenPipeError | MissingExtraError):
            raise
        raise InputFileError(f"{path} can't be read: {error}.") from error


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError(
            "reading .zst files needs zstandard: pip install 'lstmlm[batch]'."
        ) from error
    return zstandard


def parquet() -> Any:
    """Return pyarrow's module of Parquet.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files need pyarrow: pip install 'lstmlm[batch]'."
        ) from error
    return pyarrow.parquet


@dataclass(frozen=True, slots=True)
class _Line:
    """A line: its text, where it is for messages, and its first byte."""

    text: str
    where: str
    at: int


def _lines(file: BinaryIO, piece: Piece) -> Iterator[_Line | BadRow]:
    """Read the lines that begin in a piece."""
    at = piece.begin
    if at:
        file.seek(at - 1)
        at += _pass_over(file) - 1  # a line that began before
    number = 0
    while piece.end is None or at < piece.end:
        line = file.readline(MAX_ROW_BYTES + 1)
        if not line:
            return
        number += 1
        where = f"{piece.path}:{number}" if not piece.begin else f"{piece.path}, byte {at}"
        begin, at = at, at + len(line)
        if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            at += _pass_over(file)
            limit = MAX_ROW_BYTES >> 20
            error = f"{where} has {at - begin:,} bytes; a row may have {limit} MiB at most."
            yield BadRow(piece.path, begin, error)
            continue
        try:
            text = _decode(line, where, first=begin == 0)
        except InputFileError as error:
            yield BadRow(piece.path, begin, str(error))
        else:
            yield _Line(text.removesuffix("\n").removesuffix("\r"), where, begin)


def _pass_over(file: BinaryIO) -> int:
    """Read to the end of the line; return its length."""
    length = 0
    while part := file.readline(MAX_ROW_BYTES):
        length += len(part)
        if part.endswith(b"\n"):
            break
    return length


def _decode(data: bytes, where: str, *, first: bool) -> str:
    try:
        return data.decode().removeprefix("\ufeff" if first else "")
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"{where} is not UTF-8 (byte {error.start} is 0x{data[error.start]:02x}); "
            "convert the file to UTF-8 first."
        ) from error


def _whole(file: BinaryIO, path: str) -> Row | BadRow:
    try:
        return Row(_decode(file.read(), path, first=True), path)
    except InputFileError as error:
        return BadRow(path, None, str(error))


def _json_row(line: _Line, path: str, field: str) -> Row | BadRow:
    where = line.where
    try:
        fields = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        return BadRow(path, line.at, f"{where} is not JSON: {error}.")
    if not isinstance(fields, dict):
        found = type(fields).__name__
        return BadRow(path, line.at, f"{where} is a {found}; a JSON object is needed.")
    if field not in fields:
        return BadRow(path, line.at, no_field(where, field, fields))
    return _row_of(fields, field, where, path, line.at)


def _row_of(fields: dict[str, Any], field: str, where: str, path: str, at: int) -> Row | BadRow:
    if isinstance(fields[field], str):
        return Row(fields[field], where, fields)
    found = type(fields[field]).__name__
    error = f"{where}: the field {field!r} is a {found}; a string is needed."
    return BadRow(path, at, error)


def no_field(where: str, field: str, fields: Iterable[str]) -> str:
    """Say that a row has no field of that name."""
    names = list(fields)
    return (
        f"{where} has no field {field!r}; it has {', '.join(map(repr, names)) or 'none'}. "
        "Name the field of the text with --field." + did_you_mean(field, names)
    )


def _parquet_rows(piece: Piece, field: str) -> Iterator[Row | BadRow]:
    """Read the rows of some row groups."""
    file = open_parquet(piece.path, field)
    groups = range(piece.begin, file.num_row_groups if piece.end is None else piece.end)
    number = sum(file.metadata.row_group(i).num_rows for i in range(piece.begin))
    try:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS, row_groups=list(groups)):
            for fields in batch.to_pylist():
                number += 1
                where = f"{piece.path}, row {number}"
                yield _row_of(fields, field, where, piece.path, number)
    except (OSError, ValueError) as error:  # pyarrow's own are these
        raise InputFileError(f"{piece.path} can't be read: {error}.") from error


def open_parquet(path: str, field: str) -> Any:
    """Open a Parquet file that has a column of texts.

    Raises
    ------
    InputFileError
        If it can't be read, or has no such column.
    """
    try:
        file = parquet().ParquetFile(path)
    except (OSError, ValueError) as error:
        if isinstance(error, MissingExtraError):
            raise
        raise InputFileError(f"{path} can't be read: {error}.") from error
    names = file.schema_arrow.names
    if field not in names:
        raise InputFileError(no_field(path, field, names))
    return file
