"""A corpus larger than memory: the same weights, bounded memory, nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import TEXTS, unfitted

MIB = 1 << 20


@pytest.mark.parametrize("tokenizer", ["bpe", "char", "word"])
@pytest.mark.parametrize("context", ["document", "stream"])
def test_a_generator_and_a_list_give_the_same_weights_bit_for_bit(tokenizer, context):
    params = {"max_epochs": 2, "early_stopping": True, "validation_fraction": 0.2}
    params |= {"tokenizer": tokenizer, "context": context}
    of_list = unfitted(**params).fit(TEXTS)
    of_generator = unfitted(**params).fit(text for text in TEXTS)
    for ours, theirs in zip(
        of_list.module_.parameters(), of_generator.module_.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert [e.heldout_loss for e in of_generator.history_] == [
        e.heldout_loss for e in of_list.history_
    ]


def test_long_texts_in_pieces_give_the_same_weights_bit_for_bit(monkeypatch):
    long = ["\n".join(TEXTS) * 3, *TEXTS]
    whole = unfitted(max_epochs=1).fit(long)
    monkeypatch.setattr("lstmlm.text.raw.PIECE_CHARS", 20)
    monkeypatch.setattr("lstmlm.text.raw.ENCODE_CHARS", 100)
    pieces = unfitted(max_epochs=1).fit(text for text in long)
    for ours, theirs in zip(whole.module_.parameters(), pieces.module_.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# What a fit does with its texts, on some and then on ten times as many: they are short and of few
# types, so that what grows is what is kept of each.
BOUNDED = """
from pathlib import Path
import numpy as np
from lstmlm.batches import cut_in_lanes, shuffled_groups, walk
from lstmlm.config import TextConfig
from lstmlm.storage import SpooledTexts, renumber, workspace, write_corpus
from lstmlm.text import learn_tokenizer

def lines(n):
    for number in range(n):
        yield f"the {number % 977} cats sat on the {number % 1009} mats, and the dog lay down."

def prepare(n, folder):
    texts = SpooledTexts(lines(n), folder / "texts")
    tokenizer, _ = learn_tokenizer("word", lines(2000), TextConfig(min_frequency=1))
    corpus = write_corpus(texts, tokenizer, folder / "ids")
    renumber(corpus, tokenizer)
    kept, heldout = corpus.split(0.01, np.random.default_rng(0))
    rows = cut_in_lanes(kept, 20, warm_up=35)
    for number, group in enumerate(shuffled_groups(rows, 20, 35, np.random.default_rng(0))):
        for window in walk(group, 100):
            corpus.ids[window.positions - 1]
        if number == 2000:
            break
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) * 1024
    print(peak, sum(path.stat().st_size for path in folder.iterdir()))

with workspace() as folder:
    prepare(100_000, folder)
    prepare(1_000_000, folder)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_stays_in_memory_of_a_text_is_some_bytes():
    script = [sys.executable, "-c", BOUNDED]
    done = subprocess.run(script, capture_output=True, text=True, check=True, timeout=300)
    before, _, after, on_disk = map(int, done.stdout.split())
    assert on_disk > 100e6  # texts and ids
    # Ends while they are gathered, 16 bytes a text; begins and ends of those kept and the order in
    # which they are read, 12 bytes; copies on the way. For 900,000 texts more some 40 MB, where a
    # list of them has 110 MB and their ids, mapped and touched, 60 MB.
    assert after - before < 64 * MIB


INTERRUPTED = """
import sys
from lstmlm import LSTMLanguageModel

def endless():
    number = 0
    while True:
        yield f"text {number}"
        number += 1
        if number == 100_000:
            print("reading", flush=True)

LSTMLanguageModel().fit(endless())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interruption_during_reading_leaves_nothing_behind(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "reading\n"
        assert list(tmp_path.rglob("texts"))  # it was being written
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert list(Path(tmp_path).iterdir()) == []
