"""How much memory a fit holds on a corpus larger than memory, and where.

    python benchmarks/memory.py --data FOLDER --gigabytes 2 --lines --max-seconds 1200

FOLDER holds wikitext-2/train.txt, from whose sentences a corpus of any size is drawn as it is read,
each as one line of some 90 characters (--lines) or many as one document of half a megabyte
(--documents). An unknown word of WikiText-2 becomes a coined one, drawn by Zipf's law: new types
keep coming, as in real text.

The fit runs in a child process whose resident memory, file-mapped pages included, is sampled ten
times a second. Its peer is the plain way: all texts in a list and their ids in arrays, in memory.
Prints both in Markdown. Linux only; nothing else should run on the machine meanwhile.
"""

import argparse
import json
import logging
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

SAMPLE_SECONDS = 0.1
DOCUMENT_BYTES = 500_000
LEARNED_LINES = 100_000  # lines that the peer's tokenizer is learned from
PHASES = ("spool", "survey", "tokenizer", "encode", "renumber", "train", "held-out")
CLAUSE = r"(?<= [.;]) | , (?=and|but|which|who|while|where|with|as|in|the)"
MB = 1e6


# ---- the text ----


def sentences(path: Path) -> list[list[str]]:
    """Return WikiText's sentences and longer clauses, each cut where a word is unknown."""
    text = path.read_text("utf-8").replace("\n", " ")
    found = [clause.strip() for clause in re.split(CLAUSE, text)]
    return [clause.split("<unk>") for clause in found if clause and "=" not in clause]


