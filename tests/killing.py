"""Kill fits at random moments: `python killing.py FOLDER N_KILLS SETTINGS` says what came of it.

A process that has read the library forks a child for each fit, so that a kill costs no second
start; it computes nothing itself, as threads don't survive a fork. Each fit is killed a few times
and begun again, then left to end; its model is compared with that of an undisturbed one.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tiny import TEXTS, unfitted

from lstmlm import checkpoints

KILLS_A_FIT = 5


def fit(out: Path, settings: dict[str, object]) -> None:
    torch.set_num_threads(1)
    unfitted(**settings).fit(TEXTS).save(out)


def forked(work: Callable[[], None]) -> int:
    """Do work in a child; return its process number."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def ended(child: int) -> bool:
    """Wait for a child; return whether it ended by itself, and well."""
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == 0


def digest(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    folder, n_kills, settings = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    checkpoints.EVERY_SECONDS, checkpoints.SHARE_OF_TIME = 0.0, 0.5
    kept, out, rng = folder / "checkpoints", folder / "out", random.Random(0)
    began = time.monotonic()
    assert ended(forked(lambda: fit(folder / "undisturbed", settings)))
    length = time.monotonic() - began
    killed, resumed, models = 0, 0, set()
    while killed < n_kills:
        for _ in range(KILLS_A_FIT):
            resumed += any(kept.rglob("checkpoint.safetensors"))
            child = forked(lambda: fit(out, {**settings, "checkpoint_dir": str(kept)}))
            time.sleep(rng.uniform(0, length))
            os.kill(child, signal.SIGKILL)
            killed += not ended(child)
        assert ended(forked(lambda: fit(out, {**settings, "checkpoint_dir": str(kept)})))
        models.add(digest(out))
    result = {
        "kills": killed,
        "resumed": resumed,
        "equal": models == {digest(folder / "undisturbed")},
        "left": sorted(path.name for path in kept.iterdir()),
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
