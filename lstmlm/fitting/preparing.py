"""Texts to ids in files, and settings to plain numbers."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lstmlm.batches import COUNTED_TOKENS, Corpus
from lstmlm.config import AUTO, ModelConfig
from lstmlm.defaults import Circumstances, resolve, resolve_text, wants_first_rows
from lstmlm.errors import ParameterError, TextError
from lstmlm.fitting.network import (
    allocate,
    build,
    describe_architecture,
    guessed_flops,
    has_fast_bf16,
)
from lstmlm.fitting.plan import Fitted, Plan
from lstmlm.fitting.words import first_rows, log_frequencies
from lstmlm.model import RecurrentLM
from lstmlm.storage import SpooledTexts, renumber, write_corpus
from lstmlm.text import (
    ForeignTokenizer,
    Tokenizer,
    check_iterable,
    each_text,
    learn_tokenizer,
    sample,
)
from lstmlm.training import put_weights

_log = logging.getLogger("lstmlm")
TOKENIZER_CHARS = 200_000_000  # bpe is learned from about so many characters at most


@dataclass(frozen=True)
class PreparedText:
    """What a fit trains on: `corpus` and `heldout` lie in files, `plan` holds no ``"auto"``."""

    tokenizer: Tokenizer
    plan: Plan
    corpus: Corpus
    heldout: Corpus | None


def prepared_text(
    texts: Iterable[str],
    validation: Iterable[str] | None,
    plan: Plan,
    folder: Path,
    device: torch.device,
    start: Fitted | None,
    *,
    pairs: bool = False,
) -> PreparedText:
    """Turn texts into ids, and settle the settings.

    Of pairs, prompts and completions take turns among the texts.
    """
    texts = rereadable(texts, folder)
    n_chars = _survey(texts)
    if start is None:
        text_config = resolve_text(plan.text, n_chars) if plan.tokenizer == "bpe" else plan.text
        shown = sample(texts, n_chars, TOKENIZER_CHARS) if plan.tokenizer == "bpe" else texts
        tokenizer, text_config = learn_tokenizer(plan.tokenizer, shown, text_config)
        corpus = write_corpus(texts, tokenizer, folder / "train.ids")
        tokenizer = renumber(corpus, tokenizer)
        plan = replace(plan, text=text_config)
    else:
        tokenizer, plan = start.tokenizer, _continued(plan, start)
        corpus = write_corpus(texts, tokenizer, folder / "train.ids")
    heldout = _validation_corpus(validation, tokenizer, folder)
    if pairs:
        corpus, heldout = corpus.as_pairs(), heldout and heldout.as_pairs()
    plan = _settled(plan, corpus, tokenizer, device)
    return PreparedText(tokenizer, plan, corpus, heldout)


def _continued(plan: Plan, start: Fitted) -> Plan:
    """Return a plan that keeps the text's and the network's settings of the fit before."""
    before = start.plan
    given, kept = plan.tokenizer, start.tokenizer
    if (
        isinstance(given, ForeignTokenizer)
        and isinstance(kept, ForeignTokenizer)
        and given.backend.to_str() != kept.backend.to_str()
    ):
        raise ParameterError(
            "the given tokenizer is another than the one of the network that is to learn on; "
            "keep that, or fit anew with warm_start=False."
        )
    now, then = plan.as_params(), before.as_params()
    fixed = [name for name in ModelConfig.rules() if not name.startswith("dropout")]
    for name in ["tokenizer", "lowercase", *fixed]:
        if now[name] not in (AUTO, then[name]):
            raise ParameterError(
                f"{name}={now[name]!r} does not fit the network that is to learn on, which has "
                f"{name}={then[name]!r}; keep that, or fit anew with warm_start=False."
            )
    model = {name: then[name] if now[name] == AUTO else now[name] for name in ModelConfig.rules()}
    return Plan(before.tokenizer, before.text, ModelConfig(**model), plan.train)


def rereadable(texts: Iterable[str], folder: Path) -> Iterable[str]:
    """Return texts that can be read several times: an iterator's are written to a file."""
    if iter(check_iterable(texts)) is texts:
        return SpooledTexts(each_text(texts), folder / "texts")
    return texts


def _survey(texts: Iterable[str]) -> int:
    """Check every text and return the characters of all."""
    _log.debug("survey: counting texts and characters")
    n_texts, n_chars = 0, 0
    for text in each_text(texts):
        n_texts += 1
        n_chars += len(text)
    if not n_texts:
        raise TextError("fit needs at least one text; 0 texts came.")
    return n_chars


def _validation_corpus(
    validation: Iterable[str] | None, tokenizer: Tokenizer, folder: Path
) -> Corpus | None:
    if validation is None:
        return None
    corpus = write_corpus(each_text(validation), tokenizer, folder / "validation.ids")
    if not corpus.n_texts:
        raise TextError("validation holds 0 texts; at least one is needed, or None.")
    return corpus


def _settled(plan: Plan, corpus: Corpus, tokenizer: Tokenizer, device: torch.device) -> Plan:
    """Replace every ``"auto"``."""
    case = Circumstances(
        n_tokens=corpus.n_read,
        vocab_size=tokenizer.vocab_size,
        mean_length=corpus.n_read / corpus.n_texts,
        longest_pair=0 if corpus.counted is None else corpus.longest,
        fast_bf16=has_fast_bf16(device),
        flops=math.inf if plan.train.max_seconds is None else guessed_flops(device),
        by_word=tokenizer.kind == "word",
    )
    model, train = resolve(plan.model, plan.train, case)
    if getattr(model, "attention", False) and int(train.bptt_length) < corpus.longest:
        train = replace(train, bptt_length=corpus.longest)  # what is looked back at is read with it
    return replace(plan, model=model, train=train)


def arranged(text: PreparedText, seed: int) -> PreparedText:
    """Lay the texts out as one stream, if that is what they are, and hold some out."""
    corpus, heldout, config = text.corpus, text.heldout, text.plan.train
    if config.context == "stream":
        corpus = corpus.as_stream()
        heldout = heldout and heldout.as_stream()
    if heldout is None and config.early_stopping:
        rng = np.random.default_rng(seed)
        corpus, heldout = corpus.split(float(config.validation_fraction), rng)
    return replace(text, corpus=corpus, heldout=heldout)


def first_model(text: PreparedText, seed: int, start: Fitted | None) -> RecurrentLM:
    """Build the network, with first weights of its own or with those of `start`."""
    architecture = describe_architecture(text.plan.model, text.tokenizer.vocab_size)
    if start is None:
        model, sample = build(architecture, seed), text.corpus.sample(COUNTED_TOKENS)
        targets = text.corpus.counted_part.sample(COUNTED_TOKENS)
        model.head.expect(log_frequencies(targets, model.vocab_size))
        if wants_first_rows(model.vocab_size, text.plan.train.max_seconds):
            written = [piece.decode(errors="replace") for piece in text.tokenizer.pieces]
            width, first = model.embedding_dim, model.tail_width
            model.embed(first_rows(sample, written, width, first=first, seed=seed))
        return model
    kept = start.module
    model = allocate(architecture | kept.of_vocabulary)
    put_weights(model, dict(kept.named_parameters()))
    return model
