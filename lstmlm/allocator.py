"""The C library's allocator, told to keep what a training frees for its next step.

A step of training frees buffers of tens of megabytes and asks for the same ones again. By default
glibc gives such buffers back to the kernel at once, and each page of a new one costs a fault: a
third of the time of a step with 33,000 ids on two cores.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of options in malloc.h
_LARGEST = 2**31 - 1
# What glibc's thresholds grow to by themselves once large buffers are freed (mallopt(3)); set
# outright, since they no longer grow after the first mallopt.
_GROWN = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 2**10}


@contextmanager
def kept_buffers() -> Iterator[None]:
    """Keep freed memory in the process while the context lasts; afterwards give its pages back.

    The addresses stay the heap's where something lies above them, so that a later buffer may be put
    there and its pages be kept: never more than the context itself has used.

    Does nothing where the C library isn't glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, 2**30)
    libc.mallopt(_TRIM_THRESHOLD, _LARGEST)
    libc.mallopt(_TOP_PAD, 64 * 2**20)
    try:
        yield
    finally:
        for option, value in _GROWN.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)
