"""``lstmlm info`` and ``lstmlm demo``."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import lstmlm
from lstmlm import demo as demonstration
from lstmlm.cli.options import AsJson, Model
from lstmlm.cli.output import show, table
from lstmlm.jobs import as_json, finite
from lstmlm.measures import perplexity
from lstmlm.progress import clock
from lstmlm.storage import FILES, FORMAT_VERSION, MANIFEST
from lstmlm.training import Epoch, kept_epoch

SHOWN_EPOCHS = 12  # epochs of a history that are shown at most, the kept one besides


def info(model: Model, json: AsJson = False) -> None:
    """Say what a model is: its network, its tokenizer, its training. --json: with all settings."""
    estimator = lstmlm.LSTMLanguageModel.load(model, device="cpu")
    facts = _facts(estimator, model)
    if json:
        history = [asdict(epoch) for epoch in estimator.history_]
        sys.stdout.write(as_json(finite(facts | {"history": history})) + "\n")
        return
    shown = [_overview(facts)]
    if estimator.history_:
        shown.append(_history(estimator.history_, facts["kept_epoch"]))
    show(*shown)


def _facts(estimator: lstmlm.LSTMLanguageModel, folder: Path) -> dict[str, Any]:
    history = estimator.history_
    kept = kept_epoch(history, estimator.params_["early_stopping"])
    heldout = None if kept is None else kept.heldout_loss
    return {
        "folder": str(folder),
        "format_version": FORMAT_VERSION,
        "n_bytes": sum((folder / name).stat().st_size for name in (MANIFEST, *FILES)),
        "n_parameters": sum(p.numel() for p in estimator.module_.parameters()),
        "vocab_size": estimator.vocab_size_,
        "settings": estimator.params_,
        "n_epochs": estimator.n_epochs_,
        "n_tokens_trained": sum(epoch.tokens for epoch in history),
        "seconds": history[-1].seconds if history else 0.0,
        "kept_epoch": None if kept is None else kept.epoch,
        "heldout_perplexity": None if heldout is None else perplexity(heldout, 1),
    }


def _overview(facts: dict[str, Any]) -> Table:
    settings = facts["settings"]
    tied = "the embedding's rows shared" if settings["tie_weights"] else "rows of its own"
    lower = ", lower case" if settings["lowercase"] else ""
    layers = "1 layer" if settings["num_layers"] == 1 else f"{settings['num_layers']} layers"
    peepholes = f" ({settings['peephole']})" if settings["cell"] == "peephole_lstm" else ""
    rows = table("", "", words=2)
    for label, words in (
        ("folder", f"{facts['folder']}, {_size(facts['n_bytes'])}, format {FORMAT_VERSION}"),
        ("cell", f"{settings['cell']}{peepholes}, {layers} of {settings['hidden_size']:,} units"),
        ("embedding", f"{settings['embedding_dim']:,} wide"),
        ("output", f"{settings['output']}, {tied}"),
        ("parameters", f"{facts['n_parameters']:,}"),
        ("tokenizer", f"{settings['tokenizer']}, {facts['vocab_size']:,} ids{lower}"),
        ("context", settings["context"]),
        ("trained", _training(facts)),
        ("held-out", _heldout(facts)),
    ):
        rows.add_row(label, words)
    return rows


def _training(facts: dict[str, Any]) -> str:
    if not facts["n_epochs"]:
        return "not at all: the weights are random"
    epochs = "1 epoch" if facts["n_epochs"] == 1 else f"{facts['n_epochs']} epochs"
    return f"{epochs}, {facts['n_tokens_trained']:,} tokens in {clock(facts['seconds'])}"


def _heldout(facts: dict[str, Any]) -> str:
    if facts["heldout_perplexity"] is None:
        return "nothing"
    return f"perplexity {facts['heldout_perplexity']:,.2f} after epoch {facts['kept_epoch']}"


def _history(history: list[Epoch], kept: int | None) -> Table:
    rows = table("epoch", "time", "tokens", "perplexity", "held-out", "learning rate", words=0)
    step = -(-len(history) // SHOWN_EPOCHS)
    for epoch in history:
        if epoch.epoch in (1, kept, len(history)) or epoch.epoch % step == 0:
            heldout = epoch.heldout_loss
            rows.add_row(
                str(epoch.epoch),
                clock(epoch.seconds),
                f"{epoch.tokens:,}",
                f"{perplexity(epoch.train_loss, 1):,.2f}",
                "-" if heldout is None else f"{perplexity(heldout, 1):,.2f}",
                f"{epoch.learning_rate:.3g}",
            )
    return rows


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"


def demo(
    seconds: Annotated[
        float, typer.Option(min=1, help="How long to train.")
    ] = demonstration.SECONDS,
) -> None:
    """Train on Python's language reference, then score, continue and write text."""
    demonstration.run(Console(), seconds)
