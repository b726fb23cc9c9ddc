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
    weight : Tensor, shape (V, D)
    bias : Tensor, shape (V,)
    targets : Tensor of int64, shape (N,)

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
    weight: Tensor,
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
    weight : Tensor, shape (V, D)
    bias : Tensor, shape (V,)
    cluster_weight : Tensor, shape (K, D)
    cluster_bias : Tensor, shape (K,)
    projections : Tensor, shape (K, D, D)
    edges : list of int
        0, the first id of each tail, V.
    head_targets : Tensor of int64, shape (N,)
        Each target's place among the head's ids and, after them, the tails' classes.
    tails : list of (Tensor of int64, Tensor of int64)
        For each tail the rows whose target it holds, and those targets.

    Returns
    -------
    Tensor, shape ()
    """
    total: Tensor = _AdaptiveCrossEntropy.apply(  # type: ignore[no-untyped-call]
        *(x, weight, bias, cluster_weight, cluster_bias, projections),
        *(edges, head_targets, tails, product_type(x)),
    )
    return total


def product_type(x: Tensor) -> torch.dtype:
    """Return the type in which products with `x` are taken: autocast's, where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


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
        with torch.autocast(x.device.type, enabled=False):
            total, grad_x, grad_weight, grad_bias = _loss_and_gradients(
                x.to(dtype), weight.to(dtype), bias, targets
            )
        ctx.save_for_backward(grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias)
        return total


class _AdaptiveCrossEntropy(_CrossEntropy):
    """The gradient by all rows is made in one piece.

    Left to autograd it would be put together from the head's and the tails': with 33,000 ids that
    takes as long as the optimiser's step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        cluster_weight: Tensor,
        cluster_bias: Tensor,
        projections: Tensor,
        edges: list[int],
        head_targets: Tensor,
        tails: list[tuple[Tensor, Tensor]],
        dtype: torch.dtype,
    ) -> Tensor:
        first, sizes = edges[1], [edges[1], len(cluster_bias)]
        features, columns, maps = x.to(dtype), weight.to(dtype), projections.to(dtype)
        grads = [torch.empty_like(part) for part in (weight, bias, projections)]
        grad_weight, grad_bias, grad_projections = grads
        with torch.autocast(x.device.type, enabled=False):
            head = torch.cat([columns[:first], cluster_weight.to(dtype)])
            total, grad_x, grad_head, grad_head_bias = _loss_and_gradients(
                features, head, torch.cat([bias[:first], cluster_bias]), head_targets
            )
            grad_weight[:first] = grad_head[:first]
            grad_cluster_weight = grad_head[first:].to(weight.dtype)
            grad_bias[:first], grad_cluster_bias = torch.split(grad_head_bias, sizes)
            grad_x = grad_x.to(x.dtype)
            for k, (rows, targets) in enumerate(tails):
                ids = slice(edges[k + 1], edges[k + 2])
                seen = features[rows]
                nats, grad_seen, grad_weight[ids], grad_bias[ids] = _loss_and_gradients(
                    seen @ maps[k].T, columns[ids], bias[ids], targets - ids.start
                )
                total += nats
                grad_projections[k] = grad_seen.T @ seen
                grad_x.index_add_(0, rows, (grad_seen @ maps[k]).to(x.dtype))
        ctx.save_for_backward(
            *(grad_x, grad_weight, grad_bias),
            *(grad_cluster_weight, grad_cluster_bias, grad_projections),
        )
        return total


def _loss_and_gradients(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return `linear_cross_entropy` and its gradients by `x`, `weight` and `bias`.

    Products and the gradient by `x` are in the type of `x` and `weight`, and so is the gradient by
    `weight` where it is a single product; all else is in the bias's.
    """
    total, grad_x = bias.new_zeros(()), torch.empty_like(x)
    grad_weight, grad_bias = None, None
    n_rows = chunk_rows(weight)
    pieces = [torch.split(each, n_rows) for each in (x, targets.unsqueeze(1), grad_x)]
    for part, target, grad_part in zip(*pieces, strict=True):
        log_probs = torch.add(part @ weight.T, bias).log_softmax(-1)
        total -= log_probs.gather(1, target).sum()
        grad = log_probs.exp_()
        grad.scatter_add_(1, target, grad.new_full((1, 1), -1.0).expand_as(target))
        grad_bias = _add(grad_bias, grad.sum(0))
        grad = grad.to(x.dtype)
        torch.mm(grad, weight, out=grad_part)
        product = grad.T @ part
        grad_weight = product if n_rows >= len(x) else _add(grad_weight, product.to(bias.dtype))
    assert grad_weight is not None
    assert grad_bias is not None
    return total, grad_x, grad_weight, grad_bias


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    """Add in place; the first part is the total itself, which spares a buffer of zeros."""
    return part if total is None else total.add_(part)
