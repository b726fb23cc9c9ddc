"""Streams: the time of a token, many streams at once, and what two workers gain.

    python benchmarks/streaming.py --data FOLDER
    python benchmarks/streaming.py --data FOLDER --only many

FOLDER holds WikiText-2 as wikitext-2/. All recurrent models have two layers of 650 with tied
embeddings and 33,278 words.

- One stream: the median time from a word to its log-probability, of a `Session` with each head in
  float32 and int8, of a plain step (torch.nn.LSTM, a full softmax), and of a transformer of GPT-2
  small's shape with its cache, where transformers is installed. In turns; the ratio is to the
  plain step. Beside them the time that it takes to read as many bytes. What int8 costs:
  perplexities of the test text's first lines, after a short training.
- Many: 2,000 streams, each fed 64 tokens in turn; tokens a second and bytes a stream.
- Workers: `lstmlm score` of 30 MB of text by one and by two.

Nothing else should run on the machine.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from corpora import read
from tables import in_turns, machine, seconds, table
from torch.nn import functional as F

from lstmlm import LSTMLanguageModel
from lstmlm.jobs import score_files

BODY = {"embedding_dim": 650, "hidden_size": 650, "num_layers": 2}
STREAMS, TOKENS = 2_000, 64
CACHED = 256  # tokens in the transformer's cache
WORKER_BYTES = 30_000_000
PLAIN = "plain step, full softmax, float32"


def fitted(data: Path, train_seconds: float, output: str) -> LSTMLanguageModel:
    """Return a model of the body, trained for a while."""
    limit = {"max_seconds": train_seconds} if train_seconds else {"max_epochs": 0}
    lm = LSTMLanguageModel(
        tokenizer="word", **BODY, **limit, output=output, early_stopping=False, random_state=0
    )
    return lm.fit(read(data, "wikitext-2", "train"))


def plain_step(lm: LSTMLanguageModel, words: list[str]) -> Callable[[], float]:
    """Return what scores words one by one as one writes it down, in ms a word."""
    module = lm.module_
    lstm = torch.nn.LSTM(650, 650, 2)
    (ids,) = lm.tokenizer_.encode([" ".join(words)])

    @torch.no_grad()
    def run() -> float:
        state, times = None, []
        x = torch.zeros(1, 1, 650)
        for token_id in ids.tolist():
            began = time.perf_counter()
            outputs, state = lstm(x, state)
            logits = F.linear(outputs[0], module.head.weight, module.head.bias)
            float(logits.log_softmax(-1)[0, token_id])
            x = module.embedding(torch.tensor([[token_id]]))
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e3

    return run


def session_step(lm: LSTMLanguageModel, words: list[str]) -> Callable[[], float]:
    """Return what feeds a session word by word, in ms a word."""

    def run() -> float:
        session, times = lm.session(), []
        for word in words:
            began = time.perf_counter()
            session.feed(word + " ")
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e3

    return run


def adding_up(n_bytes: int) -> Callable[[], float]:
    """Return what reads so many bytes of memory, in ms: a step can't be faster."""
    numbers = torch.ones(n_bytes // 4)

    def run() -> float:
        times = []
        for _ in range(50):
            began = time.perf_counter()
            numbers.sum()
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e3

    return run


def transformer_step(words: list[str]) -> Callable[[], float] | None:
    """Return what leads a transformer on token by token, if there is one, in ms a token."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()

    @torch.no_grad()
    def run() -> float:
        past = model(torch.randint(0, 50_257, (1, CACHED)), use_cache=True).past_key_values
        times = []
        for _ in words[:50]:
            began = time.perf_counter()
            out = model(torch.randint(0, 50_257, (1, 1)), past_key_values=past, use_cache=True)
            float(out.logits[0, -1].log_softmax(-1)[0])
            past = out.past_key_values
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e3

    return run


def one_stream(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time each way of reading one stream."""
    lines = [line for line in read(args.data, "wikitext-2", "test") if line.strip()]
    words = " ".join(lines).split()[: args.words]
    models = {output: fitted(args.data, args.train_seconds, output) for output in HEADS}
    work: dict[str, Callable[[], float]] = {PLAIN: plain_step(models["softmax"], words)}
    for output, name in HEADS.items():
        small = models[output].quantize()
        work[f"session, {name}, float32"] = session_step(models[output], words)
        work[f"session, {name}, int8"] = session_step(small, words)
        figures = [lm.set_params(precision="float32").perplexity(lines[: args.lines])
                   for lm in (models[output], small)]  # fmt: skip
        change = figures[1] / figures[0] - 1
        print(f"{name}: perplexity {figures[0]:.3f}, int8 {figures[1]:.3f} ({change:+.3%})")
    if (transformer := transformer_step(words)) is not None:
        work[f"GPT-2 small's shape, {CACHED} tokens in its cache, float32"] = transformer
    print()
    for name, lm in {"float32": models["softmax"], "int8": models["softmax"].quantize()}.items():
        n_bytes = sum(t.numel() * t.element_size() for t in lm.module_.tensors().values())
        work[f"adding up {n_bytes / 1e6:.0f} MB, as many as {name} has weights"] = adding_up(
            n_bytes
        )
    times = in_turns(args.repeat, **work)
    for name, took in times.items():
        yield {
            "2 x 650, 33,278 words": name,
            "ms a token": f"{took:.3f}",
            "times as fast": f"{times[PLAIN] / took:.1f}",
        }


HEADS = {"softmax": "full softmax", "adaptive": "adaptive head"}


def many_streams(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Feed many streams in turn."""
    words = " ".join(read(args.data, "wikitext-2", "test")).split()
    float32 = fitted(args.data, 0, "adaptive")
    for name, lm in (("float32", float32), ("int8", float32.quantize())):
        sessions = lm.sessions(STREAMS)
        chunks = [
            {s: " ".join(words[(s * 97 + t * 16) % 200_000 :][:16]) + " " for s in range(STREAMS)}
            for t in range(TOKENS // 16)
        ]
        began = time.perf_counter()
        for chunk in chunks:
            sessions.feed(chunk)
        took = time.perf_counter() - began
        yield {
            f"{STREAMS:,} streams, adaptive head": name,
            "tokens/s": f"{STREAMS * TOKENS / took:,.0f}",
            "bytes a stream": f"{len(sessions.state(0)):,}",
        }


def two_workers(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Score a file of 30 MB by one worker, and by two."""
    lm = LSTMLanguageModel(
        tokenizer="word", hidden_size=256, embedding_dim=128, max_epochs=0, early_stopping=False
    )
    lines = read(args.data, "wikitext-2", "train")
    lm.fit(lines)
    with tempfile.TemporaryDirectory() as folder:
        model, corpus = Path(folder) / "model", Path(folder) / "corpus.txt"
        lm.save(model)
        text = "\n".join(lines)
        corpus.write_text((text * (WORKER_BYTES // len(text) + 1))[:WORKER_BYTES], "utf-8")
        times = {}
        for n_jobs in (1, 2):
            out = Path(folder) / f"out-{n_jobs}"
            times[n_jobs] = seconds(
                lambda out=out, n=n_jobs: score_files(model, [str(corpus)], out, n_jobs=n)
            )
            yield {
                "lstmlm score, 30 MB, 1 x 256": f"{n_jobs} worker{'s' * (n_jobs > 1)}",
                "seconds": f"{times[n_jobs]:.1f}",
                "times as fast": f"{times[1] / times[n_jobs]:.2f}",
            }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=("one", "many", "workers"))
    parser.add_argument("--words", type=int, default=300, help="that are fed to one stream")
    parser.add_argument("--lines", type=int, default=300, help="for the perplexities")
    parser.add_argument("--train-seconds", type=float, default=60)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    print(machine(), end="\n\n")
    for name, work in {"one": one_stream, "many": many_streams, "workers": two_workers}.items():
        if args.only in (None, name):
            print(table(work(args)), end="\n\n")


if __name__ == "__main__":
    main()
