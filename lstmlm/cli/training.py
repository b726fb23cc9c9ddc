"""``lstmlm train``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import lstmlm
from lstmlm.cli.options import Device, Field, Seed, Texts, WholeFiles, parsed, with_options
from lstmlm.cli.output import errors
from lstmlm.config import ModelConfig, Rule, TextConfig, TrainConfig
from lstmlm.jobs import read_rows
from lstmlm.measures import perplexity
from lstmlm.storage import check_target

TOKENIZER_RULE = {
    "tokenizer": Rule(help="What a token is.", kind=str, choices=("bpe", "char", "word"))
}
FIT_RULES = (TOKENIZER_RULE, TextConfig.rules(), ModelConfig.rules(), TrainConfig.rules())


@with_options(*FIT_RULES)
def train(
    texts: Texts,
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    validation: Annotated[
        list[str] | None, typer.Option(help="A file of held-out texts; may be repeated.")
    ] = None,
    field: Field = None,
    whole_files: WholeFiles = False,
    device: Device = "auto",
    random_state: Seed = None,
    **options: Any,
) -> None:
    """Train a model on texts: each line of a text file, each row of JSON Lines."""
    check_target(out)
    rules = {name: rule for group in FIT_RULES for name, rule in group.items()}
    model = lstmlm.LSTMLanguageModel(
        **parsed(options, rules), device=device, random_state=random_state, verbose=1
    )

    def rows(inputs: list[str]) -> Iterator[str]:
        return (row.text for row in read_rows(inputs, field=field, whole_files=whole_files))

    model.fit(rows(texts), validation=rows(validation) if validation else None)
    model.save(out)
    last = model.history_[-1] if model.history_ else None
    figure = "" if last is None or last.heldout_loss is None else _heldout(model)
    errors().print(f"{out}: {model.vocab_size_:,} ids, {model.n_epochs_} epochs{figure}.")


def _heldout(model: lstmlm.LSTMLanguageModel) -> str:
    losses = [e.heldout_loss for e in model.history_ if e.heldout_loss is not None]
    return f", held-out perplexity {perplexity(min(losses), 1):,.2f}"
