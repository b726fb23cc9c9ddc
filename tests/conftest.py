import os
import signal

import pytest
from hypothesis import settings

# The networks here are so small that a second thread only waits, for long where others work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C, and so would every child that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A network's first call is slow, so no example has a deadline. CI draws the same examples always.
settings.register_profile("lstmlm", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("lstmlm")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU")
