"""The parameters of the estimator that are more than plain values."""

import os
from pathlib import Path
from typing import Any

from lstmlm.errors import ParameterError, did_you_mean
from lstmlm.storage import read_tokenizer_json
from lstmlm.text import KINDS, ForeignTokenizer, foreign_tokenizer, written_form


def given_tokenizer(tokenizer: Any) -> str | ForeignTokenizer:
    """Return the kind of tokenizer to learn, or the foreign tokenizer to take.

    Parameters
    ----------
    tokenizer : str, path or tokenizers.Tokenizer
        A kind; the path of a ``tokenizer.json`` or of a folder that holds one; or a tokenizer,
        which is copied. A fast tokenizer of transformers stands for the one that it wraps.

    Raises
    ------
    ParameterError
        If it is none of these.
    """
    if isinstance(tokenizer, str) and tokenizer in KINDS:
        return str(tokenizer)
    if not isinstance(tokenizer, str | os.PathLike):
        return foreign_tokenizer(written_form(tokenizer), f"a {type(tokenizer).__name__}")
    path = Path(tokenizer)
    if (written := read_tokenizer_json(path)) is not None:
        return foreign_tokenizer(written, repr(str(path)))
    raise ParameterError(
        f"tokenizer={str(tokenizer)!r} is not valid; tokenizer is {' or '.join(map(repr, KINDS))}, "
        "or the path of a tokenizer.json that is there, or a tokenizers.Tokenizer."
        + did_you_mean(str(tokenizer), KINDS)
    )
