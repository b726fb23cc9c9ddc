"""Cross-entropies of output layers, for training: their gradients are known as soon as they are.

The gradient of the logits is softmax - one-hot. So the logits are made, used for the gradients and
thrown away chunk by chunk, and no more than `CHUNK_LOGITS` of them are held at a time. Under
autocast products are taken in its type; sums and the softmax are in the type of the biases.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = 1 << 24  # 64 MiB of float32


def chunk_rows(weight: Tensor) -> int:
    """Return for how many rows the logits of all columns may be held at a time."""
    return max(1, CHUNK_LOGITS // weight.shape[0])


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross-entropy of a linear layer followed by a softmax, in nats.

    Parameters
    ----------
    x : Tensor, shape (N, D)
        Rows beyond the targets count for nothing.
    weight : Tensor, shape (V, D)
    bias : Tensor, shape (V,)
    targets : Tensor of int64, shape (N,) or less

    Returns
    -------
    Tensor, shape ()
    """
    total: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, targets, product_type(x)
    )
    return total


def adaptive_cross_entropy(
    x: Tensor,
    frequent: Tensor,
    rare: Tensor,
    bias: Tensor,
    *,
    cluster_weight: Tensor,
    cluster_bias: Tensor,
    projections: Tensor,
    edges: list[int],
    head_targets: Tensor,
    tails: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """Return the summed cross-entropy of an adaptive softmax, in nats.

    See `lstmlm.nn.heads.AdaptiveSoftmax`; K is the number of its tails.

    Parameters
    ----------
    x : Tensor, shape (N, D)
        Rows beyond the targets count for nothing.
    frequent : Tensor, shape (F, D)
        The head's rows.
    rare : Tensor, shape (V - F, W)
        The tails', one after the other.
    bias : Tensor, shape (V,)
    cluster_weight : Tensor, shape (K, D)
    cluster_bias : Tensor, shape (K,)
    projections : Tensor, shape (K, W, D)
        Of the features to what the tails see.
    edges : list of int
        0, the first id of each tail (F is that of the first), V.
    head_targets : Tensor of int64, shape (N,)
        Each target's place among the head's ids and, after them, the tails' classes.
    tails : list of (Tensor of int64, Tensor of int64)
        For each tail the rows whose target it holds, and those targets.

    Returns
    -------
    Tensor, shape ()
    """
    total: Tensor = _AdaptiveCrossEntropy.apply(  # type: ignore[no-untyped-call]
        *(x, frequent, rare, bias, cluster_weight, cluster_bias, projections),
        *(edges, head_targets, tails, product_type(x)),
    )
    return total


def product_type(x: Tensor) -> torch.dtype:
    """Return the type in which products with `x` are taken: autocast's, where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def padded(x: Tensor, unit: int = 32) -> Tensor:
    """Return rows that go into a product in bf16 with zeros after them; others as they are.

    oneDNN compiles a product in bf16 for each shape that it meets; for AMX that takes 3 to 14 ms,
    and how many targets a tail holds is another number in each step. With few numbers of rows the
    compiled ones are used again: a step of 700 words took 45 in place of 82 ms.

    Parameters
    ----------
    x : Tensor, shape (N, ...)
    unit : int
        See `rounded_up`.

    Returns
    -------
    Tensor, shape (M, ...)
        M is N, rounded up.
    """
    missing = rounded_up(len(x), unit) - len(x)
    if not missing or product_type(x) != torch.bfloat16:
        return x
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])])


def rounded_up(n: int, unit: int = 32) -> int:
    """Return the next multiple of a unit, or of the power of two that is an eighth of n or less."""
    return n + -n % max(unit, 1 << max(0, n.bit_length() - 4))


class _CrossEntropy(torch.autograd.Function):
    """A loss whose `forward` saves the gradients by its first arguments."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        if upstream[0] != 1:  # training sums the loss itself, and spares these copies
            saved = tuple(grad * upstream[0] for grad in saved)
        return saved + (None,) * (len(ctx.needs_input_grad) - len(saved))


class _LinearCrossEntropy(_CrossEntropy):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        by_weight, by_bias = torch.empty_like(weight), torch.empty_like(bias)
        with torch.autocast(x.device.type, enabled=False):
            total, by_x = _loss_and_gradients(
                padded(x.to(dtype)), weight.to(dtype), bias, targets, by_weight, by_bias
            )
        ctx.save_for_backward(by_x[: len(x)].to(x.dtype), by_weight, by_bias)
        return total


class _AdaptiveCrossEntropy(_CrossEntropy):
    """The gradient by the tails' rows is made in one piece.

    Left to autograd it would be put together from the tails': with 33,000 ids that takes as long as
    the optimiser's step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        frequent: Tensor,
        rare: Tensor,
        bias: Tensor,
        cluster_weight: Tensor,
        cluster_bias: Tensor,
        projections: Tensor,
        edges: list[int],
        head_targets: Tensor,
        tails: list[tuple[Tensor, Tensor]],
        dtype: torch.dtype,
    ) -> Tensor:
        first = len(frequent)
        features, maps = x.to(dtype), projections.to(dtype)
        parts = (frequent, rare, bias, cluster_weight, cluster_bias, projections)
        grads = [torch.empty_like(part) for part in parts]
        by_frequent, by_rare, by_bias, by_cluster_weight, by_cluster_bias, by_projections = grads
        with torch.autocast(x.device.type, enabled=False):
            head = torch.cat([frequent, cluster_weight]).to(dtype)
            by_head_bias = torch.empty_like(head[:, 0], dtype=bias.dtype)
            total, by_x = _loss_and_gradients(
                *(padded(features), head, torch.cat([bias[:first], cluster_bias]), head_targets),
                *(by_frequent, by_head_bias, by_cluster_weight),
            )
            by_bias[:first], by_cluster_bias[:] = by_head_bias[:first], by_head_bias[first:]
            by_x = by_x[: len(x)].to(x.dtype)
            for k, (rows, targets) in enumerate(tails):
                ids = slice(edges[k + 1], edges[k + 2])
                of_tail = slice(ids.start - first, ids.stop - first)
                seen = padded(features[rows])
                nats, by_seen = _loss_and_gradients(
                    *(seen @ maps[k].T, rare[of_tail].to(dtype), bias[ids], targets - ids.start),
                    *(by_rare[of_tail], by_bias[ids]),
                )
                total += nats
                by_projections[k] = by_seen.T @ seen
                by_x.index_add_(0, rows, (by_seen @ maps[k])[: len(rows)].to(x.dtype))
        ctx.save_for_backward(by_x, *grads)
        return total


def _loss_and_gradients(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    by_weight: Tensor,
    by_bias: Tensor,
    by_last: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `linear_cross_entropy` and its gradient by `x`; write those by `weight` and `bias`.

    Products and the gradient by `x` are in the type of `x` and `weight`; all else is in the bias's.
    No probability is taken to be less than the type's smallest normal number, so that a token costs
    88 nats at most in float32; its gradient is exact.

    Parameters
    ----------
    x, weight, bias, targets
        See `linear_cross_entropy`.
    by_weight : Tensor, shape (V, D) or less
        Where the gradient by `weight` is written to,
    by_bias : Tensor, shape (V,)
        and that by `bias`.
    by_last : Tensor, shape (V - len(by_weight), D), optional
        Where the gradient by the last rows of `weight` is written to.
    """
    total, by_x = bias.new_zeros(()), torch.empty_like(x)
    least = torch.finfo(bias.dtype).tiny
    n_rows, n_first = chunk_rows(weight), len(by_weight)
    pieces = [torch.split(each, n_rows) for each in (x, by_x)]
    for at, (part, by_part) in enumerate(zip(*pieces, strict=True)):
        grad = _logits(part, weight, bias).softmax(-1)
        target = targets[at * n_rows :][: len(part)].unsqueeze(1)
        total -= grad[: len(target)].gather(1, target).clamp_(min=least).log_().sum()
        grad.scatter_add_(1, target, grad.new_full((1, 1), -1.0).expand_as(target))
        grad[len(target) :] = 0
        torch.sum(grad, 0, out=by_bias) if at == 0 else by_bias.add_(grad.sum(0))
        grad = grad.to(x.dtype)
        torch.mm(grad, weight, out=by_part)
        _put_product(grad[:, :n_first].T, part, by_weight, add=at > 0)
        if by_last is not None:
            _put_product(grad[:, n_first:].T, part, by_last, add=at > 0)
    return total, by_x


def _logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.dtype == bias.dtype:
        return torch.addmm(bias, x, weight.T)
    return (x @ weight.T).to(bias.dtype).add_(bias)


def _put_product(a: Tensor, b: Tensor, out: Tensor, *, add: bool) -> None:
    """Write ``a @ b`` to `out`, or add it to what stands there, in the type of `out`."""
    if a.dtype == out.dtype:
        torch.addmm(out, a, b, beta=float(add), out=out)
    elif add:
        out.add_(a @ b)
    else:
        out.copy_(a @ b)