def coiner(pieces: list[list[str]], rng: random.Random) -> Iterator[str]:
    """Coin words for ever: the k-th likeliest as the k-th head before the k-th tail, k by Zipf."""
    words = sorted({w for sentence in pieces for part in sentence for w in part.split()})
    words = [word for word in words if word.isalpha() and len(word) > 3]
    rng.shuffle(words)
    heads, tails = [w[: len(w) // 2] for w in words], [w[len(w) // 2 :] for w in words]
    while True:
        rank = int(rng.paretovariate(0.1)) % (len(heads) * len(tails))
        yield heads[rank % len(heads)] + tails[(7919 * rank + rank // len(heads)) % len(tails)]


def lines(path: Path, n_bytes: int) -> Iterator[str]:
    """Yield lines that hold about `n_bytes` in all; the same ones every time."""
    rng = random.Random(0)
    pieces = sentences(path)
    coined = coiner(pieces, rng)
    while n_bytes > 0:
        sentence = pieces[int(rng.random() * len(pieces))]
        line = sentence[0] + "".join([next(coined) + part for part in sentence[1:]])
        n_bytes -= len(line) + 1
        yield line


def documents(path: Path, n_bytes: int) -> Iterator[str]:
    """Yield the same lines, joined to documents."""
    held, size = [], 0
    for line in lines(path, n_bytes):
        held.append(line)
        size += len(line) + 1
        if size >= DOCUMENT_BYTES:
            yield "\n".join(held)
            held, size = [], 0
    if held:
        yield "\n".join(held)


def corpus(args: argparse.Namespace) -> Iterator[str]:
    """Yield the texts that the arguments name."""
    draw = documents if args.documents else lines
    return draw(args.data / "wikitext-2" / "train.txt", int(args.gigabytes * 1e9))


# ---- what runs in the child ----


def mark(phase: str) -> None:
    """Tell the parent that a phase begins."""
    print(json.dumps({"seconds": time.monotonic(), "phase": phase}), flush=True)


class Marker(logging.Handler):
    """Turns lstmlm's log into marks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Mark a phase that begins."""
        if (phase := record.getMessage().split(":")[0]) in PHASES:
            mark(phase)


def run_fit(args: argparse.Namespace) -> None:
    """Fit an estimator on a generator."""
    from lstmlm import LSTMLanguageModel

    log = logging.getLogger("lstmlm")
    log.addHandler(Marker())
    log.setLevel(logging.DEBUG)
    lm = LSTMLanguageModel(max_seconds=args.max_seconds, random_state=0)
    lm.fit(corpus(args))
    mark("end")
    print(json.dumps({"params": lm.params_, "history": [asdict(e) for e in lm.history_]}))


def run_plain(args: argparse.Namespace) -> None:
    """Hold all texts and all their ids in memory."""
    from lstmlm.config import TextConfig
    from lstmlm.text import in_chunks, learn_tokenizer

    mark("spool")
    texts = list(corpus(args))
    mark("tokenizer")
    some = texts[:20] if args.documents else texts[:LEARNED_LINES]
    tokenizer, _ = learn_tokenizer("bpe", some, TextConfig(vocab_size=32_768))
    mark("encode")
    ids = [array for chunk in in_chunks(texts) for array in tokenizer.encode(chunk)]
    mark("end")
    print(json.dumps({"texts": len(texts), "tokens": sum(map(len, ids))}))


# ---- what watches it ----


@dataclass
class Sample:
    """Resident memory at a moment: all of it, and its parts, in bytes."""

    seconds: float
    resident: int
    anonymous: int
    file: int


def sample(pid: int) -> Sample | None:
    """Read a process's resident memory; None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        sizes = dict(line.split(":", 1) for line in status.splitlines())
        parts = [int(sizes[n].split()[0]) * 1024 for n in ("VmRSS", "RssAnon", "RssFile")]
        return Sample(time.monotonic(), *parts)
    except (OSError, KeyError):
        return None


def watch(args: argparse.Namespace, role: str) -> tuple[list[Sample], list[dict], dict]:
    """Run a child and return its samples, its marks and its last words."""
    command = [sys.executable, __file__, "--child", role, "--data", str(args.data)]
    command += ["--gigabytes", str(args.gigabytes), "--max-seconds", str(args.max_seconds)]
    command += ["--documents" if args.documents else "--lines"]
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": folder}
        )

        def keep_sampling() -> None:
            while child.poll() is None:
                if (seen := sample(child.pid)) is not None:
                    samples.append(seen)
                time.sleep(SAMPLE_SECONDS)

        sampler = threading.Thread(target=keep_sampling)
        sampler.start()
        records = [json.loads(line) for line in child.stdout]
        sampler.join()
    if child.returncode:
        raise SystemExit(f"the child ended with status {child.returncode}")
    *marks, result = records
    return samples, marks, result


@dataclass
class Phase:
    """What a phase took: seconds and the largest resident memory, in bytes."""

    name: str
    begin: float
    end: float
    resident: int
    anonymous: int
    file: int


def phases(samples: list[Sample], marks: list[dict]) -> list[Phase]:
    """Cut samples at the marks; phases of one name that return are told apart by their times."""
    edges = [(samples[0].seconds, "import"), *((m["seconds"], m["phase"]) for m in marks)]
    found = []
    for (begin, name), (end, _) in pairwise(edges):
        inside = [s for s in samples if begin <= s.seconds <= end]
        peaks = [max((getattr(s, part) for s in inside), default=0)
                 for part in ("resident", "anonymous", "file")]  # fmt: skip
        found.append(Phase(name, begin - edges[0][0], end - edges[0][0], *peaks))
    return found


# ---- what is told ----


def table(found: list[Phase], gigabytes: float) -> str:
    """Return phases as Markdown."""
    rows = ["| phase | from, s | seconds | MB/s of text | peak resident, MB | anonymous | file |",
            "|---|---|---|---|---|---|---|"]  # fmt: skip
    for p in found:
        speed = f"{gigabytes * 1000 / (p.end - p.begin):.1f}" if reads_all(p) else ""
        sizes = " | ".join(f"{size / MB:,.0f}" for size in (p.resident, p.anonymous, p.file))
        rows.append(f"| {p.name} | {p.begin:.0f} | {p.end - p.begin:.1f} | {speed} | {sizes} |")
    return "\n".join(rows)


def reads_all(phase: Phase) -> bool:
    """Say whether a phase goes through all of the text."""
    return phase.name in ("spool", "survey", "encode", "renumber") and phase.end > phase.begin


def curve(samples: list[Sample], n_points: int = 24) -> str:
    """Return the resident memory over time, each point the largest of its stretch, as Markdown."""
    first, last = samples[0].seconds, samples[-1].seconds
    width = (last - first) / n_points
    parts: list[list[Sample]] = [[] for _ in range(n_points)]
    for s in samples:
        parts[min(n_points - 1, int((s.seconds - first) / width))].append(s)
    peaks = [f"{max((s.resident for s in part), default=0) / MB:,.0f}" for part in parts]
    times = [f"{(i + 1) * width:.0f}" for i in range(n_points)]
    half = n_points // 2
    rows = []
    for part in (slice(0, half), slice(half, None)):
        rows += ["| until, s | " + " | ".join(times[part]) + " |", "|---" * (half + 1) + "|"]
        rows += ["| resident, MB | " + " | ".join(peaks[part]) + " |", ""]
    return "\n".join(rows)


def plot(path: Path, samples: list[Sample], found: list[Phase], title: str) -> None:
    """Draw the curve with the phases' names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    seconds = [s.seconds - samples[0].seconds for s in samples]
    for part in ("resident", "anonymous", "file"):
        axes.plot(seconds, [getattr(s, part) / MB for s in samples], label=part, linewidth=1)
    for number, phase in enumerate(found):
        axes.axvspan(phase.begin, phase.end, color="0.5" if number % 2 else "w", alpha=0.12, lw=0)
        if phase.end - phase.begin > 0.03 * seconds[-1]:
            middle = (phase.begin + phase.end) / 2
            axes.text(middle, 0.97, phase.name, transform=axes.get_xaxis_transform(), ha="center",
                      va="top", fontsize=8)  # fmt: skip
    top = 1.15 * max(s.resident for s in samples) / MB
    axes.set(xlabel="seconds", ylabel="MB", title=title, xlim=(0, seconds[-1]), ylim=(0, top))
    axes.legend(loc="center right")
    figure.savefig(path, dpi=80)


def report(args: argparse.Namespace, role: str) -> dict:
    """Run a child, print what it held, and return the figures."""
    samples, marks, result = watch(args, role)
    found = phases(samples, marks)
    peak = max(s.resident for s in samples)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"\n## {role}: peak {peak / MB:,.0f} MB (the kernel's own count: {children / MB:,.0f})\n")
    print(table(found, args.gigabytes), curve(samples), sep="\n\n")
    if args.plot and role == "fit":
        unit = "documents" if args.documents else "lines"
        plot(args.plot, samples, found, f"fit on {args.gigabytes:g} GB of {unit}")
    return {"role": role, "peak": peak, "phases": [asdict(p) for p in found], "result": result}


def main() -> None:
    """Run the fit, then its peer, each in a child."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=2)
    unit = parser.add_mutually_exclusive_group()
    unit.add_argument("--lines", action="store_true", help="a text is a sentence (the default)")
    unit.add_argument("--documents", action="store_true", help="a text is half a megabyte")
    parser.add_argument("--max-seconds", type=float, default=1200, help="of the whole fit")
    parser.add_argument("--plot", type=Path, help="a PNG of the curve; needs matplotlib")
    parser.add_argument("--json", type=Path, help="all figures")
    parser.add_argument("--no-peer", action="store_true", help="run the fit alone")
    parser.add_argument("--child", choices=("fit", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return {"fit": run_fit, "plain": run_plain}[args.child](args)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    figures = [report(args, role) for role in (("fit",) if args.no_peer else ("fit", "plain"))]
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return None


if __name__ == "__main__":
    main()
