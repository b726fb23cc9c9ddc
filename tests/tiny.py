"""Texts and tiny models that tests share. What is cached is shared: copy it before changing it."""

from functools import cache
from typing import Any

import pytest
import torch

from lstmlm import LSTMLanguageModel
from lstmlm.model import RecurrentLM

ENGLISH = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a dog and a cat ran to the house",
    "it's 3 o'clock, isn't it? Yes: 15:00!",
    "the  house had   two doors\nand a window\t.",
    "",
]
CHINESE = [
    "床前明月光，疑是地上霜。",
    "举头望明月，低头思故乡。",
    "白日依山尽，黄河入海流。",
    "明月 几时 有",
]
EMOJI = ["a 🙂 and a 🐈", "🙂🙂🐕 the dog 👩‍👩‍👧", "🇫🇷 ça va 🙂"]
TEXTS = [*ENGLISH, *CHINESE, *EMOJI] * 3

# Two layers and a projection, so that every part of a network takes part; a rate that makes a
# network of this size sure of some things within a second.
SETTINGS: dict[str, Any] = {
    "embedding_dim": 12,
    "hidden_size": 16,
    "num_layers": 2,
    "dropout": 0.1,
    "dropout_input": 0.1,
    "max_epochs": 20,
    "batch_size": 4,
    "bptt_length": 16,
    "learning_rate": 0.02,
    "early_stopping": False,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}


def unfitted(**params: Any) -> LSTMLanguageModel:
    return LSTMLanguageModel(**SETTINGS | params)


@cache
def fitted(**params: Any) -> LSTMLanguageModel:
    return unfitted(**params).fit(TEXTS)


def network(seed: int = 0, **architecture: Any) -> RecurrentLM:
    """Return an untrained network whose weights are large enough to make its choices uneven."""
    sizes = {"vocab_size": 9, "embedding_dim": 5, "hidden_size": 7, "num_layers": 2}
    model = RecurrentLM(**sizes | architecture)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7, generator=generator)
    return model.eval()


def int8_by(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a row in int8 be multiplied by "instructions", "NumKong", kept "floats" or "blocks"."""
    monkeypatch.setattr("lstmlm.nn.int8.has_int8_products", lambda: way == "instructions")
    if way == "NumKong":
        pytest.importorskip("numkong")
    else:
        monkeypatch.setattr("lstmlm.nn.int8.numkong", None)
    if way == "blocks":
        monkeypatch.setattr("lstmlm.nn.int8.MOST_FLOATS", 0)
