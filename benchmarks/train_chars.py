"""Training on characters: what minutes buy, beside a plain loop and an n-gram model.

    python benchmarks/train_chars.py --data FOLDER                          some 45 minutes
    python benchmarks/train_chars.py --data FOLDER --corpora tang-poems --only ours

FOLDER holds tinyshakespeare/ and tang-poems/. Ours has all defaults but the tokenizer ("char") and
tinyshakespeare's context ("stream"); the loop is `char_loop`'s and gets the same wall time; the
n-gram model is `kneser_ney`'s, of order 5, every poem a sentence. Shakespeare's last tenth (valid
and test together) is nanoGPT's own held-out split, on which its README reports 1.88 nats after
three minutes on a CPU and 1.47 on a GPU. Nothing else should run on the machine.
"""

import argparse
import math
from pathlib import Path

from char_loop import CharLoop
from corpora import READINGS, read
from kneser_ney import KneserNey
from tables import machine, seconds, table

from lstmlm import LSTMLanguageModel

Row = dict[str, object]
CORPORA = ("tinyshakespeare", "tang-poems")


def heldout(data: Path, corpus: str) -> dict[str, list[str]]:
    """Return the texts that are scored, by their names in the table."""
    test = read(data, corpus, "test")
    if corpus != "tinyshakespeare":
        return {"test": test}
    return {"test": test, "last tenth": ["".join(read(data, corpus, "valid") + test)]}


def ours(corpus: str, args: argparse.Namespace) -> Row:
    """Fit with the defaults and score."""
    params = READINGS[corpus].params
    lm = LSTMLanguageModel(**params, max_seconds=args.seconds, random_state=0, verbose=1)
    took = seconds(lambda: lm.fit(read(args.data, corpus, "train")))
    print({name: lm.params_[name] for name in sorted(lm.params_)})
    trained = sum(epoch.tokens for epoch in lm.history_)
    texts = heldout(args.data, corpus)
    losses = {name: math.log(lm.perplexity(text)) for name, text in texts.items()}
    return row(corpus, "ours, defaults", took, trained / lm.history_[-1].seconds, losses)


def loop(corpus: str, args: argparse.Namespace) -> Row:
    """Train the plain loop as long and score."""
    peer = CharLoop(read(args.data, corpus, "train"))
    speed = peer.fit(args.seconds)
    losses = {name: peer.nats(text) for name, text in heldout(args.data, corpus).items()}
    return row(corpus, "plain loop", args.seconds, speed, losses)


def n_gram(corpus: str, args: argparse.Namespace) -> Row:
    """Count n-grams and score."""
    train = read(args.data, corpus, "train")
    models: list[KneserNey] = []
    took = seconds(lambda: models.append(KneserNey(train)))
    losses = {name: models[0].nats(text) for name, text in heldout(args.data, corpus).items()}
    return row(corpus, "modified Kneser-Ney, order 5", took, None, losses)


def row(corpus: str, model: str, took: float, speed: float | None, losses: dict[str, float]) -> Row:
    """Return a row of the table."""
    test, tenth = losses["test"], losses.get("last tenth")
    return {
        "corpus": corpus,
        "model": model,
        "fit, s": f"{took:.0f}",
        "characters/s": "" if speed is None else f"{speed:,.0f}",
        "test, nats": f"{test:.4f}",
        "test, bits": f"{test / math.log(2):.3f}",
        "last tenth, nats": "" if tenth is None else f"{tenth:.4f}",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpora", nargs="*", choices=CORPORA, default=CORPORA)
    parser.add_argument("--only", choices=("ours", "loop", "n-gram"))
    parser.add_argument("--seconds", type=float, default=600, help="of each training")
    args = parser.parse_args()
    work = {"ours": ours, "loop": loop, "n-gram": n_gram}
    print(machine(), end="\n\n")
    print(
        table(
            [
                run(corpus, args)
                for corpus in args.corpora
                for name, run in work.items()
                if args.only in (None, name)
            ]
        )
    )


if __name__ == "__main__":
    main()
