"""``lstmlm score``."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import joblib
import typer
from rich.table import Table

import lstmlm
from lstmlm.cli.evaluating import number
from lstmlm.cli.options import Device, Field, Model, Texts, WholeFiles
from lstmlm.cli.output import bytes_done, counting, errors, show, table
from lstmlm.errors import MissingExtraError, ParameterError
from lstmlm.jobs import (
    JSONL,
    STDIN,
    BadRow,
    Piece,
    ScoreSettings,
    Summary,
    as_json,
    list_files,
    score_files,
    score_pieces,
)

BATCH = 256  # texts that are read ahead at most, where no one waits for each


def score(
    model: Model,
    inputs: Texts,
    out: Annotated[
        str,
        typer.Option(
            help="A folder; or a .jsonl, .jsonl.gz or .parquet file; - for standard output."
        ),
    ] = "-",
    field: Field = None,
    whole_files: WholeFiles = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Give each token and its log-probability too.")
    ] = False,
    max_perplexity: Annotated[
        float | None, typer.Option(help="Put rows above it into outputs of their own.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="Of the files in a folder: jsonl or parquet.")
    ] = JSONL,
    jobs: Annotated[
        int | None, typer.Option(help="Workers, each on one core; else one for each core.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a job that was interrupted, or begin it.")
    ] = False,
    shard_bytes: Annotated[
        int | None, typer.Option(help="Bytes of input that a worker takes at a time.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Where workers are: loky, dask, threading, ...")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="With --backend dask: the scheduler's address.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Score texts: one row a text with its figures, in the order of the input.

    Rows that can't be read are put into errors.jsonl, each with its place.
    """
    settings = ScoreSettings(
        field=field,
        whole_files=whole_files,
        max_perplexity=max_perplexity,
        tokens=tokens,
        format=format,
        shard_bytes=shard_bytes,
    )
    if out == STDIN:
        if resume:
            raise ParameterError("--resume needs an --out to go on with.")
        _score_to_stdout(model, inputs, settings, device)
        return
    began = time.monotonic()
    with _workers(backend, scheduler, jobs), bytes_done() as watch:
        summary = score_files(
            model,
            inputs,
            out,
            settings,
            n_jobs=-1 if jobs is None else jobs,
            device=device,
            resume=resume,
            watch=watch,
        )
    show(_figures(summary, time.monotonic() - began))


def _score_to_stdout(model: Path, inputs: list[str], settings: ScoreSettings, device: str) -> None:
    """Score row after row; rows above the largest perplexity are left out."""
    estimator = lstmlm.LSTMLanguageModel.load(model, device=device)
    # A person or a service at the other end of a pipe waits for each line's result.
    batch_size = 1 if STDIN in inputs else BATCH
    pieces = [Piece(path) for name in inputs for path in list_files(name)]

    def write(row: dict[str, Any]) -> None:
        sys.stdout.write(as_json(row) + "\n")
        if batch_size == 1:
            sys.stdout.flush()
        count()

    def complain(bad: BadRow) -> None:
        sys.stdout.flush()
        errors().print(f"lstmlm: {bad.error}")

    with counting("scored") as count:
        score_pieces(
            estimator, pieces, settings, batch_size,
            keep=write, reject=lambda row: count(), put_aside=complain,
        )  # fmt: skip


@contextlib.contextmanager
def _workers(backend: str | None, scheduler: str | None, jobs: int | None) -> Iterator[None]:
    """Choose joblib's backend; for dask, connect to its scheduler."""
    if scheduler is not None and backend != "dask":
        raise ParameterError("--scheduler needs --backend dask.")
    if backend is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_dask_client(scheduler))
        try:
            stack.enter_context(joblib.parallel_config(backend=backend))
        except ValueError as error:
            raise ParameterError(f"--backend {backend} is none of joblib's: {error}") from error
        yield


def _dask_client(scheduler: str | None) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtraError(
            "--backend dask needs dask's distributed: pip install 'lstmlm[dask]'."
        ) from error
    try:
        client: Any = Client
        return client(scheduler) if scheduler else client(threads_per_worker=1)
    except (OSError, ValueError) as error:
        raise ParameterError(f"--scheduler {scheduler} can't be reached: {error}") from error


def _figures(summary: Summary, seconds: float) -> Table:
    """Return the table of what a job did."""
    rows = table("", "", "")
    tally = summary.tally
    lines: list[tuple[str, Any, str]] = [("rows", summary.rows, "")]
    if summary.rejected:
        lines.append(("rejected", summary.rejected, "of them above --max-perplexity"))
    if summary.failures:
        lines.append(("failures", summary.failures, "couldn't be read; see errors.jsonl"))
    if summary.rows:
        lines.append(("perplexity", tally.perplexity(), "a token"))
        lines.append(("bits", tally.bits("char"), "a character"))
    if summary.rows:
        lines.append(("speed", round(tally.words / seconds), "words a second"))
    for label, value, unit in lines:
        rows.add_row(label, number(value), unit)
    rows.columns[2].justify = "left"
    return rows
