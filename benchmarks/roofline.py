"""How near training and scoring come to what the machine can do.

    python benchmarks/roofline.py --data FOLDER

FOLDER holds WikiText-2 as wikitext-2/. The model has two layers of 650, tied embeddings, 33,278
words and the head that `fit` chooses; windows of 35, in 20 lanes as `fit` has them, and in more,
over which the optimiser and the casts of weights are spread. Three things are measured in turn:

- what a step of training and a window of scoring take;
- every matrix product in them by itself, in the precision and the shapes that they have there
  (those of the recurrence step by step): the sum is what the step would take if it were products
  alone, its share of the step is how near that comes;
- where the rest goes, by torch's profiler, and the machine's rate of copying.

Nothing else should run on the machine.
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from corpora import read
from tables import machine, table
from torch.profiler import ProfilerActivity, profile

from lstmlm import LSTMLanguageModel
from lstmlm.allocator import kept_buffers
from lstmlm.batches import Corpus, rows_of, shuffled_groups
from lstmlm.config import TrainConfig
from lstmlm.model import RecurrentLM
from lstmlm.nn.cells import MAX_FUSED
from lstmlm.nn.loop import COLUMNS
from lstmlm.optim import make_optimiser, rate_at
from lstmlm.scoring import inference, tally_rows
from lstmlm.training.loop import Trainer

WINDOW, SIZE, LAYERS = 35, 650, 2
SCORED_LINES, SCORED_LENGTH = 128, 64
GROUPS = {
    "LSTM kernels (their products and their gates)": ("mkldnn_rnn", "lstm"),
    "other products": ("mm", "matmul", "linear"),
    "softmax and its gradient": (
        "exp",
        "softmax",
        "sum",
        "amax",
        "sub",
        "log",
        "scatter",
        "gather",
    ),
    "optimiser": ("adamw", "norm", "mul_"),
    "casts, copies, buffers": ("copy", "cat", "fill", "zero", "to", "empty", "clone", "index"),
}


@dataclass(frozen=True)
class Product:
    """A matrix product (rows x inner) (inner x columns), done a number of times.

    If it is turned, the weights stand on the left and texts are columns.
    """

    what: str
    rows: int
    inner: int
    columns: int
    times: int = 1
    turned: bool = False

    @property
    def operations(self) -> float:
        """Floating-point operations of all times."""
        return 2.0 * self.rows * self.inner * self.columns * self.times


def layer_products(rows: int, steps: int) -> list[Product]:
    """Return a layer's products in reading `rows` texts of `steps` tokens with torch's kernel."""
    return [
        Product("layer, from the input", rows * steps, SIZE, 4 * SIZE),
        Product("layer, from the state", rows, SIZE, 4 * SIZE, steps),
    ]


def looped_products(rows: int, steps: int) -> list[Product]:
    """Return a layer's products there and back in the loop (`lstmlm.nn.loop`)."""
    both, places = 2 * SIZE + COLUMNS - 2 * SIZE % COLUMNS, rows * steps
    return [
        Product("layer, input and state", rows, both, 4 * SIZE, steps, turned=True),
        Product("layer, gradient by the state", rows, 4 * SIZE, SIZE, steps, turned=True),
        Product("layer, gradient by the input", places, 4 * SIZE, SIZE),
        Product("layer, gradient by weights", both, places, 4 * SIZE),
    ]


def head_products(model: RecurrentLM, places: int, tails: list[int]) -> Iterator[Product]:
    """Yield the products of scoring so many places, of which so many are in each tail."""
    sizes, width = model.head.sizes, model.tail_width or SIZE
    yield Product("head", places, SIZE, sizes[0] + len(sizes) - 1)
    for size, n_rows in zip(sizes[1:], tails, strict=True):
        yield Product("tail, projection", n_rows, SIZE, width)
        yield Product("tail", n_rows, width, size)


def there_and_back(forward: list[Product]) -> Iterator[Product]:
    """Yield products and the two of each one's gradients; a state's weights get theirs at once."""
    for p in forward:
        yield p
        yield Product(p.what + ", gradient by x", p.rows, p.columns, p.inner, p.times)
        yield Product(p.what + ", gradient by weights", p.inner, p.rows * p.times, p.columns)


def measured(product: Product, dtype: torch.dtype) -> float:
    """Return the seconds that a product takes, all its times."""
    left = torch.randn(product.rows, product.inner).to(dtype)
    # The weights lie as torch's layers hold them: transposed.
    right = torch.randn(product.columns, product.inner).to(dtype)
    if product.turned:
        columns = left.T.contiguous()
        return product.times * median_seconds(lambda: right @ columns)
    return product.times * median_seconds(lambda: left @ right.T)


def median_seconds(work: Callable[[], object], repeat: int = 9) -> float:
    """Return the median time of some work, once warm."""
    times = []
    for _ in range(repeat + 2):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def rates(products: list[Product], dtype: torch.dtype) -> tuple[list[dict[str, object]], float]:
    """Measure products; return a table of them and the seconds of all."""
    rows: dict[tuple[object, ...], tuple[Product, float, int]] = {}
    total = 0.0
    for product in products:
        shape = (product.what, product.rows, product.inner, product.columns)
        if shape not in rows:
            rows[shape] = (product, measured(product, dtype), 0)
        first, took, count = rows[shape]
        rows[shape] = (first, took, count + 1)
        total += took
    return [
        {
            "product": f"{p.what} ({p.rows} x {p.inner}) ({p.inner} x {p.columns})",
            "times": p.times * count,
            "GFLOP/s": f"{p.operations / took / 1e9:,.0f}",
            "ms": f"{took * count * 1e3:.2f}",
        }
        for p, took, count in rows.values()
    ], total


