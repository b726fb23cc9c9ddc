"""From texts to a trained model: what ``fit`` does, without scikit-learn.

Texts are read (and spooled, if they come but once), a tokenizer is learned, ids are written to a
file, ``"auto"`` is settled, text is held out, the network is built and trained.
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lstmlm.allocator import kept_buffers
from lstmlm.batches import Corpus
from lstmlm.config import ModelConfig, TextConfig, TrainConfig
from lstmlm.defaults import cutoffs, embedding_scale, resolve_model, resolve_text, resolve_train
from lstmlm.errors import ParameterError, TextError
from lstmlm.model import RecurrentLM
from lstmlm.storage import SpooledTexts, renumber, workspace, write_corpus
from lstmlm.text import Tokenizer, check_iterable, each_text, learn_tokenizer, sample
from lstmlm.training import Epoch, Report, put_weights, train

_NO_STEP = "max_seconds={} were over before the first training step; the weights are random."
TOKENIZER_CHARS = 200_000_000  # bpe is learned from about so many characters at most


@dataclass(frozen=True)
class Plan:
    """All settings of a fit: as given, with ``"auto"`` among them, or as settled.

    Parameters
    ----------
    tokenizer : str
        The kind of tokenizer to learn.
    text : TextConfig
    model : ModelConfig
    train : TrainConfig
    """

    tokenizer: str
    text: TextConfig
    model: ModelConfig
    train: TrainConfig

    def as_params(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {"tokenizer": self.tokenizer, **asdict(self.text), **asdict(self.model),
                **asdict(self.train)}  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Parameters
    ----------
    tokenizer : Tokenizer
    module : RecurrentLM
    plan : Plan
        The settings, none ``"auto"``.
    history : list of Epoch
    """

    tokenizer: Tokenizer
    module: RecurrentLM
    plan: Plan
    history: list[Epoch]


def fit_language_model(
    texts: Iterable[str],
    validation: Iterable[str] | None,
    plan: Plan,
    *,
    device: torch.device,
    seed: int,
    watch: Callable[[Report, Fitted], bool | None],
) -> Fitted:
    """Train a language model on texts.

    Parameters
    ----------
    texts : iterable of str
        The training text; a one-shot iterator is spooled to a file.
    validation : iterable of str, optional
        Held-out text; without it some of `texts` is held out for early stopping.
    plan : Plan
        The settings.
    device : torch.device
        Where to train.
    seed : int
        Of the held-out texts, the first weights, the order of texts and dropout.
    watch : callable
        Gets each `Report` and the fit under way, which goes on changing: `snapshot` copies it. If
        it answers True, training stops there, with the best weights so far.

    Raises
    ------
    TextError, TextTypeError
        If the texts can't be trained on.
    ParameterError
        If settings contradict each other.
    DivergenceError
        If the loss stops being finite.
    """
    began = time.monotonic()
    if plan.train.max_epochs is None and plan.train.max_seconds is None:
        raise ParameterError(
            "max_epochs=None sets no limit; give max_seconds or a number of epochs."
        )
    with workspace() as folder:
        texts = rereadable(texts, folder)
        n_chars = _survey(texts)
        text_config = resolve_text(plan.text, n_chars) if plan.tokenizer == "bpe" else plan.text
        shown = sample(texts, n_chars, TOKENIZER_CHARS) if plan.tokenizer == "bpe" else texts
        tokenizer, text_config = learn_tokenizer(plan.tokenizer, shown, text_config)
        corpus = write_corpus(texts, tokenizer, folder / "train.ids")
        tokenizer = renumber(corpus, tokenizer)
        heldout = _validation_corpus(validation, tokenizer, folder)
        plan = _settled(plan, text_config, corpus, tokenizer.vocab_size, device)
        corpus, heldout = _arranged(corpus, heldout, plan.train, seed)
        model = build(describe_architecture(plan.model, tokenizer.vocab_size), seed).to(device)
        seconds = plan.train.max_seconds
        left = None if seconds is None else seconds - (time.monotonic() - began)
        fitted = Fitted(tokenizer, model, plan, history=[])
        with kept_buffers():
            _run(fitted, corpus, heldout, seed=seed, seconds=left, watch=watch)
    return fitted


