"""The rows as a training moves them: parts that have the gradients and the values of the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import network

from lstmlm.config import TrainConfig
from lstmlm.optim import AdamW, make_optimiser

HEADS = pytest.mark.parametrize(
    "head",
    [
        {"output": "softmax"},
        {"output": "adaptive", "cutoffs": [3, 6]},
        {"output": "adaptive", "cutoffs": [3, 6], "tail_width": 2},
    ],
    ids=["softmax", "adaptive", "narrow tails"],
)
TIED = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


@HEADS
@TIED
@given(ids=st.lists(st.integers(0, 8), min_size=1, max_size=20))
def test_the_parts_have_the_gradients_of_the_whole(head, tied, ids):
    model = network(**head, tie_weights=tied)
    index, targets = torch.tensor([ids]), torch.tensor(ids).roll(1)

    def loss(embedded, rows):
        outputs, _ = model.read(index, model.zero_state(1), embedded=embedded)
        return model.head.loss(model.project(outputs[0]), targets, rows)

    trained = model.trained_rows()
    found = loss(*trained.look_up(index))
    due = loss(model.embedding(index), ())
    assert found == due
    found.backward()
    by_parts = whole_gradient(model, trained)
    model.zero_grad()
    due.backward()
    for name, weight in model.named_parameters():
        # Sums of float32 in another order.
        torch.testing.assert_close(by_parts[name], weight.grad, rtol=1e-5, atol=1e-6, msg=name)


def whole_gradient(model, trained):
    """Put the parts' gradients where the rows are that they stand for."""
    grads = {name: weight.grad for name, weight in model.named_parameters()}
    if trained.seen[0] is model.head.weight:
        return grads
    frequent, rare = (part.grad for part in trained.seen)
    rows = torch.zeros_like(model.head.weight)
    rows[: len(frequent)] = frequent
    rows[len(frequent) :, : rare.shape[1]] = rare
    if trained.unseen is not None:
        assert trained.unseen.grad.is_sparse
        rows[len(frequent) :, rare.shape[1] :] = trained.unseen.grad.to_dense()
    return grads | {"embedding.weight" if trained.tied else "head.weight": rows}


@HEADS
@TIED
def test_what_the_parts_become_is_stored_and_what_is_written_is_loaded(head, tied):
    model = network(**head, tie_weights=tied)
    trained = model.trained_rows()
    parts = [*trained.seen, *([] if trained.unseen is None else [trained.unseen])]
    with torch.no_grad():
        for number, part in enumerate(parts, 1):
            part.fill_(number)
    trained.store()
    stored = model.head.parts(model.head.weight.detach())
    assert [part.unique().tolist() for part in stored] == [[n + 1.0] for n in range(len(stored))]
    with torch.no_grad():
        model.head.weight.fill_(7.0)
    trained.load()
    assert all((part == 7).all() for part in parts)


def test_only_rows_that_were_read_move_where_nothing_else_sees_them():
    model = network(output="adaptive", cutoffs=[3], tail_width=2)
    optimiser = make_optimiser(model, TrainConfig(learning_rate=0.1, weight_decay=0.0))
    before = model.embedding.weight.detach().clone()
    embedded, seen = optimiser.rows.look_up(torch.tensor([[5, 7, 5, 1]]))
    outputs, _ = model.read(torch.zeros(1, 4, dtype=torch.int64), model.zero_state(1),
                            embedded=embedded)  # fmt: skip
    targets = torch.tensor([0, 4, 8, 2])
    model.head.loss(model.project(outputs[0]), targets, seen).backward()
    optimiser.step()
    optimiser.rows.store()
    moved = model.embedding.weight.detach() != before
    assert moved[:3].all()
    assert moved[3:, :2].all()
    assert moved[3:, 2:].all(1).tolist() == [False, False, True, False, True, False]
    assert moved[3:, 2:].any(1).tolist() == [False, False, True, False, True, False]


def sparse(rows: list[int], values: list[float]) -> torch.Tensor:
    """Return the gradient of five rows of two, of which some have one."""
    of_rows = torch.tensor(values).unsqueeze(1).repeat(1, 2)
    return torch.sparse_coo_tensor(
        torch.tensor([rows]), of_rows, (5, 2), is_coalesced=True, check_invariants=False
    )


def rows_optimiser(weight: torch.Tensor, **settings: float) -> AdamW:
    pace = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.0, "fused": True}
    return AdamW([{"params": [weight]}], **(pace | settings))


def test_a_row_moves_as_by_rmsprop_whose_memory_is_in_steps():
    weight = torch.zeros(5, 2, requires_grad=True)
    optimiser = rows_optimiser(weight)
    for grad in (sparse([1, 3], [2.0, -1.0]), sparse([], []), sparse([3], [4.0])):
        weight.grad = grad
        optimiser.step()
        assert weight.grad is None
    expected = torch.zeros(5)
    expected[1] = -0.1  # a first gradient is one of size 1: its mean square is its square
    square = (0.01 * 0.99**2 * 1 + 0.01 * 16) / (1 - 0.99**3)
    expected[3] = 0.1 - 0.1 * 4 / square**0.5
    torch.testing.assert_close(weight.detach(), expected.unsqueeze(1).repeat(1, 2))


def test_rows_decay_for_all_the_steps_since_they_last_moved():
    weight = torch.ones(5, 2, requires_grad=True)
    optimiser = rows_optimiser(weight, lr=1e-3, weight_decay=100.0)
    for rows in ([0], [], [0, 2]):
        weight.grad = sparse(rows, [0.0] * len(rows))
        optimiser.step()
    kept = (1 - 1e-3 * 100.0) ** 3
    torch.testing.assert_close(weight.detach()[:, 0], torch.tensor([kept, 1, kept, 1, 1]))


def test_a_sparse_gradient_is_scaled_as_others_are():
    found = []
    for scale in (1.0, 0.5):
        weight = torch.zeros(5, 2, requires_grad=True)
        optimiser = rows_optimiser(weight, eps=1.0)
        weight.grad = sparse([1], [3.0 / scale])
        optimiser.grad_scale = torch.tensor(1 / scale)
        optimiser.step()
        found.append(weight.detach().clone())
    torch.testing.assert_close(*found)


def test_what_rows_remember_goes_on_in_another_optimiser():
    weights = [torch.zeros(5, 2, requires_grad=True) for _ in range(2)]
    one, other = (rows_optimiser(weight) for weight in weights)
    for step in range(4):
        if step == 2:
            state = other.state_dict()
            other = rows_optimiser(weights[1])
            other.load_state_dict(state)
        for weight, optimiser in zip(weights, (one, other), strict=True):
            weight.grad = sparse([1, 4], [1.0, float(step)])
            optimiser.step()
    assert torch.equal(*weights)
