"""The spaCy component: what it costs on top of the estimator, and whether memory stays flat.

    python benchmarks/spacy.py --data FOLDER
    python benchmarks/spacy.py --data FOLDER --only speed

FOLDER holds WikiText-2 as wikitext-2/.

- Speed: 10,000 sentences through a blank English pipeline with the component, and through the
  estimator's own `pipe`, in turns. spaCy's tokenizer is timed by itself and not counted: the
  component may cost 15 % more than the estimator. Then, counted apart, the reading of every token's
  surprisal, and the pipeline with two processes.
- Memory: a million Docs, one after the other, are to leave it as it is.

Nothing else should run on the machine.
"""

import sys

sys.path.append(sys.path.pop(0))  # `import spacy` is to find spaCy, and not this file

import argparse
import itertools
import multiprocessing
import re
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import spacy
from corpora import read
from spacy.language import Language
from tables import in_turns, machine, seconds, table

from lstmlm import LSTMLanguageModel

REPEATS = 5
PAGE = resource.getpagesize()


def sentences(data: Path) -> list[str]:
    """Return WikiText-2's sentences of five words or more, detokenized a little."""
    text = "\n".join(read(data, "wikitext-2", "train"))
    text = re.sub(r" @(.)@ ", r"\1", text)
    text = re.sub(r" ([,.;:!?)'])", r"\1", text).replace("( ", "(")
    found = (line.strip() for line in re.split(r"(?<=[.!?])\s|\n", text))
    return [line for line in found if len(line.split()) >= 5 and not line.startswith("=")]


def train(model: Path, texts: list[str], seconds: float) -> None:
    """Fit and save a model."""
    LSTMLanguageModel(max_seconds=seconds, random_state=0).fit(texts).save(model)


def pipeline(model: Path) -> Language:
    """Return a blank English pipeline with the component."""
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm", config={"model": str(model)})
    return nlp


def exhaust(items: Iterator[object]) -> None:
    """Read everything and keep nothing."""
    for _ in items:
        pass


def speed(model: Path, texts: list[str]) -> str:
    """Time ways through the same texts in turns."""
    lm, nlp = LSTMLanguageModel.load(model, device="cpu"), pipeline(model)
    n_words = sum(len(text.split()) for text in texts)
    docs = list(nlp.pipe(texts))
    ways: dict[str, Callable[[], object]] = {
        "estimator's pipe": lambda: exhaust(lm.pipe(texts)),
        "spaCy's tokenizer": lambda: exhaust(nlp.tokenizer.pipe(texts)),
        "nlp.pipe": lambda: exhaust(nlp.pipe(texts)),
        "nlp.pipe, 2 processes": lambda: exhaust(nlp.pipe(texts, n_process=2)),
        "every token's surprisal": lambda: [t._.lm_surprisal for doc in docs for t in doc],
    }
    taken = in_turns(REPEATS, **{way: partial(seconds, work) for way, work in ways.items()})
    rows = [
        {"way": way, "words a second": f"{n_words / spent:,.0f}", "seconds": f"{spent:.2f}"}
        for way, spent in taken.items()
    ]
    ours = taken["nlp.pipe"] - taken["spaCy's tokenizer"]
    cost = 100 * (ours / taken["estimator's pipe"] - 1)
    return "\n".join([
        f"{len(texts):,} texts, {n_words:,} words; medians of {REPEATS}, in turns.",
        "",
        table(rows),
        "",
        f"The component, tokenization not counted, costs **{cost:+.1f} %** on top of the estimator "
        "(asked: 15 % at most).",
    ])  # fmt: skip


def memory(model: Path, texts: list[str], n_docs: int) -> str:
    """Follow the memory of a long stream of Docs."""
    nlp, rows, began = pipeline(model), [], time.perf_counter()
    stream = itertools.islice(itertools.cycle(texts), n_docs)
    for number, doc in enumerate(nlp.pipe(stream), start=1):
        if number % (n_docs // 10) == 0:
            minutes = (time.perf_counter() - began) / 60
            mb, spent = f"{resident():.1f}", f"{minutes:.1f}"
            rows.append({"Docs": f"{number:,}", "MB resident": mb, "minutes": spent})
        assert doc._.lm_log_prob < 0
    return "\n".join([
        f"{n_docs:,} Docs through one pipeline.",
        "",
        table(rows),
    ])  # fmt: skip


def resident() -> float:
    """Return this process's resident memory in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--docs", type=int, default=1_000_000)
    parser.add_argument("--train-seconds", type=float, default=60.0)
    args = parser.parse_args()
    texts = sentences(args.data)
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        # Not here: a training keeps memory of its own.
        job = (model, texts[args.texts :], args.train_seconds)
        training = multiprocessing.get_context("spawn").Process(target=train, args=job)
        training.start()
        training.join()
        if args.only != "memory":
            print(speed(model, texts[: args.texts]), end="\n\n")
        if args.only != "speed":
            short = [text for text in texts if len(text.split()) <= 12][:20_000]
            print(memory(model, short, args.docs))


if __name__ == "__main__":
    main()
