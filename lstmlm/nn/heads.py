"""Output layers: from the last layer's features to exact, normalised probabilities of the next id.

Both layers answer the same four calls on features of shape (N, D), where N counts only the tokens
that count: `loss` for training, `nll` for scoring, `log_probs` for sampling, `best` for greedy
choices. None of `loss`, `nll` and `best` holds more than 64 MiB of logits at a time.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lstmlm.nn.int8 import Int8Matrix, Int8Rows
from lstmlm.nn.linear import BLOCK_LOGITS, linear_nll, logits, nll_of
from lstmlm.nn.losses import adaptive_cross_entropy, chunk_rows, linear_cross_entropy, padded
from lstmlm.nn.stepping import Weights, product


class Head(nn.Module):
    """What output layers share: a matrix with a row for each id, perhaps the embedding's.

    Parameters
    ----------
    width : int
        Width of the features, D.
    vocab_size : int
        Number of ids, V.
    embedding : Parameter, shape (V, D), Int8Matrix or None
        The embedding, to share its rows; None for rows of the layer's own. With rows in int8 a
        layer has no loss.
    """

    def __init__(
        self, width: int, vocab_size: int, embedding: nn.Parameter | Int8Matrix | None
    ) -> None:
        super().__init__()
        self.width = width
        self.weight = (
            nn.Parameter(torch.zeros(vocab_size, width)) if embedding is None else embedding
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    @property
    def rows(self) -> Weights:
        """A row for each id, as products take them."""
        return self.weight.rows if isinstance(self.weight, Int8Matrix) else self.weight

    @property
    def n_products(self) -> int:
        """How many weights each place is multiplied with, frequent ids being the targets."""
        return len(self.bias) * self.width

    def initialise(self, generator: torch.Generator, *, tied: bool) -> None:
        """Draw the first weights; with tied rows the embedding has drawn them already."""
        if not tied:
            nn.init.uniform_(self._float_rows, -0.1, 0.1, generator=generator)

    def parts(self, rows: Tensor) -> list[Tensor]:
        """Return what the loss takes of rows, shape (V, D), or of as many others: views of them."""
        return [rows]

    @property
    def _float_rows(self) -> nn.Parameter:
        """The rows of a layer that can be trained."""
        assert isinstance(self.weight, nn.Parameter)
        return self.weight

    def expect(self, log_probs: Tensor) -> None:
        """Set the biases so that features of zeros mean these log-probabilities, shape (V,)."""
        raise NotImplementedError

    def loss(self, x: Tensor, targets: Tensor, rows: Sequence[Tensor] = ()) -> Tensor:
        """Return minus the log-probability of `targets`, summed, with gradients.

        Parameters
        ----------
        x : Tensor, shape (N, D)
            Features; rows beyond the targets count for nothing.
        targets : Tensor of int64, shape (N,) or less
            Ids.
        rows : sequence of Tensor, optional
            What stands for the layer's own rows, with gradients of their own: as `parts` gives it.

        Returns
        -------
        Tensor, shape ()
            Nats.
        """
        raise NotImplementedError

    def nll(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return minus each target's log-probability, shape (N,), in nats, without gradients."""
        raise NotImplementedError

    def log_probs(self, x: Tensor) -> Tensor:
        """Return the log-probabilities of all ids, shape (N, V); they sum to 1 after exp."""
        raise NotImplementedError

    def best(self, x: Tensor) -> Tensor:
        """Return the likeliest id at each place, shape (N,)."""
        raise NotImplementedError

    def hits(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return whether each target is the likeliest id at its place, shape (N,)."""
        return self.best(x) == targets


class Softmax(Head):
    """The softmax over all ids."""

    @torch.no_grad()
    def expect(self, log_probs: Tensor) -> None:
        """See `Head.expect`."""
        self.bias.copy_(log_probs)

    def loss(self, x: Tensor, targets: Tensor, rows: Sequence[Tensor] = ()) -> Tensor:
        """See `Head.loss`."""
        (weight,) = rows or self.parts(self._float_rows)
        return linear_cross_entropy(x, weight, self.bias, targets)

    @torch.no_grad()
    def nll(self, x: Tensor, targets: Tensor) -> Tensor:
        """See `Head.nll`."""
        return linear_nll(x, self.rows, self.bias, targets)

    def log_probs(self, x: Tensor) -> Tensor:
        """See `Head.log_probs`."""
        return logits(x, self.rows, self.bias).log_softmax(-1)

    @torch.no_grad()
    def best(self, x: Tensor) -> Tensor:
        """See `Head.best`."""
        chunks = [logits(rows, self.rows, self.bias).argmax(-1)
                  for rows in torch.split(x, chunk_rows(self.bias))]  # fmt: skip
        return torch.cat(chunks) if chunks else x.new_empty(0, dtype=torch.int64)


class AdaptiveSoftmax(Head):
    r"""The adaptive softmax (Grave et al. 2017, section 4): frequent ids first, others in tails.

    Ids are numbered by falling frequency. The head holds the ids below the first cut-off and a
    class for each tail; a tail's ids are only computed where the tail is the target's::

        log p(v) = log p_head(v)                          v below the first cut-off
        log p(v) = log p_head(tail k) + log p_k(v)        v in tail k

    A tail k sees the features through a projection P_k to fewer dimensions (Grave et al. 2017,
    section 4.3). All rows have the features' width, so that they can be the embedding's own, and
    of a tail's rows only the first `tail_width` columns count here. A tail's class starts with the
    logarithm of the tail's size added to its logit, so that zero weights mean the uniform
    distribution.

    Parameters
    ----------
    width, vocab_size, embedding
        See `Head`.
    cutoffs : sequence of int
        The first id of each tail, rising, above 0 and below `vocab_size`.
    tail_width : int, optional
        Width of what the tails see, W; by default all of D.
    """

    first_ids: Tensor
    log_sizes: Tensor

    def __init__(
        self,
        width: int,
        vocab_size: int,
        embedding: nn.Parameter | Int8Matrix | None,
        cutoffs: list[int],
        tail_width: int | None = None,
    ) -> None:
        super().__init__(width, vocab_size, embedding)
        tail_width = tail_width or width
        edges = [0, *cutoffs, vocab_size]
        self.edges = edges
        self.sizes = [high - low for low, high in pairwise(edges)]
        self.cluster_weight = nn.Parameter(torch.zeros(len(cutoffs), width))
        self.cluster_bias = nn.Parameter(torch.zeros(len(cutoffs)))
        self.projections = nn.Parameter(torch.zeros(len(cutoffs), tail_width, width))
        log_sizes = torch.tensor([math.log(size) for size in self.sizes[1:]])
        self.register_buffer("log_sizes", log_sizes, persistent=False)
        self.register_buffer("first_ids", torch.tensor(cutoffs), persistent=False)

    @property
    def n_products(self) -> int:
        """See `Head.n_products`; a tail is computed for few places."""
        return (self.sizes[0] + len(self.cluster_bias)) * self.width

    def initialise(self, generator: torch.Generator, *, tied: bool) -> None:
        """See `Head.initialise`; projections start near the identity."""
        super().initialise(generator, tied=tied)
        nn.init.uniform_(self.cluster_weight, -0.1, 0.1, generator=generator)
        with torch.no_grad():
            self.projections.copy_(torch.eye(*self.projections.shape[1:]))

    @torch.no_grad()
    def expect(self, log_probs: Tensor) -> None:
        """See `Head.expect`."""
        self.bias.copy_(log_probs)
        tails = torch.split(log_probs, self.sizes)[1:]
        masses = torch.stack([tail.logsumexp(0) for tail in tails])
        self.cluster_bias.copy_(masses - self.log_sizes)

    def parts(self, rows: Tensor) -> list[Tensor]:
        """See `Head.parts`: the head's rows, and of the tails' the columns that they see."""
        first = self.sizes[0]
        return [rows[:first], rows[first:, : self.tail_width]]

    @property
    def tail_width(self) -> int:
        """How many dimensions the tails see, W."""
        return self.projections.shape[1]

    def loss(self, x: Tensor, targets: Tensor, rows: Sequence[Tensor] = ()) -> Tensor:
        """See `Head.loss`."""
        in_head, tails = self._head_targets(targets)
        frequent, rare = rows or self.parts(self._float_rows)
        return adaptive_cross_entropy(
            x,
            frequent,
            rare,
            self.bias,
            cluster_weight=self.cluster_weight,
            cluster_bias=self.cluster_bias + self.log_sizes,
            projections=self.projections,
            edges=self.edges,
            head_targets=in_head,
            tails=[(of_tail, targets[of_tail]) for of_tail in tails],
        )

    @torch.no_grad()
    def nll(self, x: Tensor, targets: Tensor) -> Tensor:
        """See `Head.nll`."""
        in_head, tails = self._head_targets(targets)
        if len(x) * self.sizes[0] <= BLOCK_LOGITS:
            nll = nll_of(self.head_logits(x), in_head)
        elif isinstance(self.weight, Int8Matrix):
            pairs = (torch.split(each, BLOCK_LOGITS // self.sizes[0] or 1) for each in (x, targets))
            return torch.cat([self.nll(*pair) for pair in zip(*pairs, strict=True)])
        else:
            weight = torch.cat([self.weight[: self.sizes[0]], self.cluster_weight])
            bias = torch.cat([self.bias[: self.sizes[0]], self._cluster_biases])
            nll = linear_nll(x, weight, bias, in_head)
        for k, rows in enumerate(tails):
            if len(rows):
                inside = targets[rows] - self.edges[k + 1]
                nll[rows] += linear_nll(self._project(k, x[rows]), *self.tail(k), inside)
        return nll

    def log_probs(self, x: Tensor) -> Tensor:
        """See `Head.log_probs`."""
        head = self.head_logits(x).log_softmax(-1)
        parts = [head[:, : self.sizes[0]]]
        for k in range(len(self.sizes) - 1):
            inside = self.tail_logits(k, x).log_softmax(-1)
            parts.append(inside + head[:, self.sizes[0] + k].unsqueeze(1))
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def best(self, x: Tensor) -> Tensor:
        """See `Head.best`; a tail is computed only where its class beats the head's best id."""
        chunks = [
            self._best(rows, self.head_logits(rows).log_softmax(-1))
            for rows in torch.split(x, chunk_rows(self.bias))
        ]
        return torch.cat(chunks) if chunks else x.new_empty(0, dtype=torch.int64)

    @torch.no_grad()
    def hits(self, x: Tensor, targets: Tensor) -> Tensor:
        """See `Head.hits`; few of the tails that `best` computes can have to do with it."""
        hits = torch.zeros_like(targets, dtype=torch.bool)
        chunks = (torch.split(each, chunk_rows(self.bias)) for each in (x, targets, hits))
        for rows, aims, found in zip(*chunks, strict=True):
            head = self.head_logits(rows).log_softmax(-1)
            in_head, tails = self._head_targets(aims)
            best = head[:, : self.sizes[0]].argmax(-1)
            possible = best == aims
            for of_tail in tails:
                own, others = head[of_tail, in_head[of_tail]], head[of_tail, best[of_tail]]
                possible[of_tail] = own > others
            found[possible] = self._best(rows[possible], head[possible]) == aims[possible]
        return hits

    def _best(self, x: Tensor, head: Tensor) -> Tensor:
        """Return the likeliest ids, given the log-probabilities of the head's ids and classes."""
        top, best = head[:, : self.sizes[0]].max(-1)
        for k in range(len(self.sizes) - 1):
            tail = head[:, self.sizes[0] + k]
            rows = (tail > top).nonzero().squeeze(1)
            of_tail = self.tail_logits(k, x[rows])
            inside, at = of_tail.log_softmax(-1).max(-1)
            better = inside + tail[rows] > top[rows]
            winners = rows[better]
            top[winners] = (inside + tail[rows])[better]
            best[winners] = at[better] + self.edges[k + 1]
        return best

    def head_logits(self, x: Tensor) -> Tensor:
        """Return the logits of the head's ids and, after them, of the tails' classes."""
        first = self.sizes[0]
        ids = logits(x, self.rows[:first], self.bias[:first])
        classes = logits(x, self.cluster_weight, self._cluster_biases, beside=self.rows[:first])
        return torch.cat([ids, classes], dim=-1)

    def tail_logits(self, k: int, x: Tensor) -> Tensor:
        """Return the logits of tail k's ids."""
        return logits(self._project(k, x), *self.tail(k))

    @property
    def _cluster_biases(self) -> Tensor:
        return self.cluster_bias + self.log_sizes

    def _project(self, k: int, x: Tensor) -> Tensor:
        """Return the features as tail k sees them."""
        rows, _ = self.tail(k)
        return product(padded(x), self.projection(k), None, beside=rows)[: len(x)]

    def tail(self, k: int) -> tuple[Weights, Tensor]:
        """Return what counts of the rows of tail k, and its biases."""
        ids = slice(self.edges[k + 1], self.edges[k + 2])
        rows = self.rows[ids]
        seen = rows if isinstance(rows, Int8Rows) else rows[:, : self.tail_width]
        return seen, self.bias[ids]

    def projection(self, k: int) -> Tensor:
        """Return P_k: of shape (W, D), or (D, D) for rows in int8, which come as a whole."""
        of_tail = self.projections[k]
        if not isinstance(self.rows, Int8Rows):
            return of_tail
        return nn.functional.pad(of_tail, (0, 0, 0, self.width - len(of_tail)))

    def _head_targets(self, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return each target's place in the head, and for each tail the rows whose target it holds.

        That place is the target's id, or its tail's class.
        """
        first, n_tails = self.sizes[0], len(self.log_sizes)
        tail = torch.bucketize(targets, self.first_ids, right=True)  # 0 is the head itself
        if not tail.any():
            return targets, [targets[:0]] * n_tails
        rows = [(tail == k + 1).nonzero().squeeze(1) for k in range(n_tails)]
        return torch.where(tail == 0, targets, tail + (first - 1)), rows


def make_head(
    kind: str,
    width: int,
    vocab_size: int,
    embedding: nn.Parameter | Int8Matrix | None,
    cutoffs: list[int],
    tail_width: int | None = None,
) -> Head:
    """Make the output layer of one kind: "softmax", or "adaptive" with its cut-offs and width."""
    if kind == "softmax":
        return Softmax(width, vocab_size, embedding)
    return AdaptiveSoftmax(width, vocab_size, embedding, cutoffs, tail_width)
