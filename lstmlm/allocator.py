"""Memory during training and scoring: what is kept for the next step, and what is not.

A step of training frees buffers of tens of megabytes and asks for the same ones again. By default
glibc gives such buffers back to the kernel at once, and each page of a new one costs a fault: a
third of the time of a step with 33,000 ids on two cores.

torch's kernels for the CPU (oneDNN's) keep what they prepared for each shape they met, for a
thousand shapes. Texts of all lengths give new shapes in every step: half a gigabyte was kept after
140,000 tokens, hardly any of it used again. With 128 shapes a training holds 0.5 GB less and is as
fast, with 32 it takes up to a tenth longer; scoring lines with 33,000 ids holds 0.7 GB with 32 in
place of 1.7 and takes 7 % less time.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of options in malloc.h
_LARGEST = 2**31 - 1
# What glibc's thresholds grow to by themselves once large buffers are freed (mallopt(3)); set
# outright, since they no longer grow after the first mallopt.
_GROWN = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 2**10}

_KEPT = {_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: _LARGEST, _TOP_PAD: 64 * 2**20}
_in_force = [_GROWN]  # what the process's allocator was told, the last of it in force

# How many shapes oneDNN and its wrapper in torch keep, read by each when it is first used.
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
FEW, SOME = 32, 128  # shapes: of scoring, and of training


@contextmanager
def few_shapes(n_shapes: int = FEW) -> Iterator[None]:
    """Let kernels that are first used inside keep few shapes, unless the environment says how many.

    The environment is as before afterwards; kernels already used go on as they are.
    """
    ours = [name for name in _CACHES if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(n_shapes)))
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def kept_buffers() -> Iterator[None]:
    """Keep freed memory in the process while the context lasts; afterwards give its pages back.

    What was freed before it begins is given back first: it lies in pieces that a training would
    only pile its buffers on.

    The addresses stay the heap's where something lies above them, so that a later buffer may be put
    there and its pages be kept: never more than the context itself has used.

    Does nothing where the C library isn't glibc.
    """
    with _told(_KEPT):
        yield


@contextmanager
def returned_buffers() -> Iterator[None]:
    """Inside `kept_buffers`, give freed memory back for a while, as a process does by default.

    For work with larger buffers of many sizes, which would find no place among the kept ones.
    """
    if _in_force[-1] is _GROWN:
        yield
        return
    with _told(_GROWN):
        yield


@contextmanager
def _told(options: dict[int, int]) -> Iterator[None]:
    """Set options of the allocator, and those before them afterwards; give pages back each time."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    _in_force.append(options)
    try:
        _tell(libc, options)
        yield
    finally:
        _in_force.pop()
        _tell(libc, _in_force[-1])


def _tell(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    libc.malloc_trim(0)
    for option, value in options.items():
        libc.mallopt(option, value)
