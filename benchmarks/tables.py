"""What benchmarks print: Markdown tables, and the machine they were measured on."""

import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import torch


def table(rows: Iterable[dict[str, object]]) -> str:
    """Return rows of like columns as a Markdown table."""
    rows = list(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(map(str, row.values())) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def machine() -> str:
    """Describe where and with what is measured, in a line."""
    return (
        f"{date.today()}: {_processor()}, {torch.get_num_threads()} threads, {_memory()}, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.machine()


def _memory() -> str:
    facts = Path("/proc/meminfo")
    if not facts.exists():
        return "memory unknown"
    return f"{int(facts.read_text().split()[1]) / 2**20:.0f} GiB"


def in_turns(repeat: int, **work: Callable[[], float]) -> dict[str, float]:
    """Run each piece of work in turn, `repeat` times; return the median of what each answers.

    Who waits, or breaks off, sees each answer as it comes, on stderr.
    """
    answers: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeat):
        for name, run in work.items():
            answers[name].append(run())
            print(f"{turn + 1}/{repeat} {name}: {answers[name][-1]:,.6g}", file=sys.stderr)
    return {name: statistics.median(given) for name, given in answers.items()}


def seconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
