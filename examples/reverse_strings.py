"""Why attention: strings of up to 20 letters, written backwards.

All that a network without attention knows when it writes the first letter is its state, which has
to hold the whole string: with 512 units it does, for 98.6 % of unseen strings after 150 s of one
core. With attention it looks each letter up: 99.8 %.

    python examples/reverse_strings.py                  both, five minutes on two cores
"""

import argparse
import random
import string

from lstmlm import LSTMTextToText


def main() -> None:
    """Learn to reverse strings, with attention and without."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--longest", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument(
        "--epochs", type=int, help="how often to read the strings, in place of --seconds"
    )
    parser.add_argument("--only", choices=["with", "without"])
    args = parser.parse_args()

    rng = random.Random(0)

    def drawn() -> str:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, args.longest)))

    learned = [drawn() for _ in range(args.pairs)]
    unseen = [text for text in (drawn() for _ in range(1_000)) if text not in set(learned)]
    for name, attention in (("with", True), ("without", False)):
        if args.only not in (None, name):
            continue
        model = LSTMTextToText(
            tokenizer="char",
            attention=attention,
            max_epochs=args.epochs,
            max_seconds=None if args.epochs else args.seconds,
            random_state=0,
        ).fit(learned, [text[::-1] for text in learned])
        reversed_ones = model.predict(unseen)
        right = [a == text[::-1] for a, text in zip(reversed_ones, unseen, strict=True)]
        print(f"{name} attention: {sum(right) / len(right):.1%} of {len(right):,} unseen strings")
        for text, answer in list(zip(unseen, reversed_ones, strict=True))[:4]:
            print(f"  {text:{args.longest}}  {answer}")


if __name__ == "__main__":
    main()
