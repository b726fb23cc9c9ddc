"""A job: many files through one model, by many workers, killed at any moment and gone on with."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lstmlm.errors import InputFileError, JobError
from lstmlm.estimator import LSTMLanguageModel
from lstmlm.estimator.fingerprints import fingerprint_of
from lstmlm.estimator.workers import (
    as_they_end,
    device_of_worker,
    loaded_model,
    n_workers,
    one_thread,
)
from lstmlm.jobs.outputs import figures_of, rows_file
from lstmlm.jobs.plan import Shard, list_inputs, plan_shards
from lstmlm.jobs.reading import STDIN, BadRow, Piece, Row, read_piece
from lstmlm.jobs.scoring import score_rows
from lstmlm.jobs.settings import ScoreSettings
from lstmlm.jobs.targets import Summary, Target, make_target
from lstmlm.measures import Tally
from lstmlm.scoring import ScoredText
from lstmlm.text import count_bytes, count_words

FORMAT_VERSION = 1
BATCH = 256  # rows that are read together


@dataclass(frozen=True)
class Progress:
    """Where a job stands.

    Parameters
    ----------
    bytes_done, bytes_in_all : int
        Of the files that are read.
    shards_done, shards_in_all : int
        Those finished earlier among them.
    """

    bytes_done: int
    bytes_in_all: int
    shards_done: int
    shards_in_all: int


def score_files(
    model: str | os.PathLike[str],
    inputs: Iterable[str],
    out: str | os.PathLike[str],
    settings: ScoreSettings | None = None,
    *,
    n_jobs: int | None = None,
    device: str = "auto",
    resume: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Summary:
    """Score all texts of files, in shards, and write what came of each.

    What is written, byte for byte, follows from the model, the settings and the files alone:
    neither the number of workers nor their backend nor an interruption shows in it.

    Parameters
    ----------
    model : path
        A model folder.
    inputs : iterable of str
        Files, folders and patterns; see `read_rows`. With standard input among them the job has one
        shard, and can't be gone on with.
    out : path
        A folder for a file a shard; or a single file, if its name ends in .jsonl, .jsonl.gz or
        .parquet, whose shards are put together at the end. Nothing may be there.
    settings : ScoreSettings, optional
        How rows are read, and what is written of them. Of a single file its name says the format.
    n_jobs : int, optional
        Workers, as scikit-learn and joblib count them. Which they are says
        ``joblib.parallel_config``.
    device : str
        Where each works.
    resume : bool
        Go on with what is at `out`: the same job, which was interrupted; or begin.
    watch : callable
        Called with a Progress after each shard.

    Returns
    -------
    Summary

    Raises
    ------
    JobError
        If something is at `out` that isn't to be gone on with, or is another job.
    InputFileError
        If a file isn't there. A row that can't be read, or the rest of a file, is a failure, which
        is written to ``errors.jsonl``.
    ModelFolderError
        If the model can't be loaded, or is exchanged while the job runs.
    DiskFullError
        If there is no room for results.
    """
    estimator = LSTMLanguageModel.load(model, device=device)
    target = make_target(Path(out), settings or ScoreSettings())
    files = list_inputs(inputs)
    from_stdin = any(file.path == STDIN for file in files)
    if from_stdin and resume:
        raise JobError("a job that reads standard input can't be gone on with; name files.")
    shards = plan_shards(files, target.settings)
    work = _Work(str(model), str(estimator.device_), fingerprint_of(estimator).hex(), target)
    done = target.begin(
        {
            "format_version": FORMAT_VERSION,
            "model": work.fingerprint,
            "settings": asdict(target.settings),
            "inputs": [asdict(file) for file in files],
            "n_shards": len(shards),
        },
        resume=resume,
    )
    if done is not None:
        return done
    left = [shard for shard in shards if not target.is_finished(shard.number)]
    n_bytes, n_done = sum(shard.n_bytes for shard in shards), len(shards) - len(left)
    bytes_done = n_bytes - sum(shard.n_bytes for shard in left)
    watch(Progress(bytes_done, n_bytes, n_done, len(shards)))
    tasks = ((work, shard) for shard in left)
    workers = n_jobs if len(left) > 1 else 1
    if estimator.device_.type == "cuda" and workers != 1:
        workers = min(n_workers(workers), torch.cuda.device_count())  # a GPU has one user
    try:
        for number, shard in enumerate(as_they_end(_score_shard, tasks, workers), 1):
            bytes_done += shard.n_bytes
            watch(Progress(bytes_done, n_bytes, n_done + number, len(shards)))
    except BrokenProcessPool as error:
        raise JobError(
            "a worker was killed, perhaps since memory ran out. What is finished is kept: run the "
            "same command again with --resume, with fewer --jobs."
        ) from error
    return target.finish(len(shards))


@dataclass(frozen=True)
class _Work:
    """What a worker needs to know besides its shard."""

    model: str
    device: str
    fingerprint: str
    target: Target


def _load(folder: str, device: str) -> LSTMLanguageModel:
    return LSTMLanguageModel.load(folder, device=device)


def _score_shard(task: tuple[_Work, Shard]) -> Shard:
    """Score a shard and write what comes of it: a worker's whole work."""
    work, shard = task
    target, settings = work.target, work.target.settings
    estimator = loaded_model(_load, work.model, device_of_worker(work.device), work.fingerprint)
    bad: list[BadRow] = []
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        keep = stack.enter_context(rows_file(target.part(shard.number), settings.format))
        reject = keep
        if settings.max_perplexity is not None:
            rejected = rows_file(target.rejected_part(shard.number), settings.format)
            reject = stack.enter_context(rejected)
        summary = score_pieces(
            estimator, shard.pieces, settings, BATCH,
            keep=keep, reject=reject, put_aside=bad.append,
        )  # fmt: skip
    target.keep(shard.number, summary, bad)
    return shard


