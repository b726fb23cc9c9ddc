"""``lstmlm score`` and ``lstmlm evaluate``."""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

import lstmlm
from lstmlm.cli.options import AsJson, Device, Field, Model, Texts, WholeFiles
from lstmlm.cli.output import as_json, counting, finite, open_output, show, table
from lstmlm.jobs import STDIN, Row, read_rows, score_rows, tally_files
from lstmlm.measures import Evaluation, Tally


def score(
    model: Model,
    inputs: Texts,
    out: Annotated[
        str, typer.Option(help="A .jsonl or .jsonl.gz file; - for standard output.")
    ] = "-",
    field: Field = None,
    whole_files: WholeFiles = False,
    device: Device = "auto",
) -> None:
    """Score texts: one JSON row a text with its figures, in the order of the input."""
    estimator = lstmlm.LSTMLanguageModel.load(model, device=device)
    rows = read_rows(inputs, field=field, whole_files=whole_files)
    # A person or a service at the other end of a pipe waits for each line's result.
    batch_size = 1 if STDIN in inputs else 256
    with open_output(out) as file, counting("scored") as count:
        for scored, row in score_rows(estimator, rows, batch_size):
            file.write(as_json(_figures(scored, row)) + "\n")
            if batch_size == 1:
                file.flush()
            count()


def _figures(scored: lstmlm.ScoredText, row: Row) -> dict[str, Any]:
    return {
        **(row.fields or {"text": row.text}),
        "log_prob": scored.log_prob,
        "n_tokens": len(scored.log_probs),
        "perplexity": scored.perplexity,
        "bits_per_char": scored.bits_per_char,
    }


def evaluate(
    model: Model,
    inputs: Texts,
    by_file: Annotated[
        bool, typer.Option("--by-file", help="Give each file's figures too.")
    ] = False,
    json: AsJson = False,
    field: Field = None,
    whole_files: WholeFiles = False,
    device: Device = "auto",
) -> None:
    """Give the figures of all texts together: perplexity, bits a character, accuracy and more."""
    estimator = lstmlm.LSTMLanguageModel.load(model, device=device)
    with counting("read") as count:
        tallies = list(
            tally_files(estimator, inputs, field=field, whole_files=whole_files, watch=count)
        )
    total = Evaluation.from_tally(sum((tally for _, tally in tallies), Tally()))
    files = [(path, _evaluation(tally)) for path, tally in tallies] if by_file else []
    if json:
        parts = {"files": [{"file": path, **figures} for path, figures in files]} if by_file else {}
        sys.stdout.write(as_json(finite(asdict(total) | parts)) + "\n")
    else:
        show(_by_file(files, asdict(total)) if by_file else _all_figures(total))


def _evaluation(tally: Tally) -> dict[str, Any]:
    """Return a file's figures by name; an empty file has counts alone."""
    if tally.texts:
        return asdict(Evaluation.from_tally(tally))
    return dict.fromkeys(Evaluation.__dataclass_fields__) | {
        f"n_{unit}": 0 for unit in ("texts", "tokens", "words", "chars", "bytes")
    } | {"nats": 0.0}  # fmt: skip


def _all_figures(figures: Evaluation) -> Table:
    rows = table("", "", "")
    for label, value, unit in (
        ("texts", _number(figures.n_texts), ""),
        ("tokens", _number(figures.n_tokens), "here and below each text's end mark counts as one"),
        ("words", _number(figures.n_words), ""),
        ("characters", _number(figures.n_chars), ""),
        ("bytes", _number(figures.n_bytes), ""),
        ("nats", _number(figures.nats), "minus the log-probability of all"),
        ("perplexity", _number(figures.perplexity), "a token"),
        ("", _number(figures.word_perplexity), "a word"),
        ("bits", _number(figures.bits_per_char), "a character"),
        ("", _number(figures.bits_per_byte), "a byte"),
        ("accuracy", _share(figures.accuracy), "of the tokens were the model's first guess"),
        ("unknown", _share(figures.unknown_rate), "of the tokens were the unknown token"),
    ):
        rows.add_row(label, value, unit)
    rows.columns[2].justify = "left"
    return rows


def _by_file(files: list[tuple[str, dict[str, Any]]], total: dict[str, Any]) -> Table:
    rows = table(
        "file", "texts", "tokens", "perplexity", "a word", "bits a char", "a byte", "accuracy",
        "unknown",
    )  # fmt: skip
    for path, figures in [*files, ("all", total)]:
        counts = ("n_texts", "n_tokens", "perplexity", "word_perplexity", "bits_per_char",
                  "bits_per_byte")  # fmt: skip
        shares = ("accuracy", "unknown_rate")
        rows.add_row(
            path,
            *(_number(figures[name]) for name in counts),
            *(_share(figures[name]) for name in shares),
        )
    return rows


def _number(value: float | None) -> str:
    """Write a count whole, a figure with three decimals, a very large one as a power of ten."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if abs(value) < 1e9 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
