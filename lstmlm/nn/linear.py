"""Logits of a linear layer, and log-likelihoods under its softmax, for scoring."""

import torch
from torch import Tensor

from lstmlm.nn.int8 import Int8Rows
from lstmlm.nn.losses import padded, product_type
from lstmlm.nn.stepping import Weights, product

NORM_ROWS = 2_048  # rows whose norms are computed side by side,
BLOCK_LOGITS = 1 << 20  # and logits of theirs that are held at a time: 4 MiB of float32
PLAIN_NORM = 60.0  # nats either way, up to which exp() of logits as they are loses nothing


def logits(x: Tensor, weight: Weights, bias: Tensor, *, beside: Weights | None = None) -> Tensor:
    """Return x W^T + b; whatever the type of the product, the sum has the biases' type."""
    if isinstance(weight, Int8Rows) or product_type(x) == x.dtype == bias.dtype:
        return product(x, weight, bias, beside=beside)
    return product(x, weight, None).to(bias.dtype).add_(bias)


def linear_nll(x: Tensor, weight: Weights, bias: Tensor, targets: Tensor) -> Tensor:
    """Return minus the log-probability of each target under a linear layer and a softmax.

    A single row, or few that are exact in int8, need no more than their logits. Of others the norm
    is a log-sum-exp that runs over blocks of ids, whose logits stay in the processor's cache, while
    each weight is fetched once for many rows. Under autocast products are taken in its type, all
    else in the type of the biases.

    Parameters
    ----------
    x : Tensor, shape (N, D)
    weight : Tensor or Int8Rows, shape (V, D)
    bias : Tensor, shape (V,)
    targets : Tensor of int64, shape (N,)

    Returns
    -------
    Tensor, shape (N,)
        Nats.
    """
    if isinstance(weight, Int8Rows):
        few = len(x) * len(bias) <= BLOCK_LOGITS
    else:
        few = len(x) == 1 and product_type(x) == bias.dtype
    if few:
        return nll_of(logits(x, weight, bias), targets)
    dtype = x.dtype if isinstance(weight, Int8Rows) else product_type(x)
    columns = weight if isinstance(weight, Int8Rows) else weight.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        parts = [
            _log_norm(rows, columns, bias) - _chosen(rows, columns, bias, of_rows)
            for rows, of_rows in zip(
                torch.split(x.to(dtype), NORM_ROWS), torch.split(targets, NORM_ROWS), strict=True
            )
        ]
    return torch.cat(parts)


def nll_of(found: Tensor, targets: Tensor) -> Tensor:
    """Return minus the log-probability of each target, given all logits, shape (N, V)."""
    return found.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).neg_()


def _log_norm(x: Tensor, weight: Weights, bias: Tensor) -> Tensor:
    """Return log(sum(exp(logits))) of each row, shape (N,).

    The largest logit is taken off first, as is usual, only where sums without that come near the
    ends of what float32 holds, e^-87 and e^88: two walks over the logits instead of four.
    """
    n_rows, x = len(x), padded(x)
    size = max(1, BLOCK_LOGITS // max(1, len(x)))
    blocks = [(weight[at : at + size], bias[at : at + size]) for at in range(0, len(bias), size)]
    sums = torch.stack([logits(x, *block).exp_().sum(-1) for block in blocks], -1).sum(-1)
    norms = sums.log_()
    if not bool((norms.abs() <= PLAIN_NORM).all()):
        of_blocks = [logits(x, *block).logsumexp(-1) for block in blocks]
        norms = torch.stack(of_blocks, -1).logsumexp(-1)
    return norms[:n_rows]


def _chosen(x: Tensor, weight: Weights, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the logits of the targets, shape (N,)."""
    if isinstance(weight, Int8Rows):
        return weight.chosen(x, targets) + bias[targets]
    return (x.to(bias.dtype) * weight[targets].to(bias.dtype)).sum(-1) + bias[targets]
