"""What this processor, and torch on it, can do."""

import math
import time
from functools import cache

import torch

INT8_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")  # what processors call them
BF16_PRODUCTS = ("avx512_bf16", "amx_bf16")


def has_int8_products() -> bool:
    """Return whether the processor multiplies int8 by instructions of its own."""
    return _has(*INT8_PRODUCTS)


def has_bf16_products() -> bool:
    """Return whether the processor multiplies bf16 by instructions of its own."""
    return _has(*BF16_PRODUCTS)


def has_matrix_units() -> bool:
    """Return whether the processor multiplies matrices of bf16 as such, several times as fast."""
    return _has("amx_bf16")


def has_avx512() -> bool:
    """Return whether the processor has vectors of 512 bits."""
    return _has("avx512_f")


def measured_flops(
    dtype: torch.dtype, rows: int = 640, width: int = 256, n_products: int = 5
) -> float:
    """Return how many floating-point operations a product of a type gets in a second now.

    The fastest of some small products counts, as what else runs only slows them: 40 ms in all on
    one thread of a Zen 1.
    """
    one, best = torch.ones(rows, width, dtype=dtype, device="cpu"), math.inf
    other = one.T.contiguous()
    for _ in range(n_products):
        began = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - began)
    return 2 * rows * width * rows / best


@cache
def _has(*flags: str) -> bool:
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(flag) for flag in flags)  # none are known by older torch


@cache
def kernel_has_bf16(device: str) -> bool:
    """Return whether the LSTM's kernel computes in bf16: oneDNN's does not without AVX-512."""
    one = torch.zeros(1, 1, 1, device=device)
    weights = [one.new_zeros(size) for size in ((4, 1), (4, 1), (4,), (4,))]
    try:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            torch.lstm(one, (one, one), weights, True, 1, 0.0, True, False, True)
    except RuntimeError:
        return False
    return True
