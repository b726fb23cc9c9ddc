import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import network
from torch import nn

from lstmlm.config import TrainConfig
from lstmlm.model import RecurrentLM
from lstmlm.optim import (
    FINAL_RATE,
    FULL_STEPS,
    WARM_UP,
    AdamW,
    make_optimiser,
    rate_at,
    scale_and_clip,
    set_rate,
)


@pytest.mark.parametrize(
    ("steps", "passes", "fall"),
    [
        *[(100, 0.1, 0.3), (100, 60.0, 0.3), (1000, 60.0, 0.3), (1500, 60.0, 0.2)],
        *[(10**6, 0.1, 0.3), (10**6, 2.0, 0.2), (10**6, 3.2, 0.125), (10**6, 60.0, 0.1)],
    ],
)
def test_the_rate_rises_stays_and_falls_with_the_budget(steps, passes, fall):
    def rate(progress):
        taken = progress * steps
        return rate_at(progress, taken, progress * passes) / min(1, (FULL_STEPS / taken) ** 0.5)

    assert rate(1e-9) == pytest.approx(0.02)
    assert rate(WARM_UP / 2) == pytest.approx(0.5)
    for share in np.linspace(WARM_UP, 1 - fall - 1e-9, 50):
        assert rate(share) == pytest.approx(1)
    assert rate(1 - fall / 2) == pytest.approx((1 + FINAL_RATE) / 2)
    assert rate(1.0) == pytest.approx(FINAL_RATE)


def test_before_the_first_step_the_rate_is_low():
    assert rate_at(0.0, 0, 0.0) == 0.02


@pytest.mark.parametrize("passes", [0.5, 3, 60])
@pytest.mark.parametrize("steps", [100, 2000, 10**5])
def test_the_rate_is_continuous(steps, passes):
    shares = np.linspace(0, 1, 10_001)
    rates = np.array([rate_at(share, share * steps, share * passes) for share in shares])
    # No step is larger than the steepest slope allows; the second term is rounding.
    assert np.abs(np.diff(rates)).max() <= 1e-4 / WARM_UP + 1e-12


@given(st.integers(FULL_STEPS, 10**7), st.floats(0, 0.7))
def test_the_rate_falls_with_the_square_root_of_the_steps(steps, progress):
    assert rate_at(progress, steps, 1.0) == pytest.approx(
        rate_at(progress, 0, 1.0) * (FULL_STEPS / steps) ** 0.5
    )


def linear_optimiser(size: float) -> torch.optim.AdamW:
    """Return one whose fused steps are nearly the gradients themselves, some of that size."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2, 2))]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * size
    without = nn.Parameter(torch.ones(2))  # has no gradient
    settings = {"lr": 1e8, "eps": 1e8, "betas": (0.0, 0.0), "weight_decay": 0.0}
    return torch.optim.AdamW([*parameters, without], fused=True, **settings)


def stepped(optimiser: torch.optim.AdamW) -> list[torch.Tensor]:
    optimiser.step()
    return [parameter.detach() for parameter in optimiser.param_groups[0]["params"]]


@given(
    size=st.floats(1e-3, 1e3),
    scale=st.floats(1e-4, 1.0),
    max_norm=st.one_of(st.none(), st.floats(1e-2, 10)),
)
def test_a_scaled_step_is_that_of_torchs_clipping_of_the_mean_gradient(size, scale, max_norm):
    ours, theirs = linear_optimiser(size), linear_optimiser(size)
    scale_and_clip(ours, scale, max_norm)
    parameters = theirs.param_groups[0]["params"]
    for parameter in parameters[:-1]:
        parameter.grad.mul_(scale)
    if max_norm is not None:
        nn.utils.clip_grad_norm_(parameters, max_norm)
    *found, untouched = stepped(ours)
    for one, other in zip(found, stepped(theirs), strict=False):
        # torch adds 1e-6 to the norm, which is 1e-4 of the smallest limit.
        torch.testing.assert_close(one, other, rtol=2e-4, atol=0)
    assert (untouched == 1).all()


def test_a_clipped_step_has_the_norm_asked_for():
    optimiser = linear_optimiser(100.0)
    scale_and_clip(optimiser, 0.5, 0.25)
    norm = torch.cat([parameter.flatten() for parameter in stepped(optimiser)[:-1]]).norm().item()
    assert norm == pytest.approx(0.25, rel=1e-4)  # float32 sums


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_decay_and_biases_do_not(tied):
    model = network(output="adaptive", cutoffs=[3], tie_weights=tied)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = _optimiser(model, weight_decay=0.5)
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if "bias" in name else 1 - 0.1 * 0.5
        # One multiplication of a float32.
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-6, atol=0)
    decays = [name for name in before if "bias" not in name]
    decaying = [group["params"] for group in optimiser.param_groups if group["weight_decay"]]
    assert len(decays) + 1 == sum(map(len, decaying)) > 5  # rows are in two parts


def test_a_first_step_is_adams():
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = _optimiser(model, learning_rate=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, -3.0)
    optimiser.step()
    for name, parameter in model.named_parameters():
        # Bias-corrected moments make the first step the rate itself, against the gradient's sign.
        # What is compared is of size 1, in float32.
        torch.testing.assert_close(parameter.detach(), before[name] + 0.01, rtol=0, atol=1e-6)


@pytest.mark.parametrize("peephole", ["diagonal", "full"])
def test_what_sees_the_cell_learns_at_a_tenth_of_the_rate(peephole):
    model = network(cell="peephole_lstm", peephole=peephole)
    shares = {id(p): g["share"] for g in _optimiser(model).param_groups for p in g["params"]}
    assert len(shares) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert shares[id(parameter)] == (0.1 if name.endswith("weight_ch") else 1.0)


def test_the_rate_is_set_for_all_parameters():
    optimiser = _optimiser(network(cell="peephole_lstm", peephole="full"))
    set_rate(optimiser, 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [0.5, 0.5, 0.15, 0.5, 0.05]


@pytest.mark.parametrize(("vocab_size", "share"), [(66, 1.0), (5000, 0.5)])
def test_the_rows_of_a_large_vocabulary_learn_at_half_the_rate(vocab_size, share):
    model = network(vocab_size=vocab_size)
    shares = {id(p): g["share"] for g in _optimiser(model).param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert shares[id(parameter)] == (share if name == "embedding.weight" else 1.0)


def _optimiser(model: RecurrentLM, **pace: float) -> torch.optim.AdamW:
    return make_optimiser(model, TrainConfig(**{"learning_rate": 0.1, "weight_decay": 0} | pace))


def test_the_steps_are_those_of_torchs_adamw():
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4)) for _ in range(2)]
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.2, "fused": True}
    ours, torchs = AdamW([weights[0]], **settings), torch.optim.AdamW([weights[1]], **settings)
    for step in range(4):
        if step == 2:  # what was kept goes on
            state = ours.state_dict()
            ours = AdamW([weights[0]], **settings)
            ours.load_state_dict(state)
        for weight, optimiser in zip(weights, (ours, torchs), strict=True):
            optimiser.zero_grad()
            (weight**3).sum().backward()
            optimiser.step()
    assert torch.equal(*weights)
    assert not torch.equal(weights[0].detach(), torch.linspace(-1, 1, 12).reshape(3, 4))


def test_a_fit_does_not_wait_for_torchs_compiler():
    script = """
import sys
from lstmlm import LSTMLanguageModel

lm = LSTMLanguageModel(tokenizer="char", max_epochs=1, hidden_size=8).fit(["ab"] * 9)
lm.partial_fit(["ba"])
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
