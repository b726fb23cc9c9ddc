"""Where results and messages go."""

import contextlib
import gzip
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lstmlm.errors import InputFileError, ParameterError
from lstmlm.jobs import STDIN
from lstmlm.text import readable

FILE_WIDTH = 10_000  # characters; no table's row is wrapped where no one looks at it


@contextlib.contextmanager
def open_output(out: str) -> Iterator[TextIO]:
    """Open standard output, or a file that appears under its name when it is complete."""
    if out == STDIN:
        yield sys.stdout
        return
    target = Path(out)
    if not out.endswith((".jsonl", ".jsonl.gz")):
        raise ParameterError(f"--out {out} must end in .jsonl or .jsonl.gz, or be - alone.")
    if not target.parent.is_dir():
        raise InputFileError(f"--out {out}: there is no folder {target.parent}.")
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    try:
        opened = gzip.open if out.endswith(".gz") else io.open
        with opened(temporary, "wt", encoding="utf-8", newline="\n") as file:
            yield file
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def counting(done: str) -> Iterator[Callable[[], None]]:
    """Show a count that grows, on standard error where that is a terminal."""
    console = errors()
    columns = (TextColumn("{task.completed:,} texts " + done), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda: progress.advance(task)


def errors() -> Console:
    """Return where messages go: standard error."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def show(*tables: Table) -> None:
    """Write tables to standard output, as wide as they are where it is no terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    # All at once at the end: rich would meet a reader who has gone with an exit of its own.
    with console.capture() as written:
        for number, shown in enumerate(tables):
            console.print(*[""] * (number > 0), shown, sep="\n")
    lines = [line.rstrip() for line in written.get().splitlines()]
    sys.stdout.write("\n".join(lines) + "\n")


def table(*headings: str, words: int = 1) -> Table:
    """Return an empty table, its first columns words and the others numbers."""
    empty = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(headings))
    for number, heading in enumerate(headings):
        if number < words:
            empty.add_column(heading, overflow="fold")
        else:
            empty.add_column(heading, justify="right", no_wrap=True)
    return empty


def finite(value: Any) -> Any:
    """Return figures as JSON can hold them: None for what is infinite or no number."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(fields: dict[str, Any]) -> str:
    """Write JSON as one reads it; escaped where it holds what UTF-8 cannot, a lone surrogate."""
    written = json.dumps(fields, ensure_ascii=False)
    return json.dumps(fields) if readable(written) != written else written
