"""Everything that lies on a disk: spooled texts, the id file, the model folder.

A model folder holds ``config.json``, ``tokenizer.json``, ``model.safetensors`` and
``MANIFEST.json`` (format version, sha256 and size of the others). Loading one runs no code, follows
no link, reaches no network, and checks sizes and shapes before it allocates.
"""

import errno
import hashlib
import json
import logging
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from lstmlm.batches import Corpus, position_type
from lstmlm.errors import DiskFullError, ModelFolderError, ParameterError
from lstmlm.text import END, Tokenizer, in_pieces, readable

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
FILES = (CONFIG, TOKENIZER, WEIGHTS)
MAX_JSON_BYTES = 1 << 28
TensorReader = Callable[[dict[str, tuple[int, ...]]], dict[str, Tensor]]
_log = logging.getLogger("lstmlm")
_LENGTH = struct.Struct("<Q")
_AT_ONCE = 32  # rows of positions that are read before pages are let go
_LET_GO = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows


# ---- texts and ids ----


@contextmanager
def workspace() -> Iterator[Path]:
    """Give a temporary folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lstmlm-") as folder:
        yield Path(folder)


class SpooledTexts:
    """Texts of a one-shot iterable, kept in a file so that they can be read more than once.

    Parameters
    ----------
    texts : iterable of str
        Read at once, to its end.
    path : Path
        The file that is written: each text's length in bytes, then its bytes.
    """

    def __init__(self, texts: Iterable[str], path: Path) -> None:
        self._path = path
        _log.debug("spool: texts to %s", path)
        with _written(path) as file:
            for text in texts:
                data = readable(text).encode()
                file.write(_LENGTH.pack(len(data)))
                file.write(data)

    def __iter__(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            while header := file.read(_LENGTH.size):
                yield file.read(_LENGTH.unpack(header)[0]).decode()


class MappedIds(np.memmap[Any, np.dtype[np.int32]]):
    """Ids in a file, read where they are asked for, of which nothing stays in memory.

    Pages of a mapped file count as the process's own memory once they have been touched. Here they
    are let go with each access; what was taken out is a copy, and a view maps its pages anew. The
    kernel maps many pages around each one: of positions far apart, only some are read at once.
    """

    _mmap: mmap.mmap | None  # numpy's name; a copy has none

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, np.ndarray) and index.dtype.kind == "i" and len(index) > _AT_ONCE:
            parts = range(0, len(index), _AT_ONCE)
            return np.concatenate([self[index[start : start + _AT_ONCE]] for start in parts])
        found = super().__getitem__(index)
        if _LET_GO is not None and self._mmap is not None:
            self._mmap.madvise(_LET_GO)
        return found


def write_corpus(texts: Iterable[str], tokenizer: Tokenizer, path: Path) -> Corpus:
    """Encode texts into a file of ids and return it, mapped into memory.

    Parameters
    ----------
    texts : iterable of str
        Read once.
    tokenizer : Tokenizer
        Its ids are written as int32, an end mark first and after each text.
    path : Path
        The file.

    Raises
    ------
    DiskFullError
        If there is no room for the file.
    """
    _log.debug("encode: texts to %s", path)
    n_ids, bounds = 1, [np.ones(1, dtype=np.int64)]
    with _written(path) as file:
        file.write(np.array([END], dtype=np.int32).data)
        for pieces, last in in_pieces(texts, cut=tokenizer.has_safe_cuts):
            ids, ends = tokenizer.encode_pieces(pieces, last)
            file.write(ids.data)
            bounds.append(n_ids + ends)
            n_ids += len(ids)
    positions = np.concatenate(bounds).astype(position_type(n_ids), copy=False)
    return Corpus.bounded(MappedIds(path, dtype=np.int32, mode="r+"), positions)


def digest_of(values: NDArray[Any]) -> bytes:
    """Return the sha256 of an array's bytes; the array, one-dimensional, may be large."""
    digest = hashlib.sha256()
    for part in _parts(values):
        digest.update(part.tobytes())
    return digest.digest()


