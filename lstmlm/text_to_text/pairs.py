"""Prompts and completions, checked."""

from collections.abc import Iterable, Sequence

from lstmlm.errors import TextError, TextTypeError
from lstmlm.text import each_text


def checked_pairs(
    prompts: Iterable[str], completions: Iterable[str]
) -> tuple[list[str], list[str]]:
    """Check pairs of texts, and return them as lists."""
    if completions is None:
        raise TextError("completions are needed, one for each prompt; None came.")
    read = _texts("prompts", prompts)
    written = _texts("completions", completions)
    if len(read) != len(written):
        raise TextError(
            f"{len(read)} prompts and {len(written)} completions came; each prompt needs one."
        )
    if not read:
        raise TextError("0 pairs came; at least one is needed.")
    return read, written


def _texts(name: str, texts: Iterable[str]) -> list[str]:
    try:
        return list(each_text(texts))
    except (TextError, TextTypeError) as error:
        raise type(error)(str(error).replace("texts", name, 1)) from None


def taking_turns(prompts: Sequence[str], completions: Sequence[str]) -> list[str]:
    """Return prompts and completions in turns, as a corpus of pairs lays them out."""
    return [text for pair in zip(prompts, completions, strict=True) for text in pair]
