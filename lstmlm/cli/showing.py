"""``lstmlm demo``."""

from typing import Annotated

import typer
from rich.console import Console

from lstmlm import demo as demonstration


def demo(
    seconds: Annotated[
        float, typer.Option(min=1, help="How long to train.")
    ] = demonstration.SECONDS,
) -> None:
    """Train on Python's language reference, then score, continue and write text."""
    demonstration.run(Console(), seconds)
