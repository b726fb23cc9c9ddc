"""``lstmlm evaluate``."""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

import lstmlm
from lstmlm.cli.options import AsJson, Device, Field, Model, Texts, WholeFiles
from lstmlm.cli.output import counting, show, table
from lstmlm.jobs import as_json, finite, tally_files
from lstmlm.measures import Evaluation, Tally


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
        ("texts", number(figures.n_texts), ""),
        ("tokens", number(figures.n_tokens), "here and below each text's end mark counts as one"),
        ("words", number(figures.n_words), ""),
        ("characters", number(figures.n_chars), ""),
        ("bytes", number(figures.n_bytes), ""),
        ("nats", number(figures.nats), "minus the log-probability of all"),
        ("perplexity", number(figures.perplexity), "a token"),
        ("", number(figures.word_perplexity), "a word"),
        ("bits", number(figures.bits_per_char), "a character"),
        ("", number(figures.bits_per_byte), "a byte"),
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
            *(number(figures[name]) for name in counts),
            *(_share(figures[name]) for name in shares),
        )
    return rows


def number(value: float | None) -> str:
    """Write a count whole, a figure with three decimals, a very large one as a power of ten."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.3f}" if abs(value) < 1e9 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
