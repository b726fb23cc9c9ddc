"""``lstmlm generate`` and ``lstmlm complete``."""

import math
import sys
from collections.abc import Iterator
from typing import Annotated, Any, cast

import typer

import lstmlm
from lstmlm.cli.options import Device, Model, Seed, parsed, with_options
from lstmlm.config import DecodeConfig
from lstmlm.decoding import COMPLETING, UNITS, Unit
from lstmlm.jobs import STDIN, as_json, read_rows


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


@with_options({name: rule for name, rule in DecodeConfig.rules().items() if name in COMPLETING})
def complete(
    model: Model,
    prefixes: Annotated[
        list[str] | None, typer.Argument(help="Texts so far; - reads them, a line each.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many suggestions.")] = 5,
    unit: Annotated[str, typer.Option(metavar="|".join(UNITS), help="What to suggest.")] = "word",
    json: Annotated[
        bool, typer.Option("--json", help="Write a JSON object for each text.")
    ] = False,
    device: Device = "auto",
    **options: Any,
) -> None:
    """Suggest what comes next: the rest of the word, the likeliest first."""
    estimator = lstmlm.LSTMLanguageModel.load(model, device=device)
    config = parsed(options, DecodeConfig.rules())
    for prefix in _prompts(prefixes or [""]):
        found = estimator.complete(prefix, n, cast(Unit, unit), **config)
        if json:
            shown = [{"text": one.text, "log_prob": one.log_prob} for one in found]
            sys.stdout.write(as_json({"prefix": prefix, "completions": shown}) + "\n")
        else:
            for one in found:
                text = (prefix + one.text).replace("\n", "\\n")
                sys.stdout.write(f"{math.exp(one.log_prob):7.2%}  {text}\n")
        sys.stdout.flush()


def _prompts(given: list[str]) -> Iterator[str]:
    for prompt in given:
        if prompt == STDIN:
            yield from (row.text for row in read_rows([STDIN]))
        else:
            yield prompt
