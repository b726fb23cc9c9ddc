"""spaCy pipelines that tests share."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from tiny import fitted


@cache
def folder_of(tokenizer: str = "bpe") -> str:
    """Return the folder of a tiny model, which the tests' end removes."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    fitted(tokenizer=tokenizer).save(Path(folder) / tokenizer)
    return f"{folder}/{tokenizer}"


def pipeline(tokenizer: str = "bpe", lang: str = "en", **config: Any) -> Language:
    """Return a blank pipeline with the component."""
    nlp = spacy.blank(lang)
    nlp.add_pipe("lstmlm", config={"model": folder_of(tokenizer), "device": "cpu", **config})
    return nlp
