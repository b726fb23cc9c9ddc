"""Dropout whose noise is drawn from a generator that the caller owns."""

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
    mask = torch.empty((x.shape[0], 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    return x * mask.bernoulli_(1 - rate, generator=noise).div_(1 - rate)
