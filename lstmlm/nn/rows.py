"""The rows of ids as a training moves them: those that embed ids and those the output layer has.

Both may be the same. Of the rows of rare ids, though, an adaptive softmax's tails see no more than
the first columns; what stands in the others is read where such an id is, and in a step nearly all
of it has no gradient. With 33,000 ids it is two thirds of the weights. So a training takes the rows
in three parts, and only the first two have a gradient of zeros where there is none::

                    W columns   the others
    frequent ids  [        frequent        ]
    rare ids      [   rare    |   unseen   ]
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lstmlm.nn.heads import Head


class TrainedRows:
    """A network's rows, in the parts that a training moves.

    Parameters
    ----------
    embedding : Parameter, shape (V, E)
        What embeds ids.
    head : Head
        The output layer; its rows may be the embedding's.

    Attributes
    ----------
    seen : list of Tensor
        What the head's loss takes: the rows of frequent ids, shape (F, D), and of rare ones what
        the tails see, shape (V - F, W); or all rows, of a head without tails.
    unseen : Tensor, shape (V - F, D - W), or None
        What only embeds. Its gradient is sparse.
    embedding : Parameter
        As it came.
    tied : bool
        Whether the head's rows are the embedding's.
    """

    def __init__(self, embedding: nn.Parameter, head: Head) -> None:
        matrix = cast(nn.Parameter, head.weight)
        self.embedding, self.tied = embedding, matrix is embedding
        self.seen, self.unseen = head.parts(matrix), None
        self._copied: list[tuple[Tensor, Tensor]] = []  # parts, and the views that they stand for
        if self.seen[0] is matrix:
            return
        views = [part.detach() for part in self.seen]
        self.seen = [view.contiguous().requires_grad_() for view in views]
        self._copied = [
            pair for pair in zip(self.seen, views, strict=True) if not pair[1].is_contiguous()
        ]
        if self.tied and self._copied:
            frequent, rare = self.seen
            self.unseen = matrix.detach()[len(frequent) :, rare.shape[1] :].requires_grad_()

    def look_up(self, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embed ids.

        Parameters
        ----------
        ids : Tensor of int64, shape (B, T)

        Returns
        -------
        embedded : Tensor, shape (B, T, E)
        rows : list of Tensor
            What is `seen`, for the head's loss; to be used once, so that both have one gradient.
        """
        if not self.tied:
            return nn.functional.embedding(ids, self.embedding), self.seen
        embedded, *seen = _LookUp.apply(ids, self.unseen, *self.seen)  # type: ignore[no-untyped-call]
        return embedded, seen

    @torch.no_grad()
    def store(self) -> None:
        """Write to the network's parameters what was moved beside them."""
        for part, view in self._copied:
            view.copy_(part)

    @torch.no_grad()
    def load(self) -> None:
        """Take over what was written to the network's parameters."""
        for part, view in self._copied:
            part.copy_(view)


class _LookUp(torch.autograd.Function):
    """Rows of some ids; their gradient is added to that of all rows, in place.

    Left to autograd, the two would meet in a third tensor of all rows. With 33,000 rows that took a
    tenth of a training step.
    """

    @staticmethod
    def forward(ctx: Any, ids: Tensor, unseen: Tensor | None, *seen: Tensor) -> tuple[Tensor, ...]:
        frequent = seen[0]
        found = frequent[ids.clamp(max=len(frequent) - 1)]
        of_rare = ids >= len(frequent)
        if len(seen) > 1 and of_rare.any():
            rare = ids[of_rare] - len(frequent)
            parts = [part[rare] for part in (seen[1], unseen) if part is not None]
            found[of_rare] = torch.cat(parts, dim=1)
        ctx.save_for_backward(ids, of_rare)
        ctx.unseen_shape = None if unseen is None else unseen.shape
        return found, *(part.view_as(part) for part in seen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_some: Tensor, *of_all: Tensor) -> tuple[Tensor | None, ...]:
        ids, of_rare = ctx.saved_tensors
        frequent = of_all[0]
        if len(of_all) == 1:
            frequent.index_add_(0, ids.flatten(), of_some.flatten(0, 1))
            return None, None, frequent
        frequent.index_add_(0, ids[~of_rare], of_some[~of_rare])
        rare, of_rows = ids[of_rare] - len(frequent), of_some[of_rare]
        width = of_all[1].shape[1]
        of_all[1].index_add_(0, rare, of_rows[:, :width])
        unseen = None
        if ctx.unseen_shape is not None:
            rows, places = rare.unique(return_inverse=True)
            values = of_rows.new_zeros(len(rows), ctx.unseen_shape[1])
            values.index_add_(0, places, of_rows[:, width:])
            unseen = torch.sparse_coo_tensor(
                *(rows.unsqueeze(0), values, ctx.unseen_shape),
                is_coalesced=True,
                check_invariants=False,
            )
        return None, unseen, *of_all
