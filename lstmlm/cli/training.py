"""``lstmlm train``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import lstmlm
from lstmlm.cli.options import Device, Field, Seed, Texts, WholeFiles, parsed, with_options
from lstmlm.cli.output import errors
from lstmlm.config import ModelConfig, Rule, TextConfig, TrainConfig
from lstmlm.errors import ParameterError
from lstmlm.jobs import read_rows
from lstmlm.measures import perplexity
from lstmlm.storage import check_target
from lstmlm.training import kept_epoch

# The estimator's parameters that belong to no group of settings.
OTHER_RULES = {
    "tokenizer": Rule(
        help="What a token is: bpe, char or word, or a path to a tokenizer.json.", kind=str
    ),
    "generation_config": Rule(
        help="""Defaults of generate as a JSON object, such as '{"temperature": 0.8}'.""", kind=str
    ),
    "checkpoint_dir": Rule(
        help="A folder where the training's state is kept, to go on from after a kill.",
        kind=str,
        optional=True,
    ),
    "verbose": Rule(help="0: silent; 1: show the training's progress.", kind=int, low=0),
}
FIT_RULES = OTHER_RULES | TextConfig.rules() | ModelConfig.rules() | TrainConfig.rules()


@with_options(FIT_RULES)
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
    params = {"verbose": 1} | parsed(options, FIT_RULES)
    if "generation_config" in params:
        params["generation_config"] = _json_object(params["generation_config"])
    model = lstmlm.LSTMLanguageModel(**params, device=device, random_state=random_state)

    def rows(inputs: list[str]) -> Iterator[str]:
        return (row.text for row in read_rows(inputs, field=field, whole_files=whole_files))

    model.fit(rows(texts), validation=rows(validation) if validation else None)
    model.save(out)
    if model.verbose:
        epochs = f"{model.n_epochs_} epochs{_heldout(model)}"
        errors().print(f"{out}: {model.vocab_size_:,} ids, {epochs}.")


def _json_object(written: str) -> dict[str, Any]:
    try:
        config = json.loads(written)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ParameterError(
            f"--generation-config={written!r} is not valid; it is a JSON object, such as "
            """'{"temperature": 0.8}'."""
        )
    return config


def _heldout(model: lstmlm.LSTMLanguageModel) -> str:
    kept = kept_epoch(model.history_, model.params_["early_stopping"])
    if kept is None or kept.heldout_loss is None:
        return ""
    return f", held-out perplexity {perplexity(kept.heldout_loss, 1):,.2f}"
