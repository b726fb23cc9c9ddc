"""Scripts in processes of their own, without the seconds that reading torch and spaCy takes.

One process has read them and computes nothing; each script runs in a fork of it, and ends as any
Python does. That process is this file run as a script.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SECONDS = 300  # a script may take
READ_BEFORE = ("lstmlm", "spacy.cli", "spacy_lstmlm.component")


def run(
    *command: str | Path, cwd: Path | None = None, strict: bool = True
) -> subprocess.CompletedProcess[str]:
    """Do what ``python script.py ...`` or ``python -m module ...`` does.

    What it printed comes back. Where it is `strict`, warnings are errors, as by ``-W error``, in
    processes that it starts too. A script that takes `SECONDS` is ended by SIGALRM.
    """
    parent = _parent()
    with TemporaryDirectory() as folder:
        printed = [Path(folder) / name for name in ("stdout", "stderr")]
        request = {
            "command": list(map(str, command)),
            "cwd": str(cwd or Path.cwd()),
            "printed": list(map(str, printed)),
            "strict": strict,
        }
        parent.stdin.write(f"{json.dumps(request)}\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        return subprocess.CompletedProcess(
            command, code, *(path.read_text("utf-8") for path in printed)
        )


@cache
def _parent() -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-W", "error", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(parent.communicate)  # its input ends, and so does it
    return parent


def _fork_for_each() -> dict[str, Any] | None:
    """Answer each request with an exit code; return it in the child that is to fulfil it."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return json.loads(line)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()
    return None


def _run(command: list[str], cwd: str, printed: list[str], strict: bool) -> None:
    signal.alarm(SECONDS)  # ends the process
    for stream, path in enumerate([os.devnull, *printed]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(cwd)
    if not strict:
        sys.warnoptions.clear()  # which processes of its own begin with
        warnings.resetwarnings()
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    for module in READ_BEFORE:
        importlib.import_module(module)
    if found := _fork_for_each():
        _run(**found)
