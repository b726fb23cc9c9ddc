from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from lstmlm.nn.cells import GRU, LSTM, make_layer
from lstmlm.nn.peephole import PeepholeLSTM

WIDTH, HIDDEN, ROWS, STEPS = 3, 4, 2, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numbers(parameter, parts):
    return np.split(parameter.detach().numpy(), parts)


def lstm_step(layer, x, h, c):
    w_i, w_f, w_g, w_o = numbers(layer.weight_ih_l0, 4)
    u_i, u_f, u_g, u_o = numbers(layer.weight_hh_l0, 4)
    b_i, b_f, b_g, b_o = numbers(layer.bias_ih_l0 + layer.bias_hh_l0, 4)
    i = sigmoid(x @ w_i.T + h @ u_i.T + b_i)
    f = sigmoid(x @ w_f.T + h @ u_f.T + b_f)
    g = np.tanh(x @ w_g.T + h @ u_g.T + b_g)
    o = sigmoid(x @ w_o.T + h @ u_o.T + b_o)
    c = f * c + i * g
    return o * np.tanh(c), c


def gru_step(layer, x, h, c):
    w_r, w_z, w_n = numbers(layer.weight_ih_l0, 3)
    u_r, u_z, u_n = numbers(layer.weight_hh_l0, 3)
    b_r, b_z, b_n = numbers(layer.bias_ih_l0, 3)
    d_r, d_z, d_n = numbers(layer.bias_hh_l0, 3)
    r = sigmoid(x @ w_r.T + h @ u_r.T + b_r + d_r)
    z = sigmoid(x @ w_z.T + h @ u_z.T + b_z + d_z)
    n = np.tanh(x @ w_n.T + b_n + r * (h @ u_n.T + d_n))
    return (1 - z) * n + z * h, c


def diagonal_step(layer, x, h, c):
    w_i, w_f, w_g, w_o = numbers(layer.weight_ih, 4)
    u_i, u_f, u_g, u_o = numbers(layer.weight_hh, 4)
    b_i, b_f, b_g, b_o = numbers(layer.bias, 4)
    p_i, p_f, p_o = layer.weight_ch.detach().numpy()
    i = sigmoid(x @ w_i.T + h @ u_i.T + c * p_i + b_i)
    f = sigmoid(x @ w_f.T + h @ u_f.T + c * p_f + b_f)
    g = np.tanh(x @ w_g.T + h @ u_g.T + b_g)
    c = f * c + i * g
    o = sigmoid(x @ w_o.T + h @ u_o.T + c * p_o + b_o)
    return o * np.tanh(c), c


def full_step(layer, x, h, c):
    w_i, w_f, w_g, w_o = numbers(layer.weight_ih, 4)
    u_i, u_f, u_g, u_o = numbers(layer.weight_hh, 4)
    w_ci, w_cf, w_cc, w_co = numbers(layer.weight_ch, 4)
    b_i, b_f, b_g, b_o = numbers(layer.bias, 4)
    i = sigmoid(x @ w_i.T + h @ u_i.T + c @ w_ci.T + b_i)
    f = sigmoid(x @ w_f.T + h @ u_f.T + c @ w_cf.T + b_f)
    g = np.tanh(x @ w_g.T + h @ u_g.T + c @ w_cc.T + b_g)
    o = sigmoid(x @ w_o.T + h @ u_o.T + c @ w_co.T + b_o)
    c = f * c + i * g
    return o * np.tanh(c), c


# Each kind of layer beside its equations, read once more in NumPy.
EQUATIONS = {
    ("lstm", "diagonal"): lstm_step,
    ("gru", "diagonal"): gru_step,
    ("peephole_lstm", "diagonal"): diagonal_step,
    ("peephole_lstm", "full"): full_step,
}
PEEPHOLES = pytest.mark.parametrize("peephole", ["diagonal", "full"])


