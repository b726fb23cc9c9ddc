"""Memory during a training: what is kept for its next step, and what is not.

A step of training frees buffers of tens of megabytes and asks for the same ones again. By default
glibc gives such buffers back to the kernel at once, and each page of a new one costs a fault: a
third of the time of a step with 33,000 ids on two cores.

torch's kernels for the CPU (oneDNN's) keep what they prepared for each shape they met, for a
thousand shapes. Texts of all lengths give new shapes in every step: half a gigabyte was kept after
140,000 tokens, hardly any of it used again. With 32 shapes kept, a training holds 0.5 GB less and
takes a tenth longer.
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

# How many shapes oneDNN and its wrapper in torch keep, read by each when it is first used.
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
_SHAPES = "32"


@contextmanager
def few_shapes() -> Iterator[None]:
    """Let kernels that are first used inside keep few shapes, unless the environment says how many.

    The environment is as before afterwards; kernels already used go on as they are.
    """
    ours = [name for name in _CACHES if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, _SHAPES))
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
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.malloc_trim(0)
    libc.mallopt(_MMAP_THRESHOLD, 2**30)
    libc.mallopt(_TRIM_THRESHOLD, _LARGEST)
    libc.mallopt(_TOP_PAD, 64 * 2**20)
    try:
        yield
    finally:
        for option, value in _GROWN.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
