"""Corpus filtering: find the lines of a crawl that are not the language that you want.

Into English lines, dirt is mixed of the kinds that web text has: words in random order, text read
wrongly from pictures, markup, lists of keywords. A language model knows other, clean lines alone,
and its `PerplexityDetector` ranks the mixed ones; so does a baseline that knows the lengths of the
clean lines and the shares of their kinds of characters.

    python examples/filter_corpus.py                    English that ships with Python, a minute
    python examples/filter_corpus.py --text FILE        your own lines
"""

import argparse
import random
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from lstmlm import LSTMLanguageModel, PerplexityDetector

KINDS = (str.isalpha, str.isupper, str.isdigit, str.isspace)


def clean_lines(path: Path | None) -> list[str]:
    """Return sentences of at least six words."""
    text = "\n\n".join(topics.values()) if path is None else path.read_text("utf-8")
    paragraphs = text.split("\n\n" if path is None else "\n")
    sentences = [" ".join(s.split()) for p in paragraphs for s in re.split(r"(?<=[.!?])\s", p)]
    return [s for s in dict.fromkeys(sentences) if len(s.split()) >= 6 and s[0].isalpha()]


def shuffled(line: str, rng: random.Random) -> str:
    """Put the words in another order: only their sequence is wrong."""
    words = line.split()
    rng.shuffle(words)
    return " ".join(words)


def misread(line: str, rng: random.Random) -> str:
    """Exchange one letter in six, as poor reading of pictures does."""
    letters = string.ascii_lowercase
    return "".join(rng.choice(letters) if c.isalpha() and rng.random() < 1 / 6 else c for c in line)


def markup(line: str, rng: random.Random) -> str:
    """Make markup of some of the words."""
    tags = ("div", "span", "td", "a href=x1")
    return "".join(f"<{rng.choice(tags)}>{word}</>" for word in line.split()[:8])


def keywords(line: str, rng: random.Random) -> str:
    """Make a list of the longer words, as pages that want to be found have."""
    words = [word.strip(".,:;()") for word in line.split() if len(word) > 4] or ["cheap"]
    return ", ".join(rng.choice(words) for _ in range(len(line.split())))


DIRT: dict[str, Callable[[str, random.Random], str]] = {
    "words in random order": shuffled,
    "misread letters": misread,
    "markup": markup,
    "keywords": keywords,
}


def surface(lines: Sequence[str]) -> np.ndarray:
    """Describe lines by their length and the shares of kinds of characters."""
    rows = [
        [len(line), len(line.split()), *(sum(map(kind, line)) / len(line) for kind in KINDS)]
        for line in lines
    ]
    return np.array(rows, dtype=float)


def main() -> None:
    """Mix, fit, rank, and print how well each ranking parts dirt from text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--lines", type=int, default=8_000)
    parser.add_argument("--seconds", type=float, default=45)
    args = parser.parse_args()

    rng = random.Random(0)
    lines = clean_lines(args.text)[: args.lines]
    rng.shuffle(lines)
    trusted, lines = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    n_each = len(lines) // 40
    labels = ["clean"] * len(lines)
    for number, (name, spoil) in enumerate(DIRT.items()):
        for i in range(number * n_each, (number + 1) * n_each):
            lines[i], labels[i] = spoil(lines[i], rng), name

    lm = LSTMLanguageModel(max_seconds=args.seconds, random_state=0)
    ours = -PerplexityDetector(lm).fit(trusted).score_samples(lines)
    baseline = -IsolationForest(random_state=0).fit(surface(trusted)).score_samples(surface(lines))

    is_clean = np.array([label == "clean" for label in labels])
    print(f"{len(lines)} lines, {n_each} of each kind of dirt. ROC-AUC against the clean lines:\n")
    print(f"{'':24}{'perplexity':>12}{'length and characters':>24}")
    for name in (*DIRT, "all"):
        dirt = ~is_clean if name == "all" else np.array([label == name for label in labels])
        chosen = is_clean | dirt
        scores = [roc_auc_score(dirt[chosen], s[chosen]) for s in (ours, baseline)]
        print(f"{name:24}{scores[0]:>12.3f}{scores[1]:>24.3f}")
    print("\nThe most surprising lines:")
    for i in np.argsort(-ours)[:5]:
        print(f"  {ours[i]:5.1f} bits a token  [{labels[i]}]  {lines[i][:70]}")


if __name__ == "__main__":
    main()
