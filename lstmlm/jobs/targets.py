"""Where a job's results go, and what says how far it got.

Each shard's results are written under a temporary name and renamed, and its record last of all: a
shard that has a record is finished. A manifest says what was begun: with which model, which
settings, and which files.
"""

import gzip
import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from lstmlm.errors import InputFileError, JobError
from lstmlm.jobs.files import open_new, remove_unfinished, write_json
from lstmlm.jobs.outputs import as_json, join
from lstmlm.jobs.reading import BadRow
from lstmlm.jobs.settings import JSONL, PARQUET, ScoreSettings
from lstmlm.measures import Tally

MANIFEST, ERRORS, RECORDS, REJECTED = "manifest.json", "errors.jsonl", ".shards", "rejected"
FILE_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
OTHER_SUFFIXES = (".csv", ".gz", ".json", ".tsv", ".txt", ".zst")  # no name of a folder


@dataclass(frozen=True)
class Summary:
    """What a job, or a shard of one, did.

    Parameters
    ----------
    rows, rejected, failures : int
        Rows that were scored, those of them above the largest perplexity, and rows (or files) that
        couldn't be read.
    tally : Tally
        The figures of all rows that were scored.
    """

    rows: int = 0
    rejected: int = 0
    failures: int = 0
    tally: Tally = field(default_factory=Tally)

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(
            self.rows + other.rows,
            self.rejected + other.rejected,
            self.failures + other.failures,
            self.tally + other.tally,
        )


@dataclass(frozen=True)
class Target:
    """Where a job's results go: a folder, which is also where its shards are.

    Parameters
    ----------
    out : Path
        What the user named.
    folder : Path
        Where shards are written.
    settings : ScoreSettings
        What is written.
    """

    out: Path
    folder: Path
    settings: ScoreSettings

    @property
    def manifest(self) -> Path:
        """The file that says what the job is."""
        return self.folder / MANIFEST

    def is_free(self) -> bool:
        """Return whether nothing is there."""
        return not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir()))

    def begin(self, manifest: dict[str, Any], *, resume: bool) -> Summary | None:
        """Write the manifest, or compare it with the one that is there.

        Returns
        -------
        Summary or None
            Of a job that is finished.
        """
        found = self._found()
        if found is None and not self.is_free():
            raise JobError(
                f"{self.out} is there already and is no job's; nothing was written. Give a new "
                "name, or remove it first."
            )
        if found is not None:
            if not resume:
                raise JobError(
                    f"{self.out} holds a job already; go on with it with --resume, give a new "
                    "name, or remove it first."
                )
            _check_same(self.out, found, manifest)
            if "summary" in found:
                self.clean()
                return _summary(found["summary"])
        for folder in (self.folder, self.folder / RECORDS, self.folder / REJECTED):
            if folder.name != REJECTED or self.settings.max_perplexity is not None:
                folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder)
        write_json(self.manifest, manifest)
        return None

    def _found(self) -> dict[str, Any] | None:
        if not self.manifest.is_file():
            return None
        try:
            found = json.loads(self.manifest.read_text("utf-8"))
        except ValueError as error:
            raise JobError(f"{self.manifest} is damaged: {error}.") from error
        return found if isinstance(found, dict) else {}

    def is_finished(self, number: int) -> bool:
        """Return whether a shard has its record."""
        return self._record(number).is_file()

    def keep(self, number: int, summary: Summary, bad: list[BadRow]) -> None:
        """Write a shard's record: the last of what is written of it."""
        errors = [asdict(row) for row in bad]
        write_json(self._record(number), {"summary": asdict(summary), "errors": errors})

    def _record(self, number: int) -> Path:
        return self.folder / RECORDS / f"{number:05}.json"

    def part(self, number: int) -> Path:
        """Return the file of a shard's results."""
        return self.folder / self._name(number)

    def rejected_part(self, number: int) -> Path:
        """Return the file of a shard's rejected rows."""
        return self.folder / REJECTED / self._name(number)

    def _name(self, number: int) -> str:
        return f"part-{number:05}.{self.settings.format}"

    def finish(self, n_shards: int) -> Summary:
        """Put together what shards left: their failures, the whole's figures, a single file."""
        total = Summary()
        with open_new(self.errors) as errors:
            for number in range(n_shards):
                record = json.loads(self._record(number).read_text("utf-8"))
                total += _summary(record["summary"])
                for row in record["errors"]:
                    errors.write(as_json(row).encode() + b"\n")
        if not total.failures:
            self.errors.unlink()
        remove_unfinished(self.folder)  # of a worker that was killed, whose shard another one wrote
        self.put_together(n_shards)
        manifest = json.loads(self.manifest.read_text("utf-8"))
        write_json(self.manifest, manifest | {"summary": asdict(total)})
        self.clean()
        return total

    @property
    def errors(self) -> Path:
        """The file of what couldn't be read."""
        return self.folder / ERRORS

    def put_together(self, n_shards: int) -> None:
        """Make what the user named of the shards' files: of a folder, nothing more."""

    def clean(self) -> None:
        """Remove what only the job needed."""
        shutil.rmtree(self.folder / RECORDS, ignore_errors=True)


