import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lstmlm.allocator import kept_buffers

MIB = 1 << 20
glibc_only = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told anything"
)


def resident_bytes() -> int:
    """Return the memory that the kernel has given to this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def use_and_free(n_bytes: int) -> None:
    torch.ones(n_bytes, dtype=torch.uint8)


@glibc_only
def test_freed_memory_is_kept_inside_and_given_back_afterwards():
    before = resident_bytes()
    with kept_buffers():
        use_and_free(200 * MIB)
        # Half of the buffer is far from what else a process may gain or lose meanwhile.
        assert resident_bytes() - before > 100 * MIB
    assert resident_bytes() - before < 100 * MIB


def use_free_and_stop() -> None:
    with kept_buffers():
        use_and_free(200 * MIB)
        raise RuntimeError("stop")


@glibc_only
def test_memory_is_given_back_after_an_error():
    before = resident_bytes()
    with pytest.raises(RuntimeError, match=r"^stop$"):
        use_free_and_stop()
    assert resident_bytes() - before < 100 * MIB


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
    run = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(int, run.stdout.split())
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
