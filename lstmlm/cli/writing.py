"""``lstmlm generate``."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import lstmlm
from lstmlm.cli.options import Device, Model, Seed, parsed, with_options
from lstmlm.config import DecodeConfig
from lstmlm.jobs import STDIN, read_rows


@with_options(DecodeConfig.rules())
def generate(
    model: Model,
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Beginnings of texts; - reads them, a line each.")
    ] = None,
    device: Device = "auto",
    random_state: Seed = None,
    **options: Any,
) -> None:
    """Write texts: the rest of each prompt, or one from nothing."""
    estimator = lstmlm.LSTMLanguageModel.load(model, device=device)
    config = parsed(options, DecodeConfig.rules())
    for prompt in _prompts(prompts or [""]):
        if config.get("num_return_sequences", 1) > 1 or config.get("num_beams", 1) > 1:
            for text in estimator.generate([prompt], random_state=random_state, **config):
                sys.stdout.write(f"{prompt}{text}\n")
            sys.stdout.flush()
            continue
        pieces = estimator.generate_stream(prompt, random_state=random_state, **config)
        sys.stdout.write(prompt)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()


def _prompts(given: list[str]) -> Iterator[str]:
    for prompt in given:
        if prompt == STDIN:
            yield from (row.text for row in read_rows([STDIN]))
        else:
            yield prompt
