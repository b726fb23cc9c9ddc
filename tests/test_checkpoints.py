"""A fit that is killed goes on, and ends with the very weights of one that was not."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TEXTS, unfitted

from lstmlm import CheckpointError, DivergenceError, LSTMLanguageModel, ParameterError, checkpoints
from lstmlm.checkpoints import Checkpoints, checkpoints_in
from lstmlm.training import Report
from lstmlm.training.loop import last, trainer

SCRIPT = Path(__file__).parent / "killing.py"
SHOW = "lstmlm.estimator.language_model.TrainingProgress.__call__"


@pytest.fixture
def often(monkeypatch):
    """Write a checkpoint at every report, of which there is one a step."""
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE_OF_TIME", 1e9)
    monkeypatch.setattr(trainer, "REPORT_STEPS", 1)


class Killed(BaseException):
    """Ends a fit where it stands, as a kill does; nothing in the library catches it."""


def killed(lm: LSTMLanguageModel, monkeypatch, *, epoch: int, steps: int = 0) -> None:
    """Fit until a number of reports after the beginning of an epoch, and die there."""
    seen = 0

    def show(self, report: Report) -> None:
        nonlocal seen
        seen += report.epoch >= epoch
        if seen > steps:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SHOW, show)
        with pytest.raises(Killed):
            lm.fit(TEXTS)


def weights(lm: LSTMLanguageModel) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in lm.module_.parameters()]


def same_weights(one: LSTMLanguageModel, other: LSTMLanguageModel) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


def record(lm: LSTMLanguageModel) -> list[tuple[object, ...]]:
    """Return the history without its seconds."""
    return [(e.epoch, e.tokens, e.train_loss, e.heldout_loss, e.learning_rate) for e in lm.history_]


# ---- kills ----


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer": "char", "early_stopping": True, "max_epochs": 6},
        {
            "tokenizer": "word",
            "context": "stream",
            "cell": "gru",
            "output": "adaptive",
            "dropout_weight": 0.3,
            "temporal_penalty": 1.0,
            "input_noise": 0.3,
            "max_epochs": 6,
        },
    ],
    ids=["documents", "stream"],
)
def test_forty_kills_at_random_moments_leave_the_weights_as_they_were(tmp_path, settings):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "20", json.dumps(settings)],  # in each of two cases
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ
        | {
            "TMPDIR": str(tmp_path),  # what a killed process leaves there goes with it
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parents[1])]),
        },
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["equal"]
    assert result["kills"] >= 20
    assert result["resumed"] >= 3  # the others were killed before a first checkpoint, or after none
    assert result["left"] == []


@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole_lstm"])
@pytest.mark.parametrize(("epoch", "steps"), [(1, 1), (1, 5), (3, 0), (4, 3)])
def test_a_fit_goes_on_within_an_epoch(tmp_path, often, monkeypatch, cell, epoch, steps):
    settings = {"tokenizer": "char", "cell": cell, "max_epochs": 4, "early_stopping": True}
    undisturbed = unfitted(**settings).fit(TEXTS)
    lm = unfitted(**settings, checkpoint_dir=tmp_path)
    killed(lm, monkeypatch, epoch=epoch, steps=steps)
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "lock", "seed"}
    lm.fit(TEXTS)
    assert same_weights(lm, undisturbed)
    assert record(lm) == record(undisturbed)
    assert list(tmp_path.iterdir()) == []


def test_it_reads_on_and_does_not_begin_afresh(tmp_path, often, monkeypatch):
    lm = unfitted(tokenizer="char", max_epochs=4, checkpoint_dir=tmp_path)
    killed(lm, monkeypatch, epoch=3, steps=2)
    tokens = []
    monkeypatch.setattr(SHOW, lambda self, report: tokens.append(report.tokens))
    lm.fit(TEXTS)
    whole = sum(epoch.tokens for epoch in lm.history_)
    assert tokens[0] > 0.5 * whole
    assert tokens[-1] == whole


def test_a_fit_killed_after_its_last_step_has_its_history(tmp_path, often, monkeypatch):
    lm = unfitted(tokenizer="char", max_epochs=2, checkpoint_dir=tmp_path)

    def show(self, report: Report) -> None:
        if len(report.history) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SHOW, show)
        with pytest.raises(Killed):
            lm.fit(TEXTS)
    lm.fit(TEXTS)
    assert record(lm) == record(unfitted(tokenizer="char", max_epochs=2).fit(TEXTS))


@pytest.mark.parametrize(
    ("owner", "name"),
    [(trainer.HeldOut, "loss"), (trainer.Trainer, "end_epoch"), (last, "last_rate")],
    ids=["scoring held-out text", "ending the epoch", "training on held-out text"],
)
def test_a_fit_killed_near_its_end_ends_as_if_it_was_not(tmp_path, often, monkeypatch, owner, name):
    """Before the last epoch's held-out text is read, and while it is trained on in the end."""
    settings = {"tokenizer": "char", "max_epochs": 3, "early_stopping": True}
    lm = unfitted(**settings, checkpoint_dir=tmp_path)
    work, calls = getattr(owner, name), itertools.count(1)

    def killing(*args: object) -> object:
        if next(calls) == 3:
            raise Killed
        return work(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killing)
        with pytest.raises(Killed):
            lm.fit(TEXTS)
    lm.fit(TEXTS)
    undisturbed = unfitted(**settings).fit(TEXTS)
    assert same_weights(lm, undisturbed)
    assert record(lm) == record(undisturbed)


