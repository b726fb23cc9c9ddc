"""Input noise: what is exchanged, how often, for what."""

import numpy as np
import pytest
import torch
from tiny import network

from lstmlm.batches import Corpus, Rows, walk
from lstmlm.config import TrainConfig
from lstmlm.training.loss import window_loss
from lstmlm.training.noise import InputNoise

CPU = torch.device("cpu")
# 1 is followed by 2, 3 and 1; 2 by 1 alone; 3 by 1 alone; 4 never occurs.
TEXT = np.array([1, 2, 1, 2, 1, 3, 1, 1, 2, 1], dtype=np.int32)


def drawn(noise: InputNoise, token: int, n: int = 40_000) -> np.ndarray:
    """Return how often each id stands for a token that is read n times."""
    ids = torch.full((n // 100, 100), token)
    return torch.bincount(noise(ids, torch.Generator().manual_seed(0)).flatten(), minlength=5) / n


def test_a_token_is_exchanged_the_oftener_the_less_is_known_of_what_follows():
    rates = InputNoise(TEXT, 5, 0.5, CPU).rates
    assert rates.tolist() == pytest.approx([0, 0.5 * 3 / 5, 0.5 * 1 / 3, 0.5 * 1 / 1, 0])


def test_others_come_as_often_as_they_follow_different_types():
    noise = InputNoise(TEXT, 5, 0.9, CPU)
    followed_by_it = np.array([0, 3, 1, 1, 0]) / 5  # 1 follows 1, 2 and 3
    kept = np.eye(5)[3]
    expected = 0.1 * kept + 0.9 * followed_by_it
    assert drawn(noise, 3).numpy() == pytest.approx(expected, abs=0.01)
    assert drawn(noise, 4).tolist() == [0, 0, 0, 0, 1]  # never seen, never exchanged


@pytest.mark.parametrize("text", [[], [1], [0, 0]])
def test_texts_without_two_types_are_no_matter(text):
    noise = InputNoise(np.array(text, dtype=np.int32), 3, 0.5, CPU)
    ids = torch.tensor([[0, 1, 2]])
    assert set(noise(ids, torch.Generator().manual_seed(0)).flatten().tolist()) <= {0, 1, 2}


def test_targets_and_what_is_read_without_noise_stay_as_they_are():
    rng, model, config = np.random.default_rng(0), network(), TrainConfig(input_noise=0.9)
    corpus = Corpus.of([rng.integers(1, 9, 20, dtype=np.int32) for _ in range(2)], 0)
    window = next(walk(Rows(corpus.begins, corpus.ends, corpus.begins), 9))
    before = corpus.ids.copy()
    exchange = InputNoise.of(corpus, model.vocab_size, config, CPU)
    state = model.zero_state(2)

    def nats(seed, input_noise):
        noise = None if seed is None else torch.Generator().manual_seed(seed)
        loss = window_loss(model, corpus.ids, window, state, config, noise, input_noise)
        return loss.nats.item()

    assert nats(None, exchange) == nats(None, None)
    assert nats(0, exchange) != nats(0, None)
    assert (corpus.ids == before).all()
    assert InputNoise.of(corpus, model.vocab_size, TrainConfig(input_noise=0.0), CPU) is None
