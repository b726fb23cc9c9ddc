"""The corpora that benchmarks read, as the literature reads them.

A folder given as ``--data`` holds them as wikitext-2/, tinyshakespeare/ and tang-poems/, each with
train.txt, valid.txt and test.txt.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reading:
    """How a corpus is read.

    Parameters
    ----------
    params : dict
        What `LSTMLanguageModel` is told of it.
    by_line : bool
        Whether each line is a text; else the whole file is one.
    """

    params: dict[str, Any]
    by_line: bool


READINGS = {
    "wikitext-2": Reading({"tokenizer": "word", "context": "stream"}, by_line=True),
    "tinyshakespeare": Reading({"tokenizer": "char", "context": "stream"}, by_line=False),
    "tang-poems": Reading({"tokenizer": "char"}, by_line=True),
}


def read(data: Path, corpus: str, part: str) -> list[str]:
    """Return the texts of a corpus's part: "train", "valid" or "test"."""
    text = (data / corpus / f"{part}.txt").read_text("utf-8")
    return text.removesuffix("\n").split("\n") if READINGS[corpus].by_line else [text]
