import torch
from hypothesis import given
from hypothesis import strategies as st

from lstmlm.nn.tied import shared_rows


@given(st.lists(st.integers(0, 8), min_size=1, max_size=20))
def test_shared_rows_have_the_gradient_of_rows_that_are_used_twice(ids):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 4, generator=generator, requires_grad=True)
    of_some = torch.randn(1, len(ids), 4, generator=generator)
    of_all = torch.randn(4, 9, generator=generator)
    index = torch.tensor([ids])
    embedded, rows = shared_rows(weight, index)
    assert torch.equal(embedded, weight[index])
    assert torch.equal(rows, weight)
    found, due = (
        torch.autograd.grad((some * of_some).sum() + (every @ of_all).square().sum(), weight)[0]
        for some, every in ((embedded, rows), (weight[index], weight))
    )
    torch.testing.assert_close(found, due)
