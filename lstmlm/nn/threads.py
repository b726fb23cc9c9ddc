"""The threads of numpy's products."""

import threading
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _OneThread:
    """Lets numpy compute in one thread, while any thread is inside."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = [(pool, pool.num_threads) for pool in _pools()]
                for pool, _ in self.before:
                    pool.set_num_threads(1)
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                for pool, n_threads in self.before:
                    pool.set_num_threads(n_threads)


one_thread = _OneThread()


@cache
def _pools() -> list[Any]:
    """Return the threads of the library that numpy's products are computed by."""
    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return [pool for pool in found if "numpy" in pool.filepath] or found
