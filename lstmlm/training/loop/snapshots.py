"""A trainer's state: what a checkpoint holds, and a training goes on from."""

import time
from dataclasses import asdict
from typing import Any

from torch import Tensor

from lstmlm.nn.state import State
from lstmlm.training.loop.trainer import Trainer
from lstmlm.training.records import Epoch
from lstmlm.training.weights import put_weights

# What a snapshot holds of a trainer's plain attributes.
_FACTS = (
    *("order", "first_token", "first_step", "windows", "steps", "epoch_nats", "tokens"),
    *("best_loss", "since_best"),
)


def snapshot(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all that training goes on from, as tensors and as what JSON can hold."""
    trainer.optimiser.rows.store()
    tensors: dict[str, Tensor] = {f"weights.{n}": p for n, p in trainer.model.named_parameters()}
    tensors |= {f"mean.{name}": weight for name, weight in trainer.mean.weights.items()}
    tensors |= {f"best.{name}": weight for name, weight in (trainer.best or {}).items()}
    for number, moments in trainer.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in moments.items()}
    tensors["noise"] = trainer.noise.get_state()
    if trainer.state is not None:
        tensors |= {"state.hidden": trainer.state.hidden, "state.cell": trainer.state.cell}
    facts = {name: getattr(trainer, name) for name in _FACTS}
    facts |= {
        "history": [asdict(epoch) for epoch in trainer.history],
        "seconds": time.monotonic() - trainer.began,
        "n_taken": trainer.mean.n_taken,
        "heldout_seconds": trainer.heldout and trainer.heldout.seconds,
    }
    return tensors, facts


def restore(trainer: Trainer, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Go back to where a snapshot was taken."""
    parts = _by_first_name(tensors)
    put_weights(trainer.model, parts["weights"])
    trainer.optimiser.rows.load()
    trainer.mean.restore(parts["mean"], facts["n_taken"])
    device = trainer.model.device
    best = {name: weight.to(device) for name, weight in parts.get("best", {}).items()}
    trainer.best = best or None
    moments = {int(n): m for n, m in _by_first_name(parts.get("optimiser", {})).items()}
    groups = trainer.optimiser.state_dict()["param_groups"]
    trainer.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    trainer.noise.set_state(tensors["noise"])
    if "state" in parts:
        trainer.state = State(**{name: part.to(device) for name, part in parts["state"].items()})
    for name in _FACTS:
        setattr(trainer, name, facts[name])
    if trainer.heldout is not None:
        trainer.heldout.seconds = facts["heldout_seconds"]
    trainer.history = [Epoch(**epoch) for epoch in facts["history"]]
    trainer.began = time.monotonic() - facts["seconds"]
    trainer.rng.bit_generator.state = trainer.order


def _by_first_name(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort tensors named a.b into a dict of each a's tensors, by b."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        parts.setdefault(first, {})[rest] = tensor
    return parts
