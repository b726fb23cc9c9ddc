"""Text that is held out of a training, and says after each epoch what the weights are worth."""

import logging
import time

import torch
from torch import Tensor

from lstmlm.allocator import returned_buffers
from lstmlm.batches import Corpus, cut_in_lanes
from lstmlm.model import RecurrentLM
from lstmlm.scoring import tally_rows

_log = logging.getLogger("lstmlm")

LANES = 16  # pieces that a long text is read in side by side
SPEED = 1.5  # first guess of how much faster held-out text is read than trained on
LAST_PASSES = 4  # of training on a stream's end, at most


class HeldOut:
    """Held-out text as a training reads it.

    Parameters
    ----------
    corpus : Corpus
        What is held out.
    trained_on : Corpus
        What is trained on: of ids that it doesn't have nothing can be learned but that they don't
        occur, and held-out text would get the worse for it the better that is learned. So they
        don't count. Where every word is a type of its own they were 2.1 % of the tokens held out of
        WikiText-2.
    model : RecurrentLM
        What reads it.
    warm_up : int
        Tokens before each piece of a long text that are read without counting.
    read_last : bool
        Whether it is trained on too, last of all.

    Attributes
    ----------
    corpus : Corpus
        What is held out.
    seconds : float or None
        How long reading it took the last time.
    """

    def __init__(
        self,
        corpus: Corpus,
        trained_on: Corpus,
        model: RecurrentLM,
        warm_up: int,
        *,
        read_last: bool = False,
    ) -> None:
        self.corpus, self._model, self._read_last = corpus, model, read_last
        self._rows = cut_in_lanes(corpus, LANES, warm_up)
        self._known = self._shared_types(trained_on)
        self.seconds: float | None = None

    def loss(self) -> float:
        """Return the mean surprisal of a token that counts, in nats; leaves the model scoring."""
        _log.debug("held-out: %d tokens", self.corpus.n_tokens)
        start = time.monotonic()
        self._model.eval()
        with returned_buffers():
            tally, _ = tally_rows(self._model, self.corpus.ids, self._rows, known=self._known)
        self.seconds = time.monotonic() - start
        return tally.nats / tally.tokens

    def last_passes(self, passes: float) -> int:
        """Return how often it is trained on, last of all.

        A stream's end, behind which goes on what the model will read, as often as the rest was,
        but `LAST_PASSES` times at most; other texts once.

        Parameters
        ----------
        passes : float
            How often the rest was read.
        """
        return max(1, min(LAST_PASSES, round(passes))) if self.corpus.n_texts == 1 else 1

    def expected_seconds(self, pace: float, passes: float, at_most: float) -> float:
        """Return how long it will take from here: scoring it as last time, or guessed.

        Parameters
        ----------
        pace : float
            Tokens that are trained on in a second.
        passes : float
            How often the rest was read.
        at_most : float
            Seconds that a guess is at most.
        """
        training = self.corpus.n_tokens / pace
        scoring = min(training / SPEED, at_most) if self.seconds is None else self.seconds
        if not self._read_last:
            return scoring
        return scoring + min(training * self.last_passes(passes), at_most)

    def _shared_types(self, trained_on: Corpus) -> Tensor | None:
        """Return which ids the training text has; None if the held-out text has none of them."""
        known = trained_on.types(self._model.vocab_size)
        if not (known & self.corpus.types(self._model.vocab_size)).any():
            return None
        return torch.from_numpy(known).to(self._model.device)