def test_without_a_random_state_the_seed_of_the_first_try_is_kept(tmp_path, often, monkeypatch):
    settings = {"tokenizer": "char", "max_epochs": 3, "random_state": None}
    lm = unfitted(**settings, checkpoint_dir=tmp_path)
    killed(lm, monkeypatch, epoch=2)
    (seed,) = tmp_path.glob("*/seed")
    drawn = int(seed.read_text())
    lm.fit(TEXTS)
    undisturbed = unfitted(**settings)
    monkeypatch.setattr("lstmlm.estimator.language_model.seed_of", lambda _: drawn)
    assert same_weights(lm, undisturbed.fit(TEXTS))


def test_seconds_go_on_too(tmp_path, often, monkeypatch):
    settings = {"tokenizer": "char", "max_epochs": None, "max_seconds": 3.0}
    lm = unfitted(**settings, checkpoint_dir=tmp_path)
    killed(lm, monkeypatch, epoch=2)
    lm.fit(TEXTS)
    # The seconds before the kill are counted; the last epoch ends a moment late at most.
    assert lm.history_[-1].seconds < 6


# ---- whose checkpoint it is ----


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 8}, {"learning_rate": 0.01}, {"random_state": 1}, {"dropout": 0.0}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_begin_afresh(tmp_path, often, monkeypatch, change):
    settings = {"tokenizer": "char", "max_epochs": 3}
    killed(unfitted(**settings, checkpoint_dir=tmp_path), monkeypatch, epoch=2)
    other = unfitted(**settings | change, checkpoint_dir=tmp_path).fit(TEXTS)
    assert same_weights(other, unfitted(**settings | change).fit(TEXTS))
    assert len(list(tmp_path.iterdir())) == 1  # that of the killed fit


@pytest.mark.parametrize("validation", [None, TEXTS[:4]])
def test_other_texts_begin_afresh(tmp_path, often, monkeypatch, validation):
    lm = unfitted(tokenizer="char", max_epochs=3, checkpoint_dir=tmp_path)
    killed(lm, monkeypatch, epoch=2)
    others = [*TEXTS, "one more"] if validation is None else TEXTS
    lm.fit(others, validation=validation)
    plain = unfitted(tokenizer="char", max_epochs=3).fit(others, validation=validation)
    assert same_weights(lm, plain)
    assert len(list(tmp_path.iterdir())) == 1


