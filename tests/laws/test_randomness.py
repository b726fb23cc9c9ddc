"""Random numbers come from `random_state` alone, and the same ones give the same model."""

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TEXTS, unfitted

from lstmlm import LSTMLanguageModel

CONTEXTS = pytest.mark.parametrize("context", ["document", "stream"])


def weights(lm: LSTMLanguageModel) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in lm.module_.named_parameters()}


def fit(cell, texts=TEXTS, **params):
    # Dropout, the order of the texts and the held-out ones all take part.
    settings = {"max_epochs": 2, "dropout": 0.3, "early_stopping": True, "random_state": 3}
    return unfitted(**cell, **settings | params).fit(texts)


@cache
def fitted_once(context: str = "document", **cell: Any) -> LSTMLanguageModel:
    return fit(cell, context=context)


@CONTEXTS
def test_same_random_state_same_weights_bit_for_bit(cell, context):
    one, other = fitted_once(context, **cell), fit(cell, context=context)
    for name, values in weights(one).items():
        np.testing.assert_array_equal(weights(other)[name], values, err_msg=name)
    without_time = [[replace(e, seconds=0.0) for e in lm.history_] for lm in (one, other)]
    assert without_time[0] == without_time[1]
    assert one.generate(["a"] * 3) == other.generate(["a"] * 3)


@CONTEXTS
def test_another_random_state_gives_other_weights(cell, context):
    one, other = fitted_once(context, **cell), fit(cell, context=context, random_state=4)
    same = [n for n, v in weights(one).items() if np.array_equal(weights(other)[n], v)]
    # The projections start as the identity and learn only from a tail's ids, if the text has any.
    assert set(same) <= {"head.projections"}


def test_a_one_shot_iterator_gives_the_weights_of_a_list(cell):
    one, other = fitted_once(**cell), fit(cell, texts=iter(TEXTS))
    for name, values in weights(one).items():
        np.testing.assert_array_equal(weights(other)[name], values, err_msg=name)


def test_the_users_random_numbers_are_left_alone(cell, tmp_path):
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    lm = fit(cell)
    lm.generate(["a", ""])
    list(lm.generate_stream("a"))
    lm.score(TEXTS)
    lm.save(tmp_path / "model")
    LSTMLanguageModel.load(tmp_path / "model", device="cpu")
    assert random.getstate() == before[0]
    np.testing.assert_equal(np.random.get_state(), before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
