"""The command line: ``lstmlm train | score | evaluate | generate | complete | info | demo``."""

import io
import os
import sys
import warnings
from typing import Any

import typer

from lstmlm.cli.evaluating import evaluate
from lstmlm.cli.scoring import score
from lstmlm.cli.showing import demo, info
from lstmlm.cli.training import train
from lstmlm.cli.writing import complete, generate
from lstmlm.errors import LstmlmError

app = typer.Typer(
    help="Language models of your own text: train, score, evaluate, generate, complete.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (train, score, evaluate, generate, complete, info, demo):
    app.command()(command)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line, without the place in the code that gave it."""
    sys.stderr.write(f"lstmlm: {message}\n")


def main() -> None:
    """Run the command line: exit status 2 with one line for what the user can mend."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    called = typer.main.get_command(app)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            with called.make_context("lstmlm", sys.argv[1:] or ["--help"]) as context:
                called.invoke(context)
        sys.stdout.flush()  # here a reader who has gone is known what to do about
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except typer.TyperException as error:  # a wrong or a missing argument
        sys.stderr.write(f"lstmlm: {error.format_message()} See 'lstmlm --help'.\n")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (LstmlmError, OSError) as error:
        sys.stderr.write(f"lstmlm: {error}\n")
        sys.exit(2)
