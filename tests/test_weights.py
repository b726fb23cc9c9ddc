import math

import numpy as np
import pytest
import torch
from test_training import corpus_of, pace, weights_of
from tiny import network

from lstmlm.training import train
from lstmlm.training.loop import trainer
from lstmlm.training.weights import LATER_COUNT, RunningMean


def counts(n: int) -> np.ndarray:
    """Return what each of n takes counts: in closed form k (k + 1) ... (k + LATER_COUNT - 1)."""
    number = np.arange(1, n + 1)
    return np.prod([number + i for i in range(LATER_COUNT)], axis=0, dtype=float)


def set_to(model: torch.nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_the_mean_is_the_weighted_mean_of_what_was_taken():
    model = network()
    mean = RunningMean(model)
    values = np.random.default_rng(0).normal(size=300)
    for value in values:
        set_to(model, value)
        mean.take()
    due = np.average(values, weights=counts(len(values)))
    for weight in mean.weights.values():
        # Three hundred roundings of float32.
        torch.testing.assert_close(weight, torch.full_like(weight, due), atol=1e-5, rtol=0)


def test_the_first_take_forgets_the_first_weights():
    model = network()
    mean = RunningMean(model)
    set_to(model, 7.0)
    mean.take()
    assert all((weight == 7.0).all() for weight in mean.weights.values())


def test_mean_and_weights_change_places_and_back_whatever_happens():
    model = network()
    mean = RunningMean(model)
    set_to(model, 1.0)
    mean.take()
    set_to(model, 2.0)
    inside = []

    def look_and_fail() -> None:
        with mean.in_place():
            inside.extend(parameter.unique().tolist() for parameter in model.parameters())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look_and_fail()
    assert all(values == [1.0] for values in inside)
    assert all((weight == 2.0).all() for weight in model.parameters())
    assert all((weight == 1.0).all() for weight in mean.weights.values())


def test_training_leaves_the_mean_of_the_weights_that_it_had(monkeypatch):
    monkeypatch.setattr(trainer, "REPORT_STEPS", 1)
    model, had = network(), []
    for report in train(model, corpus_of(n_texts=60), None, pace(max_epochs=3), seed=0):
        if math.isfinite(report.train_loss) and not report.ended:
            had.append(weights_of(model))
    assert len(had) > 30
    for weight, steps in zip(model.parameters(), zip(*had, strict=True), strict=True):
        due = np.average(torch.stack(steps).numpy(), axis=0, weights=counts(len(had)))
        np.testing.assert_allclose(weight.detach().numpy(), due, atol=1e-5, rtol=0)


def test_an_epoch_of_a_step_or_two_counts_too():
    model, corpus = network(), corpus_of(n_texts=3)
    before = weights_of(model)
    list(train(model, corpus, None, pace(max_epochs=1, bptt_length=50), seed=0))
    assert not any(map(torch.equal, weights_of(model), before))
