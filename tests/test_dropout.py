import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lstmlm.nn.dropout import dropped_types, dropped_weight, locked_dropout


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    rate=st.floats(0.01, 0.99),
    rows=st.integers(1, 4),
    steps=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_features_are_zeroed_at_all_steps_and_the_others_scaled(rate, rows, steps, seed):
    x = torch.randn(rows, steps, 6, generator=noise(99))
    mask = locked_dropout(x, rate, noise(seed)) / x
    assert torch.equal(mask == 0, (mask == 0)[:, :1].expand_as(mask))
    kept = mask[mask != 0]
    # Multiplying and dividing by x rounds a float32 twice; 1 - rate itself is one.
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("rate", "generator"), [(0.5, None), (0.0, noise()), (0.0, None)])
def test_without_noise_or_rate_nothing_changes(rate, generator):
    x = torch.randn(2, 3, 4)
    assert locked_dropout(x, rate, generator) is x


def test_each_draw_is_another_and_a_seed_gives_the_same():
    x = torch.ones(4, 1, 50)
    one = noise()
    first, second = locked_dropout(x, 0.5, one), locked_dropout(x, 0.5, one)
    assert not torch.equal(first, second)
    other = noise()
    assert torch.equal(locked_dropout(x, 0.5, other), first)
    assert torch.equal(locked_dropout(x, 0.5, other), second)


def test_rows_have_masks_of_their_own():
    dropped = locked_dropout(torch.ones(2, 1, 50), 0.5, noise())
    assert not torch.equal(dropped[0], dropped[1])


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_the_mean_is_preserved_and_the_rate_is_met(rate):
    n = 200_000
    dropped = locked_dropout(torch.ones(1, 1, n), rate, noise())
    # Five standard deviations of a mean of n draws that are 1 / (1 - rate) or 0.
    deviation = 5 * (rate / (1 - rate) / n) ** 0.5
    assert dropped.mean().item() == pytest.approx(1, abs=deviation)
    assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=deviation * (1 - rate))


def test_the_argument_is_left_alone_and_gets_the_masks_gradient():
    x = torch.ones(3, 4, 5, requires_grad=True)
    dropped = locked_dropout(x, 0.4, noise())
    assert x.eq(1).all()
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped)


def test_the_users_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    locked_dropout(torch.ones(2, 3, 4), 0.5, noise())
    assert torch.equal(torch.get_rng_state(), before)


@given(rate=st.floats(0.1, 0.9), seed=st.integers(0, 9))
def test_a_dropped_type_is_dropped_wherever_it_stands(rate, seed):
    ids = torch.randint(7, (3, 8), generator=noise(99))
    x = torch.randn(3, 8, 4, generator=noise(98))
    mask = dropped_types(x, ids, 7, rate, noise(seed)) / x
    kept = mask[mask != 0]
    # Multiplying and dividing by x rounds a float32 twice; 1 - rate itself is one.
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=1e-5, atol=0)
    for token in range(7):
        zeroed = mask[ids == token] == 0
        assert zeroed.all() or not zeroed.any()


def test_types_are_dropped_at_the_rate():
    n = 100_000
    ids = torch.arange(n).reshape(1, n)
    dropped = dropped_types(torch.ones(1, n, 1), ids, n, 0.2, noise())
    # Five standard deviations of a share of n draws.
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=5 * 0.4 / n**0.5)


def test_weights_are_dropped_one_by_one_and_anew():
    weight = torch.ones(300, 300, requires_grad=True)
    draws = noise()
    first, second = (dropped_weight(weight, 0.5, draws) for _ in range(2))
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 2.0}
    # Five standard deviations of a share of 90,000 draws.
    assert first.eq(0).float().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 300)
    (gradient,) = torch.autograd.grad(first.sum(), weight)
    assert torch.equal(gradient, first)
    assert weight.eq(1).all()


@pytest.mark.parametrize(("rate", "generator"), [(0.5, None), (0.0, noise()), (0.0, None)])
def test_without_noise_or_rate_types_and_weights_are_what_they_were(rate, generator):
    x, ids = torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    assert dropped_types(x, ids, 1, rate, generator) is x
    assert dropped_weight(x, rate, generator) is x
