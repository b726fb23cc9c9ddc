"""The command line: ``lstmlm train | score | generate | demo``."""

import contextlib
import gzip
import inspect
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn

import lstmlm
from lstmlm import demo as demonstration
from lstmlm.config import DecodeConfig, ModelConfig, Rule, TextConfig, TrainConfig
from lstmlm.errors import InputFileError, LstmlmError, ParameterError
from lstmlm.jobs import STDIN, Row, read_rows, score_rows
from lstmlm.storage import check_target
from lstmlm.text import readable

app = typer.Typer(
    help="Language models of your own text: train, score, generate.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Texts = Annotated[
    list[str], typer.Argument(help="Files or folders of texts; - for standard input.")
]
Model = Annotated[Path, typer.Argument(help="A model folder that train wrote.")]
Field = Annotated[
    str | None, typer.Option(help="The field of a JSON row that holds its text; else 'text'.")
]
WholeFiles = Annotated[bool, typer.Option("--whole-files", help="Take each file as one text.")]
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
            given = {n: v for n, v in values.items() if n not in settings or v is not None}
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
        annotation = str | None
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


def _parsed(values: dict[str, Any], rules: dict[str, Rule]) -> dict[str, Any]:
    """Turn the words of a command line into settings' values."""
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        rule = rules[name]
        if value == "none" and rule.optional:
            value = None
        elif isinstance(value, str) and rule.kind in (int, float) and value != "auto":
            with contextlib.suppress(ValueError):  # the rule words what is wrong
                value = rule.kind(value)
        parsed[name] = rule.check("--" + name.replace("_", "-"), value)
    return parsed


TOKENIZER_RULE = {
    "tokenizer": Rule(help="What a token is.", kind=str, choices=("bpe", "char", "word"))
}
FIT_RULES = (TOKENIZER_RULE, TextConfig.rules(), ModelConfig.rules(), TrainConfig.rules())


@app.command()
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
        **_parsed(options, rules), device=device, random_state=random_state, verbose=1
    )

    def rows(inputs: list[str]) -> Iterator[str]:
        return (row.text for row in read_rows(inputs, field=field, whole_files=whole_files))

    model.fit(rows(texts), validation=rows(validation) if validation else None)
    model.save(out)
    last = model.history_[-1] if model.history_ else None
    figure = "" if last is None or last.heldout_loss is None else _heldout(model)
    _errors().print(f"{out}: {model.vocab_size_:,} ids, {model.n_epochs_} epochs{figure}.")


def _heldout(model: lstmlm.LSTMLanguageModel) -> str:
    losses = [e.heldout_loss for e in model.history_ if e.heldout_loss is not None]
    return f", held-out perplexity {lstmlm.measures.perplexity(min(losses), 1):,.2f}"


@app.command()
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
    with _output(out) as file, _counting("scored") as count:
        for scored, row in score_rows(estimator, rows, batch_size):
            file.write(_as_json(_figures(scored, row)) + "\n")
            if batch_size == 1:
                file.flush()
            count()


def _as_json(fields: dict[str, Any]) -> str:
    """Write JSON as one reads it; escaped where it holds what UTF-8 cannot, a lone surrogate."""
    written = json.dumps(fields, ensure_ascii=False)
    return json.dumps(fields) if readable(written) != written else written


def _figures(scored: lstmlm.ScoredText, row: Row) -> dict[str, Any]:
    return {
        **(row.fields or {"text": row.text}),
        "log_prob": scored.log_prob,
        "n_tokens": len(scored.log_probs),
        "perplexity": scored.perplexity,
        "bits_per_char": scored.bits_per_char,
    }


@app.command()
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
    config = _parsed(options, DecodeConfig.rules())
    for prompt in _prompts(prompts or [""]):
        sys.stdout.write(prompt)
        for piece in estimator.generate_stream(prompt, random_state=random_state, **config):
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


@app.command()
def demo(
    seconds: Annotated[
        float, typer.Option(min=1, help="How long to train.")
    ] = demonstration.SECONDS,
) -> None:
    """Train on Python's language reference, then score, continue and write text."""
    demonstration.run(Console(), seconds)


@contextlib.contextmanager
def _output(out: str) -> Iterator[TextIO]:
    """Open standard output, or a file that appears under its name when it is complete."""
    if out == STDIN:
        yield sys.stdout
        return
    target = Path(out)
    if not out.endswith((".jsonl", ".jsonl.gz")):
        raise ParameterError(f"--out {out} must end in .jsonl or .jsonl.gz, or be - alone.")
    if not target.parent.is_dir():
        raise InputFileError(f"--out {out}: there is no folder {target.parent}.")
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(handle)
    try:
        opened = gzip.open if out.endswith(".gz") else io.open
        with opened(temporary, "wt", encoding="utf-8", newline="\n") as file:
            yield file
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _counting(done: str) -> Iterator[Callable[[], None]]:
    """Show a count that grows, on standard error where that is a terminal."""
    console = _errors()
    columns = (TextColumn("{task.completed:,} texts " + done), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda: progress.advance(task)


def _errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line: exit status 2 with one line for what the user can mend."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        with command.make_context("lstmlm", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
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


if __name__ == "__main__":
    main()
