"""Dropout whose noise is drawn from a generator that the caller owns.

Every function returns a new value and leaves what it is given alone. ``noise=None`` is no dropout.
"""

import math

import torch
from torch import Tensor


def locked_dropout(x: Tensor, rate: float, noise: torch.Generator | None) -> Tensor:
    """Zero the same features at all time steps of a row (Gal and Ghahramani 2016, section 4).

    Parameters
    ----------
    x : Tensor, shape (B, T, ...)
        Features.
    rate : float in [0, 1)
        Share of features that are zeroed; the others are scaled by 1 / (1 - rate).
    noise : torch.Generator or None
        Where the mask comes from, on the device of `x`; None for no dropout.

    Returns
    -------
    Tensor, the shape of `x`
    """
    if noise is None or rate == 0:
        return x
    return x * _mask((x.shape[0], 1, *x.shape[2:]), x, rate, noise)


def dropped_types(
    x: Tensor, ids: Tensor, vocab_size: int, rate: float, noise: torch.Generator | None
) -> Tensor:
    """Zero embedded tokens, all those of an id alike (Gal and Ghahramani 2016, section 4.2).

    Parameters
    ----------
    x : Tensor, shape (B, T, E)
        Embedded tokens.
    ids : Tensor of int64, shape (B, T)
        What they are.
    vocab_size : int
        Number of ids, V.
    rate : float in [0, 1)
        Share of the V ids that are zeroed; the others are scaled by 1 / (1 - rate).
    noise : torch.Generator or None
        Where the mask comes from.

    Returns
    -------
    Tensor, shape (B, T, E)
    """
    if noise is None or rate == 0:
        return x
    return x * _mask((vocab_size, 1), x, rate, noise)[ids]


def dropped_weight(weight: Tensor, rate: float, noise: torch.Generator | None) -> Tensor:
    """Zero single weights of a matrix (DropConnect; Merity et al. 2018, section 2).

    Parameters
    ----------
    weight : Tensor
        The matrix; gradients flow to what is not dropped.
    rate : float in [0, 1)
        Share of weights that are zeroed; the others are scaled by 1 / (1 - rate).
    noise : torch.Generator or None
        Where the mask comes from.

    Returns
    -------
    Tensor, the shape of `weight`
    """
    if noise is None or rate == 0:
        return weight
    return weight * _mask(weight.shape, weight, rate, noise)


def _mask(shape: tuple[int, ...], like: Tensor, rate: float, noise: torch.Generator) -> Tensor:
    """Draw zeros at a rate, to 16 bits, and 1 / (1 - rate) elsewhere.

    Four are cut out of each random number: torch's own draw of a wide layer's matrix took a fifth
    of a training step.
    """
    size = math.prod(shape)
    numbers = torch.empty(-(-size // 4), dtype=torch.int64, device=like.device)
    bits = numbers.random_(-(2**63), None, generator=noise).view(torch.int16)[:size].view(shape)
    return (bits >= min(round(rate * 2**16), 2**16 - 1) - 2**15).to(like.dtype).div_(1 - rate)
