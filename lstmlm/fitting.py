"""From texts to a trained model: what ``fit`` does, without scikit-learn.

Texts are read (and spooled, if they come but once), a tokenizer is learned, ids are written to a
file, ``"auto"`` is settled, text is held out, the network is built and trained.
"""

import copy
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lstmlm.allocator import few_shapes, kept_buffers
from lstmlm.batches import Corpus
from lstmlm.checkpoints import Checkpoints, checkpoints_in
from lstmlm.config import AUTO, ModelConfig, TextConfig, TrainConfig
from lstmlm.defaults import cutoffs, embedding_scale, resolve_model, resolve_text, resolve_train
from lstmlm.errors import ParameterError, TextError
from lstmlm.model import RecurrentLM
from lstmlm.optim import make_optimiser, steady_rate
from lstmlm.storage import SpooledTexts, digest_of, renumber, workspace, write_corpus
from lstmlm.text import (
    ForeignTokenizer,
    Tokenizer,
    check_iterable,
    each_text,
    learn_tokenizer,
    sample,
)
from lstmlm.training import Epoch, Report, put_weights, train

_log = logging.getLogger("lstmlm")
_NO_STEP = "max_seconds={} were over before the first training step; the weights are random."
CHECKPOINT_FORMAT = 1  # to be raised when a checkpoint of this version means something else
LARGE_CORPUS = 50_000_000  # tokens from which memory goes before speed
TOKENIZER_CHARS = 200_000_000  # bpe is learned from about so many characters at most


