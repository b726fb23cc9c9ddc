"""``lstmlm score``."""

from typing import Annotated, Any

import typer

import lstmlm
from lstmlm.cli.options import Device, Field, Model, Texts, WholeFiles
from lstmlm.cli.output import as_json, counting, open_output
from lstmlm.jobs import STDIN, Row, read_rows, score_rows


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
