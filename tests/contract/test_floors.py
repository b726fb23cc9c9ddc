"""The house of lstmlm: which room may import which, and what importing it may do (nothing)."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lstmlm

PACKAGE = Path(__file__).parents[2] / "lstmlm"
PLUGINS = sorted((PACKAGE.parent / "plugins").rglob("*.py"))

# From the ground up. A room is x.py or the folder x/; it imports from lower floors and from itself.
FLOORS = [
    {"errors", "allocator"},
    {"config", "measures"},
    {"text", "batches", "nn", "defaults"},
    {"model"},
    {"attending"},
    {"optim", "storage", "checkpoints"},
    {"scoring"},
    {"continuing"},
    {"training", "decoding", "features"},
    {"session", "progress", "fitting", "plotting"},
    {"estimator"},
    {"text_to_text", "detector", "metrics", "jobs", "demo"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Rooms that something is not for, though its floor would allow it.
BARRED = {"text": {"torch"}, "nn": {"tokenizers"}, "model": {"tokenizers", "lstmlm.text"}}

FILE_ROOMS = {"storage", "checkpoints", "jobs", "cli", "demo"}
FILE_MODULES = {"bz2", "glob", "gzip", "lzma", "mmap", "pickle", "shutil", "tempfile", "zipfile"}
FILE_MODULES |= {"pyarrow", "safetensors", "zstandard"}
FILE_CALLS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "makedirs"}
FILE_CALLS |= {"unlink", "rmdir", "rename", "touch", "iterdir", "listdir", "scandir"}
FILE_CALLS |= {"exists", "is_file", "is_dir", "memmap", "fromfile", "tofile", "from_file"}
FILE_CALLS |= {f"{library}.load" for library in ("joblib", "np", "numpy", "torch")}
FILE_CALLS |= {"joblib.dump", "np.save", "np.savez", "numpy.save", "numpy.savez", "torch.save"}

PRINTING_ROOMS = {"cli", "progress", "demo"}
PRINTING_MODULES = {"rich", "typer"}
PRINTING_NAMES = {"print", "sys.stdout", "sys.stderr"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports, wherever in it the import stands."""
    parents = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, ".".join(parents))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports; a name from lstmlm itself is its `__init__`'s."""
    dotted = [name.split(".") for name in imports(path)]
    names = {[*parts, "__init__"][1] for parts in dotted if parts[0] == "lstmlm"}
    return {name if name in FLOOR else "__init__" for name in names} - {room_of(path)}


def names_used(path: Path) -> Iterator[str]:
    """Yield x for every use of a name x, and both y and x.y for every use of an attribute x.y."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
            if isinstance(node.value, ast.Name):
                yield f"{node.value.id}.{node.attr}"


def imports_any(path: Path, barred: set[str]) -> set[str]:
    return {bar for bar in barred for name in imports(path) if f"{name}.".startswith(f"{bar}.")}


@pytest.fixture(params=modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def module(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_module_has_a_floor(module):
    assert room_of(module) in FLOOR, f"give {room_of(module)!r} a floor in FLOORS of this test"


def test_imports_go_down(module):
    floor = FLOOR[room_of(module)]
    not_below = {room for room in imported_rooms(module) if FLOOR[room] >= floor}
    assert not not_below, f"{room_of(module)} (floor {floor}) imports {not_below}, not below it"


def test_rooms_keep_to_their_subject(module):
    barred = set(BARRED.get(room_of(module), ()))
    if FLOOR[room_of(module)] < FLOOR["estimator"]:
        barred.add("sklearn")
    assert imports_any(module, barred | {"spacy"}) == set()


def test_only_some_rooms_touch_files(module):
    if room_of(module) not in FILE_ROOMS:
        assert imports_any(module, FILE_MODULES) | (FILE_CALLS & set(names_used(module))) == set()


def test_only_some_rooms_print(module):
    if room_of(module) not in PRINTING_ROOMS:
        used = PRINTING_NAMES & set(names_used(module))
        assert imports_any(module, PRINTING_MODULES) | used == set()


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_plugins_take_the_public_names_alone(plugin):
    names = {name for name in imports(plugin) if name.split(".")[0] == "lstmlm"} - {"lstmlm"}
    assert names <= {f"lstmlm.{name}" for name in lstmlm.__all__}
    assert PRINTING_NAMES & set(names_used(plugin)) == set()


def test_the_checks_see_what_they_bar(tmp_path, monkeypatch):
    folder = tmp_path / "lstmlm" / "nn"
    folder.mkdir(parents=True)
    path = folder / "cells.py"
    path.write_text(
        "from .state import B\nfrom ..text import Tokenizer\nimport lstmlm.model as m, rich.table\n"
        "from lstmlm import LSTMLanguageModel\n"
        "def f(p):\n    from sklearn import base\n    p.open('w'); print(torch.load(p))\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "lstmlm")
    assert imported_rooms(path) == {"text", "model", "__init__"}
    assert imports_any(path, {"sklearn", "rich", "tor", "typer"}) == {"sklearn", "rich"}
    assert set(names_used(path)) >= {"open", "print", "torch.load"}


SETTINGS_KEPT = """
import logging, os, random, sys, warnings
import joblib, numpy, rich.progress, safetensors.torch, sklearn.base, tokenizers, torch, typer

def settings():
    loggers = [logging.getLogger(), *map(logging.getLogger, ("lstmlm", "torch", "sklearn"))]
    return {
        "environment": dict(os.environ),
        "logging": [(log.level, log.handlers[:], log.disabled, log.propagate) for log in loggers],
        "numpy's seed": numpy.random.get_state()[1].tolist(),
        "Python's seed": random.getstate(),
        "torch's seed": torch.get_rng_state().tolist(),
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's dtype": torch.get_default_dtype(),
        "torch's device": (torch.get_default_device(), torch.cuda.is_initialized()),
        "torch's matmul": (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
        "torch's determinism": torch.are_deterministic_algorithms_enabled(),
        "warnings": warnings.filters[:],
    }

before = settings()
import lstmlm, lstmlm.cli
after = settings()
changed = [name for name in before if before[name] != after[name]]
assert not changed, f"importing lstmlm changed {changed}"
for extra in ("spacy", "matplotlib"):
    assert extra not in sys.modules, f"importing lstmlm imported {extra}"
"""


def test_importing_does_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SETTINGS_KEPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
