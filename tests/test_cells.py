import numpy as np
import pytest
import torch
from torch import nn

from lstmlm.nn.cells import LSTM

WIDTH, HIDDEN, ROWS, STEPS = 3, 4, 2, 6


@pytest.fixture
def layer():
    layer = LSTM(WIDTH, HIDDEN).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


@pytest.fixture
def window():
    """Return inputs and a state: x (B, T, WIDTH), hidden and cell (B, H)."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(ROWS, STEPS, WIDTH), (ROWS, HIDDEN), (ROWS, HIDDEN)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_step_is_the_equations(layer, window):
    x, h, c = (tensor.numpy() for tensor in window)
    w_i, w_f, w_g, w_o = np.split(layer.weight_ih_l0.detach().numpy(), 4)
    u_i, u_f, u_g, u_o = np.split(layer.weight_hh_l0.detach().numpy(), 4)
    b_i, b_f, b_g, b_o = np.split((layer.bias_ih_l0 + layer.bias_hh_l0).detach().numpy(), 4)
    outputs = []
    for t in range(STEPS):
        i = sigmoid(x[:, t] @ w_i.T + h @ u_i.T + b_i)
        f = sigmoid(x[:, t] @ w_f.T + h @ u_f.T + b_f)
        g = np.tanh(x[:, t] @ w_g.T + h @ u_g.T + b_g)
        o = sigmoid(x[:, t] @ w_o.T + h @ u_o.T + b_o)
        c = f * c + i * g
        h = o * np.tanh(c)
        outputs.append(h)
    ours, hidden, cell = (tensor.detach().numpy() for tensor in layer.step(*window))
    # float64 on both sides; rounding alone differs.
    np.testing.assert_allclose(ours, np.stack(outputs, axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(hidden, h, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(cell, c, rtol=1e-12, atol=1e-14)


def test_a_step_is_torchs_lstm(layer, window):
    theirs = nn.LSTM(WIDTH, HIDDEN, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(layer.state_dict())
    x, hidden, cell = window
    expected, (last_hidden, last_cell) = theirs(x, (hidden[None], cell[None]))
    outputs, hidden_after, cell_after = layer.step(*window)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(hidden_after, last_hidden[0])
    torch.testing.assert_close(cell_after, last_cell[0])
    torch.testing.assert_close(hidden_after, outputs[:, -1])


def test_a_step_leaves_the_state_that_it_got(layer, window):
    before = [tensor.clone() for tensor in window]
    layer.step(*window)
    assert all(torch.equal(one, other) for one, other in zip(window, before, strict=True))


def test_first_weights():
    layer = LSTM(WIDTH, HIDDEN)
    layer.initialise(torch.Generator().manual_seed(0))
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).reshape(4, HIDDEN)
    assert bias.tolist() == [[0.0] * HIDDEN, [1.0] * HIDDEN, [0.0] * HIDDEN, [0.0] * HIDDEN]
    for gate in layer.weight_hh_l0.detach().split(HIDDEN):
        # Orthogonal up to a float32's rounding.
        torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN), rtol=0, atol=1e-6)
    bound = (6 / (WIDTH + HIDDEN)) ** 0.5  # Glorot and Bengio (2010), equation 16
    assert 0.5 * bound < layer.weight_ih_l0.abs().max() <= bound


def test_first_weights_come_from_the_generator():
    def weights(seed):
        layer = LSTM(WIDTH, HIDDEN)
        layer.initialise(torch.Generator().manual_seed(seed))
        return [layer.weight_ih_l0, layer.weight_hh_l0]

    assert all(map(torch.equal, weights(0), weights(0)))
    assert not any(map(torch.equal, weights(0), weights(1)))