def test_equal_fits_at_once_get_places_of_their_own(tmp_path):
    with checkpoints_in(tmp_path, "same") as one, checkpoints_in(tmp_path, "same") as other:
        one.save({"a": torch.ones(1)}, {"of": "one"})
        other.save({"a": torch.zeros(1)}, {"of": "other"})
        assert [kept.load()[1]["of"] for kept in (one, other)] == ["one", "other"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["same", "same-1"]
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_what_was_saved(tmp_path):
    tensors = {"a.b": torch.randn(2, 3), "empty": torch.zeros(1, 2, 0), "c": torch.arange(3)}
    facts = {"infinite": float("inf"), "large": 2**127, "none": None, "list": [1.5, "x"]}
    with checkpoints_in(tmp_path, "name") as kept:
        assert kept.load() is None
        kept.save(tensors, facts)
        found, said = kept.load()
    assert said == facts
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_an_exception_leaves_the_checkpoint_and_divergence_removes_it(tmp_path):
    def fail(error: type[BaseException]) -> None:
        with checkpoints_in(tmp_path, "name") as kept:
            kept.save({}, {})
            raise error

    for error, left in ((KeyboardInterrupt, 1), (RuntimeError, 1), (DivergenceError, 0)):
        with pytest.raises(error):
            fail(error)
        assert len(list(tmp_path.iterdir())) == left


def test_one_is_written_now_and_then(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    kept = Checkpoints(tmp_path)
    assert not kept.is_due
    now[0] += 29.9
    assert not kept.is_due
    now[0] += 0.2
    assert kept.is_due

    def slowly(*args: object, **options: object) -> None:
        now[0] += 10.0
        (tmp_path / "checkpoint.new").write_bytes(b"")

    monkeypatch.setattr(checkpoints, "save_file", slowly)
    kept.save({}, {})
    now[0] += 199.0  # what took ten seconds is not done again before two hundred more
    assert not kept.is_due
    now[0] += 2.0
    assert kept.is_due


# ---- what can go wrong ----


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError) as caught:
        unfitted(tokenizer="char", checkpoint_dir=tmp_path / "file").fit(TEXTS)
    assert str(caught.value).startswith(f"checkpoint_dir='{tmp_path / 'file'}' can't be used (")
    assert str(caught.value).endswith("); give a folder that can be written.")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_value_that_is_no_path():
    with pytest.raises(ParameterError) as caught:
        unfitted(checkpoint_dir=3).fit(TEXTS)
    assert str(caught.value) == (
        "checkpoint_dir=3 is not valid; checkpoint_dir is the path of a folder, or None."
    )


def test_a_damaged_checkpoint_is_said(tmp_path, often, monkeypatch):
    lm = unfitted(tokenizer="char", max_epochs=3, checkpoint_dir=tmp_path)
    killed(lm, monkeypatch, epoch=2)
    (file,) = tmp_path.glob("*/checkpoint.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError) as caught:
        lm.fit(TEXTS)
    assert str(caught.value).startswith(f"{file} is no checkpoint (")
    assert str(caught.value).endswith(f"); remove {file.parent} to begin afresh.")


def test_a_full_disk_does_not_end_the_training(tmp_path, often, monkeypatch):
    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    lm = unfitted(tokenizer="char", max_epochs=1, checkpoint_dir=tmp_path)
    with pytest.warns(UserWarning, match="the training goes on without a newer checkpoint"):
        lm.fit(TEXTS)
    assert same_weights(lm, unfitted(tokenizer="char", max_epochs=1).fit(TEXTS))
    assert list(tmp_path.iterdir()) == []


# ---- warm starts ----


def test_a_warm_start_goes_on_from_tokenizer_and_weights():
    lm = unfitted(tokenizer="word", max_epochs=2, warm_start=True).fit(TEXTS)
    vocabulary, first = lm.tokenizer_.backend.get_vocab(), weights(lm)
    before = lm.perplexity(TEXTS)
    module = lm.module_
    lm.set_params(max_epochs=6, dropout=0.0).fit([*TEXTS, "words never seen"])
    assert lm.tokenizer_.backend.get_vocab() == vocabulary
    assert lm.perplexity(TEXTS) < before
    assert [epoch.epoch for epoch in lm.history_] == list(range(1, 9))
    assert np.all(np.diff([epoch.seconds for epoch in lm.history_]) > 0)
    assert lm.params_["dropout"] == lm.module_.dropout == 0.0
    # The model of before, which someone may hold, is as it was.
    assert all(map(torch.equal, first, [p.detach() for p in module.parameters()]))


def test_no_epochs_of_a_warm_start_change_nothing():
    lm = unfitted(tokenizer="char", max_epochs=1, output="adaptive", warm_start=True).fit(TEXTS)
    first, scores = weights(lm), lm.score_samples(TEXTS)
    lm.set_params(max_epochs=0).fit(TEXTS[:3])
    assert all(map(torch.equal, first, weights(lm)))
    assert np.array_equal(lm.score_samples(TEXTS), scores)


def test_without_a_warm_start_fit_begins_afresh():
    lm = unfitted(tokenizer="char", max_epochs=1).fit(TEXTS)
    first = weights(lm)
    assert all(map(torch.equal, first, weights(lm.fit(TEXTS))))
    assert len(lm.history_) == 1


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("name", "then", "now"),
    [("hidden_size", 16, 24), ("cell", "lstm", "gru"), ("tokenizer", "char", "bpe")],
)
def test_another_network_is_refused_and_the_old_one_kept(method, name, then, now):
    lm = unfitted(**{"tokenizer": "char", "max_epochs": 1, "warm_start": True, name: then})
    lm.fit(TEXTS)
    first = weights(lm)
    with pytest.raises(ParameterError) as caught:
        getattr(lm.set_params(**{name: now}), method)(TEXTS)
    assert str(caught.value) == (
        f"{name}={now!r} does not fit the network that is to learn on, which has {name}={then!r}; "
        "keep that, or fit anew with warm_start=False."
    )
    assert all(map(torch.equal, first, weights(lm)))


def test_a_warm_start_is_checkpointed_too(tmp_path, often, monkeypatch):
    lm, other = (
        unfitted(tokenizer="char", max_epochs=2, warm_start=True).fit(TEXTS) for _ in range(2)
    )
    killed(lm.set_params(checkpoint_dir=tmp_path), monkeypatch, epoch=2, steps=1)
    assert same_weights(lm.fit(TEXTS), other.fit(TEXTS))
    assert record(lm) == record(other)


def test_warm_starts_from_other_weights_are_other_fits(tmp_path, often, monkeypatch):
    def begun() -> LSTMLanguageModel:
        return unfitted(tokenizer="char", max_epochs=2, warm_start=True).fit(TEXTS)

    lm, other = begun(), begun().fit(TEXTS)
    killed(lm.set_params(checkpoint_dir=tmp_path), monkeypatch, epoch=2)
    plain = begun().fit(TEXTS).fit(TEXTS)
    assert same_weights(other.set_params(checkpoint_dir=tmp_path).fit(TEXTS), plain)
    assert len(list(tmp_path.iterdir())) == 1
