"""Ids of texts, and texts of ids."""

import codecs
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal, get_args

import numpy as np
import tokenizers
from numpy.typing import NDArray

from lstmlm.text.lexicon import Lexicon
from lstmlm.text.raw import WHITE_SPACE, in_pieces, readable

Kind = Literal["bpe", "char", "word", "foreign"]
FOREIGN: Literal["foreign"] = "foreign"
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != FOREIGN)
Ids = NDArray[np.int32]

LONG_CHARS = 1 << 17  # of a text that is encoded in pieces, where it may be cut
END = 0
UNKNOWN = "<unk>"


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Encodes texts as ids and decodes ids as text.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        The Rust tokenizer.
    kind : {"bpe", "char", "word", "foreign"}
        How it was built.
    ranks : ndarray of int32, shape (backend vocabulary,)
        The id of each of the backend's types: a permutation of 1, 2, ... and, where the backend's
        ids have holes, 0.
    """

    backend: tokenizers.Tokenizer
    kind: Kind
    ranks: Ids

    @property
    def vocab_size(self) -> int:
        """Number of ids, the end mark included."""
        return int(self.ranks.max(initial=0)) + 1

    @property
    def has_safe_cuts(self) -> bool:
        """Whether a text may be cut before white space that follows something else.

        The parts then have the ids of the whole. The kinds learned here are made so.
        """
        return True

    @cached_property
    def unknown_id(self) -> int | None:
        """The id of the unknown token; None for bpe, to which nothing is unknown."""
        if self.kind == "bpe":
            return None
        return int(self.ranks[self.backend.token_to_id(UNKNOWN)])

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return each text's ids, without an end mark."""
        if self._all_short(texts):
            return [self.ranks[encoding.ids] for encoding in self._encoded(texts)]
        return [
            np.concatenate([self.encode_pieces(*some)[0] for some in in_pieces([text], cut=True)])[
                :-1
            ]
            for text in texts
        ]

    def _all_short(self, texts: Sequence[str]) -> bool:
        """Return whether texts may be encoded as they are: of long ones what is made is large."""
        return not self.has_safe_cuts or all(len(text) <= LONG_CHARS for text in texts)

    def encode_pieces(
        self, pieces: Sequence[str], last: Sequence[bool]
    ) -> tuple[Ids, NDArray[np.int64]]:
        """Return the ids of texts that come in pieces, all in one array.

        Parameters
        ----------
        pieces : sequence of str
            One after the other; a text may be cut where `has_safe_cuts` allows it.
        last : sequence of bool
            Whether each piece is the last one of its text.

        Returns
        -------
        ids : ndarray of int32
            An end mark follows each text's last piece.
        ends : ndarray of int64
            Where each text ends in `ids`, its end mark included.
        """
        encodings = self._encoded(pieces)
        ends_text = np.array(last, dtype=np.bool_)
        after = np.cumsum([len(encoding) for encoding in encodings] + ends_text.astype(np.int64))
        ends = after[ends_text]
        is_token = np.ones(after[-1], dtype=np.bool_)
        is_token[ends - 1] = False
        ids = np.full(len(is_token), END, dtype=np.int32)
        tokens = chain.from_iterable(encoding.ids for encoding in encodings)
        ids[is_token] = self.ranks[np.fromiter(tokens, dtype=np.int32)]
        return ids, ends

    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[Ids, NDArray[np.int64]]]:
        """Return each text's ids and their spans, shape (n_tokens, 2): start and end characters."""
        if self._all_short(texts):
            return self._with_spans(texts)
        return [self._long_with_spans(text) for text in texts]

    def _long_with_spans(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        ids, spans, at = [], [], 0
        for pieces, _ in in_pieces([text], cut=True):
            for piece, (of_piece, where) in zip(pieces, self._with_spans(pieces), strict=True):
                ids.append(of_piece)
                spans.append(where + at)
                at += len(piece)
        return np.concatenate(ids), np.concatenate(spans)

    def _with_spans(self, texts: Sequence[str]) -> list[tuple[Ids, NDArray[np.int64]]]:
        encodings = self._encodings(texts)
        return [
            (
                self.ranks[encoding.ids],
                np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
            )
            for encoding in encodings
        ]

    def pre_tokens(self, text: str) -> list[tuple[int, int]]:
        """Return where each pre-token of a text starts and ends: what no token reaches out of."""
        encoding = self.backend.encode(readable(text), add_special_tokens=False)
        found: dict[int, tuple[int, int]] = {}
        for number, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            assert number is not None
            first, last = found.get(number, (start, end))
            found[number] = min(first, start), max(last, end)
        return list(found.values())

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text that ids stand for; end marks are passed over."""
        decoder = self.decoder()
        return "".join(map(decoder.feed, ids)) + decoder.finish()

    def decoder(self, after: str = "") -> "Decoder":
        """Return a fresh incremental decoder for ids that continue the text `after`."""
        return Decoder(self.pieces, glue=self.glue, after=after)

    def reordered(self, counts: NDArray[np.int64]) -> "Tokenizer":
        """Return this tokenizer with ids in the order of falling counts.

        Parameters
        ----------
        counts : ndarray of int64, shape (vocab_size,)
            How often each present id occurs; that of the end mark is not looked at.
        """
        by_count = np.argsort(-counts[1:], kind="stable")
        new_rank = np.empty(len(by_count), dtype=np.int32)
        new_rank[by_count] = np.arange(1, len(by_count) + 1, dtype=np.int32)
        return replace(self, ranks=np.where(self.ranks > 0, new_rank[self.ranks - 1], 0))

    def _encodings(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Encode texts; a batch of one would wake threads for nothing."""
        if len(texts) == 1:
            return [self.backend.encode(readable(texts[0]), add_special_tokens=False)]
        return self.backend.encode_batch(
            [readable(text) for text in texts], add_special_tokens=False
        )

    def _encoded(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        readable_texts = [readable(text) for text in texts]
        return self.backend.encode_batch_fast(readable_texts, add_special_tokens=False)

    @property
    def glue(self) -> bytes:
        """What stands between two ids: a space for words."""
        return b" " if self.kind == "word" else b""

    @cached_property
    def lexicon(self) -> Lexicon:
        """What each id spells, the unknown token nothing."""
        return Lexicon(self.pieces, () if self.unknown_id is None else (self.unknown_id,))

    def normalized(self, text: str) -> str:
        """Return a text as it is read: in lower case, if all text is."""
        normalizer = self.backend.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each id."""
        pieces = [b""] * self.vocab_size
        as_bytes: Callable[[str], bytes] = _bytes_of_bpe if self.kind == "bpe" else str.encode
        for token, backend_id in self.backend.get_vocab().items():
            pieces[self.ranks[backend_id]] = as_bytes(token)
        if self.kind == "char" and self.unknown_id is not None:
            pieces[self.unknown_id] = "\ufffd".encode()
        return pieces


class Decoder:
    """Turns ids into text as they come, and never gives out half a character.

    Parameters
    ----------
    pieces : sequence of bytes
        The bytes of each id.
    glue : bytes
        What stands between two ids: a space for words.
    after : str
        The text that the ids continue: words get a space before the first one unless `after` is
        empty or ends in white space.
    """

    def __init__(self, pieces: Sequence[bytes], *, glue: bytes, after: str) -> None:
        self._pieces = pieces
        self._glue = glue
        self._glued = bool(glue) and bool(after) and after[-1] not in WHITE_SPACE
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """Return the text that is certain once `token_id` has come; empty inside a character."""
        piece = self._pieces[token_id]
        if not piece:
            return ""
        if self._glued:
            piece = self._glue + piece
        self._glued = bool(self._glue)
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """Return what is left: U+FFFD for a character that was not completed."""
        return self._utf8.decode(b"", final=True)


def _bytes_of_bpe(token: str) -> bytes:
    """Return the bytes that a byte-level token's characters stand for."""
    return bytes(_BYTE_OF[character] for character in token)


def _byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of the byte-level alphabet of GPT-2.

    Printable Latin-1 stands for itself; the other bytes, in order, for U+0100, U+0101, ...
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + i): byte for i, byte in enumerate(others)
    }


_BYTE_OF = _byte_alphabet()
