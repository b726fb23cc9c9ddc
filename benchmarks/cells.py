"""The recurrent cells beside each other: speed, and perplexity for the same time or the same text.

    python benchmarks/cells.py --data FOLDER --out RATES.jsonl --epochs 1 --lines 18000
    python benchmarks/cells.py --data FOLDER --out CELLS.jsonl --seconds 300 --best RATES.jsonl

FOLDER holds WikiText-2 as wikitext-2/, with train.txt, valid.txt and test.txt. Words, one stream,
the defaults but for cell and learning rate; all cells have the same hidden size.

The first command tries each cell with each learning rate on the text's first lines and shows the
held-out perplexity. It ends after an epoch, not after a time, so that the machine may do other work
meanwhile. The second trains each cell at its best rate and scores the test text; nothing else
should run. Rows are added to --out as JSON Lines; runs that are there already are left out.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lstmlm import LSTMLanguageModel

CELLS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "peephole_lstm, diagonal": {"cell": "peephole_lstm"},
    "peephole_lstm, full": {"cell": "peephole_lstm", "peephole": "full"},
}


def lines(path: Path) -> list[str]:
    """Return a file's lines."""
    return path.read_text("utf-8").removesuffix("\n").split("\n")


def runs(args: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Yield cells and learning rates: each with each, or each cell with its best of a file."""
    if args.best is None:
        yield from ((cell, rate) for rate in args.rates for cell in args.cells)
        return
    tried = [json.loads(line) for line in lines(args.best)]
    for cell in args.cells:
        of_cell = [row for row in tried if row["cell"] == cell]
        yield cell, min(of_cell, key=lambda row: row["held-out perplexity"])["learning rate"]


def measure(cell: str, rate: float, args: argparse.Namespace) -> dict[str, Any]:
    """Train one model; score the test text only where the rate is no longer chosen."""
    folder = args.data / "wikitext-2"
    lm = LSTMLanguageModel(
        tokenizer="word",
        context="stream",
        learning_rate=rate,
        max_epochs=args.epochs or "auto",
        max_seconds=args.seconds,
        random_state=0,
        **CELLS[cell],
    )
    lm.fit(lines(folder / "train.txt")[: args.lines], validation=lines(folder / "valid.txt"))
    trained = sum(epoch.tokens for epoch in lm.history_)
    row: dict[str, Any] = {
        "cell": cell,
        "learning rate": rate,
        "hidden size": lm.params_["hidden_size"],
        "parameters": sum(parameter.numel() for parameter in lm.module_.parameters()),
        "epochs": args.epochs,
        "seconds": args.seconds,
        "tokens": trained,
        "tokens/s": round(trained / lm.history_[-1].seconds),
        "held-out perplexity": round(math.exp(min(e.heldout_loss for e in lm.history_)), 2),
    }
    if args.best is not None:
        test = lines(folder / "test.txt")
        began = time.perf_counter()
        row["test perplexity"] = round(lm.perplexity(test), 2)
        n_tokens = sum(len(line.split()) + 1 for line in test)
        row["scoring, tokens/s"] = round(n_tokens / (time.perf_counter() - began))
    return row


def main() -> None:
    """Run what has not been run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=CELLS)
    parser.add_argument("--rates", nargs="*", type=float, default=[2e-3, 4e-3, 8e-3])
    parser.add_argument("--lines", type=int, help="of the training text; else all")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--best", type=Path, help="rows of a run that tried several rates")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    done = [json.loads(line) for line in lines(args.out)] if args.out.exists() else []
    for cell, rate in runs(args):
        if any(row["cell"] == cell and row["learning rate"] == rate for row in done):
            continue
        row = measure(cell, rate, args)
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(" | ".join(map(str, row.values())), flush=True)


if __name__ == "__main__":
    main()
