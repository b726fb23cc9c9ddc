import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lstmlm.nn import heads, losses
from lstmlm.nn.heads import AdaptiveSoftmax, Head, Softmax, make_head
from lstmlm.nn.losses import linear_cross_entropy, padded, rounded_up

WIDTH, VOCAB = 4, 11
CUTOFFS = {
    "softmax": [],
    "adaptive": [3, 7],
    "adaptive-one": [5],
    "adaptive-edges": [1, 2, 10],
    "adaptive-narrow": [3, 7],
}
NARROW = 2  # dimensions that the tails of "adaptive-narrow" see
HEADS = pytest.mark.parametrize("kind", list(CUTOFFS))
TIES = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


def head_of(kind: str, *, tied: bool = False, seed: int = 0) -> Head:
    """Return a head in float64 with random weights, cluster rows and projections included."""
    rows = nn.Parameter(torch.zeros(VOCAB, WIDTH)) if tied else None
    tail_width = NARROW if kind == "adaptive-narrow" else None
    head = make_head(kind.split("-")[0], WIDTH, VOCAB, rows, CUTOFFS[kind], tail_width).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=generator)
    return head


def batch_of(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    return x, torch.randint(VOCAB, (n,), generator=generator)


@pytest.fixture(params=[10**6, 3 * VOCAB, 1], ids=["one chunk", "3 rows a chunk", "1 row a chunk"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", request.param)


# ---- one head against its own table ----


@HEADS
@TIES
@pytest.mark.parametrize("n", [0, 1, 8, 40])
@pytest.mark.usefixtures("chunks")
def test_all_calls_agree_with_the_log_probs(kind, tied, n):
    head = head_of(kind, tied=tied)
    x, targets = batch_of(n)
    table = head.log_probs(x)
    assert table.shape == (n, VOCAB)
    # All below are float64 sums in another order.
    torch.testing.assert_close(table.exp().sum(-1), torch.ones(n, dtype=x.dtype))
    nll = -table.gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(head.nll(x, targets), nll)
    torch.testing.assert_close(head.loss(x, targets), nll.sum())
    assert head.best(x).tolist() == table.argmax(-1).tolist()
    assert head.best(x).dtype == torch.int64
    some_best = torch.where(torch.arange(n) % 2 == 0, table.argmax(-1), targets)
    assert head.hits(x, some_best).tolist() == (table.argmax(-1) == some_best).tolist()


@HEADS
@TIES
@pytest.mark.usefixtures("chunks")
def test_the_gradient_of_the_loss_is_that_of_the_log_probs(kind, tied):
    head = head_of(kind, tied=tied)
    x, targets = batch_of(40)
    x.requires_grad_()
    inputs = [x, *head.parameters()]
    expected = torch.autograd.grad(-head.log_probs(x).gather(1, targets[:, None]).sum(), inputs)
    found = torch.autograd.grad(head.loss(x, targets), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)  # float64 sums in another order


@HEADS
def test_zero_weights_mean_the_uniform_distribution(kind):
    head = make_head(kind.split("-")[0], WIDTH, VOCAB, None, CUTOFFS[kind])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    table = head.log_probs(torch.randn(5, WIDTH))
    # log V rounded to a float32, for a tail as a sum of two such numbers.
    torch.testing.assert_close(table, torch.full_like(table, -math.log(VOCAB)), rtol=1e-6, atol=0)


@HEADS
def test_rows_do_not_depend_on_their_company(kind):
    head = head_of(kind)
    x, targets = batch_of(30)
    alone = torch.cat([head.nll(x[i : i + 1], targets[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(head.nll(x, targets), alone)


@pytest.mark.parametrize("kind", ["softmax", "adaptive"])
def test_a_head_expects_what_it_is_told_to(kind):
    head = head_of(kind)
    log_probs = torch.linspace(-1, 2, VOCAB, dtype=torch.float64).log_softmax(0)
    head.expect(log_probs)
    nothing = torch.zeros(1, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(head.log_probs(nothing)[0], log_probs)


@HEADS
@pytest.mark.parametrize("shift", [-400.0, -90.0, -70.0, 0.0, 70.0, 90.0, 400.0])
def test_logits_may_be_of_any_size(kind, shift, monkeypatch):
    monkeypatch.setattr(heads, "BLOCK_LOGITS", 1)  # the head's norm in blocks as well
    head = head_of(kind)
    x, targets = batch_of(9)
    due = head.nll(x, targets).float()
    with torch.no_grad():
        head.bias.add_(shift)
        if isinstance(head, AdaptiveSoftmax):
            head.cluster_bias.add_(shift)
    nll = head.float().nll(x.float(), targets)
    torch.testing.assert_close(nll, due, rtol=1e-4, atol=1e-4)


def test_best_finds_ids_of_every_part():
    head = head_of("adaptive")
    found = set(head.best(batch_of(500)[0]).tolist())
    assert all(found & set(range(low, high)) for low, high in ((0, 3), (3, 7), (7, VOCAB)))


# ---- heads against torch's ----


def test_softmax_is_torchs_cross_entropy():
    head = head_of("softmax")
    x, targets = batch_of(20)
    logits = x @ head.weight.T + head.bias
    expected = F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(head.loss(x, targets), expected)


def test_adaptive_softmax_is_torchs():
    head = head_of("adaptive")
    theirs = nn.AdaptiveLogSoftmaxWithLoss(
        WIDTH, VOCAB, [3, 7], div_value=1.0, head_bias=True, dtype=torch.float64
    )
    with torch.no_grad():
        head.bias[3:] = 0  # theirs has no biases in the tails
        theirs.head.weight.copy_(torch.cat([head.weight[:3], head.cluster_weight]))
        theirs.head.bias.copy_(torch.cat([head.bias[:3], head.cluster_bias + head.log_sizes]))
        for tail, rows, projection in zip(
            theirs.tail, (head.weight[3:7], head.weight[7:]), head.projections, strict=True
        ):
            tail[0].weight.copy_(projection)
            tail[1].weight.copy_(rows)
    x, targets = batch_of(30)
    torch.testing.assert_close(head.log_probs(x), theirs.log_prob(x))
    torch.testing.assert_close(head.loss(x, targets) / 30, theirs(x, targets).loss)
    assert head.best(x).tolist() == theirs.predict(x).tolist()


def test_narrower_tails_are_torchs():
    head = make_head("adaptive", WIDTH, VOCAB, None, [3], NARROW).double()
    theirs = nn.AdaptiveLogSoftmaxWithLoss(
        WIDTH, VOCAB, [3], div_value=WIDTH / NARROW, head_bias=True, dtype=torch.float64
    )
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(0))  # all columns
        theirs.head.weight[:3], theirs.head.weight[3:] = head.weight[:3], head.cluster_weight
        theirs.head.bias[:3], theirs.head.bias[3:] = head.bias[:3], head.log_sizes
        theirs.tail[0][0].weight.copy_(head.projections[0])
        theirs.tail[0][1].weight.copy_(head.weight[3:, :NARROW])
    x, targets = batch_of(30)
    torch.testing.assert_close(head.log_probs(x), theirs.log_prob(x))
    torch.testing.assert_close(head.loss(x, targets) / 30, theirs(x, targets).loss)


# ---- the loss's own gradient ----


@pytest.mark.usefixtures("chunks")
def test_gradcheck_of_linear_cross_entropy():
    x, targets = batch_of(7)
    weight, _ = batch_of(VOCAB, seed=2)
    bias = torch.linspace(-1, 1, VOCAB, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *parts: linear_cross_entropy(*parts, targets), inputs)


@pytest.mark.usefixtures("chunks")
def test_gradcheck_of_linear_cross_entropy_with_tied_rows():
    ids, targets = torch.tensor([0, 3, 3, 10, 5]), torch.tensor([3, 0, 10, 10, 1])
    rows, _ = batch_of(VOCAB, seed=3)
    bias = torch.zeros(VOCAB, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (rows, bias)]
    assert torch.autograd.gradcheck(
        lambda rows, bias: linear_cross_entropy(rows[ids].tanh(), rows, bias, targets), inputs
    )


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("below", [VOCAB, 7, 3])  # with all tails met, without the last, with none
@pytest.mark.parametrize("kind", ["adaptive", "adaptive-narrow"])
def test_the_adaptive_loss_has_the_gradient_of_its_log_probs(kind, below):
    head = head_of(kind)
    x, targets = batch_of(40)
    x, targets = x.requires_grad_(), targets % below
    parameters = [x, *head.parameters()]
    plain = -head.log_probs(x).gather(1, targets.unsqueeze(1)).sum()
    expected = torch.autograd.grad(plain, parameters)
    for grad, wanted in zip(
        torch.autograd.grad(head.loss(x, targets), parameters), expected, strict=True
    ):
        torch.testing.assert_close(grad, wanted)


def test_an_impossible_target_costs_a_finite_loss_and_has_its_gradient():
    x, targets = torch.ones(1, 1), torch.tensor([0])
    weight = torch.tensor([[-150.0], [150.0]], requires_grad=True)
    loss = linear_cross_entropy(x, weight, torch.zeros(2), targets)
    assert 87 < loss.item() < 88
    (grad,) = torch.autograd.grad(loss, weight)
    assert grad.flatten().tolist() == [-1, 1]


@given(scale=st.floats(-4, 4))
def test_the_gradient_follows_what_is_done_with_the_loss(scale):
    head = head_of("adaptive")
    x, targets = batch_of(9)
    parameters = list(head.parameters())
    once = torch.autograd.grad(head.loss(x, targets), parameters)
    scaled = torch.autograd.grad(head.loss(x, targets) * scale, parameters)
    for one, other in zip(once, scaled, strict=True):
        torch.testing.assert_close(other, one * scale)


@HEADS
@pytest.mark.usefixtures("chunks")
def test_rows_beyond_the_targets_count_for_nothing(kind):
    head = head_of(kind)
    x, targets = batch_of(20)
    x.requires_grad_()
    inputs = [x, *head.parameters()]
    expected = torch.autograd.grad(head.loss(x[:9], targets[:9]), inputs)
    for ours, theirs in zip(
        torch.autograd.grad(head.loss(x, targets[:9]), inputs), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)  # float64 sums in another order


@given(n=st.integers(0, 5_000))
def test_products_in_bf16_get_few_rows_more_so_that_they_have_few_shapes(n):
    x = torch.ones(n, 3, dtype=torch.bfloat16)
    more = padded(x)
    assert n <= len(more) <= n + max(31, n / 8)
    assert rounded_up(len(more)) == len(more)
    assert torch.equal(more[:n], x)
    assert not more[n:].any()
    assert padded(x.float()).shape == x.shape
    with torch.autocast("cpu", torch.bfloat16):
        assert padded(x.float()).shape == more.shape  # a product would take them in bf16


def test_up_to_a_thousand_rows_have_few_shapes():
    rows = {len(padded(torch.empty(n, 1, dtype=torch.bfloat16))) for n in range(1, 1_025)}
    assert len(rows) <= 24


@pytest.mark.parametrize("kind", ["softmax", "adaptive"])
def test_under_autocast_the_products_are_bf16_and_the_sums_float32(kind):
    head = head_of(kind).float()
    x, targets = batch_of(200)
    x = x.float().requires_grad_()
    exact = head.loss(x, targets)
    (exact_grad,) = torch.autograd.grad(exact, x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = head.loss(x, targets)
    (rough_grad,) = torch.autograd.grad(rough, x)
    assert rough.dtype == rough_grad.dtype == torch.float32
    assert rough.item() != exact.item()  # bf16 was at work
    # bf16 keeps 8 bits, 0.4 %; the errors of 200 rows partly cancel in their sum.
    assert rough.item() == pytest.approx(exact.item(), rel=4e-3)
    # A tail's are four products one after the other, of weights of size 1.
    atol = 0.02 if kind == "softmax" else 0.1
    torch.testing.assert_close(rough_grad, exact_grad, rtol=0.02, atol=atol)


# ---- first weights ----


def test_initialise_draws_untied_rows_and_leaves_tied_ones():
    rows = nn.Parameter(torch.full((VOCAB, WIDTH), 5.0))
    for tied, head in ((True, Softmax(WIDTH, VOCAB, rows)), (False, Softmax(WIDTH, VOCAB, None))):
        head.initialise(torch.Generator().manual_seed(0), tied=tied)
        if tied:
            assert head.weight is rows
            assert head.weight.eq(5).all()
        else:
            assert 0 < head.weight.abs().min() <= head.weight.abs().max() <= 0.1
        assert head.bias.eq(0).all()


def test_adaptive_projections_start_at_the_identity():
    head = AdaptiveSoftmax(WIDTH, VOCAB, None, [3, 7])
    head.initialise(torch.Generator().manual_seed(0), tied=False)
    assert head.projections.tolist() == [torch.eye(WIDTH).tolist()] * 2
    narrow = AdaptiveSoftmax(WIDTH, VOCAB, None, [3, 7], NARROW)
    narrow.initialise(torch.Generator().manual_seed(0), tied=False)
    assert narrow.projections.tolist() == [torch.eye(WIDTH)[:NARROW].tolist()] * 2
    assert 0 < head.cluster_weight.abs().max() <= 0.1