def score_pieces(
    estimator: LSTMLanguageModel,
    pieces: Iterable[Piece],
    settings: ScoreSettings,
    batch_size: int,
    *,
    keep: Callable[[dict[str, Any]], object],
    reject: Callable[[dict[str, Any]], object],
    put_aside: Callable[[BadRow], object],
) -> Summary:
    """Score pieces of files one after the other, row by row.

    Parameters
    ----------
    estimator : LSTMLanguageModel
        A fitted one.
    pieces : iterable of Piece
        What to read.
    settings : ScoreSettings
        How.
    batch_size : int
        Rows that are read ahead at most.
    keep, reject : callable
        Called with each row of results; `reject` with those above the largest perplexity.
    put_aside : callable
        Called with each row that couldn't be read.
    """
    sums = _Sums(settings)

    def count(bad: BadRow) -> None:
        sums.failures += 1
        put_aside(bad)

    for scored, row in score_rows(estimator, _good_rows(pieces, settings, count), batch_size):
        figures, is_rejected = sums.add(scored, row)
        (reject if is_rejected else keep)(figures)
    return sums.summary()


class _Sums:
    """Rows of results as they are made, and their sums."""

    def __init__(self, settings: ScoreSettings) -> None:
        self.failures = 0
        self._settings = settings
        self._rows = self._rejected = self._tokens = self._words = self._chars = self._bytes = 0
        self._nats = 0.0

    def add(self, scored: ScoredText, row: Row) -> tuple[dict[str, Any], bool]:
        """Return a row of results, and whether it is above the largest perplexity."""
        figures = figures_of(scored, row, tokens=self._settings.tokens)
        limit = self._settings.max_perplexity
        is_rejected = limit is not None and not figures["perplexity"] <= limit
        self._rows += 1
        self._rejected += is_rejected
        self._nats -= scored.log_prob
        self._tokens += len(scored.log_probs)
        self._words += 1 + count_words(row.text)
        self._chars += 1 + len(row.text)
        self._bytes += 1 + count_bytes(row.text)
        return figures, is_rejected

    def summary(self) -> Summary:
        """Return the sums."""
        tally = Tally(
            nats=self._nats,
            texts=self._rows,
            tokens=self._tokens,
            words=self._words,
            chars=self._chars,
            bytes=self._bytes,
        )
        return Summary(self._rows, self._rejected, self.failures, tally)


def _good_rows(
    pieces: Iterable[Piece], settings: ScoreSettings, put_aside: Callable[[BadRow], object]
) -> Iterator[Row]:
    """Yield rows; what is none is put aside, and so is a file that can't be read on."""
    for piece in pieces:
        try:
            for row in read_piece(piece, field=settings.field, whole_files=settings.whole_files):
                if isinstance(row, BadRow):
                    put_aside(row)
                else:
                    yield row
        except InputFileError as error:
            put_aside(BadRow(piece.path, None, str(error)))
