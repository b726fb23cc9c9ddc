import contextlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lstmlm.allocator import SOME, few_shapes, kept_buffers

MIB = 1 << 20
glibc_only = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told anything"
)


def printed(script: str) -> list[int]:
    """Return the numbers that a script prints in a process of its own, whose heap has no past."""
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return list(map(int, run.stdout.split()))


RESIDENT = """
import contextlib
from pathlib import Path
import torch
from lstmlm.allocator import kept_buffers

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def use_and_free():
    torch.ones(200 << 20, dtype=torch.uint8)

use_and_free()
print(resident())
for error in (False, True):
    with contextlib.suppress(RuntimeError), kept_buffers():
        use_and_free()
        print(resident())
        if error:
            raise RuntimeError
    print(resident())
"""


@glibc_only
def test_freed_memory_is_kept_inside_and_given_back_afterwards_also_after_an_error():
    before, inside, after, inside_again, after_error = printed(RESIDENT)
    # Half of the buffer of 200 MiB is far from what else a process may gain or lose meanwhile.
    assert min(inside, inside_again) - before > 100 * MIB
    assert max(after, after_error) - before < 100 * MIB


COUNT_FAULTS = """
import resource
import numpy as np
from lstmlm.allocator import kept_buffers

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(1 << 20, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
with kept_buffers():
    pass
faults()
print(before, faults())
"""


@glibc_only
def test_the_process_allocates_afterwards_as_it_did_before():
    """Glibc learns by itself to keep buffers of a megabyte; a training must not unteach it."""
    before, after = printed(COUNT_FAULTS)
    # A megabyte is 256 pages: 25,600 faults if each of the 100 buffers comes fresh from the kernel.
    assert after < before + 2000


def test_contexts_may_be_nested():
    with kept_buffers(), kept_buffers():
        kept = torch.ones(3)
    assert kept.tolist() == [1, 1, 1]


@pytest.mark.parametrize("platform_name", ["darwin", "win32"])
def test_elsewhere_it_does_nothing(monkeypatch, platform_name):
    monkeypatch.setattr("lstmlm.allocator.sys.platform", platform_name)
    monkeypatch.setattr("lstmlm.allocator.ctypes.CDLL", None)  # not even asked
    with kept_buffers():
        assert torch.ones(3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("asked", "named"), [((), "32"), ((SOME,), "128")])
def test_the_environment_names_few_shapes_inside_and_is_as_before_afterwards(
    asked, named, monkeypatch
):
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    before = dict(os.environ)
    with contextlib.suppress(RuntimeError), few_shapes(*asked):
        assert os.environ == before | {"LRU_CACHE_CAPACITY": named}
        raise RuntimeError
    assert os.environ == before


SHAPES = """
from contextlib import nullcontext
from pathlib import Path
import torch
from lstmlm.allocator import few_shapes
from lstmlm.nn.processors import kernel_has_bf16

lstm = torch.nn.LSTM(64, 256, batch_first=True)

def read(sizes):
    for size in sizes:
        with torch.autocast("cpu", torch.bfloat16, enabled=kernel_has_bf16("cpu")):
            outputs, _ = lstm(torch.ones(size, 3, 64))
        outputs.sum().backward()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

with {context}():
    before = read(range(1, 150))
    print(read(range(150, 450)) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_kernels_that_keep_few_shapes_hold_less_memory():
    ((few,), (all_,)) = (
        printed(SHAPES.replace("{context}", context)) for context in ("few_shapes", "nullcontext")
    )
    if all_ < 64 * MIB:
        pytest.skip("this machine's kernels prepare little for a shape")
    assert few < all_ / 2