def filled(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Return the layer with weights of a size that makes every gate take part."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


@pytest.fixture(params=EQUATIONS, ids="-".join)
def kind(request):
    return request.param


@pytest.fixture
def layer(kind):
    cell, peephole = kind
    return filled(make_layer(cell, WIDTH, HIDDEN, peephole=peephole).double())


@pytest.fixture
def window(layer):
    """Return inputs and a state: x (B, T, WIDTH), hidden (B, H), cell (B, cell_size)."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(ROWS, STEPS, WIDTH), (ROWS, HIDDEN), (ROWS, layer.cell_size)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_window_is_its_equations_step_by_step(kind, layer, window):
    x, h, c = (tensor.numpy() for tensor in window)
    outputs = []
    for t in range(STEPS):
        h, c = EQUATIONS[kind](layer, x[:, t], h, c)
        outputs.append(h)
    ours, hidden, cell = (tensor.detach().numpy() for tensor in layer.step(*window))
    # float64 on both sides; rounding alone differs.
    np.testing.assert_allclose(ours, np.stack(outputs, axis=1), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(hidden, h, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(cell, c, rtol=1e-12, atol=1e-14)


class Stepping(nn.Module):
    """A layer whose call is its step, for torch.func."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *window, **options):
        return self.layer.step(*window, **options)


@pytest.mark.parametrize("weight_drop", [0.0, 0.5])
def test_gradients_are_those_of_finite_differences(layer, window, weight_drop):
    module = Stepping(layer)
    names = [name for name, _ in module.named_parameters()]

    def step(x, hidden, cell, *weights):
        options = {"weight_drop": weight_drop, "noise": noise()}  # drops the same each time
        named = dict(zip(names, weights, strict=True))
        outputs, hidden, cell = torch.func.functional_call(
            module, named, (x, hidden, cell), options
        )
        return (outputs, hidden, cell) if layer.cell_size else (outputs, hidden)

    weights = [parameter.detach() for parameter in layer.parameters()]
    inputs = [tensor.requires_grad_(tensor.numel() > 0) for tensor in (*window, *weights)]
    assert torch.autograd.gradcheck(step, inputs)


@pytest.mark.parametrize(("ours", "theirs"), [(LSTM, nn.LSTM), (GRU, nn.GRU)])
def test_fused_layers_are_torchs(ours, theirs):
    layer = filled(ours(WIDTH, HIDDEN).double())
    expected_of = theirs(WIDTH, HIDDEN, batch_first=True, dtype=torch.float64)
    expected_of.load_state_dict(layer.state_dict())
    x, hidden, cell = (
        torch.randn(shape, generator=noise(), dtype=torch.float64)
        for shape in [(ROWS, STEPS, WIDTH), (ROWS, HIDDEN), (ROWS, layer.cell_size)]
    )
    state = (hidden[None], cell[None]) if layer.cell_size else hidden[None]
    expected, after = expected_of(x, state)
    outputs, hidden_after, cell_after = layer.step(x, hidden, cell)
    assert torch.equal(outputs, expected)
    assert torch.equal(hidden_after, (after[0] if layer.cell_size else after)[0])
    assert torch.equal(cell_after, after[1][0] if layer.cell_size else cell)


@PEEPHOLES
def test_with_peepholes_of_zero_it_is_torchs_lstm(peephole):
    theirs = filled(nn.LSTM(WIDTH, HIDDEN, batch_first=True, dtype=torch.float64))
    layer = PeepholeLSTM(WIDTH, HIDDEN, peephole=peephole).double()
    with torch.no_grad():
        layer.weight_ih.copy_(theirs.weight_ih_l0)
        layer.weight_hh.copy_(theirs.weight_hh_l0)
        layer.weight_ch.zero_()
        layer.bias.copy_(theirs.bias_ih_l0 + theirs.bias_hh_l0)
    x, hidden, cell = (
        torch.randn(shape, generator=noise(), dtype=torch.float64)
        for shape in [(ROWS, STEPS, WIDTH), (ROWS, HIDDEN), (ROWS, HIDDEN)]
    )
    expected, (last_hidden, last_cell) = theirs(x, (hidden[None], cell[None]))
    outputs, hidden_after, cell_after = layer.step(x, hidden, cell)
    # float64 sums in another order.
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(hidden_after, last_hidden[0])
    torch.testing.assert_close(cell_after, last_cell[0])


@PEEPHOLES
def test_peepholes_learn_from_zero(peephole):
    layer = PeepholeLSTM(WIDTH, HIDDEN, peephole=peephole)
    layer.initialise(noise())
    assert not layer.weight_ch.any()
    outputs, *_ = layer.step(
        torch.ones(1, STEPS, WIDTH), torch.zeros(1, HIDDEN), torch.ones(1, HIDDEN)
    )
    (gradient,) = torch.autograd.grad(outputs.sum(), layer.weight_ch)
    assert gradient.ne(0).all()


@pytest.fixture(params=["lstm", "diagonal", "full"])
def looping(request, monkeypatch):
    """Return a layer whose steps are those of the loop under autocast; two texts become four."""
    monkeypatch.setattr("lstmlm.nn.cells.MAX_FUSED", 0)
    monkeypatch.setattr("lstmlm.nn.cells.kernel_has_bf16", lambda device: True)
    if request.param == "lstm":
        return filled(LSTM(WIDTH, HIDDEN))
    return filled(PeepholeLSTM(WIDTH, HIDDEN, peephole=request.param))


def test_products_in_bf16_stay_near_those_in_float32(looping):
    shapes = [(ROWS, STEPS, WIDTH), (ROWS, HIDDEN), (ROWS, HIDDEN)]
    window = [torch.randn(shape, generator=noise()).requires_grad_() for shape in shapes]

    def read():
        found = looping.step(*window)
        total = sum(part.sum() for part in found)
        return [*found, *torch.autograd.grad(total, [*window, *looping.parameters()])]

    exact = read()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = read()
    for one, other in zip(rounded, exact, strict=True):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        # bf16 keeps 8 bits, 0.4 %; six steps of gates add some of that up.
        assert (one - other).norm() < 0.03 * other.norm()


def test_an_lstm_is_read_in_float32_where_its_kernel_has_no_bf16(monkeypatch):
    monkeypatch.setattr("lstmlm.nn.cells.kernel_has_bf16", lambda device: False)
    layer = filled(LSTM(WIDTH, HIDDEN))
    x, state = torch.randn(ROWS, STEPS, WIDTH, generator=noise()), torch.zeros(ROWS, HIDDEN)
    exact = layer.step(x, state, state)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer.step(x, state, state)
    assert all(map(torch.equal, found, exact))


def test_a_step_leaves_the_state_that_it_got(layer, window):
    before = [tensor.clone() for tensor in window]
    outputs, *_ = layer.step(*window)
    outputs.sum().backward()
    assert all(torch.equal(one, other) for one, other in zip(window, before, strict=True))


def test_dropped_weights_change_with_each_window_and_get_gradients(layer, window):
    draws = noise()
    recurrent = getattr(layer, "weight_hh_l0", None)
    recurrent = layer.weight_hh if recurrent is None else recurrent
    kept = recurrent.detach().clone()
    outputs = [layer.step(*window, weight_drop=0.5, noise=draws)[0] for _ in range(3)]
    outputs.append(layer.step(*window)[0])
    assert not any(
        torch.equal(outputs[a], outputs[b]) for a, b in product(range(4), range(4)) if a < b
    )
    assert torch.equal(recurrent, kept)
    (gradient,) = torch.autograd.grad(outputs[0].sum(), recurrent)
    share = gradient.eq(0).double().mean().item()
    # Dropped weights get none. Five standard deviations of a share of so many draws.
    assert share == pytest.approx(0.5, abs=5 * 0.5 / recurrent.numel() ** 0.5)


def test_without_noise_no_weight_is_dropped(layer, window):
    plain = layer.step(*window)[0]
    assert torch.equal(layer.step(*window, weight_drop=0.5)[0], plain)
    assert torch.equal(layer.step(*window, weight_drop=0.0, noise=noise())[0], plain)


def test_full_peepholes_are_dropped_too():
    layer = filled(PeepholeLSTM(WIDTH, HIDDEN, peephole="full"))
    ones = torch.ones(1, HIDDEN)
    outputs, *_ = layer.step(torch.ones(1, 1, WIDTH), ones, ones, weight_drop=0.5, noise=noise())
    (gradient,) = torch.autograd.grad(outputs.sum(), layer.weight_ch)
    assert 0 < gradient.eq(0).float().mean() < 1


def test_first_weights(kind):
    layer = make_layer(kind[0], WIDTH, HIDDEN, peephole=kind[1])
    layer.initialise(noise())
    weights = dict(layer.named_parameters())
    for name, weight in weights.items():
        gates = weight.detach().split(HIDDEN)
        if "_hh" in name and "bias" not in name:
            for gate in gates:
                # Orthogonal up to a float32's rounding.
                torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN), rtol=0, atol=1e-6)
        elif "_ih" in name and "bias" not in name:
            bound = (6 / (WIDTH + HIDDEN)) ** 0.5  # Glorot and Bengio (2010), equation 16
            assert 0.5 * bound < weight.abs().max() <= bound
        else:
            forget = name.startswith(("bias_ih", "bias")) and "hh" not in name and kind[0] != "gru"
            expected = [0.0, 1.0, 0.0, 0.0] if forget else [0.0] * len(gates)
            assert [gate.unique().tolist() for gate in gates] == [[value] for value in expected]


def test_first_weights_come_from_the_generator(kind):
    def weights(seed):
        layer = make_layer(kind[0], WIDTH, HIDDEN, peephole=kind[1])
        layer.initialise(noise(seed))
        return [weight for name, weight in layer.named_parameters() if name.startswith("weight_")]

    one, same, other = ([weight for weight in weights(seed) if weight.any()] for seed in (0, 0, 1))
    assert len(one) == 2
    assert all(map(torch.equal, one, same))
    assert not any(map(torch.equal, one, other))
