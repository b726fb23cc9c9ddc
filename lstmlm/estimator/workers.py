"""Work in other processes, or on other machines, by joblib's backends.

A worker loads the model once, from a model folder, and computes on one thread, so that its figures
are the same, bit for bit, whatever the number of workers.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from multiprocessing import current_process
from typing import Any, TypeVar

import joblib
import torch

from lstmlm.errors import ModelFolderError
from lstmlm.estimator.fingerprints import fingerprint_of

TASKS_AHEAD = 8  # a worker, of those that are given out together

Task = TypeVar("Task")
Result = TypeVar("Result")


@lru_cache(maxsize=1)
def loaded_model(load: Callable[[str, str], Any], folder: str, device: str, expected: str) -> Any:
    """Return this process's estimator of a model folder.

    Raises
    ------
    ModelFolderError
        If the folder's model is not the one whose fingerprint is expected.
    """
    estimator = load(folder, device)
    if fingerprint_of(estimator).hex() != expected:
        raise ModelFolderError(
            f"{folder} holds another model than when the job began; put that one back, or begin a "
            "new job."
        )
    return estimator


def device_of_worker(device: str) -> str:
    """Return where this process works: of several GPUs, each worker of a pool has its own."""
    if not device.startswith("cuda") or torch.cuda.device_count() < 2:
        return device
    number = re.search(r"\d+$", current_process().name)  # LokyProcess-3, say
    return f"cuda:{int(number.group()) % torch.cuda.device_count()}" if number else device


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def n_workers(n_jobs: int | None) -> int:
    """Return how many workers joblib's active backend has for a number as scikit-learn takes it."""
    return int(joblib.effective_n_jobs(n_jobs))


def in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], n_jobs: int | None
) -> Iterator[Result]:
    """Yield each task's result in order, reading `TASKS_AHEAD` a worker ahead at most."""
    waiting, ahead = iter(tasks), TASKS_AHEAD * n_workers(n_jobs)
    with joblib.Parallel(n_jobs=n_jobs, batch_size=1) as parallel:
        while window := list(islice(waiting, ahead)):
            yield from parallel(joblib.delayed(work)(task) for task in window)


def as_they_end(
    work: Callable[[Task], Result], tasks: Iterable[Task], n_jobs: int | None
) -> Iterator[Result]:
    """Yield tasks' results as they come; in order, in windows, from a backend that can't."""
    try:
        parallel = joblib.Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
    except ValueError:
        yield from in_order(work, tasks, n_jobs)
        return
    yield from parallel(joblib.delayed(work)(task) for task in tasks)
