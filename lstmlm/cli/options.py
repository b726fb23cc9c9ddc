"""Arguments and options of the commands; those of settings are made from the settings' rules."""

import contextlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from lstmlm.config import Rule

Texts = Annotated[
    list[str], typer.Argument(help="Files or folders of texts; - for standard input.")
]
Model = Annotated[Path, typer.Argument(help="A model folder that train wrote.")]
Field = Annotated[
    str | None, typer.Option(help="The field of a JSON row that holds its text; else 'text'.")
]
WholeFiles = Annotated[bool, typer.Option("--whole-files", help="Take each file as one text.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write one JSON object.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Seed = Annotated[
    int | None,
    typer.Option("--random-state", min=0, max=2**32 - 1, help="For a result that repeats."),
]


def with_options(*rules: dict[str, Rule]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, in place of its ``**options``, an option for each setting.

    A setting that isn't named on the command line doesn't reach the command.
    """
    settings = {name: rule for group in rules for name, rule in group.items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def called(**values: Any) -> None:
            given = {n: v for n, v in values.items() if n not in settings or v not in (None, [])}
            command(**given)

        fixed = [
            p for p in inspect.signature(command).parameters.values() if p.kind != p.VAR_KEYWORD
        ]
        generated = [_option(name, rule) for name, rule in settings.items()]
        called.__signature__ = inspect.Signature([*fixed, *generated])  # type: ignore[attr-defined]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        return called

    return decorate


def _option(name: str, rule: Rule) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    if rule.kind is bool:
        annotation: Any = bool | None
        option = typer.Option(f"{flag}/--no-{flag[2:]}", help=rule.help, show_default=False)
    else:
        annotation = list[str] | None if rule.many else str | None
        option = typer.Option(
            flag,
            help=escape(f"{rule.help} [{rule.due()}]"),
            show_default=False,
            metavar=_metavar(rule),
        )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _metavar(rule: Rule) -> str:
    return "|".join(rule.choices) if rule.choices else rule.kind.__name__.upper()


def parsed(values: dict[str, Any], rules: dict[str, Rule]) -> dict[str, Any]:
    """Turn the words of a command line into settings' values."""
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        rule = rules[name]
        if value == "none" and rule.optional:
            value = None
        elif isinstance(value, str) and rule.kind in (int, float) and value != "auto":
            with contextlib.suppress(ValueError):  # the rule words what is wrong
                value = rule.kind(value)
        elif isinstance(value, list) and rule.kind in (int, float):
            with contextlib.suppress(ValueError):
                value = [rule.kind(one) for one in value]
        parsed[name] = rule.check("--" + name.replace("_", "-"), value)
    return parsed
