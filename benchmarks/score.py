"""Scoring lines: words a second beside a plain loop, a transformer and an n-gram model.

    python benchmarks/score.py --data FOLDER --train-seconds 60

FOLDER holds WikiText-2 as wikitext-2/. All recurrent models have the same body, two layers of 650
with tied embeddings, and 33,278 words. Scored are lines of the test text that aren't blank, each by
itself, its end mark counted. The rows:

- the plain loop: one line at a time, the same weights, torch's LSTM and a full softmax in float32;
- ours with the full softmax in float32, whose figures must be the loop's (to 1e-5);
- ours with the precision that "auto" picks (its perplexity within 0.2 % of float32's);
- ours as `fit` makes it, with the adaptive head, in both precisions;
- a transformer of GPT-2 small's shape with random weights (transformers' GPT2LMHeadModel), float32,
  32 sorted lines at a time, 1.3 tokens a word;
- KenLM, with the 5-gram that `kneser_ney` counts.

In turns, medians; the ratio is to the loop. Nothing else should run on the machine.
"""

import argparse
import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from corpora import read
from kneser_ney import KneserNey
from tables import in_turns, machine, seconds, table
from torch.nn import functional as F

from lstmlm import LSTMLanguageModel

BODY = {"embedding_dim": 650, "hidden_size": 650, "num_layers": 2}
TOKENS_PER_WORD = 1.3  # of GPT-2's tokenizer on English
TRANSFORMER_ROWS = 32


def fitted(data: Path, train_seconds: float, output: str) -> LSTMLanguageModel:
    """Return a model of the body, trained for a while."""
    limit = {"max_seconds": train_seconds} if train_seconds else {"max_epochs": 0}
    lm = LSTMLanguageModel(
        tokenizer="word", **BODY, **limit, output=output, early_stopping=False, random_state=0
    )
    return lm.fit(read(data, "wikitext-2", "train"))


def in_precision(lm: LSTMLanguageModel, precision: str) -> LSTMLanguageModel:
    """Return the same fitted model, set to score in a precision."""
    return copy.copy(lm).set_params(precision=precision)


@torch.no_grad()
def plain_loop(lm: LSTMLanguageModel, lines: list[str]) -> np.ndarray:
    """Score line by line, as one writes it down."""
    module, scores = lm.module_, []
    for ids in lm.tokenizer_.encode(lines):
        text = torch.tensor([0, *ids.tolist(), 0])
        x = module.embedding(text[None, :-1]) * module.embedding_scale
        for layer in module.layers:
            x, _ = torch.nn.LSTM.forward(layer, x)
        log_probs = F.linear(x[0], module.head.weight, module.head.bias).log_softmax(-1)
        scores.append(float(log_probs.gather(1, text[1:, None]).sum()))
    return np.array(scores)


def transformer(lines: list[str]) -> Callable[[], object] | None:
    """Return what scores lines with a transformer of GPT-2 small's shape, if there is one."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    lengths = sorted(max(2, round(TOKENS_PER_WORD * (len(line.split()) + 1))) for line in lines)
    batches = [lengths[i : i + TRANSFORMER_ROWS] for i in range(0, len(lengths), TRANSFORMER_ROWS)]

    @torch.no_grad()
    def score() -> None:
        for batch in batches:
            ids = torch.randint(0, 50_257, (len(batch), max(batch)))
            model(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])

    return score


def kenlm(data: Path, lines: list[str]) -> Callable[[], object] | None:
    """Return what scores lines with KenLM, if it is there; the 5-gram is `kneser_ney`'s."""
    if importlib.util.find_spec("kenlm") is None:
        return None
    from kenlm import Model

    counted = KneserNey([line.split() for line in read(data, "wikitext-2", "train")])
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".arpa") as file:
        file.writelines(f"{line}\n" for line in counted.arpa())
        file.flush()
        model = Model(file.name)
    return lambda: [model.score(line) for line in lines]


def compare(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure all that is there; return the table's rows."""
    lines = [line for line in read(args.data, "wikitext-2", "test") if line.strip()][: args.lines]
    few = lines[:: args.loop_share]
    exact, adaptive = (fitted(args.data, args.train_seconds, o) for o in ("softmax", "adaptive"))
    auto = in_precision(exact, "auto")
    models = {
        "ours, full softmax, float32": in_precision(exact, "float32"),
        "ours, full softmax, auto": auto,
        "ours, adaptive head, float32": in_precision(adaptive, "float32"),
        "ours, adaptive head, auto": in_precision(adaptive, "auto"),
    }
    check(models, exact, few)
    work: dict[str, tuple[Callable[[], object], list[str]]] = {
        "plain loop, full softmax, float32": (lambda: plain_loop(exact, few), few)
    }
    for name, lm in models.items():
        work[name] = (lambda lm=lm: lm.score_samples(lines), lines)
    others = {"GPT-2 small's shape, float32": transformer(few), "KenLM": kenlm(args.data, lines)}
    for name, other in others.items():
        if other is None:
            print(f"{name}: not here, left out.\n")
        else:
            work[name] = (other, lines if name == "KenLM" else few)
    speeds = in_turns(
        args.repeat,
        **{
            name: lambda run=run, of=of: n_words(of) / seconds(run)
            for name, (run, of) in work.items()
        },
    )
    loop = speeds["plain loop, full softmax, float32"]
    return [
        {"2 x 650, 33,278 words": name, "words/s": f"{speed:,.0f}", "ratio": f"{speed / loop:.1f}"}
        for name, speed in speeds.items()
    ]


def check(models: dict[str, LSTMLanguageModel], exact: LSTMLanguageModel, few: list[str]) -> None:
    """Print how far the figures of each way are from each other."""
    loop = plain_loop(exact, few)
    ours = models["ours, full softmax, float32"].score_samples(few)
    print(f"largest relative difference from the loop: {np.abs(ours / loop - 1).max():.1e}")
    for head in ("full softmax", "adaptive head"):
        full, auto = (models[f"ours, {head}, {p}"].perplexity(few) for p in ("float32", "auto"))
        print(f"{head}: perplexity {full:.3f}, auto {auto:.3f} ({auto / full - 1:+.3%})")
    print()


def n_words(lines: list[str]) -> int:
    """Count words and end marks."""
    return sum(len(line.split()) + 1 for line in lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument(
        "--loop-share", type=int, default=10, help="slow peers score every n-th line"
    )
    parser.add_argument("--train-seconds", type=float, default=0)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    print(machine(), end="\n\n")
    print(table(compare(args)))


if __name__ == "__main__":
    main()
