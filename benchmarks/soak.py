"""A soak: whether memory, or the time of a token, grows over millions of tokens.

    python benchmarks/soak.py                          some 20 minutes
    python benchmarks/soak.py --tokens 100000 --megabytes 10

A model of one layer of 64 reads a stream of random words through one session, then `lstmlm score`
reads a file of lines. Resident memory and the time of a token are noted ten thousand tokens by ten
thousand; after the first minute a line is fitted through them. Memory that grows by less than its
own scatter, and times whose slope is within theirs, are flat.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tables import machine, table

from lstmlm import LSTMLanguageModel

EVERY = 10_000
WARM_UP = 60.0  # seconds that are left out


def resident() -> float:
    """Return this process's resident memory, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def words(rng: random.Random, n: int) -> list[str]:
    """Return random words of a vocabulary of thousands, some of them new."""
    return [f"w{int(rng.paretovariate(0.7)) % 5_000}" for _ in range(n)]


def slope(name: str, times: list[float], values: list[float], unit: str) -> dict[str, object]:
    """Fit a line after the first minute."""
    late = [i for i, at in enumerate(times) if at >= min(WARM_UP, times[-1] / 3)]
    x, y = np.array(times)[late], np.array(values)[late]
    (per_second, _), rest = np.polyfit(x, y, 1), 0.0
    rest = float(np.std(y - np.polyval(np.polyfit(x, y, 1), x)))
    return {
        "what": name,
        "first": f"{y[0]:.2f} {unit}",
        "last": f"{y[-1]:.2f} {unit}",
        "slope over the whole": f"{per_second * (x[-1] - x[0]):+.2f} {unit}",
        "scatter": f"{rest:.2f} {unit}",
    }


def soak_session(lm: LSTMLanguageModel, n_tokens: int) -> list[dict[str, object]]:
    """Feed one session."""
    rng, session = random.Random(0), lm.session()
    times, memory, micros = [], [], []
    began = time.monotonic()
    for _ in range(n_tokens // EVERY):
        chunk = [" ".join(words(rng, 10)) + " " for _ in range(EVERY // 10)]
        start = time.perf_counter()
        for text in chunk:
            session.feed(text)
        micros.append((time.perf_counter() - start) / EVERY * 1e6)
        times.append(time.monotonic() - began)
        memory.append(resident())
    return [
        slope(f"session, {n_tokens:,} tokens: memory", times, memory, "MB"),
        slope(f"session, {n_tokens:,} tokens: a token", times, micros, "us"),
    ]


def soak_score(lm: LSTMLanguageModel, megabytes: int) -> list[dict[str, object]]:
    """Score a file on standard output, and watch the process from outside."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        lm.save(Path(folder) / "model")
        lines, size = [" ".join(words(rng, 12)) for _ in range(20_000)], 0
        corpus = Path(folder) / "corpus.txt"
        with corpus.open("w") as file:
            while size < megabytes * 1e6:
                size += file.write(rng.choice(lines) + "\n")
        command = [sys.executable, "-m", "lstmlm", "score", f"{folder}/model", str(corpus)]
        times, memory = [], []
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
            while running.poll() is None:
                time.sleep(1)
                status = Path(f"/proc/{running.pid}/statm")
                if status.exists() and (found := status.read_text().split()):
                    memory.append(int(found[1]) * 4096 / 1e6)
                    times.append(time.monotonic() - began)
        assert running.returncode == 0
        memory, times = memory[:-2], times[:-2]  # it was ending
    return [slope(f"lstmlm score, {megabytes} MB: memory", times, memory, "MB")]


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--megabytes", type=int, default=200)
    args = parser.parse_args()
    print(machine(), end="\n\n")
    lm = LSTMLanguageModel(
        tokenizer="word", hidden_size=64, embedding_dim=64, max_epochs=1, random_state=0
    ).fit([" ".join(words(random.Random(2), 20)) for _ in range(2_000)])
    rows = []
    if args.tokens:
        rows += soak_session(lm, args.tokens)
    if args.megabytes:
        rows += soak_score(lm, args.megabytes)
    print(table(rows))


if __name__ == "__main__":
    main()
