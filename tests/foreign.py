"""Tokenizers of the `tokenizers` library that tests share, trained on the tiny corpus."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tiny import TEXTS
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SPECIAL = ["[CLS]", "[SEP]"]


def byte_level() -> Tokenizer:
    """Byte-level BPE like GPT-2's, with marks that its post-processor would add."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, backend.token_to_id(token)) for token in SPECIAL],
    )
    return backend


def word_piece() -> Tokenizer:
    """WordPiece like BERT's: lower case, accents stripped."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=["[UNK]", *SPECIAL], show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def unigram() -> Tokenizer:
    """Unigram with Metaspace, like SentencePiece's."""
    return Tokenizer.from_str(_written_unigram())


@cache  # the library learns another one each time
def _written_unigram() -> str:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend.to_str()


def byte_fallback() -> Tokenizer:
    """Character BPE that falls back on bytes, like Llama's."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    vocab = {token: i for i, token in enumerate(["<unk>", *bytes_, *letters])}
    model = models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True)
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return backend


def word_level() -> Tokenizer:
    """Words and punctuation, without a decoder of its own."""
    backend = Tokenizer(models.WordLevel(unk_token="<u>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=100, special_tokens=["<u>"], show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return backend


MAKERS: list[Callable[[], Tokenizer]] = [
    byte_level,
    word_piece,
    unigram,
    byte_fallback,
    word_level,
]


def spread_ids(backend: Tokenizer) -> str:
    """Return the written form of a BPE or word level tokenizer whose ids are 3, 5, 7, ..."""
    described = json.loads(backend.to_str())
    described["model"]["vocab"] = {t: 2 * i + 3 for t, i in described["model"]["vocab"].items()}
    for added in described["added_tokens"]:
        added["id"] = 2 * added["id"] + 3
    described["post_processor"] = None  # it names ids, too
    return json.dumps(described)


@cache
def path_of_byte_level() -> str:
    """Return the path of a file that holds `byte_level` with holes among its ids."""
    folder = tempfile.mkdtemp(prefix="lstmlm-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "foreign.json"
    path.write_text(spread_ids(byte_level()), "utf-8")
    return str(path)
