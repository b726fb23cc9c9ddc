"""Text before it is ids: white space, counts, and what may come as a collection of texts."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lstmlm.errors import TextError, TextTypeError

ENCODE_CHARS = 1 << 20  # characters that go to the Rust side in one batch
PIECE_CHARS = 1 << 14  # a longer text goes there in pieces, where it may be cut

# Unicode's White_Space property. Python's str.split also splits at U+001C..U+001F, which lack it.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_WORD = re.compile(f"[^{WHITE_SPACE}]+")
_SAFE_CUT = re.compile(f"(?<=[^{WHITE_SPACE}])[{WHITE_SPACE}]")
_SEPARATORS = re.compile("[\x1c-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def readable(text: str) -> str:
    """Return `text` with each lone surrogate replaced by U+FFFD, its length unchanged."""
    if text.isascii():
        return text
    return _SURROGATE.sub("\ufffd", text)


def count_words(text: str) -> int:
    """Return the number of words of `text`: what stands between Unicode white space."""
    if _SEPARATORS.search(text):
        return sum(1 for _ in _WORD.finditer(text))
    return len(text.split())


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where each word of `text` starts and ends."""
    return [match.span() for match in _WORD.finditer(text)]


def count_bytes(text: str) -> int:
    """Return the number of bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(readable(text).encode())


def check_iterable(texts: Any) -> Iterable[Any]:
    """Return `texts` if it can be a collection of texts.

    Raises
    ------
    TextError
        For a single str or bytes, for a mapping or set, and for an array or table that is not
        one-dimensional.
    TextTypeError
        For what is not iterable.
    """
    if isinstance(texts, str | bytes):
        raise TextError(
            "Iterable over raw text documents expected, string object received. "
            "Put a single text in a list: [text]."
        )
    if isinstance(texts, Mapping | set | frozenset):
        raise TextError(
            f"texts is a {type(texts).__name__}, which has no texts in an order; "
            "give a list, an array or an iterator of str."
        )
    if getattr(texts, "ndim", 1) != 1:
        raise TextError(
            f"texts has {texts.ndim} dimensions; one is needed. Of a table pass one column, "
            "for example table['text']."
        )
    if not isinstance(texts, Iterable):
        raise TextTypeError(
            f"texts is a {type(texts).__name__}; an iterable of str is needed, for example a list."
        )
    return texts


def check_text(text: Any, position: int) -> str:
    """Return `text` if it is a str.

    Raises
    ------
    TextTypeError
        If it is not; the message names the position among the texts.
    """
    if isinstance(text, str):
        return text
    hint = "decode it first" if isinstance(text, bytes) else "leave it out or replace it by a str"
    raise TextTypeError(f"texts[{position}] is {_shown(text)}; every text must be a str: {hint}.")


def check_pair(item: Any, position: int) -> tuple[Any, Any]:
    """Return `item` if it is a tuple or list of two; else raise TextTypeError."""
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    raise TextTypeError(
        f"texts[{position}] is {_shown(item)}; with as_tuples=True every item must be a "
        "(text, anything) pair."
    )


def _shown(value: Any) -> str:
    written = repr(value)
    return f"{written if len(written) <= 40 else written[:37] + '...'} ({type(value).__name__})"


def each_text(texts: Any) -> Iterator[str]:
    """Yield the texts of a checked iterable one by one, each checked as it comes."""
    for position, text in enumerate(check_iterable(texts)):
        yield check_text(text, position)


def in_chunks(texts: Iterable[str], max_chars: int = ENCODE_CHARS) -> Iterator[list[str]]:
    """Group texts into lists of about `max_chars` characters, for calls that like company."""
    chunk: list[str] = []
    n_chars = 0
    for text in texts:
        chunk.append(text)
        n_chars += len(text) + 1
        if n_chars >= max_chars:
            yield chunk
            chunk, n_chars = [], 0
    if chunk:
        yield chunk


def in_pieces(texts: Iterable[str], *, cut: bool) -> Iterator[tuple[list[str], list[bool]]]:
    """Group texts like `in_chunks`, long ones cut, so that a chunk has a bounded size.

    Parameters
    ----------
    texts : iterable of str
        Read once.
    cut : bool
        Whether texts may be cut before white space that follows something else.

    Yields
    ------
    pieces : list of str
    last : list of bool
        Whether each piece is the last one of its text.
    """
    pieces, last, n_chars = [], [], 0
    for piece, ends_text in _pieces(texts, PIECE_CHARS if cut else sys.maxsize):
        pieces.append(piece)
        last.append(ends_text)
        n_chars += len(piece) + 1
        if n_chars >= ENCODE_CHARS:
            yield pieces, last
            pieces, last, n_chars = [], [], 0
    if pieces:
        yield pieces, last


def _pieces(texts: Iterable[str], n_chars: int) -> Iterator[tuple[str, bool]]:
    """Yield texts in pieces of `n_chars` characters or more, each cut at the next safe place."""
    for text in texts:
        start = 0
        while len(text) - start > n_chars:
            match = _SAFE_CUT.search(text, start + n_chars)
            if match is None:
                break
            yield text[start : match.start()], False
            start = match.start()
        yield text[start:] if start else text, True


def sample(texts: Iterable[str], n_chars: int, max_chars: int) -> Iterator[str]:
    """Yield every k-th text, so that about `max_chars` of all `n_chars` characters come."""
    share = min(1.0, max_chars / max(1, n_chars))
    for number, text in enumerate(texts):
        if number == 0 or int((number + 1) * share) > int(number * share):
            yield text
