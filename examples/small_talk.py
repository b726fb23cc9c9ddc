"""Dialogue in small: answers to greetings, questions and sums, from pairs.

The names and numbers of the test are new: with attention the model copies a name from the prompt.

    python examples/small_talk.py                       a minute and a half on two cores
"""

import argparse
import itertools
import random

from lstmlm import LSTMTextToText

STARTS = ("Ma", "Jo", "An", "Pe", "Lu", "Ka", "So", "Ti", "Ra", "El", "Be", "Ni", "Do", "Vi", "Ga")
MIDDLES = ("r", "n", "l", "s", "t", "d", "k", "m")
ENDS = ("a", "o", "in", "ie", "us", "ella", "an", "y")
COLOURS = ("red", "blue", "green", "yellow", "black", "white")
THINGS = ("car", "house", "hat", "bicycle", "door", "cup", "boat", "lamp")


def exchange(name: str, rng: random.Random) -> tuple[str, str]:
    """Return something to say, and the answer."""
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    colour, thing = rng.choice(COLOURS), rng.choice(THINGS)
    return rng.choice(
        [
            (f"Hello, I am {name}.", f"Nice to meet you, {name}!"),
            (f"My name is {name}. What is my name?", f"Your name is {name}."),
            (f"{name} says good morning.", f"Good morning, {name}."),
            (f"How much is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
            (f"{name} has a {colour} {thing}. What colour is it?", f"The {thing} is {colour}."),
            (f"I like my {colour} {thing}.", f"A {colour} {thing} suits you."),
            ("Good bye!", "See you soon."),
        ]
    )


def main() -> None:
    """Learn small talk, and talk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument(
        "--epochs", type=int, help="how often to read the pairs, in place of --seconds"
    )
    args = parser.parse_args()

    rng = random.Random(0)
    names = ["".join(parts) for parts in itertools.product(STARTS, MIDDLES, ENDS)]
    rng.shuffle(names)
    strangers, known = names[:100], names[100:]
    said, answers = zip(*(exchange(rng.choice(known), rng) for _ in range(args.pairs)), strict=True)
    model = LSTMTextToText(
        tokenizer="char",
        attention=True,
        max_epochs=args.epochs,
        max_seconds=None if args.epochs else args.seconds,
        random_state=0,
        verbose=1,
    ).fit(said, answers)

    talk = [exchange(rng.choice(strangers), rng) for _ in range(500)]
    replies = model.predict([prompt for prompt, _ in talk])
    right = [reply == due for reply, (_, due) in zip(replies, talk, strict=True)]
    print(f"right answers to strangers: {sum(right) / len(right):.1%}")
    for (prompt, _), reply in list(zip(talk, replies, strict=True))[:8]:
        print(f"  - {prompt}\n    {reply}")


if __name__ == "__main__":
    main()
