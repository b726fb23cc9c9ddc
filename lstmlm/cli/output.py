"""Where results and messages go."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lstmlm import jobs

FILE_WIDTH = 10_000  # characters; no table's row is wrapped where no one looks at it


@contextlib.contextmanager
def counting(done: str) -> Iterator[Callable[[], None]]:
    """Show a count that grows, on standard error where that is a terminal."""
    console = errors()
    columns = (TextColumn("{task.completed:,} texts " + done), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def bytes_done() -> Iterator[Callable[[jobs.Progress], None]]:
    """Show a bar of the bytes that a job has read, and the time left."""
    console = errors()
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda at: progress.update(task, total=at.bytes_in_all, completed=at.bytes_done)


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
