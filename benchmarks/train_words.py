"""Training on words: our speed and our perplexity beside those of a plain loop.

    python benchmarks/train_words.py --data FOLDER                    both, about 30 minutes
    python benchmarks/train_words.py --data FOLDER --only speed       some 5 minutes
    python benchmarks/train_words.py --data FOLDER --only ours --seconds 3600

FOLDER holds WikiText-2 as wikitext-2/. The loop is `word_loop`'s. Speeds are tokens a second of
training, in turns, medians, all with the same body: two layers of 200, tied, dropout 0.2, windows
of 35. Perplexities are of the test text by the literature's protocol after the same wall time: the
lines as one stream, an end mark a line, every type kept; the loop's in ten lanes, as its example
has it. Our rate of learning follows from the corpus; the loop's is the example's.
Nothing else should run on the machine.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

from corpora import READINGS, read
from tables import in_turns, machine, seconds, table
from word_loop import DROPOUT, LANES, WINDOW, WordLoop

from lstmlm import LSTMLanguageModel

Row = dict[str, object]
MANY_LANES = 64
SAME_BODY = {
    "embedding_dim": 200,
    "hidden_size": 200,
    "num_layers": 2,
    "dropout": DROPOUT,
    "dropout_input": DROPOUT,
    "bptt_length": WINDOW,
}


def our_speed(lines: list[str], duration: float, **params: object) -> float:
    """Return the tokens a second of our training, what comes before its first step not counted."""
    lm = LSTMLanguageModel(
        **READINGS["wikitext-2"].params,
        **SAME_BODY,
        **params,
        max_epochs=None,
        max_seconds=duration,
        early_stopping=False,
        random_state=0,
    ).fit(lines)
    return sum(epoch.tokens for epoch in lm.history_) / lm.history_[-1].seconds


def compare_speed(lines: list[str], args: argparse.Namespace) -> Iterator[Row]:
    """Train each for a while, in turns; yield what each reads a second."""
    duration, in_lanes = args.speed_seconds + 15, {"batch_size": LANES}
    speeds = in_turns(
        args.repeat,
        loop=lambda: WordLoop(lines).speed(args.speed_seconds),
        adaptive=lambda: our_speed(lines, duration, **in_lanes),
        exact=lambda: our_speed(lines, duration, **in_lanes, output="softmax"),
        many=lambda: our_speed(lines, duration, batch_size=MANY_LANES),
    )
    for name, what in (
        ("loop", f"plain loop, full softmax, {LANES} lanes"),
        ("adaptive", f"ours, the head that fit chooses (adaptive), {LANES} lanes"),
        ("exact", f"ours, full softmax, {LANES} lanes"),
        ("many", f"ours, the head and the {MANY_LANES} lanes that fit chooses for ten minutes"),
    ):
        ratio = speeds[name] / speeds["loop"]
        yield {"2 x 200": what, "tokens/s": f"{speeds[name]:,.0f}", "ratio": f"{ratio:.1f}"}


def our_quality(args: argparse.Namespace) -> Row:
    """Fit with the defaults; return the row of what came of it."""
    lm = LSTMLanguageModel(
        **READINGS["wikitext-2"].params, max_seconds=args.seconds, random_state=0, verbose=1
    )
    took = seconds(lambda: lm.fit(read(args.data, "wikitext-2", "train")))
    result = lm.evaluate(read(args.data, "wikitext-2", "test"))
    print({name: lm.params_[name] for name in sorted(lm.params_)})
    epochs = sum(epoch.tokens for epoch in lm.history_) / lm.history_[0].tokens
    return quality("ours, defaults", took, epochs, result.perplexity)


def loops_quality(args: argparse.Namespace) -> Row:
    """Train the loop as long; return its row."""
    train, valid, test = (read(args.data, "wikitext-2", p) for p in ("train", "valid", "test"))
    loop, epochs = WordLoop(train), 0.0

    def work() -> None:
        nonlocal epochs
        epochs = loop.fit(args.seconds, valid)

    took = seconds(work)
    return quality("plain loop, 2 x 200", took, epochs, math.exp(loop.nats(test)))


def quality(what: str, took: float, epochs: float, perplexity: float) -> Row:
    """Return a row of the table of perplexities."""
    return {
        "model": what,
        "fit, s": f"{took:.0f}",
        "epochs": f"{epochs:.2f}",
        "test perplexity": f"{perplexity:.2f}",
    }


def main() -> None:
    """Measure, and print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=("speed", "ours", "loop"))
    parser.add_argument("--seconds", type=float, default=600, help="of each training for quality")
    parser.add_argument("--speed-seconds", type=float, default=30, help="of each for speed")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    print(machine(), end="\n\n")
    if args.only in (None, "speed"):
        print(table(compare_speed(read(args.data, "wikitext-2", "train"), args)), end="\n\n")
    work = {"ours": our_quality, "loop": loops_quality}
    rows = [run(args) for name, run in work.items() if args.only in (None, name)]
    if rows:
        print(table(rows))


if __name__ == "__main__":
    main()
