"""How weights move: the optimiser, the learning rate over the training, the gradient's limit."""

import math
from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor

from lstmlm.config import TrainConfig
from lstmlm.defaults import SMALL_VOCABULARY
from lstmlm.model import RecurrentLM
from lstmlm.nn.rows import TrainedRows

WARM_UP = 0.04  # share of the training over which the rate rises
FULL_STEPS = 1_000  # steps after which it falls, whenever the training is to end
FALL_PASSES = 0.4  # over the text at the training's end, while it falls as a line,
FALL_STEPS = 300  # or as many steps,
FALL = 0.1, 0.3  # but over no less and no more of the training than these shares,
FINAL_RATE = 0.1  # to this share
LAST_RATE = 0.1  # share of the rate at which held-out text is read last, falling to nothing
ROW_RATE = 0.5  # share of the rate at which the embedding of a large vocabulary learns
UNSEEN_RATE = 0.3  # of that: the part of rare rows that only embeds
SLOW_RATE = 0.1  # share of the rate at which what a module calls slow learns
WARM_UP_STEPS = 50  # of a training without an end


class AdamW(torch.optim.AdamW):
    """torch's, for dense gradients and for sparse ones.

    A row whose gradient is sparse moves only in steps in which it has one, without momentum
    (RMSprop; Hinton et al. 2012): what a gradient would move it by in all later steps, while nobody
    reads it, it does at once. Its mean square and its weights decay as if each step had counted.

    torch wraps these methods in its compiler, importing which takes seconds, when one of them is
    first called, so that the first fit of each process would wait for it; nothing here is compiled.

    Attributes
    ----------
    rows : TrainedRows
        Of the network that is trained; see `make_optimiser`.
    """

    rows: TrainedRows
    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move all weights."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.grad.is_sparse:
                    self._move_rows(weight, weight.grad, group)
                    weight.grad = None
        unwrap(torch.optim.AdamW.step)(self)

    def _move_rows(self, weight: Tensor, sparse: Tensor, group: dict[str, Any]) -> None:
        rows, grad = sparse._indices()[0], sparse._values()
        if hasattr(self, "grad_scale"):
            grad = grad / self.grad_scale
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["square"] = torch.zeros(weight.shape, device=weight.device)
            state["last"] = torch.zeros(len(weight), 1, device=weight.device)
        state["step"] += 1
        step, rate, (_, beta) = float(state["step"]), group["lr"], group["betas"]
        since = step - state["last"][rows]
        state["last"][rows] = step
        square = state["square"][rows].mul_(beta**since).addcmul_(grad, grad, value=1 - beta)
        state["square"][rows] = square
        size = square.div_(1 - beta**step).sqrt_().add_(group["eps"])
        kept = (1 - rate * group["weight_decay"]) ** since
        weight[rows] = weight[rows].mul_(kept).addcdiv_(grad, size, value=-rate)


def make_optimiser(model: RecurrentLM, config: TrainConfig) -> AdamW:
    """Return AdamW (Loshchilov and Hutter 2019); biases don't decay.

    beta2 is 0.99: trainings of a few thousand steps need a shorter memory than the usual 0.999.
    What a module names as `slow` learns at `SLOW_RATE` of the rate, and so do, at their own, the
    rows of a large vocabulary, which know something before training begins; what of rare rows only
    embeds learns slower still, and decays as fast. With 1, 0.3 and 0.12 in place of `UNSEEN_RATE`
    the held-out perplexity was 284.6, 288.5 and 290.1 after a pass over a quarter of WikiText-2,
    221.2, 220.1 and 218.7 after three.
    """
    decay, trained = float(config.weight_decay), model.trained_rows()
    slow = [p for module in model.modules() for p in getattr(module, "slow", ())]
    apart = [*slow, trained.embedding, model.head.weight]
    others = [p for p in model.parameters() if not any(p is one for one in apart)]
    unseen = [] if trained.unseen is None else [trained.unseen]
    rows: list[Tensor] = trained.seen
    matrices: list[Tensor] = [p for p in others if p.ndim > 1]
    if not trained.tied:
        matrices, rows = [*matrices, *rows], [trained.embedding]
    row_share = ROW_RATE if model.vocab_size > SMALL_VOCABULARY else 1.0
    groups = [
        {"params": matrices, "weight_decay": decay, "share": 1.0},
        {"params": rows, "weight_decay": decay, "share": row_share},
        {
            "params": unseen,
            "weight_decay": decay / UNSEEN_RATE,
            "share": row_share * UNSEEN_RATE,
        },
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "share": 1.0},
        {"params": slow, "weight_decay": decay, "share": SLOW_RATE},
    ]
    optimiser = AdamW(groups, lr=float(config.learning_rate), betas=(0.9, 0.99), fused=True)
    optimiser.rows = trained
    return optimiser


def set_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["share"]


def rate_at(progress: float, steps: int, passes: float) -> float:
    """Return the learning rate's share of its largest value.

    Beside the rise and the fall it goes with one over the square root of the steps, and stays large
    enough for the weights not to settle on the training text: what a lower rate gains, their mean
    gains at any time (`lstmlm.training.weights`). At a low rate many passes are learned by heart:
    so the fall is the shorter, the more passes there are, in a training of more than 1,000 steps.

    Parameters
    ----------
    progress : float in [0, 1]
        How much of the training's budget (tokens or seconds) is used up.
    steps : int
        Steps taken so far.
    passes : float
        How often the text was read so far.
    """
    least, fall = FALL
    if steps and passes:
        share = progress * max(FALL_PASSES / passes, FALL_STEPS / steps)
        fall = min(fall, max(least, share))
    risen = min(1.0, max(progress / WARM_UP, 0.02))
    left = min(1.0, (1 - progress) / fall)
    return (
        risen
        * (FINAL_RATE + (1 - FINAL_RATE) * left)
        * min(1.0, math.sqrt(FULL_STEPS / max(1, steps)))
    )


def last_rate(progress: float, steps: int, passes: float) -> float:
    """Return the share of the learning rate at which held-out text is read last; see `rate_at`.

    With 0.3 in place of `LAST_RATE` a pass over it gained nothing on WikiText-2.
    """
    return LAST_RATE * (1 - progress)


def steady_rate(optimiser: torch.optim.Optimizer) -> Callable[[float, int, float], float]:
    """Return a schedule that warms up over the optimiser's first steps of all and stays.

    It is for trainings that go on from call to call and don't know their end.
    """

    def rate(progress: float, steps: int, passes: float) -> float:
        taken = max((float(s["step"]) for s in optimiser.state.values() if "step" in s), default=0)
        return min(1.0, (taken + 1) / WARM_UP_STEPS)

    return rate


def scale_and_clip(optimiser: torch.optim.Optimizer, scale: float, max_norm: float | None) -> None:
    """Let the next step multiply all gradients by `scale`, and by less beyond a norm of `max_norm`.

    A gradient of a loss summed over n tokens becomes that of the mean with ``scale=1/n``, and is
    clipped (Pascanu et al. 2013, section 3.2). The fused step divides by what an optimiser has as
    `grad_scale`, as torch's GradScaler has it do, so that neither takes a pass over memory.
    """
    parameters = (p for group in optimiser.param_groups for p in group["params"])
    grads = [p.grad for p in parameters if p.grad is not None]
    grads = [grad._values() if grad.is_sparse else grad for grad in grads]
    divisor = grads[0].new_tensor(1 / scale)
    if max_norm is not None:
        divisor = divisor * (torch.nn.utils.get_total_norm(grads) * (scale / max_norm)).clamp(min=1)
    optimiser.grad_scale = divisor  # type: ignore[attr-defined]
