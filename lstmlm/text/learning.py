"""Tokenizers learned from text."""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from lstmlm.config import AUTO, TextConfig
from lstmlm.errors import ParameterError, did_you_mean
from lstmlm.text.foreign import ForeignTokenizer, adopt
from lstmlm.text.raw import WHITE_SPACE, in_chunks, readable
from lstmlm.text.tokenizer import KINDS, UNKNOWN, Kind, Tokenizer

_log = logging.getLogger("lstmlm")

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


def learn_tokenizer(
    kind: str | ForeignTokenizer, texts: Iterable[str], config: TextConfig
) -> tuple[Tokenizer, TextConfig]:
    """Build a tokenizer from text, or take a foreign one as it is.

    Parameters
    ----------
    kind : {"bpe", "char", "word"} or ForeignTokenizer
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
        For another kind, or a vocabulary too small for it; of a foreign tokenizer, see `adopt`.
    """
    if isinstance(kind, ForeignTokenizer):
        return adopt(kind, texts, config)
    if kind not in KINDS:
        raise ParameterError(
            f"tokenizer={kind!r} is not valid; it is one of {', '.join(map(repr, KINDS))}."
            + did_you_mean(str(kind), KINDS)
        )
    _log.debug("tokenizer: learning %s", kind)
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
