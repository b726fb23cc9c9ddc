"""The table that drives the laws: tests that take `cell`, `lm` or `stream_lm` run on every row."""

from pathlib import Path
from typing import Any

import pytest
from foreign import path_of_byte_level
from tiny import fitted

from lstmlm import LSTMLanguageModel

HEADS = ("softmax", "adaptive")
TOKENIZERS = ("bpe", "char", "word")
RECURRENT = (
    {"cell": "lstm"},
    {"cell": "gru"},
    {"cell": "peephole_lstm", "peephole": "diagonal"},
    {"cell": "peephole_lstm", "peephole": "full"},
)
# Every two of a cell, a head and a tokenizer of ours, in half the rows that all triples would take:
# a law fails by one of its parts, or by two that meet.
CELLS = [
    {"output": HEADS[(row + column) % 2], "tokenizer": tokenizer, **recurrent}
    for row, recurrent in enumerate(RECURRENT)
    for column, tokenizer in enumerate(TOKENIZERS)
]
CELLS += [{"output": head, "tokenizer": path_of_byte_level(), "cell": "lstm"} for head in HEADS]

SHORT = {"max_epochs": 6}  # laws hold whatever was learned; of these cells most learn step by step


@pytest.fixture(
    scope="session", params=CELLS, ids=lambda cell: "-".join(Path(v).stem for v in cell.values())
)
def cell(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Parameters of an estimator: one row of the table."""
    return request.param


@pytest.fixture(scope="session")
def lm(cell: dict[str, Any]) -> LSTMLanguageModel:
    """A row's estimator, fitted on documents."""
    return fitted(**cell, **SHORT)


@pytest.fixture(scope="session")
def stream_lm(cell: dict[str, Any]) -> LSTMLanguageModel:
    """A row's estimator, fitted on a stream."""
    return fitted(**cell, **SHORT, context="stream")
