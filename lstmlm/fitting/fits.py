"""A whole fit, and a partial one."""

import copy
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lstmlm.allocator import FEW, SOME, few_shapes, kept_buffers
from lstmlm.checkpoints import Checkpoints, checkpoints_in
from lstmlm.errors import ParameterError
from lstmlm.fitting.plan import Fitted, Plan
from lstmlm.fitting.preparing import PreparedText, arranged, first_model, prepared_text
from lstmlm.optim import make_optimiser, steady_rate
from lstmlm.storage import digest_of, workspace
from lstmlm.training import Epoch, Report, train

_NO_STEP = "max_seconds={} were over before the first training step; the weights are random."
CHECKPOINT_FORMAT = 5  # to be raised when a checkpoint of this version means something else
LARGE_CORPUS = 50_000_000  # tokens from which memory goes before speed


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
    pairs: bool = False,
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
    pairs : bool
        Whether prompts and completions take turns among the texts: completions are what is learned.

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
    with workspace() as folder:
        text = prepared_text(texts, validation, plan, folder, device, start, pairs=pairs)
        name = _checkpoint_name(resume, text, seed, device, start) if resume else ""
        with _memory_for(text.corpus.n_tokens), _checkpoints(resume, name) as checkpoints:
            seed = checkpoints.seed(seed) if checkpoints else seed
            text = arranged(text, seed)
            model = first_model(text, seed, start).to(device)
            seconds = plan.train.max_seconds
            left = None if seconds is None else seconds - (time.monotonic() - began)
            fitted = Fitted(text.tokenizer, model, text.plan, list(start.history) if start else [])
            reports = train(
                model,
                text.corpus,
                text.heldout,
                text.plan.train,
                seed=seed,
                seconds=left,
                checkpoints=checkpoints,
                heldout_last=validation is None,
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
    with workspace() as folder:
        text = arranged(prepared_text(texts, None, plan, folder, device, start), seed)
        model = first_model(text, seed, start).to(device)
        optimiser = make_optimiser(model, text.plan.train)
        if momentum:
            optimiser.load_state_dict(copy.deepcopy(momentum.optimiser))
        fitted = Fitted(text.tokenizer, model, text.plan, list(start.history) if start else [])
        reports = train(
            model,
            text.corpus,
            None,
            text.plan.train,
            seed=seed,
            optimiser=optimiser,
            schedule=steady_rate(optimiser),
        )
        with _memory_for(text.corpus.n_tokens):
            _run(fitted, reports, watch)
    return fitted, Momentum(_on_cpu(optimiser.state_dict()), calls + 1)


def _on_cpu(optimiser: dict[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state as any machine can load it."""
    moments = {n: {k: v.cpu() for k, v in of.items()} for n, of in optimiser["state"].items()}
    return optimiser | {"state": moments}


@contextmanager
def _memory_for(n_tokens: int) -> Iterator[None]:
    """Let a training keep its buffers, and on much text little else."""
    with few_shapes(FEW if n_tokens >= LARGE_CORPUS else SOME), kept_buffers():
        yield


@contextmanager
def _checkpoints(resume: Resume | None, name: str) -> Iterator[Checkpoints | None]:
    """Give the checkpoint of a fit, if it keeps any."""
    if resume is None:
        yield None
        return
    with checkpoints_in(resume.folder, name) as checkpoints:
        yield checkpoints


def _checkpoint_name(
    resume: Resume, text: PreparedText, seed: int, device: torch.device, start: Fitted | None
) -> str:
    """Return a name that no other fit has: of other settings, texts or weights."""
    facts = [CHECKPOINT_FORMAT, text.plan.as_params(), device.type]
    if not resume.any_seed:
        facts.append(seed)
    digest = hashlib.sha256(json.dumps(facts).encode())
    for corpus in filter(None, (text.corpus, text.heldout)):
        digest.update(digest_of(corpus.ids))
    for weight in start.module.parameters() if start else ():
        digest.update(digest_of(weight.detach().cpu().numpy().ravel()))
    return digest.hexdigest()[:16]


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
