"""Checkpoints: what a training that was killed goes on from.

A training's checkpoint lies in a folder of its own, named after all that its result depends on, so
that trainings which differ don't meet. It is one file, written under another name and renamed, so
that it is whole whenever the process dies; loading it runs no code. A lock, which the system gives
back when a process dies, keeps two equal trainings that run at once apart.
"""

import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import safetensors
from safetensors.torch import save_file
from torch import Tensor

from lstmlm.errors import CheckpointError, LstmlmError

EVERY_SECONDS = 30.0  # between two checkpoints, at least
SHARE_OF_TIME = 0.05  # of the training's time that writing them may take, at most
_log = logging.getLogger("lstmlm")
_FACTS = "facts"
_NOT_WRITTEN = "{} could not be written ({}); the training goes on without a newer checkpoint."


class Checkpoints:
    """The checkpoint of one training.

    Parameters
    ----------
    folder : Path
        Where it lies, held by this process alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "checkpoint.safetensors"
        self._next = time.monotonic() + EVERY_SECONDS

    def seed(self, drawn: int) -> int:
        """Return the seed that this training began with; `drawn`, if it begins now."""
        path = self._folder / "seed"
        if not path.exists():
            _write(path, str(drawn).encode())
        return int(path.read_text("ascii"))

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough for a new one."""
        return time.monotonic() >= self._next

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Put a checkpoint in the place of the last one.

        Parameters
        ----------
        tensors : dict of Tensor
            By name; no two share memory.
        facts : dict
            What JSON can hold.

        Warns
        -----
        UserWarning
            If it can't be written; the last one stays.
        """
        began = time.monotonic()
        new = self._file.with_suffix(".new")
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(on_cpu, new, metadata={_FACTS: json.dumps(facts)})
            _replace(new, self._file)
        except (OSError, safetensors.SafetensorError) as error:
            new.unlink(missing_ok=True)
            warnings.warn(_NOT_WRITTEN.format(self._file, error), UserWarning, stacklevel=2)
        cost = time.monotonic() - began
        self._next = began + cost + max(EVERY_SECONDS, cost / SHARE_OF_TIME)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and facts of the last checkpoint, None where there is none.

        Raises
        ------
        CheckpointError
            If the file was altered.
        """
        if not self._file.exists():
            return None
        try:
            with safetensors.safe_open(self._file, framework="pt") as file:
                facts = json.loads(file.metadata()[_FACTS])
                # Copies, as the file's own begin at any address, where kernels may sum otherwise.
                tensors = {n: file.get_tensor(n).clone() for n in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self._file} is no checkpoint ({error}); remove {self._folder} to begin afresh."
            ) from error
        _log.info("going on from %s", self._file)
        return tensors, facts


@contextmanager
def checkpoints_in(root: Path, fingerprint: str) -> Iterator[Checkpoints]:
    """Give the checkpoint of one training; it is removed when the training ends.

    It ends too with an error of the library's own, which the same training would only come to
    again. Any other exception leaves the checkpoint there.

    Parameters
    ----------
    root : Path
        The folder of all checkpoints; made if it isn't there.
    fingerprint : str
        Names the training: of all that its result depends on. If an equal one is running, this one
        gets a place of its own.

    Raises
    ------
    CheckpointError
        If `root` can't be a folder, or can't be written.
    """
    try:
        folder, lock = _free_place(root, fingerprint)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint_dir={str(root)!r} can't be used ({error}); give a folder that can be "
            "written."
        ) from error
    with lock:
        try:
            yield Checkpoints(folder)
        except LstmlmError:
            shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _free_place(root: Path, fingerprint: str) -> tuple[Path, filelock.FileLock]:
    """Return the first folder for a fingerprint that no other process holds, and its lock."""
    number = 0
    while True:
        folder = root / (f"{fingerprint}-{number}" if number else fingerprint)
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock", blocking=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            number += 1
            continue
        except FileNotFoundError:  # its holder ended and removed it this very moment
            continue
        if (folder / "lock").exists():
            return folder, lock
        lock.release()


def _write(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    _replace(new, path)


def _replace(new: Path, path: Path) -> None:
    """Rename a file once its contents are on the disk."""
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    new.replace(path)