def snapshot(fitted: Fitted, report: Report) -> Fitted:
    """Return a copy of a fit under way, as it would be left if it stopped at its last report."""
    # cuDNN wants a layer's weights in one piece, which a copy's are after a move, be it to nowhere.
    module = copy.deepcopy(fitted.module).to(fitted.module.device).eval()
    if report.best is not None:
        put_weights(module, report.best)
    return Fitted(fitted.tokenizer, module, fitted.plan, list(fitted.history))


def describe_architecture(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Return `RecurrentLM`'s arguments: a settled configuration's plain numbers."""
    described = {"vocab_size": vocab_size, **asdict(config)}
    return described | {
        "cutoffs": cutoffs(vocab_size) if config.output == "adaptive" else [],
        "embedding_scale": embedding_scale(vocab_size),
    }


def build(architecture: dict[str, Any], seed: int) -> RecurrentLM:
    """Build a network on the CPU and draw its first weights."""
    model = allocate(architecture)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def allocate(architecture: dict[str, Any]) -> RecurrentLM:
    """Build a network of any weights, and leave torch's own random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        return RecurrentLM(**architecture).eval()


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" is a CUDA GPU where there is one, else the CPU.

    Raises
    ------
    ParameterError
        If torch doesn't know the name, or the device isn't there.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            f"device={device!r} can't be used ({reason}); "
            'give "auto", "cpu" or a GPU that is there, such as "cuda" or "cuda:1".'
        ) from error
    return chosen


def rereadable(texts: Iterable[str], folder: Path) -> Iterable[str]:
    """Return texts that can be read several times: an iterator's are written to a file."""
    if iter(check_iterable(texts)) is texts:
        return SpooledTexts(each_text(texts), folder / "texts")
    return texts


def _survey(texts: Iterable[str]) -> int:
    """Check every text and return the characters of all."""
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


def _settled(
    plan: Plan, text: TextConfig, corpus: Corpus, vocab_size: int, device: torch.device
) -> Plan:
    """Replace every ``"auto"``."""
    model = resolve_model(plan.model, n_tokens=corpus.n_tokens, vocab_size=vocab_size)
    settled = resolve_train(
        plan.train,
        n_tokens=corpus.n_tokens,
        vocab_size=vocab_size,
        mean_length=corpus.n_tokens / corpus.n_texts,
        fast_bf16=_has_fast_bf16(device),
    )
    return Plan(plan.tokenizer, text, model, settled)


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = device.type == "cpu" and hasattr(torch.cpu, "get_capabilities")  # not in older torch
    flags = torch.cpu.get_capabilities() if known else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def _arranged(
    corpus: Corpus, heldout: Corpus | None, config: TrainConfig, seed: int
) -> tuple[Corpus, Corpus | None]:
    """Lay the texts out as one stream, if that is what they are, and hold some out."""
    if config.context == "stream":
        corpus = corpus.as_stream()
        heldout = heldout and heldout.as_stream()
    if heldout is not None or not config.early_stopping:
        return corpus, heldout
    return corpus.split(float(config.validation_fraction), np.random.default_rng(seed))


def _run(
    fitted: Fitted,
    corpus: Corpus,
    heldout: Corpus | None,
    *,
    seed: int,
    seconds: float | None,
    watch: Callable[[Report, Fitted], bool | None],
) -> None:
    """Train to the end, or until the user interrupts it or `watch` stops it."""
    config, history = fitted.plan.train, fitted.history
    reports = train(fitted.module, corpus, heldout, config, seed=seed, seconds=seconds)
    try:
        with closing(reports):
            for report in reports:
                if report.ended is not None:
                    history.append(report.ended)
                if watch(report, fitted):
                    return
    except KeyboardInterrupt:
        warnings.warn(_interrupted(history, config.early_stopping), UserWarning, stacklevel=5)
        return
    if not history and config.max_epochs != 0:
        warnings.warn(_NO_STEP.format(config.max_seconds), UserWarning, stacklevel=5)


def _interrupted(history: list[Epoch], early_stopping: bool) -> str:
    losses = [epoch.heldout_loss for epoch in history if epoch.heldout_loss is not None]
    kept = "the weights it had reached are kept"
    if losses and early_stopping:
        best = losses.index(min(losses)) + 1
        kept = f"the best weights so far, those after epoch {best}, are kept"
    return f"fit was interrupted in epoch {len(history) + 1}; {kept}."
