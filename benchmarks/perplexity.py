"""What a training of some minutes reaches on held-out text, with nothing tuned.

    python benchmarks/perplexity.py --data FOLDER --corpus wikitext-2 --seconds 600

FOLDER holds the corpora as wikitext-2/, tinyshakespeare/ and tang-poems/, each with train.txt and
test.txt. Prints a row of a Markdown table. Nothing else should run on the machine meanwhile.
"""

import argparse
import math
import platform
import time
from datetime import date
from pathlib import Path

import torch

from lstmlm import LSTMLanguageModel

# How the literature reads each corpus, and what an n-gram model of five gets on its test text
# (KenLM for WikiText-2; modified Kneser-Ney on characters for the poems; end marks counted).
CORPORA = {
    "wikitext-2": ({"tokenizer": "word", "context": "stream"}, "lines", "5-gram: perplexity 220"),
    "tinyshakespeare": ({"tokenizer": "char", "context": "stream"}, "whole", ""),
    "tang-poems": ({"tokenizer": "char"}, "lines", "5-gram: 7.92 bits a character"),
}


def read(path: Path, unit: str) -> list[str]:
    """Return a file's texts: its lines, or the whole."""
    text = path.read_text("utf-8")
    return [text] if unit == "whole" else text.removesuffix("\n").split("\n")


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corpus", choices=CORPORA, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="parameters")
    args = parser.parse_args()
    params, unit, peer = CORPORA[args.corpus]
    changes = dict(item.split("=", 1) for item in args.set)
    params |= {k: float(v) if "." in v or "e" in v else int(v) for k, v in changes.items()}
    lm = LSTMLanguageModel(**params, max_seconds=args.seconds, random_state=0, verbose=1)
    folder = args.data / args.corpus
    began = time.perf_counter()
    lm.fit(read(folder / "train.txt", unit))
    fitted = time.perf_counter()
    result = lm.evaluate(read(folder / "test.txt", unit))
    scored = time.perf_counter()
    trained = sum(epoch.tokens for epoch in lm.history_)
    epochs = trained / lm.history_[0].tokens
    row = {
        "corpus": args.corpus,
        "changed": " ".join(args.set) or "nothing",
        "fit, s": f"{fitted - began:.0f}",
        "ids": f"{lm.vocab_size_:,}",
        "epochs": f"{epochs:.1f}",
        "tokens/s": f"{trained / lm.history_[-1].seconds:,.0f}",
        "test perplexity": f"{result.perplexity:.2f}",
        "nats a token": f"{math.log(result.perplexity):.4f}",
        "bits a character": f"{result.bits_per_char:.4f}",
        "unknown": f"{result.unknown_rate:.4f}",
        "scoring, tokens/s": f"{result.n_tokens / (scored - fitted):,.0f}",
        "beside": peer,
    }
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"\n{date.today()}, {machine}, on {lm.device_}")
    print({k: v for k, v in lm.params_.items() if k not in row})
    print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
    print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
