"""What is shown of a training: lines where nothing can move, a bar on a terminal."""

import io
import math
import re

import pytest
from rich.console import Console
from tiny import TEXTS, unfitted

from lstmlm import Epoch
from lstmlm.progress import TrainingProgress
from lstmlm.training import Report

LOSS, HELDOUT_LOSS = math.log(20), math.log(30)


def report(**values):
    given = {"epoch": 1, "progress": 0.25, "seconds": 5.0, "tokens": 10_000}
    given |= {"train_loss": LOSS, "learning_rate": 0.001}
    return Report(**given | values)


def epoch(number=1, seconds=5.0, train_loss=LOSS, heldout_loss=HELDOUT_LOSS):
    return Epoch(
        epoch=number,
        seconds=seconds,
        tokens=10_000,
        train_loss=train_loss,
        heldout_loss=heldout_loss,
        learning_rate=0.001,
    )


def shown(*reports, enabled=True, **console):
    """Return what is written while reports come."""
    out = io.StringIO()
    with TrainingProgress(enabled=enabled, console=Console(file=out, **console)) as watch:
        for each in reports:
            watch(each)
    return out.getvalue()


def frames(*reports, width=100):
    """Return the lines that stand on a terminal one after the other, without its controls."""
    written = shown(*reports, force_terminal=True, color_system=None, width=width)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "\n", written).replace("\r", "\n")
    return [line.rstrip() for line in plain.split("\n") if line.strip()]


def test_one_line_an_epoch_where_nothing_can_move():
    assert shown(
        report(),
        report(ended=epoch()),
        report(epoch=2, progress=1.0, seconds=3725.4, tokens=7_500_000),
        report(
            epoch=2,
            progress=1.0,
            seconds=3725.4,
            tokens=7_500_000,
            ended=epoch(2, 3725.4, math.log(1234.5), None),
        ),
        width=80,
    ) == (
        "epoch   1  0:05  2,000 tokens/s  perplexity 20.00  held-out 30.00\n"
        "epoch   2  1:02:05  2,013 tokens/s  perplexity 1,234.50\n"
    )


def test_a_training_of_many_epochs_is_told_in_few_lines():
    reports = [
        report(epoch=number, progress=number / 200, ended=epoch(number)) for number in range(1, 201)
    ]
    told = [int(line.split()[1]) for line in shown(*reports).splitlines()]
    assert len(told) <= 21
    assert (told[0], told[-1]) == (1, 200)
    assert told == sorted(set(told))


def test_a_long_line_stays_one():
    ended = epoch(100, 86_400.0, math.log(33_278), math.log(33_278))
    written = shown(report(epoch=100, seconds=86_400.0, tokens=10**11, ended=ended), width=60)
    assert written == (
        "epoch 100  24:00:00  1,157,407 tokens/s  perplexity 33,278.00  held-out 33,278.00\n"
    )


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [(0, "0:00"), (0.4, "0:00"), (59.7, "1:00"), (61, "1:01"), (3599.6, "1:00:00")],
)
def test_clocks(seconds, clock):
    written = shown(report(ended=epoch(seconds=seconds)))
    assert written.startswith(f"epoch   1  {clock}  ")


def test_a_loss_beyond_a_float_is_shown():
    written = shown(report(ended=epoch(train_loss=1e4, heldout_loss=None)))
    assert written == "epoch   1  0:05  2,000 tokens/s  perplexity inf\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_if_it_is_not_enabled(terminal):
    assert shown(report(), report(ended=epoch()), enabled=False, force_terminal=terminal) == ""


def test_the_bar_before_the_first_report():
    assert frames()[-1].startswith("reading text")


@pytest.mark.parametrize("width", [80, 100])
def test_the_bars_figures(width):
    # A quarter took 5 s: three quarters will take 15 s.
    last = frames(report(), width=width)[-1]
    assert re.sub(r"[━╸╺ ]+", " ", last) == (
        "epoch 1 25% 2,000 tokens/s · perplexity 20.0 · 0:15 left"
    )


@pytest.mark.parametrize("width", [80, 100])
def test_the_bar_keeps_the_last_held_out_figure(width):
    reports = [report(), report(ended=epoch()), report(epoch=2, progress=0.5, tokens=50_000)]
    *before, last = frames(*reports, width=width)
    assert "epoch   1  0:05  2,000 tokens/s  perplexity 20.00  held-out 30.00" in before
    assert re.sub(r"[━╸╺ ]+", " ", last) == (
        "epoch 2 50% 10,000 tokens/s · perplexity 20.0 · held-out 30.0 · 0:05 left"
    )


def test_the_bar_of_a_report_at_the_very_start():
    last = frames(report(progress=0.0, seconds=0.0, tokens=0))[-1]
    assert re.sub(r"[━╸╺ ]+", " ", last) == "epoch 1 0% 0 tokens/s · perplexity 20.0 · 0:00 left"


def test_a_fit_shows_its_epochs_on_standard_error(capsys):
    model = unfitted(tokenizer="word", max_epochs=2, early_stopping=True, verbose=1).fit(TEXTS)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == len(model.history_) == 2
    for number, (line, ended) in enumerate(zip(lines, model.history_, strict=True), 1):
        perplexities = f"perplexity {math.exp(ended.train_loss):,.2f}  held-out "
        perplexities += f"{math.exp(ended.heldout_loss):,.2f}"
        assert re.fullmatch(
            rf"epoch   {number}  0:\d\d  [\d,]+ tokens/s  {re.escape(perplexities)}", line
        )


def test_a_silent_fit(capsys):
    unfitted(tokenizer="word", max_epochs=1).fit(TEXTS)
    assert capsys.readouterr() == ("", "")
