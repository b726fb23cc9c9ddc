"""Shards of a job: which pieces of which files are read together, in the order of the input."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lstmlm.errors import InputFileError
from lstmlm.jobs.reading import (
    DEFAULT_FIELD,
    STDIN,
    BadRow,
    Piece,
    is_json,
    is_packed,
    is_parquet,
    list_files,
    open_parquet,
    read_piece,
)
from lstmlm.jobs.settings import ScoreSettings

SHARDS = 64  # that a job has about, where neither limit of their size is met
MIN_SHARD_BYTES, MAX_SHARD_BYTES = 1 << 20, 1 << 26


@dataclass(frozen=True)
class Shard:
    """Pieces of files that are read in one go, and whose results make one file.

    Parameters
    ----------
    number : int
        Its place among all.
    pieces : tuple of Piece
        What is read, in this order.
    n_bytes : int
        How many bytes of files these are.
    """

    number: int
    pieces: tuple[Piece, ...]
    n_bytes: int


@dataclass(frozen=True)
class Input:
    """A file as it was when the job was planned.

    Parameters
    ----------
    path : str
        Its name.
    n_bytes, modified_ns : int
        Its size, and when it was last changed.
    """

    path: str
    n_bytes: int
    modified_ns: int


def list_inputs(names: Iterable[str]) -> list[Input]:
    """Return the files of a job in their order.

    Raises
    ------
    InputFileError
        If one isn't there or can't be opened.
    """
    inputs = []
    for path in [path for name in names for path in list_files(name)]:
        if path == STDIN:
            inputs.append(Input(path, 0, 0))
            continue
        try:
            with Path(path).open("rb"):
                found = Path(path).stat()
        except OSError as error:
            raise InputFileError(f"{path} can't be read: {error}.") from error
        inputs.append(Input(path, found.st_size, found.st_mtime_ns))
    return inputs


def plan_shards(inputs: list[Input], settings: ScoreSettings) -> list[Shard]:
    """Cut files into shards: of about the same number of bytes, never inside a row.

    With standard input among the files there is a single shard.

    Raises
    ------
    InputFileError
        If a Parquet file, or the first JSON row, lacks the field of the text.
    """
    size = settings.shard_bytes or _shard_bytes(sum(file.n_bytes for file in inputs))
    if any(file.path == STDIN for file in inputs):
        size = sys.maxsize
    _check_field(inputs, settings)
    shards: list[Shard] = []
    pieces: list[Piece] = []
    n_bytes = 0
    for piece, piece_bytes in _pieces(inputs, settings, size):
        if pieces and n_bytes + piece_bytes > size:
            shards.append(Shard(len(shards), tuple(pieces), n_bytes))
            pieces, n_bytes = [], 0
        pieces.append(piece)
        n_bytes += piece_bytes
    if pieces:
        shards.append(Shard(len(shards), tuple(pieces), n_bytes))
    return shards


def _shard_bytes(n_bytes: int) -> int:
    return min(max(n_bytes // SHARDS, MIN_SHARD_BYTES), MAX_SHARD_BYTES)


def _pieces(inputs: list[Input], settings: ScoreSettings, size: int) -> Iterator[tuple[Piece, int]]:
    """Yield each piece and its number of bytes."""
    for file in inputs:
        if settings.whole_files or is_packed(file.path):
            yield Piece(file.path), file.n_bytes
        elif is_parquet(file.path):
            yield from _row_groups(file, settings, size)
        else:
            for begin in range(0, max(file.n_bytes, 1), size):
                end = min(begin + size, file.n_bytes)
                yield Piece(file.path, begin, None if end == file.n_bytes else end), end - begin


def _row_groups(file: Input, settings: ScoreSettings, size: int) -> Iterator[tuple[Piece, int]]:
    """Yield runs of row groups of about `size` bytes."""
    n_groups = open_parquet(file.path, settings.field or DEFAULT_FIELD).num_row_groups
    per_piece = max(1, round(n_groups * size / max(file.n_bytes, 1)))
    for begin in range(0, n_groups, per_piece):
        end = min(begin + per_piece, n_groups)
        yield Piece(file.path, begin, end), file.n_bytes * (end - begin) // n_groups


def _check_field(inputs: list[Input], settings: ScoreSettings) -> None:
    """Raise the error of the first JSON row, if it has one: all others will have the same."""
    paths = [file.path for file in inputs]
    if settings.field is not None and not any(map(_may_have_fields, paths)):
        raise InputFileError(
            f"field={settings.field!r} names a field of JSON Lines or Parquet; of the inputs "
            f"({', '.join(paths[:3])}{', ...' * (len(paths) > 3)}) none is either."
        )
    first = next((file.path for file in inputs if is_json(file.path)), None)
    if first is None or settings.whole_files:
        return
    row = next(read_piece(Piece(first), field=settings.field), None)
    if isinstance(row, BadRow) and "has no field" in row.error:
        raise InputFileError(row.error)


def _may_have_fields(path: str) -> bool:
    return path == STDIN or is_json(path) or is_parquet(path)
