"""Tokenizers that come from elsewhere and are used as they are.

A foreign tokenizer keeps its normaliser, its pre-tokenizer, its special tokens and its decoder. A
special token that a text spells, such as ``[CLS]``, is read as the tokenizer reads it: as that
token. Its post-processor adds nothing to a text, and what would lose or change text by chance is
switched off: padding, truncation, dropout of merges.
"""

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import tokenizers

from lstmlm.config import AUTO, TextConfig
from lstmlm.errors import ParameterError
from lstmlm.text.raw import WHITE_SPACE, in_chunks, readable
from lstmlm.text.tokenizer import FOREIGN, Decoder, Ids, Tokenizer

MAX_TYPES = 2**24  # ids of a foreign tokenizer lie below; the same as the largest vocab_size
TRIED_TEXTS = 10_000  # texts whose way back is tried, as far as they fill a chunk


@dataclass(frozen=True, eq=False)
class ForeignTokenizer(Tokenizer):
    """A `Tokenizer` over a Rust tokenizer of any make.

    Its ids may have holes: `ranks` is 0 where there is no type.
    """

    @property
    def has_safe_cuts(self) -> bool:
        """See `Tokenizer`; what can't be proven of every foreign tokenizer is not relied on."""
        return False

    @cached_property
    def unknown_id(self) -> int | None:
        """The id of the model's own unknown token; None where it has none."""
        model = json.loads(self.backend.to_str())["model"]
        unknown = model.get("unk_id") if model.get("type") == "Unigram" else None
        if unknown is None and model.get("unk_token") is not None:
            unknown = self.backend.token_to_id(model["unk_token"])
        return None if unknown is None else int(self.ranks[unknown])

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer`; special tokens are spelled out."""
        known = [int(self._backend_ids[token_id]) for token_id in ids if token_id > 0]
        return self.backend.decode(known, skip_special_tokens=False)

    def decoder(self, after: str = "") -> Decoder:
        """See `Tokenizer`."""
        return ForeignDecoder(self, after)

    @cached_property
    def _backend_ids(self) -> Ids:
        """The backend's id of each of our ids; the end mark has none."""
        types = np.flatnonzero(self.ranks)
        backend_ids = np.full(self.vocab_size, -1, dtype=np.int32)
        backend_ids[self.ranks[types]] = types
        return backend_ids


class ForeignDecoder(Decoder):
    """Turns ids into text as they come, with a tokenizer's own decoder.

    That decoder knows only whole runs of ids. Of each run the text is taken by which it exceeds the
    text of the run without its last ids, once no half character stands at its end; a run goes back
    to what was certain the last time but one, since a first token is often treated otherwise.

    Parameters
    ----------
    tokenizer : ForeignTokenizer
        Whose ids.
    after : str
        The text that the ids continue.
    """

    def __init__(self, tokenizer: ForeignTokenizer, after: str) -> None:
        self._tokenizer = tokenizer
        self._run = tokenizer.encode([after])[0].tolist()
        self._n_certain = len(self._run)
        said = tokenizer.decode(self._run)
        # White space at the prompt's end that the tokenizer drops must not come a second time.
        self._spaced = _ends_in_space(after) and not _ends_in_space(said)

    def feed(self, token_id: int) -> str:
        """See `Decoder`."""
        if token_id > 0:
            self._run.append(token_id)
        return self._new(final=False)

    def finish(self) -> str:
        """See `Decoder`."""
        return self._new(final=True)

    def _new(self, *, final: bool) -> str:
        before = self._tokenizer.decode(self._run[: self._n_certain])
        now = self._tokenizer.decode(self._run)
        certain = final or (now.startswith(before) and not now.endswith("\ufffd"))
        if not certain or len(now) <= len(before):
            return ""
        self._run = self._run[self._n_certain :]
        self._n_certain = len(self._run)
        piece = now[len(before) :]
        if self._spaced:
            piece = piece.removeprefix(" ")
            self._spaced = False
        return piece


def foreign_tokenizer(written: str, name: str) -> ForeignTokenizer:
    """Make a tokenizer of what a Rust tokenizer wrote of itself.

    Parameters
    ----------
    written : str
        The content of a ``tokenizer.json``.
    name : str
        Where it comes from, for messages.

    Raises
    ------
    ParameterError
        If it can't be read, or has no types or more than 2**24.
    """
    try:
        described = json.loads(written)
        described |= {"truncation": None, "padding": None}
        if described["model"].get("dropout") is not None:
            described["model"]["dropout"] = None
        backend = tokenizers.Tokenizer.from_str(json.dumps(described))
    except Exception as error:  # the Rust library raises this very class
        raise ParameterError(
            f"tokenizer={name} can't be read as a tokenizer.json: {_line(error)}."
        ) from error
    types = np.unique(np.array([*backend.get_vocab().values()], dtype=np.int64))
    if not len(types) or types[-1] >= MAX_TYPES:
        raise ParameterError(
            f"tokenizer={name} has {len(types)} types with ids up to {max(types, default=0)}; at "
            f"least one type is needed, and ids below {MAX_TYPES}."
        )
    ranks = np.zeros(types[-1] + 1, dtype=np.int32)
    ranks[types] = np.arange(1, len(types) + 1)
    return ForeignTokenizer(backend, FOREIGN, ranks)


def written_form(given: Any) -> str:
    """Return what a Rust tokenizer writes of itself; transformers' fast tokenizers hold one.

    Raises
    ------
    ParameterError
        If `given` is no tokenizer, or one with parts in Python, which it can't write.
    """
    backend = getattr(given, "backend_tokenizer", given)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise ParameterError(
            f"tokenizer is a {type(given).__name__}; it is one of the kinds of tokenizer by name, "
            "the path of a tokenizer.json, or a tokenizers.Tokenizer."
        )
    try:
        return backend.to_str()
    except Exception as error:  # the Rust library raises this very class
        raise ParameterError(
            f"the given tokenizer can't be written to a tokenizer.json: {_line(error)}. Parts "
            "written in Python must be replaced by the tokenizers library's own."
        ) from error


def adopt(
    tokenizer: ForeignTokenizer, texts: Iterable[str], config: TextConfig
) -> tuple[ForeignTokenizer, TextConfig]:
    """Take a foreign tokenizer as it is, and warn if text does not come back from its ids.

    Raises
    ------
    ParameterError
        If `config` asks for anything that only a tokenizer learned here can have.
    """
    for name, untouched in (("vocab_size", AUTO), ("min_frequency", AUTO), ("lowercase", False)):
        if (value := getattr(config, name)) != untouched:
            raise ParameterError(
                f"{name}={value!r} can't be had of a given tokenizer, which is used as it is; "
                f"leave {name}={untouched!r}."
            )
    _try_way_back(tokenizer, texts)
    return tokenizer, replace(config, vocab_size=tokenizer.vocab_size, min_frequency=1)


def _try_way_back(tokenizer: ForeignTokenizer, texts: Iterable[str]) -> None:
    """Warn of the first text that its ids don't give back."""
    some = next(in_chunks(map(readable, islice(texts, TRIED_TEXTS))), [])
    for text, ids in zip(some, tokenizer.encode(some), strict=True):
        if (back := tokenizer.decode(ids)) != text:
            ours, theirs = _first_difference(text, back)
            warnings.warn(
                f"the given tokenizer does not give every text back: {ours!r} becomes {theirs!r}. "
                "Scores are the exact probabilities of what it reads; generated text is written as "
                "it writes.",
                UserWarning,
                stacklevel=6,
            )
            return


def _ends_in_space(text: str) -> bool:
    return bool(text) and text[-1] in WHITE_SPACE


def _first_difference(text: str, back: str, width: int = 30) -> tuple[str, str]:
    """Return where two texts part, with some of what stands around."""
    same = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), None)
    at = min(len(text), len(back)) if same is None else same
    here = slice(max(0, at - width // 3), at + width)
    return text[here], back[here]


def _line(error: Exception) -> str:
    """Return an error's first line without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