@dataclass(frozen=True)
class Plan:
    """All settings of a fit: as given, with ``"auto"`` among them, or as settled.

    Parameters
    ----------
    tokenizer : str or ForeignTokenizer
        The kind of tokenizer to learn, or one to take.
    text : TextConfig
    model : ModelConfig
    train : TrainConfig
    """

    tokenizer: str | ForeignTokenizer
    text: TextConfig
    model: ModelConfig
    train: TrainConfig

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Plan":
        """Take the settings from a larger mapping."""
        return cls(
            tokenizer=params["tokenizer"],
            text=TextConfig.of(params),
            model=ModelConfig.of(params),
            train=TrainConfig.of(params),
        )

    def as_params(self) -> dict[str, Any]:
        """Return the settings by name."""
        kind = self.tokenizer if isinstance(self.tokenizer, str) else self.tokenizer.kind
        return {"tokenizer": kind, **asdict(self.text), **asdict(self.model),
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


@dataclass(frozen=True)
class Resume:
    """Where a fit keeps what it goes on from if it is killed.

    Parameters
    ----------
    folder : Path
        The folder of all checkpoints.
    any_seed : bool
        Whether the seed was drawn for this fit alone: the same fit, begun again, then goes on with
        the seed of the first.
    """

    folder: Path
    any_seed: bool


def fit_language_model(
    texts: Iterable[str],
    validation: Iterable[str] | None,
    plan: Plan,
    *,
    device: torch.device,
    seed: int,
    watch: Callable[[Report, Fitted], bool | None],
    start: Fitted | None = None,
    resume: Resume | None = None,
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
    start : Fitted, optional
        Whose tokenizer and weights to begin with; it isn't changed.
    resume : Resume, optional
        Where checkpoints go, and come from.

    Raises
    ------
    TextError, TextTypeError
        If the texts can't be trained on.
    ParameterError
        If settings contradict each other, or the network of `start`.
    DivergenceError
        If the loss stops being finite.
    CheckpointError
        If checkpoints can't be kept.
    """
    began = time.monotonic()
    if plan.train.max_epochs is None and plan.train.max_seconds is None:
        raise ParameterError(
            "max_epochs=None sets no limit; give max_seconds or a number of epochs."
        )
    with workspace() as folder, kept_buffers():
        text = _prepared(texts, validation, plan, folder, device, start)
        with _checkpoints(resume, text, seed, device, start) as checkpoints:
            seed = checkpoints.seed(seed) if checkpoints else seed
            corpus, heldout = _arranged(text.corpus, text.heldout, text.plan.train, seed)
            model = _first_model(text, seed, start).to(device)
            seconds = plan.train.max_seconds
            left = None if seconds is None else seconds - (time.monotonic() - began)
            fitted = Fitted(text.tokenizer, model, text.plan, list(start.history) if start else [])
            reports = train(
                model,
                corpus,
                heldout,
                text.plan.train,
                seed=seed,
                seconds=left,
                checkpoints=checkpoints,
            )
            _run(fitted, reports, watch)
    return fitted


@dataclass(frozen=True)
class Momentum:
    """What goes on from one partial fit to the next, beside the model.

    Parameters
    ----------
    optimiser : dict
        The optimiser's state, as it gives it.
    calls : int
        Partial fits so far; each draws from a random stream of its own.
    """

    optimiser: dict[str, Any]
    calls: int


def fit_partially(
    texts: Iterable[str],
    plan: Plan,
    *,
    device: torch.device,
    seed: int,
    watch: Callable[[Report, Fitted], bool | None],
    start: Fitted | None = None,
    momentum: Momentum | None = None,
) -> tuple[Fitted, Momentum]:
    """Read texts once, at a steady learning rate, and hold none out.

    Parameters
    ----------
    texts, plan, device, seed, watch, start
        See `fit_language_model`. Without `start` the tokenizer is learned from these texts, and
        ``"auto"`` follows from them.
    momentum : Momentum, optional
        Of the partial fit that left `start`.
    """
    pace = replace(plan.train, max_epochs=1, max_seconds=None, early_stopping=False)
    plan = replace(plan, train=pace)
    calls = momentum.calls if momentum else 0
    seed = int(np.random.SeedSequence([seed, calls]).generate_state(1)[0])
    with workspace() as folder, kept_buffers():
        text = _prepared(texts, None, plan, folder, device, start)
        corpus, _ = _arranged(text.corpus, None, text.plan.train, seed)
        model = _first_model(text, seed, start).to(device)
        optimiser = make_optimiser(model, text.plan.train)
        if momentum:
            optimiser.load_state_dict(copy.deepcopy(momentum.optimiser))
        fitted = Fitted(text.tokenizer, model, text.plan, list(start.history) if start else [])
        reports = train(
            model,
            corpus,
            None,
            text.plan.train,
            seed=seed,
            optimiser=optimiser,
            schedule=steady_rate(optimiser),
        )
        _run(fitted, reports, watch)
    return fitted, Momentum(_on_cpu(optimiser.state_dict()), calls + 1)


def _on_cpu(optimiser: dict[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state as any machine can load it."""
    moments = {n: {k: v.cpu() for k, v in of.items()} for n, of in optimiser["state"].items()}
    return optimiser | {"state": moments}


@dataclass(frozen=True)
class _Text:
    """What a fit trains on: `corpus` and `heldout` lie in files, `plan` holds no ``"auto"``."""

    tokenizer: Tokenizer
    plan: Plan
    corpus: Corpus
    heldout: Corpus | None


def _prepared(
    texts: Iterable[str],
    validation: Iterable[str] | None,
    plan: Plan,
    folder: Path,
    device: torch.device,
    start: Fitted | None,
) -> _Text:
    """Turn texts into ids, and settle the settings."""
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
        tokenizer, plan = start.tokenizer, _continued(plan, start.plan)
        corpus = write_corpus(texts, tokenizer, folder / "train.ids")
    heldout = _validation_corpus(validation, tokenizer, folder)
    plan = _settled(plan, corpus, tokenizer.vocab_size, device)
    return _Text(tokenizer, plan, corpus, heldout)


def _continued(plan: Plan, before: Plan) -> Plan:
    """Return a plan that keeps the text's and the network's settings of the fit before."""
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


def _first_model(text: _Text, seed: int, start: Fitted | None) -> RecurrentLM:
    """Build the network, with random weights or with those of `start`."""
    architecture = describe_architecture(text.plan.model, text.tokenizer.vocab_size)
    if start is None:
        return build(architecture, seed)
    kept = start.module
    model = allocate(
        architecture | {"cutoffs": kept.cutoffs, "embedding_scale": kept.embedding_scale}
    )
    put_weights(model, dict(kept.named_parameters()))
    return model


@contextmanager
def _checkpoints(
    resume: Resume | None, text: _Text, seed: int, device: torch.device, start: Fitted | None
) -> Iterator[Checkpoints | None]:
    """Give the checkpoint of a fit, if it keeps any."""
    if resume is None:
        yield None
        return
    facts = [CHECKPOINT_FORMAT, text.plan.as_params(), device.type]
    if not resume.any_seed:
        facts.append(seed)
    digest = hashlib.sha256(json.dumps(facts).encode())
    for corpus in filter(None, (text.corpus, text.heldout)):
        digest.update(digest_of(corpus.ids))
    for weight in start.module.parameters() if start else ():
        digest.update(digest_of(weight.detach().cpu().numpy().ravel()))
    with checkpoints_in(resume.folder, digest.hexdigest()[:16]) as checkpoints:
        yield checkpoints


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


def _settled(plan: Plan, corpus: Corpus, vocab_size: int, device: torch.device) -> Plan:
    """Replace every ``"auto"``."""
    model = resolve_model(plan.model, n_tokens=corpus.n_tokens, vocab_size=vocab_size)
    settled = resolve_train(
        plan.train,
        n_tokens=corpus.n_tokens,
        vocab_size=vocab_size,
        mean_length=corpus.n_tokens / corpus.n_texts,
        fast_bf16=_has_fast_bf16(device),
    )
    return replace(plan, model=model, train=settled)


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
    fitted: Fitted, reports: Generator[Report], watch: Callable[[Report, Fitted], bool | None]
) -> None:
    """Train to the end, or until the user interrupts it or `watch` stops it."""
    config, past = fitted.plan.train, list(fitted.history)
    history: tuple[Epoch, ...] = ()
    try:
        with closing(reports):
            for report in reports:
                history = report.history
                fitted.history[:] = past + [_after(past, epoch) for epoch in history]
                if watch(report, fitted):
                    return
    except KeyboardInterrupt:
        warnings.warn(_interrupted(history, config.early_stopping), UserWarning, stacklevel=5)
        return
    if not history and config.max_epochs != 0:
        warnings.warn(_NO_STEP.format(config.max_seconds), UserWarning, stacklevel=5)


def _after(past: list[Epoch], epoch: Epoch) -> Epoch:
    """Count an epoch on from those of earlier fits."""
    if not past:
        return epoch
    last = past[-1]
    return replace(epoch, epoch=last.epoch + epoch.epoch, seconds=last.seconds + epoch.seconds)


def _interrupted(history: Sequence[Epoch], early_stopping: bool) -> str:
    losses = [epoch.heldout_loss for epoch in history if epoch.heldout_loss is not None]
    kept = "the weights it had reached are kept"
    if losses and early_stopping:
        best = losses.index(min(losses)) + 1
        kept = f"the best weights so far, those after epoch {best}, are kept"
    return f"fit was interrupted in epoch {len(history) + 1}; {kept}."
