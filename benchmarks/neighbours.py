"""Whether the defaults need tuning: each setting halved and doubled, on four corpora.

    python benchmarks/neighbours.py --data FOLDER --out NEIGHBOURS.jsonl --seconds 150

FOLDER holds the corpora (see `corpora`); the fourth is the first 100 KB of tinyshakespeare's text.
For each corpus the defaults are fitted, and what `fit` chose of learning rate, hidden size, dropout
(both kinds) and lanes is halved and doubled, one at a time; all are scored on the same test text. A
neighbour's gain is how much smaller its cross-entropy is. Runs are added to --out as they end, and
those that are there already are left out, so that the whole, 36 runs, can be broken off.

With --side-by-side 2 two fits run at a time, each with half of the threads; nothing else should.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from corpora import READINGS, read
from tables import machine, table

CORPORA = ("shakespeare-100k", "tinyshakespeare", "tang-poems", "wikitext-2")
CHANGED = {
    "learning_rate": ("learning_rate",),
    "hidden_size": ("hidden_size",),
    "dropout": ("dropout", "dropout_input"),
    "batch_size": ("batch_size",),
}
FACTORS = (0.5, 2.0)


def texts(data: Path, corpus: str, part: str) -> list[str]:
    """Return a corpus's texts."""
    if corpus != "shakespeare-100k":
        return read(data, corpus, part)
    whole = read(data, "tinyshakespeare", part)
    return [whole[0][:100_000]] if part == "train" else whole


def params_of(corpus: str) -> dict[str, Any]:
    """Return what the model is told of a corpus."""
    return READINGS["tinyshakespeare" if corpus == "shakespeare-100k" else corpus].params


def changed(settled: dict[str, Any], name: str, factor: float) -> dict[str, Any]:
    """Return settings as `fit` chose them, one of them times `factor`."""
    return {
        parameter: min(value * factor, 0.9)
        if isinstance(value, float)
        else max(1, int(value * factor))
        for parameter in CHANGED[name]
        for value in [settled[parameter]]
    }


def fit_and_score(
    data: Path, corpus: str, seconds: float, params: dict[str, Any]
) -> dict[str, Any]:
    """Fit once; return the test's cross-entropy and what the settings became."""
    from lstmlm import LSTMLanguageModel  # in the child alone, whose threads are set

    lm = LSTMLanguageModel(**params_of(corpus) | params, max_seconds=seconds, random_state=0).fit(
        texts(data, corpus, "train")
    )
    settled = {name: lm.params_[name] for names in CHANGED.values() for name in names}
    return {
        "nats": math.log(lm.perplexity(texts(data, corpus, "test"))),
        "tokens": sum(e.tokens for e in lm.history_),
        "settled": settled,
    }


def in_child(args: argparse.Namespace, corpus: str, name: str, params: dict[str, Any]) -> None:
    """Fit in a process of its own, and add the result to the file."""
    threads = max(1, (os.cpu_count() or 1) // args.side_by_side)
    command = [sys.executable, __file__, "--data", args.data, "--seconds", args.seconds]
    command += ["--one", json.dumps({"corpus": corpus, "params": params})]
    done = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=True,
    )
    row = {"corpus": corpus, "run": name} | json.loads(done.stdout.splitlines()[-1])
    with args.out.open("a") as file:
        file.write(json.dumps(row) + "\n")


def results(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what a file holds, by corpus and run."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {(row["corpus"], row["run"]): row for row in map(json.loads, lines)}


def run_all(args: argparse.Namespace) -> None:
    """Run what isn't there yet: the defaults of all corpora first, as the others follow them."""
    with ThreadPoolExecutor(args.side_by_side) as pool:
        done = results(args.out)
        todo = [(c, "defaults", {}) for c in args.corpora if (c, "defaults") not in done]
        list(pool.map(lambda job: in_child(args, *job), todo))
        done = results(args.out)
        todo = [
            (
                corpus,
                f"{name} x {factor:g}",
                changed(done[corpus, "defaults"]["settled"], name, factor),
            )
            for corpus in args.corpora
            for name in CHANGED
            for factor in FACTORS
        ]
        list(pool.map(lambda job: in_child(args, *job), [j for j in todo if j[:2] not in done]))


def show(args: argparse.Namespace) -> None:
    """Print the table of all runs, and the largest gain of a neighbour."""
    done, rows, gains = results(args.out), [], []
    for (corpus, run), row in sorted(done.items()):
        gain = 1 - row["nats"] / done[corpus, "defaults"]["nats"]
        gains.append((gain, f"{corpus}, {run}"))
        rows.append(
            {
                "corpus": corpus,
                "run": run,
                **row["settled"],
                "tokens": f"{row['tokens']:,}",
                "test, nats": f"{row['nats']:.4f}",
                "gain": f"{gain:+.1%}",
            }
        )
    print(table(rows))
    print("\nLargest gain of a neighbour: {:.1%} ({})".format(*max(gains)))


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("neighbours.jsonl"))
    parser.add_argument("--seconds", type=float, default=150, help="of each fit")
    parser.add_argument("--corpora", nargs="*", choices=CORPORA, default=CORPORA)
    parser.add_argument("--side-by-side", type=int, default=1)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        done = fit_and_score(args.data, args.one["corpus"], args.seconds, args.one["params"])
        print(json.dumps(done))
        return
    print(f"{machine()}; {args.seconds:g} s a fit, {args.side_by_side} side by side", end="\n\n")
    run_all(args)
    show(args)


if __name__ == "__main__":
    main()
