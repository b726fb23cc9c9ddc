"""Input noise: tokens of a training text that are read as others."""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstmlm.batches import COUNTED_TOKENS, Corpus
from lstmlm.config import TrainConfig


class InputNoise:
    r"""What Kneser-Ney smoothing does to a bigram, done to what a network reads.

    Smoothing backs off from a token the oftener, the less its occurrences say of the next token,
    and then to how many different tokens a type follows. So here (Xie et al. 2017, section 3.3),
    N(v .) being how many types follow v, N(. v) how many it follows, and c(v) how often it occurs::

        p(v is read as another) = rate * N(v .) / c(v)
        p(that is w)            = N(. w) / sum over u of N(. u)

    What is to be predicted stays as it is. A network that reads a text often is so kept from
    learning by heart what follows a rare token.

    Parameters
    ----------
    ids : ndarray of integers, shape (n,)
        Text that is counted.
    vocab_size : int
        Number of ids, V.
    rate : float in [0, 1)
        Share of the tokens of types that are followed by another type each time.
    device : torch.device
        Where the ids will be.

    Attributes
    ----------
    rates : Tensor of float32, shape (V,)
        How often each id is read as another.
    """

    def __init__(
        self, ids: NDArray[np.int32], vocab_size: int, rate: float, device: torch.device
    ) -> None:
        counts = np.bincount(ids[:-1], minlength=vocab_size)
        bigrams = np.unique(ids[:-1].astype(np.int64) * vocab_size + ids[1:])
        followed = np.bincount(bigrams // vocab_size, minlength=vocab_size)
        following = np.bincount(bigrams % vocab_size, minlength=vocab_size)
        rates = rate * followed / np.maximum(counts, 1)
        self.rates = torch.from_numpy(rates).float().to(device)
        self._bounds = torch.from_numpy(following.cumsum()).to(device)
        self._n_bigrams = max(1, len(bigrams))

    @classmethod
    def of(
        cls, corpus: Corpus, vocab_size: int, config: TrainConfig, device: torch.device
    ) -> Self | None:
        """Count a corpus, or some of it, if the configuration wants input noise."""
        if not config.input_noise:
            return None
        return cls(corpus.sample(COUNTED_TOKENS), vocab_size, float(config.input_noise), device)

    def __call__(self, ids: Tensor, noise: torch.Generator) -> Tensor:
        """Return ids, of any shape, some of them exchanged.

        Parameters
        ----------
        ids : Tensor of int64
        noise : torch.Generator
            Where the exchanges are drawn from, on the device of `ids`.

        Returns
        -------
        Tensor of int64, the shape of `ids`
        """
        chances = torch.rand(ids.shape, generator=noise, device=ids.device)
        places = torch.randint(self._n_bigrams, ids.shape, generator=noise, device=ids.device)
        others = torch.searchsorted(self._bounds, places, right=True)
        return torch.where(chances < self.rates[ids], others, ids)
