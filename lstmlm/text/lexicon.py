"""What the types of a vocabulary spell: which ids go on from some bytes, and where words end."""

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from enum import IntEnum, auto
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from lstmlm.text.raw import WHITE_SPACE

# Scripts written without spaces between words: Thai and Lao, Tibetan, Burmese, Khmer, kana, Han.
_UNSPACED = (
    *((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF)),
    *((0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
_IN_WORDS = "'’_"


class CharClass(IntEnum):
    """What a character is to a word."""

    NONE = auto()  # no character: the end mark, the unknown token
    PART = auto()  # the inside of a character, of which a token may hold a part
    SPACE = auto()
    WORD = auto()
    UNSPACED = auto()
    OTHER = auto()


@lru_cache(maxsize=4_096)
def char_class(character: str) -> CharClass:
    """Return what a character is to a word: letters, marks, digits and apostrophes are of it."""
    if character in WHITE_SPACE:
        return CharClass.SPACE
    code = ord(character)
    if any(low <= code <= high for low, high in _UNSPACED):
        return CharClass.UNSPACED
    if character in _IN_WORDS or unicodedata.category(character)[0] in "LMN":
        return CharClass.WORD
    return CharClass.OTHER


class Lexicon:
    """The bytes of each id, in the order of bytes.

    Parameters
    ----------
    pieces : sequence of bytes
        The bytes of each id; empty for one that spells nothing.
    silent : sequence of int
        Ids that are never written.
    """

    def __init__(self, pieces: Sequence[bytes], silent: Sequence[int] = ()) -> None:
        self.pieces = pieces
        self._silent = set(silent)
        spelled = [i for i, piece in enumerate(pieces) if piece and i not in self._silent]
        self._ids = np.array(sorted(spelled, key=pieces.__getitem__), dtype=np.int64)
        self._sorted = [pieces[i] for i in self._ids.tolist()]

    def longer(self, beginning: bytes) -> NDArray[np.int64]:
        """Return the ids whose bytes begin with these and go on."""
        first = bisect_right(self._sorted, beginning)
        last = bisect_left(self._sorted, beginning + b"\xff")  # a byte that no text has
        return self._ids[first:last]

    @cached_property
    def reach(self) -> int:
        """How many bytes the longest type has."""
        return max(map(len, self._sorted), default=0)

    @cached_property
    def firsts(self) -> NDArray[np.int8]:
        """The `CharClass` of each id's first character."""
        classes = [
            CharClass.NONE if number in self._silent else _first_class(piece)
            for number, piece in enumerate(self.pieces)
        ]
        return np.array(classes, dtype=np.int8)

    @cached_property
    def ending(self) -> NDArray[np.bool_]:
        """Whether a word that ends in a character of some class has ended if an id follows.

        Shape (classes, V), indexed by the `CharClass`. Behind white space no word has begun yet.
        """
        ends = np.zeros((max(CharClass) + 1, len(self.pieces)), dtype=np.bool_)
        for of in (CharClass.WORD, CharClass.OTHER):
            ends[of] = ~np.isin(self.firsts, [of, CharClass.PART])
        ends[:, self.firsts == CharClass.NONE] = True
        return ends

    @cached_property
    def line_ending(self) -> NDArray[np.bool_]:
        """Whether a line has ended if an id follows, shape (V,)."""
        ends: NDArray[np.bool_] = self.firsts == CharClass.NONE
        ends[self.longer(b"\n")] = True
        ends[[i for i, piece in enumerate(self.pieces) if piece == b"\n"]] = True
        return ends


def _first_class(piece: bytes) -> CharClass:
    if not piece:
        return CharClass.NONE
    inside = piece[0] & 0xC0 == 0x80  # a byte that continues a character
    text = "" if inside else piece[:4].decode("utf-8", "ignore")
    return char_class(text[0]) if text else CharClass.PART
