from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import network

from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State

ARCHITECTURES = [
    {"output": output, "cutoffs": [3, 6] if output == "adaptive" else None, "tie_weights": tied}
    for output, tied in product(("softmax", "adaptive"), (True, False))
]
NETWORKS = pytest.mark.parametrize(
    "architecture",
    ARCHITECTURES,
    ids=["softmax-tied", "softmax-untied", "adaptive-tied", "adaptive-untied"],
)


def ids_of(rows: int, steps: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(9, (rows, steps), generator=torch.Generator().manual_seed(seed))


def random_state(model: RecurrentLM, rows: int) -> State:
    generator = torch.Generator().manual_seed(5)
    hidden, cell = (
        torch.randn(zeros.shape, generator=generator, dtype=zeros.dtype)
        for zeros in model.zero_state(rows)
    )
    return State(hidden, cell)


@settings(max_examples=20)
@given(
    rows=st.integers(1, 3), steps=st.integers(2, 8), cut=st.integers(1, 7), layers=st.integers(1, 3)
)
def test_a_window_in_two_halves_is_the_whole(rows, steps, cut, layers):
    model = network(num_layers=layers).double()
    ids, start, cut = ids_of(rows, steps), random_state(model, rows), min(cut, steps - 1)
    whole, after = model(ids, start)
    first, between = model(ids[:, :cut], start)
    second, after_both = model(ids[:, cut:], between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)  # float64 rounding
    torch.testing.assert_close(after_both.hidden, after.hidden)
    torch.testing.assert_close(after_both.cell, after.cell)
    assert after.hidden.shape == after.cell.shape == (layers, rows, 7)


def test_the_state_matters_and_is_not_kept_or_changed():
    model = network()
    ids, start = ids_of(2, 4), random_state(model, 2)
    copies = [part.clone() for part in start]
    first, _ = model(ids, start)
    fresh, _ = model(ids, model.zero_state(2))
    again, _ = model(ids, start)
    assert torch.equal(first, again)
    assert not torch.allclose(first, fresh)
    assert all(map(torch.equal, start, copies))


def test_rows_and_padding_do_not_matter_to_each_other():
    model = network().double()
    ids = ids_of(3, 6)
    whole, _ = model(ids, model.zero_state(3))
    for row in range(3):
        alone, _ = model(ids[row : row + 1], model.zero_state(1))
        torch.testing.assert_close(alone[0], whole[row])  # float64 rounding
    padded = ids.clone()
    padded[0, 4:] = 8 - padded[0, 4:]  # what stands after a row's end
    features, _ = model(padded, model.zero_state(3))
    assert torch.equal(features[0, :4], whole[0, :4])
    assert torch.equal(features[1:], whole[1:])
    assert not torch.equal(features[0, 4:], whole[0, 4:])


@NETWORKS
def test_tied_rows_share_memory(architecture):
    model = network(**architecture)
    tied = architecture["tie_weights"]
    assert (model.head.weight is model.embedding.weight) == tied
    named = [name for name, _ in model.named_parameters() if name == "head.weight"]
    assert named == ([] if tied else ["head.weight"])


@pytest.mark.parametrize(
    ("embedding_dim", "hidden_size", "tied", "shape"),
    [(5, 7, True, (5, 7)), (7, 7, True, None), (5, 7, False, None), (9, 7, True, (9, 7))],
)
def test_the_last_layer_is_projected_only_where_tied_widths_differ(
    embedding_dim, hidden_size, tied, shape
):
    model = network(embedding_dim=embedding_dim, hidden_size=hidden_size, tie_weights=tied)
    assert (model.projection and tuple(model.projection.weight.shape)) == shape
    features, _ = model(ids_of(2, 3), model.zero_state(2))
    assert features.shape == (2, 3, embedding_dim if tied else hidden_size)
    assert model.head.log_probs(features[:, -1]).shape == (2, 9)


@NETWORKS
def test_gradients_reach_every_parameter(architecture):
    model = network(**architecture, dropout=0.2, dropout_input=0.2)
    ids = torch.arange(9).repeat(4, 3)
    features, _ = model(ids, random_state(model, 4), noise=torch.Generator().manual_seed(0))
    model.head.loss(features.flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().abs().max() > 0, name


def test_without_noise_dropout_does_nothing_and_with_it_each_pass_differs():
    quiet, noisy = network(), network(dropout=0.5, dropout_input=0.5)
    ids = ids_of(2, 5)
    expected, _ = quiet(ids, quiet.zero_state(2))
    assert torch.equal(noisy(ids, noisy.zero_state(2))[0], expected)
    noise = torch.Generator().manual_seed(0)
    first, _ = noisy(ids, noisy.zero_state(2), noise=noise)
    second, _ = noisy(ids, noisy.zero_state(2), noise=noise)
    assert not torch.allclose(first, expected)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("where", ["dropout", "dropout_input"])
def test_each_dropout_is_at_work(where):
    model = network(**{where: 0.5})
    ids = ids_of(2, 5)
    with_noise, _ = model(ids, model.zero_state(2), noise=torch.Generator().manual_seed(0))
    assert not torch.allclose(with_noise, model(ids, model.zero_state(2))[0])


@NETWORKS
def test_first_weights_follow_the_generator(architecture):
    def weights(seed: int) -> dict[str, torch.Tensor]:
        sizes = {"vocab_size": 9, "embedding_dim": 5, "hidden_size": 7, "num_layers": 2}
        model = RecurrentLM(**sizes, **architecture)
        model.initialise(torch.Generator().manual_seed(seed))
        return dict(model.named_parameters())

    one, same, other = weights(0), weights(0), weights(1)
    fixed = ("bias", "projections")  # start at 0, 1 or the identity
    for name, values in one.items():
        assert torch.equal(values, same[name]), name
        assert torch.equal(values, other[name]) == any(part in name for part in fixed), name


def test_states_are_cut_chosen_and_put_together_by_rows():
    state = random_state(network(), 4)
    assert torch.equal(state.rows(2).hidden, state.hidden[:, :2])
    assert torch.equal(state.select(torch.tensor([3, 1])).cell, state.cell[:, [3, 1]])
    joined = State.concatenate([state.select(torch.tensor([2])), state.rows(1)])
    assert torch.equal(joined.hidden, state.hidden[:, [2, 0]])
    assert torch.equal(joined.cell, state.cell[:, [2, 0]])


def test_a_detached_state_has_no_graph():
    model = network()
    _, state = model(ids_of(1, 2), model.zero_state(1))
    assert state.hidden.requires_grad
    detached = state.detach()
    assert not detached.hidden.requires_grad
    assert not detached.cell.requires_grad
    assert torch.equal(detached.hidden, state.hidden)
