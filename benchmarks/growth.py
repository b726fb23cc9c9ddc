"""How time and memory grow with the work.

    python benchmarks/growth.py --data FOLDER --out GROWTH.jsonl --plot growth.png

FOLDER holds WikiText-2 as wikitext-2/. `fit` (one epoch), `score_samples` and `pipe` are run on

- 1, 10 and 30 MB of text (WikiText's lines, again from the start where they end; bpe of 8,192 ids
  and 256 units, which by the rules would grow with the text),
- vocabularies of 1,000, 10,000 and 100,000 words (2 MB of words drawn by Zipf's law),
- hidden sizes of 128, 256, 512 and 1,024 (1 MB of the lines),
- texts of 10 to 100,000 words (1 MB of WikiText's words, cut otherwise),

each case in a process of its own. Cases are added to --out as they end, and those that are there
already are left out, so that the whole can be broken off. A case's memory is the largest resident
size of its process less what it held before its work began. The exponent is that of the power law
between the least and the most work: 1 is linear. Nothing else should run on the machine.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from corpora import read
from tables import machine, table

MB = 1_000_000
CASES: dict[str, tuple[int, ...]] = {
    "corpus, MB": (1, 10, 30),
    "vocabulary": (1_000, 10_000, 100_000),
    "hidden size": (128, 256, 512, 1_024),
    "text length, words": (10, 100, 1_000, 10_000, 100_000),
}
WORK = ("fit", "score_samples", "pipe")


def lines_of(data: Path, n_bytes: float) -> list[str]:
    """Return WikiText's lines, again and again, up to a size."""
    lines, size = [], 0
    for line in cycle(line for line in read(data, "wikitext-2", "train") if line.strip()):
        lines.append(line)
        size += len(line.encode()) + 1
        if size >= n_bytes:
            return lines
    raise AssertionError


def zipf_lines(vocab_size: int, n_bytes: int) -> list[str]:
    """Return lines of 30 words drawn by Zipf's law from as many, each of which occurs."""
    import numpy as np

    rng, n_words = np.random.default_rng(0), max(n_bytes // 7, 2 * vocab_size)
    shares = 1 / np.arange(1, vocab_size + 1)
    drawn = rng.choice(vocab_size, n_words - vocab_size, p=shares / shares.sum())
    words = [f"w{k}" for k in rng.permutation(np.concatenate([drawn, np.arange(vocab_size)]))]
    return [" ".join(words[i : i + 30]) for i in range(0, len(words), 30)]


def case(data: Path, kind: str, value: int) -> tuple[list[str], dict[str, Any]]:
    """Return a case's texts and parameters."""
    params: dict[str, Any] = {"max_epochs": 1, "random_state": 0, "early_stopping": False}
    if kind == "corpus, MB":
        return lines_of(data, value * MB), params | {"vocab_size": 8_192, "hidden_size": 256}
    if kind == "vocabulary":
        return zipf_lines(value, 2 * MB), params | {"tokenizer": "word", "min_frequency": 1}
    if kind == "hidden size":
        return lines_of(data, MB), params | {"hidden_size": value}
    words = iter(" ".join(lines_of(data, MB)).split())
    texts = list(iter(lambda: " ".join(islice(words, value)), ""))
    return texts, params


def peak() -> float:
    """Return the largest resident size so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def measure(data: Path, kind: str, value: int, work: str, folder: Path) -> dict[str, float]:
    """Run a case's fit, or score with the model that it left; return its time and memory."""
    from lstmlm import LSTMLanguageModel

    texts, params = case(data, kind, value)
    model = folder / "model"
    lm = LSTMLanguageModel(**params) if work == "fit" else LSTMLanguageModel.load(model)
    before, began = peak(), time.perf_counter()
    if work == "fit":
        lm.fit(texts)
    elif work == "pipe":
        for _ in lm.pipe(iter(texts)):
            pass
    else:
        lm.score_samples(texts)
    figures = {"seconds": time.perf_counter() - began, "MB": peak() - before}
    if work == "fit":
        lm.save(model)
    return figures


def run(data: Path, kind: str, value: int) -> Iterator[dict[str, Any]]:
    """Run a case's work, each piece in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for work in WORK:
            facts = json.dumps([kind, value, work, folder])
            command = [sys.executable, __file__, "--data", str(data), "--one", facts]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = {"kind": kind, "value": value, "work": work}
            yield row | json.loads(done.stdout.splitlines()[-1])


def run_missing(data: Path, kinds: list[str], out: Path) -> list[dict[str, Any]]:
    """Run the cases that a file doesn't hold yet; return all that it then holds."""
    lines = out.read_text().splitlines() if out.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    done = {(row["kind"], row["value"]) for row in rows}
    wanted = {(kind, value) for kind in kinds for value in CASES[kind]}
    for kind_and_value in sorted(wanted - done):
        of_case = list(run(data, *kind_and_value))
        with out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in of_case)
        rows += of_case
    return rows


def summary(rows: list[dict[str, Any]]) -> Iterator[dict[str, object]]:
    """Yield a line a kind and piece of work: figures, and the exponents of their growth."""
    for kind, values in CASES.items():
        for work in WORK:
            of = {r["value"]: r for r in rows if (r["kind"], r["work"]) == (kind, work)}
            if not of:
                continue
            first, last = of[min(of)], of[max(of)]
            ratio = math.log(max(of) / min(of))
            yield {
                "against": kind,
                "work": work,
                "values": ", ".join(f"{v:,}" for v in values if v in of),
                "seconds": ", ".join(f"{of[v]['seconds']:.1f}" for v in of),
                "exponent": f"{math.log(last['seconds'] / first['seconds']) / ratio:.2f}",
                "MB": ", ".join(f"{of[v]['MB']:.0f}" for v in of),
            }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds and memory against each kind of work."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    figure, axes = plt.subplots(2, len(CASES), figsize=(4 * len(CASES), 6), layout="constrained")
    for column, (kind, values) in enumerate(CASES.items()):
        for work in WORK:
            of = [r for r in rows if (r["kind"], r["work"]) == (kind, work)]
            for ax, unit in zip(axes[:, column], ("seconds", "MB"), strict=True):
                ax.loglog(
                    [r["value"] for r in of], [max(r[unit], 1e-2) for r in of], "o-", label=work
                )
                ax.set(xlabel=kind, ylabel=unit)
                ax.grid(visible=True, alpha=0.3)
        for ax in axes[:, column]:
            ax.set_xticks(values, [f"{value:,}" for value in values])
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(ScalarFormatter())
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_locator(NullLocator())
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run all cases, print and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kinds", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("growth.jsonl"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, value, work, folder = args.one
        print(json.dumps(measure(args.data, kind, value, work, Path(folder))))
        return
    rows = run_missing(args.data, args.kinds, args.out)
    print(machine(), end="\n\n")
    print(table(summary(rows)))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