@dataclass(frozen=True)
class _SingleFile(Target):
    """A single file, whose shards lie in a folder beside it until all are finished."""

    @property
    def manifest(self) -> Path:
        """See `Target.manifest`: it stays beside the file."""
        return self.out.with_name(f"{self.out.name}.{MANIFEST}")

    @property
    def errors(self) -> Path:
        """See `Target.errors`."""
        return self.out.with_name(f"{_stem(self.out)}.{ERRORS}")

    def _found(self) -> dict[str, Any] | None:
        found = super()._found()
        return found if self.out.exists() or "summary" not in (found or {}) else None

    def put_together(self, n_shards: int) -> None:
        """See `Target.put_together`."""
        self._join([self.part(number) for number in range(n_shards)], self.out)
        if self.settings.max_perplexity is not None:
            suffix = self.out.name.removeprefix(_stem(self.out))
            rejected = self.out.with_name(f"{_stem(self.out)}.{REJECTED}{suffix}")
            self._join([self.rejected_part(number) for number in range(n_shards)], rejected)

    def _join(self, parts: list[Path], path: Path) -> None:
        with open_new(path) as file:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                    join(parts, cast(BinaryIO, packed), self.settings.format)
            else:
                join(parts, file, self.settings.format)

    def clean(self) -> None:
        """See `Target.clean`."""
        shutil.rmtree(self.folder, ignore_errors=True)


def make_target(out: Path, settings: ScoreSettings) -> Target:
    """Return where results go, by the name of `out`."""
    if out.suffix in OTHER_SUFFIXES and not out.name.endswith(FILE_SUFFIXES):
        raise JobError(
            f"--out {out} must be a folder, or end in {', '.join(FILE_SUFFIXES[:-1])} or "
            f"{FILE_SUFFIXES[-1]}."
        )
    if not out.name.endswith(FILE_SUFFIXES):
        return Target(out, out, settings)
    if not out.parent.is_dir():
        raise InputFileError(f"--out {out}: there is no folder {out.parent}.")
    output_format = PARQUET if out.suffix == ".parquet" else JSONL
    folder = out.with_name(f".{out.name}.shards")
    return _SingleFile(out, folder, replace(settings, format=output_format))


def _check_same(out: Path, found: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Raise JobError if a job was begun with something else."""
    wanted = json.loads(json.dumps(manifest))
    for name, what in (
        ("format_version", "version of lstmlm"),
        ("model", "model"),
        ("settings", "settings"),
        ("inputs", "inputs (or they were changed since)"),
        ("n_shards", "inputs"),
    ):
        if found.get(name) != wanted[name]:
            raise JobError(
                f"{out} was begun with another {what}; go on with the same, or give a new name."
            )


def _summary(values: dict[str, Any]) -> Summary:
    return Summary(**values | {"tally": Tally(**values["tally"])})


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]
