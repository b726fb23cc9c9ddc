"""Headlines: the section of the Python reference that a paragraph is from.

Prompts are paragraphs, completions the titles of the sections that they stand in. Of paragraphs
that were held out, the right title is asked for among all titles, ranked by probability, and
written freely; beside it stands the guess of the commonest title.

    python examples/headlines.py                        English that ships with Python, a minute
"""

import argparse
import random
import re
from collections import Counter
from pydoc_data.topics import topics

from lstmlm import LSTMTextToText


def paragraphs() -> list[tuple[str, str]]:
    """Return paragraphs with the titles of their sections."""
    found = []
    for topic in topics.values():
        title = ""
        blocks = topic.split("\n\n")
        for block in blocks:
            lines = block.splitlines()
            heading = re.fullmatch(r"(\S.*)\n[*=\-^~]{3,}", block.strip())
            if heading:
                title = heading[1].strip()
            elif title and len(block) >= 60 and lines[0][:1].isalpha():
                found.append((" ".join(block.split())[:300], title))
    common = Counter(title for _, title in set(found))
    return sorted(pair for pair in set(found) if common[pair[1]] >= 4)


def main() -> None:
    """Learn titles, and give some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument(
        "--epochs", type=int, help="how often to read the paragraphs, in place of --seconds"
    )
    parser.add_argument(
        "--most", type=int, default=100_000, help="paragraphs to learn from at most"
    )
    args = parser.parse_args()

    pairs = paragraphs()
    random.Random(0).shuffle(pairs)
    test, train = pairs[: len(pairs) // 8][:100], pairs[len(pairs) // 8 :][: args.most]
    model = LSTMTextToText(
        attention=True,
        max_epochs=args.epochs,
        max_seconds=None if args.epochs else args.seconds,
        random_state=0,
        verbose=1,
    ).fit(*zip(*train, strict=True))

    titles = list(Counter(title for _, title in train))
    commonest = Counter(title for _, title in train).most_common(1)[0][0]
    options = {"choices": titles, "do_sample": False}
    chosen = [model.generate([text], **options)[0] for text, _ in test]
    print(f"{len(train):,} paragraphs to learn from, {len(titles)} titles")
    for name, given in (
        ("the commonest title", [commonest] * len(test)),
        ("the likeliest title", chosen),
        ("written freely", list(model.predict([text for text, _ in test]))),
    ):
        right = sum(a == title for a, (_, title) in zip(given, test, strict=True))
        print(f"{name}: right for {right / len(test):.0%}")
    for (text, title), guess in list(zip(test, chosen, strict=True))[:4]:
        print(f"\n  {text[:90]} ...\n  {guess}   (it was: {title})")


if __name__ == "__main__":
    main()