def renumber(corpus: Corpus, tokenizer: Tokenizer) -> Tokenizer:
    """Give a corpus's ids new numbers, in the order of their frequency, in its file.

    Returns
    -------
    Tokenizer
        The same tokenizer with the new numbers.
    """
    _log.debug("renumber: ids by their frequency")
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for part in _parts(corpus.ids):
        counts += np.bincount(part, minlength=len(counts))
    ordered = tokenizer.reordered(counts)
    new_ids = np.zeros(tokenizer.vocab_size, dtype=np.int32)
    new_ids[tokenizer.ranks] = ordered.ranks
    for part in _parts(corpus.ids):
        part[:] = new_ids[part]
    return ordered


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing; a full disk becomes DiskFullError."""
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"the disk that holds {path.parent} is full. fit keeps there the texts of an iterator "
            "and, four bytes a token, the ids of all texts: set TMPDIR to a folder with more room."
        ) from error


def _parts(ids: NDArray[Any], size: int = 1 << 19) -> Iterator[NDArray[Any]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


# ---- a tokenizer from elsewhere ----


def read_tokenizer_json(path: Path) -> str | None:
    """Return the content of a ``tokenizer.json``, or of the one in a folder; None without any.

    Raises
    ------
    ParameterError
        If it is a folder without one, no text, or larger than any tokenizer.
    """
    if not path.exists():
        return None
    file = path / TOKENIZER if path.is_dir() else path
    try:
        if path.is_dir() and not file.is_file():
            raise ValueError(f"it is a folder without a {TOKENIZER}")
        if file.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it has {file.stat().st_size} bytes")
        return file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ParameterError(f"tokenizer={str(path)!r} can't be read: {error}.") from error


# ---- the model folder ----


def save_folder(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    tokenizer_json: str,
    tensors: dict[str, Tensor],
) -> None:
    """Write a model folder: whole under a temporary name beside it, then renamed.

    Parameters
    ----------
    folder : path
        Where the model goes. An older model there is replaced.
    config : dict
        What JSON can hold.
    tokenizer_json : str
        The Rust tokenizer, as it writes itself.
    tensors : dict of Tensor
        Weights by name; no two share memory.

    Raises
    ------
    ModelFolderError
        If there is something at `folder` that is not a model.
    """
    target = Path(folder)
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (temporary / CONFIG).write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
        (temporary / TOKENIZER).write_text(tokenizer_json, "utf-8")
        save_file(
            {n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary / WEIGHTS
        )
        manifest = {
            "format_version": FORMAT_VERSION,
            "files": {name: _describe(temporary / name) for name in FILES},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        temporary.chmod(0o777 & ~_umask())
        _put_in_place(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _put_in_place(new: Path, target: Path) -> None:
    """Rename a folder, in place of an older one; that one is back if anything fails."""
    if not target.exists():
        new.replace(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    old = aside / target.name
    try:
        target.replace(old)
        new.replace(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.replace(target)
        raise
    finally:
        shutil.rmtree(aside)


def load_folder(
    folder: str | os.PathLike[str],
) -> tuple[dict[str, Any], bytes, TensorReader]:
    """Read a model folder that `save_folder` wrote.

    Returns
    -------
    config : dict
    tokenizer_json : bytes
    read_tensors : callable
        Called with the shape that each tensor should have, it returns the tensors; nothing of their
        size is allocated before their shapes have been compared.

    Raises
    ------
    ModelFolderError
        If the folder is no model, of another format version, incomplete or altered.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ModelFolderError(f"{root} is no folder; give a folder that save() wrote.")
    if not (root / MANIFEST).is_file():
        raise ModelFolderError(f"{root} is no model folder: it has no {MANIFEST}.")
    if (root / MANIFEST).is_symlink():
        raise ModelFolderError(f"{root / MANIFEST} is missing or not a plain file.")
    manifest = _read_json(root / MANIFEST)
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ModelFolderError(
            f"{root} has format version {version!r}; this version of lstmlm reads {FORMAT_VERSION}."
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ModelFolderError(f"{root / MANIFEST} does not list the files of a model.")
    for name in FILES:
        _verify(root / name, files.get(name))
    config = _read_json(root / CONFIG)
    if not isinstance(config, dict):
        raise ModelFolderError(f"{root / CONFIG} does not hold a model's settings.")
    return (
        config,
        (root / TOKENIZER).read_bytes(),
        lambda shapes: _read_tensors(root / WEIGHTS, shapes),
    )


def check_target(target: Path) -> None:
    """Raise ModelFolderError unless there is nothing, an older model or an empty folder."""
    free = not target.exists()
    if target.is_dir():
        names = {path.name for path in target.iterdir()}
        free = not names or (MANIFEST in names and names <= {MANIFEST, *FILES})
    if not free:
        raise ModelFolderError(
            f"{target} is there already and is no model folder; nothing was written. "
            "Give a new name, or remove it first."
        )


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _verify(path: Path, expected: Any) -> None:
    if path.is_symlink() or not path.is_file():
        raise ModelFolderError(f"{path} is missing or not a plain file.")
    if not isinstance(expected, dict) or path.stat().st_size != expected.get("bytes"):
        raise ModelFolderError(
            f"{path} has {path.stat().st_size} bytes, not the number that {MANIFEST} names: it was "
            "cut off or altered."
        )
    if path.name != WEIGHTS and path.stat().st_size > MAX_JSON_BYTES:
        raise ModelFolderError(f"{path} is larger than any model's: {path.stat().st_size} bytes.")
    if _describe(path)["sha256"] != expected.get("sha256"):
        raise ModelFolderError(f"{path} was altered: its sha256 is not the one {MANIFEST} names.")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not valid JSON: {error}.") from error


def _read_tensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except safetensors.SafetensorError as error:
        raise ModelFolderError(f"{path} is not a file of tensors: {error}.") from error
    for name in shapes.keys() | found.keys():
        if shapes.get(name) != found.get(name):
            raise ModelFolderError(
                f"{path} does not fit {CONFIG}: {name} has shape {found.get(name)}, "
                f"{shapes.get(name)} is needed."
            )
    return load_file(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