def groups(work: Callable[[], object], repeat: int) -> list[dict[str, object]]:
    """Profile some work; return the share of the time that each group of operations takes."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeat):
            work()
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        name = event.key.rpartition("::")[2].lower()
        group = next((g for g, parts in GROUPS.items() if any(p in name for p in parts)), "other")
        times[group] += event.self_cpu_time_total
    whole = sum(times.values())
    return [{"group": g, "share": f"{t / whole:.0%}"} for g, t in times.most_common()]


def training_step(lm: LSTMLanguageModel, corpus: Corpus, lanes: int) -> Callable[[], object]:
    """Return what takes a step of a real training each time it is called."""
    config = TrainConfig(
        max_epochs=9, batch_size=lanes, bptt_length=WINDOW, learning_rate=1e-3, weight_decay=0.01,
        precision=lm.params_["precision"], input_noise=0.0,
    )  # fmt: skip
    model = lm.module_
    trainer = Trainer(model, corpus, None, config, make_optimiser(model, config), rate_at, 0, None)
    model.train()
    steps = trainer.each_step(shuffled_groups(trainer.rows, lanes, WINDOW, trainer.rng))
    return lambda: next(steps)


def tail_rows(lm: LSTMLanguageModel, ids: np.ndarray, places: int) -> list[int]:
    """Return in how many of so many places the target is in each tail."""
    edges = lm.module_.head.edges
    shares = np.histogram(ids, bins=edges)[0][1:] / len(ids)
    return [max(1, round(places * share)) for share in shares]


def report(
    what: str, took: float, places: int, products: list[Product], dtype: torch.dtype
) -> None:
    """Print how near a step comes to its products."""
    rows, alone = rates(products, dtype)
    operations = sum(product.operations for product in products)
    print(f"## {what}: {took * 1e3:.1f} ms, {places / took:,.0f} tokens/s, products in {dtype}\n")
    print(table(rows))
    print(
        f"\nThe products alone take {alone * 1e3:.1f} ms: {alone / took:.0%} of it "
        f"({operations / took / 1e9:,.0f} GFLOP/s in all).\n"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lanes", type=int, nargs="+", default=[20, 40, 80])
    args = parser.parse_args()
    print(machine(), end="\n\n")
    lines = read(args.data, "wikitext-2", "train")
    lm = LSTMLanguageModel(
        tokenizer="word", context="stream", embedding_dim=SIZE, hidden_size=SIZE,
        num_layers=LAYERS, max_epochs=0, early_stopping=False, random_state=0,
    ).fit(lines)  # fmt: skip
    texts = lm.tokenizer_.encode(lines)
    corpus = Corpus.of(texts, 0).as_stream()
    with kept_buffers():
        for lanes in args.lanes:
            train(lm, corpus, lanes)
        score(lm, Corpus.of([text for text in texts if len(text) >= SCORED_LENGTH], 0))
    source, target = torch.randn(2**26), torch.empty(2**26)
    copied = 2 * source.nbytes / median_seconds(lambda: target.copy_(source))
    rows = lm.module_.trained_rows()
    unseen = 0 if rows.unseen is None else rows.unseen.numel()
    moved = 28 * (sum(p.numel() for p in lm.module_.parameters()) - unseen)
    print(f"Copying moves {copied / 1e9:.0f} GB/s; AdamW moves {moved / 1e6:.0f} MB a step.")


def train(lm: LSTMLanguageModel, corpus: Corpus, lanes: int) -> None:
    """Measure a step of training."""
    step = training_step(lm, corpus, lanes)
    took, places = median_seconds(step, 60), lanes * WINDOW
    in_bf16 = lm.params_["precision"] == "bf16"
    dtype = torch.bfloat16 if in_bf16 else torch.float32
    in_loop = in_bf16 and SIZE > MAX_FUSED
    layer = looped_products if in_loop else lambda *of: [*there_and_back(layer_products(*of))]
    head = [*head_products(lm.module_, places, tail_rows(lm, corpus.ids, places))]
    products = [*layer(lanes, WINDOW) * LAYERS, *there_and_back(head)]
    report(f"A step of training, {lanes} lanes", took, places, products, dtype)
    print(table(groups(step, 30)), end="\n\n")


def score(lm: LSTMLanguageModel, corpus: Corpus) -> None:
    """Measure a window of scoring, in both precisions."""
    chosen = corpus.take(np.arange(SCORED_LINES))
    rows = rows_of(Corpus(chosen.ids, chosen.begins, chosen.begins + SCORED_LENGTH))
    places = SCORED_LINES * SCORED_LENGTH
    lm.module_.eval()
    layers = layer_products(SCORED_LINES, SCORED_LENGTH) * LAYERS
    head = head_products(lm.module_, places, tail_rows(lm, corpus.ids, places))
    products = [*layers, *head]
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):

        def window(precision: str = precision) -> object:
            return tally_rows(lm.module_, chosen.ids, rows, precision=precision)

        with inference(lm.module_, "float32"):
            report(
                f"A window of scoring, {precision}", median_seconds(window), places, products, dtype
            )
        print(table(groups(window, 5)), end="\n\n")


if __name__ == "__main__":
    main()
