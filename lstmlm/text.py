"""Text to ids and back, over the Rust library `tokenizers`.

Three kinds of tokenizer are learned from text. All are built so that a long text can be cut safely:
no pre-token is longer than a fixed number of characters counted from its own start, and none runs
over white space that follows something else.

- ``"bpe"``: byte-level byte-pair encoding (Sennrich et al. 2016, section 3.2; on bytes as in
Radford
  et al. 2019, section 2.2). Nothing is out of vocabulary, and decoding gives the text back.
- ``"char"``: one id a character (Unicode code point).
- ``"word"``: what stands between white space, the convention of PTB and WikiText.

Ids are the library's own: `END`, the end mark, is 0 and belongs to no text, whatever it spells; the
tokenizer's types follow in the order of their frequency in the training text.
"""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from lstmlm.config import AUTO, TextConfig
from lstmlm.errors import ParameterError, TextError, TextTypeError, did_you_mean

Kind = Literal["bpe", "char", "word"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Ids = NDArray[np.int32]

END = 0
UNKNOWN = "<unk>"
ENCODE_CHARS = 1 << 20  # characters that go to the Rust side in one batch

# Unicode's White_Space property. Python's str.split also splits at U+001C..U+001F, which lack it.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_WORD = re.compile(f"[^{WHITE_SPACE}]+")
_SEPARATORS = re.compile("[\x1c-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")

# The same class for Oniguruma, and what is neither white space, letter, mark nor digit.
_W = "".join(rf"\x{{{ord(c):X}}}" for c in WHITE_SPACE)
_OTHER = rf"[^{_W}\p{{L}}\p{{M}}\p{{N}}]"
_LETTER = r"[\p{L}\p{M}]"
# GPT-2's pattern with marks kept beside their letters, numbers in groups of three digits, and every
# run cut at 64 characters from its start.
_BPE_PATTERN = "|".join(
    [
        r"'(?:[sdmt]|ll|ve|re)",
        rf" {_LETTER}{{1,63}}|{_LETTER}{{1,64}}",
        r" ?\p{N}{1,3}",
        rf" {_OTHER}{{1,63}}|{_OTHER}{{1,64}}",
        rf"[{_W}]{{1,64}}(?![^{_W}])|[{_W}]",
    ]
)
_WORD_PATTERN = rf"[^{_W}]{{1,1000}}"
_WORD_CUT = re.compile(f"[^{WHITE_SPACE}]{{1,1000}}")


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
    shown = repr(text) if len(repr(text)) <= 40 else repr(text)[:37] + "..."
    hint = "decode it first" if isinstance(text, bytes) else "leave it out or replace it by a str"
    raise TextTypeError(
        f"texts[{position}] is {shown} ({type(text).__name__}); every text must be a str: {hint}."
    )


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


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Encodes texts as ids and decodes ids as text.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        The Rust tokenizer.
    kind : {"bpe", "char", "word"}
        How it was built.
    ranks : ndarray of int32, shape (backend vocabulary,)
        The id of each of the backend's types: a permutation of 1, 2, ...
    """

    backend: tokenizers.Tokenizer
    kind: Kind
    ranks: Ids

    @property
    def vocab_size(self) -> int:
        """Number of ids, the end mark included."""
        return len(self.ranks) + 1

    @cached_property
    def unknown_id(self) -> int | None:
        """The id of the unknown token; None for bpe, to which nothing is unknown."""
        if self.kind == "bpe":
            return None
        return int(self.ranks[self.backend.token_to_id(UNKNOWN)])

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return each text's ids, without an end mark."""
        encodings = self.backend.encode_batch_fast(
            [readable(text) for text in texts], add_special_tokens=False
        )
        return [self.ranks[encoding.ids] for encoding in encodings]

    def encode_with_spans(self, texts: Sequence[str]) -> list[tuple[Ids, NDArray[np.int64]]]:
        """Return each text's ids and their spans, shape (n_tokens, 2): start and end characters."""
        encodings = self.backend.encode_batch(
            [readable(text) for text in texts], add_special_tokens=False
        )
        return [
            (
                self.ranks[encoding.ids],
                np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
            )
            for encoding in encodings
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text that ids stand for; end marks are passed over."""
        decoder = self.decoder()
        return "".join(map(decoder.feed, ids)) + decoder.finish()

    def decoder(self, after: str = "") -> "Decoder":
        """Return a fresh incremental decoder for ids that continue the text `after`."""
        return Decoder(self._pieces, glue=b" " if self.kind == "word" else b"", after=after)

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
        return replace(self, ranks=new_rank[self.ranks - 1])

    @cached_property
    def _pieces(self) -> list[bytes]:
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


def learn_tokenizer(
    kind: str, texts: Iterable[str], config: TextConfig
) -> tuple[Tokenizer, TextConfig]:
    """Build a tokenizer from text.

    Parameters
    ----------
    kind : {"bpe", "char", "word"}
        The kind.
    texts : iterable of str
        Read once.
    config : TextConfig
        With ``vocab_size="auto"`` "char" and "word" keep every type; bpe needs a number. With
        ``min_frequency="auto"`` it is 2, but 1 for words where the text holds "<unk>".

    Returns
    -------
    tokenizer : Tokenizer
    config : TextConfig
        With the numbers that ``"auto"`` became.

    Raises
    ------
    ParameterError
        For another kind, or a vocabulary too small for it.
    """
    if kind not in KINDS:
        raise ParameterError(
            f"tokenizer={kind!r} is not valid; it is one of {', '.join(map(repr, KINDS))}."
            + did_you_mean(str(kind), KINDS)
        )
    build = _learn_bpe if kind == "bpe" else _learn_types
    backend, min_frequency = build(kind, map(readable, texts), config)
    if config.lowercase:
        backend.normalizer = normalizers.Lowercase()
    n_types = backend.get_vocab_size()
    tokenizer = Tokenizer(backend, kind, np.arange(1, n_types + 1, dtype=np.int32))
    settled = replace(config, vocab_size=tokenizer.vocab_size, min_frequency=min_frequency)
    return tokenizer, settled


def _learn_bpe(
    kind: Kind, texts: Iterable[str], config: TextConfig
) -> tuple[tokenizers.Tokenizer, int]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if config.vocab_size == AUTO or config.vocab_size <= len(alphabet):
        raise ParameterError(
            f"vocab_size={config.vocab_size!r} is too small for bpe, which needs the 256 bytes and "
            "the end mark: at least 257."
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_BPE_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    if config.lowercase:
        backend.normalizer = normalizers.Lowercase()
    min_frequency = 2 if config.min_frequency == AUTO else config.min_frequency
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size - 1,
        min_frequency=min_frequency,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend, min_frequency


def _learn_types(
    kind: Kind, texts: Iterable[str], config: TextConfig
) -> tuple[tokenizers.Tokenizer, int]:
    counts = _count_types(kind, texts, lowercase=config.lowercase)
    seen_unknown = kind == "word" and counts.pop(UNKNOWN, 0) > 0
    auto_frequency = 1 if seen_unknown else 2
    least = auto_frequency if config.min_frequency == AUTO else config.min_frequency
    kept = [token for token, count in counts.most_common() if count >= least]
    if config.vocab_size != AUTO:
        kept = kept[: config.vocab_size - 2]  # the end mark and the unknown token
    vocab = {token: i for i, token in enumerate([UNKNOWN, *kept])}
    if kind == "char":
        # BPE without merges: the characters, with no regular expression to slow it down.
        model = models.BPE(vocab, [], unk_token=UNKNOWN, fuse_unk=False)
        return tokenizers.Tokenizer(model), least
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD_PATTERN), "removed", invert=True)
    return backend, least


def _count_types(kind: Kind, texts: Iterable[str], *, lowercase: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    lower = normalizers.Lowercase().normalize_str if lowercase else str
    for chunk in in_chunks(texts):
        if kind == "char":
            counts.update(lower("".join(chunk)))
        else:
            counts.update(_WORD_CUT.findall(lower("\n".join(chunk))))
    return counts


def sample(texts: Iterable[str], n_chars: int, max_chars: int) -> Iterator[str]:
    """Yield every k-th text, so that about `max_chars` of all `n_chars` characters come."""
    share = min(1.0, max_chars / max(1, n_chars))
    for number, text in enumerate(texts):
        if number == 0 or int((number + 1) * share) > int(number * share):
            yield text


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
