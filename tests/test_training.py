import copy
import itertools
import math
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TEXTS, network, unfitted

from lstmlm import DivergenceError, LSTMLanguageModel
from lstmlm.batches import Corpus, rows_of, sort_rows, walk
from lstmlm.config import TrainConfig
from lstmlm.estimator import language_model
from lstmlm.estimator.given import plan_of
from lstmlm.fitting import Fitted, fit_language_model
from lstmlm.model import RecurrentLM
from lstmlm.optim import FINAL_RATE, rate_at
from lstmlm.progress import TrainingProgress
from lstmlm.text import END
from lstmlm.training import Report, heldout, train, window_loss
from lstmlm.training.loop import Trainer, run
from lstmlm.training.loop.last import read_last

BOTH_CONTEXTS = pytest.mark.parametrize("context", ["document", "stream"])

# Trained on the first, a network soon thinks less and less of the second.
ALTERNATING, OTHERWISE = ["abababab"] * 20, ["bbaa", "aabb"]


def mean_nats(lm: LSTMLanguageModel, texts: list[str]) -> float:
    return math.log(lm.perplexity(texts))


def corpus_of(n_texts: int = 12, length: int = 7, seed: int = 0) -> Corpus:
    rng = np.random.default_rng(seed)
    texts = [rng.integers(1, 9, rng.integers(0, length + 1)) for _ in range(n_texts)]
    return Corpus.of([text.astype(np.int32) for text in texts], END)


def pace(**settings: object) -> TrainConfig:
    given = {"max_epochs": 4, "batch_size": 3, "bptt_length": 5, "learning_rate": 0.01}
    fixed = {"precision": "float32", "validation_fraction": 0.1, "input_noise": 0.0}
    return TrainConfig(**fixed | given | {"weight_decay": 0.01} | settings)


def weights_of(model: RecurrentLM) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


# ---- it learns ----


@BOTH_CONTEXTS
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("output", ["softmax", "adaptive"])
def test_a_pattern_is_learned(context, precision, output):
    lm = LSTMLanguageModel(
        tokenizer="char",
        context=context,
        precision=precision,
        output=output,
        hidden_size=32,
        dropout=0,
        dropout_input=0,
        learning_rate=0.01,
        batch_size=4,
        bptt_length=20,
        max_epochs=20,
        device="cpu",
        random_state=0,
    ).fit(["abcdefgh"] * 100)
    assert lm.perplexity(["abcdefgh"] * 3) < 1.05  # 1 is certainty; 9 symbols by chance give 9
    assert lm.predict(["", "abc"]).tolist()[1] == "defgh"


@BOTH_CONTEXTS
def test_a_pattern_is_learned_with_the_settings_left_alone(context):
    lm = LSTMLanguageModel(tokenizer="char", context=context, device="cpu", random_state=0)
    assert lm.fit(["abcdefgh"] * 100).perplexity(["abcdefgh"] * 3) < 1.05


def test_bf16_computes_otherwise_and_keeps_the_weights_in_float32():
    exact, rough = (
        unfitted(tokenizer="char", precision=precision, max_epochs=1).fit(TEXTS)
        for precision in ("float32", "bf16")
    )
    for one, other in zip(exact.module_.parameters(), rough.module_.parameters(), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert not torch.equal(one, other)
    # A few steps of the same size: what bf16 rounds (0.4 %) hardly shows in the loss.
    assert mean_nats(rough, TEXTS) == pytest.approx(mean_nats(exact, TEXTS), rel=0.02)


# ---- records ----


@BOTH_CONTEXTS
def test_history_has_a_record_an_epoch(context):
    lm = unfitted(tokenizer="char", context=context, max_epochs=3, learning_rate=0.01)
    lm.set_params(early_stopping=True).fit(TEXTS, validation=OTHERWISE)
    n_tokens = sum(len(text) + 1 for text in TEXTS)
    assert lm.n_epochs_ == len(lm.history_) == 3
    assert [record.epoch for record in lm.history_] == [1, 2, 3]
    assert [record.tokens for record in lm.history_] == [n_tokens] * 3
    seconds = [record.seconds for record in lm.history_]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    losses = [record.train_loss for record in lm.history_]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < 1.2 * math.log(lm.vocab_size_)  # chance, and some for a wild start
    rates = [0.01 * rate_at(epoch / 3, 0, epoch) for epoch in (1, 2, 3)]
    assert [record.learning_rate for record in lm.history_] == pytest.approx(rates)


@BOTH_CONTEXTS
def test_the_held_out_loss_is_what_scoring_says_of_those_texts(context):
    lm = unfitted(tokenizer="char", context=context, max_epochs=2)
    lm.fit(TEXTS, validation=["the cat", "", "明月 🙂?"])
    said = lm.history_[-1].heldout_loss
    scored = lm.score_samples(["the cat", "", "明月 🙂?"])
    # The same float32 sums in another batch.
    assert said == pytest.approx(-scored.sum() / (7 + 0 + 5 + 3), rel=1e-5)


def test_held_out_tokens_of_a_type_that_training_never_met_do_not_count():
    lm = unfitted(tokenizer="word", max_epochs=2).set_params(early_stopping=True)
    lm.fit(["a b c d"] * 30, validation=["a b zebra c", "yak"])
    unknown = lm.tokenizer_.unknown_id
    nats = []
    for text, scored in zip(["a b zebra c", "yak"], lm.pipe(["a b zebra c", "yak"]), strict=True):
        (ids,) = lm.tokenizer_.encode([text])
        known = np.append(ids != unknown, True)
        nats += (-scored.log_probs[known]).tolist()
    assert len(nats) == 3 + 2
    best = min(epoch.heldout_loss for epoch in lm.history_)
    assert best == pytest.approx(np.mean(nats), rel=1e-5)


def test_without_early_stopping_nothing_is_held_out():
    lm = unfitted(tokenizer="char", max_epochs=2).fit(TEXTS)
    assert [record.heldout_loss for record in lm.history_] == [None, None]
    assert lm.history_[0].tokens == sum(len(text) + 1 for text in TEXTS)


def test_reports_follow_the_budget():
    corpus = corpus_of(n_texts=60)
    reports = list(train(network(), corpus, None, pace(max_epochs=3), seed=0))
    progress = [report.progress for report in reports]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert progress[0] < 0.2
    for report in reports:
        assert report.progress == report.tokens / (3 * corpus.n_tokens)
        rate = rate_at(report.progress, 0, report.tokens / corpus.n_tokens)  # few steps
        assert report.learning_rate == 0.01 * rate
    assert reports[-1].learning_rate == pytest.approx(0.01 * FINAL_RATE)
    assert [report.epoch for report in reports if report.ended] == [1, 2, 3]


@pytest.mark.parametrize("length", [3, 2500], ids=["short texts", "texts cut in lanes"])
def test_an_epoch_trains_on_every_token_once(length):
    corpus = corpus_of(n_texts=4, length=length)
    reports = list(train(network(), corpus, None, pace(max_epochs=2, bptt_length=50), seed=0))
    tokens = [report.ended.tokens for report in reports if report.ended]
    assert tokens == [corpus.n_tokens] * 2


def test_no_epochs_leave_the_first_weights():
    model = network()
    before = weights_of(model)
    assert list(train(model, corpus_of(), None, pace(max_epochs=0), seed=0)) == []
    assert all(map(torch.equal, weights_of(model), before))
    assert not model.training


# ---- early stopping ----


def overfitted(**params: object) -> LSTMLanguageModel:
    lm = unfitted(tokenizer="char", max_epochs=60, dropout=0, dropout_input=0)
    return lm.set_params(**params).fit(ALTERNATING, validation=OTHERWISE)


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_without_a_better_loss_and_keeps_the_best_weights(patience):
    lm = overfitted(early_stopping=True, n_iter_no_change=patience)
    losses = [record.heldout_loss for record in lm.history_]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + patience < 60
    assert losses[-1] > losses[best]
    # The same float32 sums in another batch.
    assert mean_nats(lm, OTHERWISE) == pytest.approx(losses[best], rel=1e-5)


def test_without_early_stopping_the_last_weights_are_kept():
    lm = overfitted(early_stopping=False, max_epochs=12)
    losses = [record.heldout_loss for record in lm.history_]
    assert len(losses) == 12
    assert losses[-1] > min(losses)
    assert mean_nats(lm, OTHERWISE) == pytest.approx(losses[-1], rel=1e-5)


def test_an_equal_loss_is_no_better_one():
    lm = overfitted(early_stopping=True, n_iter_no_change=2, learning_rate=0.0)
    losses = [record.heldout_loss for record in lm.history_]
    assert losses == [losses[0]] * 3


# ---- held-out text is read last ----


def threes_last(
    model: RecurrentLM,
    *,
    seconds: float | None = None,
    heldout_last: bool = True,
    **settings: object,
) -> Iterator[Report]:
    """Train on ones and twos with threes held out, and last of all on these."""
    ones = Corpus.of([np.array([1, 2, 1], dtype=np.int32)] * 20, END)
    config = pace(early_stopping=True, **settings)
    return train(model, ones, THREES, config, seed=0, seconds=seconds, heldout_last=heldout_last)


THREES = Corpus.of([np.array([3, 3, 3, 3], dtype=np.int32)] * 20, END)


def nats_of(model: RecurrentLM, corpus: Corpus) -> float:
    return heldout.tally_rows(model, corpus.ids, rows_of(corpus))[0].nats


def test_held_out_text_is_learned_from_in_the_end():
    model, without = network(), network()
    *_, report = threes_last(model)
    *_, ended = threes_last(without, heldout_last=False)
    assert nats_of(model, THREES) < 0.97 * nats_of(without, THREES)
    assert not model.training
    assert [replace(epoch, seconds=0) for epoch in report.history] == [
        replace(epoch, seconds=0) for epoch in ended.history
    ]
    assert (report.epoch, report.tokens, report.progress) == (4, ended.tokens, 1.0)


def test_a_last_reading_that_is_broken_off_leaves_the_best_weights():
    model = network()
    reports, best = threes_last(model), {}
    for report in reports:
        if len(report.history) == 4 and report.ended is None:
            break
        best = report.best
    begun = weights_of(model)
    next(reports)
    assert not all(map(torch.equal, weights_of(model), begun))  # it is under way
    reports.close()
    assert all(map(torch.equal, weights_of(model), best.values()))
    assert not model.training


def test_no_epochs_read_no_held_out_text():
    model = network()
    before = weights_of(model)
    assert list(threes_last(model, max_epochs=0)) == []
    assert all(map(torch.equal, weights_of(model), before))


@BOTH_CONTEXTS
def test_fit_reads_the_text_that_it_held_out_itself(context, monkeypatch):
    read = []

    def counting(trainer: Trainer) -> Iterator[Report]:
        read.append(trainer.heldout.corpus.n_tokens)
        yield from read_last(trainer)

    monkeypatch.setattr(run, "read_last", counting)
    lm = unfitted(tokenizer="char", context=context, max_epochs=2).set_params(early_stopping=True)
    texts = ["ab " * 20] * 10
    lm.fit(texts)
    whole = sum(len(text) + 1 for text in texts)
    assert read == [whole - lm.history_[0].tokens]
    lm.fit(texts, validation=["ba"])  # that is another's
    assert len(read) == 1


@pytest.mark.parametrize(
    ("n_texts", "passes", "last"), [(1, 0.3, 1), (1, 2.6, 3), (1, 30.0, 4), (5, 30.0, 1)]
)
def test_the_end_of_a_stream_is_read_oftener_than_other_texts(n_texts, passes, last):
    corpus = corpus_of(n_texts)
    assert heldout.HeldOut(corpus, corpus, network(), 5).last_passes(passes) == last


def test_the_last_reading_is_part_of_the_seconds(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 100)
    reports = list(threes_last(network(), max_epochs=None, n_iter_no_change=10**6, seconds=20.0))
    ended = max(report.seconds for report in reports if report.ended)
    assert ended < reports[-1].seconds < 20.3  # a step looks at the clock several times


# ---- ending early ----


def falling_then_rising(model: RecurrentLM) -> tuple[Iterator[Report], list[torch.Tensor]]:
    """Train until the held-out loss has risen: the reports to come, and the best weights."""
    ones, others = (
        Corpus.of([np.array(text, dtype=np.int32)] * 20, END)
        for text in ([1, 2, 1, 2, 1, 2], [2, 2, 1, 1])
    )
    config = pace(max_epochs=100, n_iter_no_change=100, early_stopping=True)
    reports, best, losses = train(model, ones, others, config, seed=0), [], []
    for report in reports:
        if report.ended:
            losses.append(report.ended.heldout_loss)
            if losses[-1] == min(losses):
                best = [weight.clone() for weight in report.best.values()]
            elif min(losses) < losses[0]:
                break
    return reports, best


def test_ceasing_to_iterate_leaves_the_best_weights():
    model = network()
    reports, best = falling_then_rising(model)
    last = weights_of(model)
    assert model.training
    reports.close()
    assert all(map(torch.equal, weights_of(model), best))
    assert not any(map(torch.equal, weights_of(model), last))
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def interrupting(when: Callable[[Report], bool]) -> Callable[[Report, Fitted], None]:
    """Return a watch that presses Ctrl-C."""

    def watch(report: Report, fitted: Fitted) -> None:
        if when(report):
            signal.raise_signal(signal.SIGINT)

    return watch


def interrupted(when: Callable[[Report], bool], **params: object) -> tuple[Fitted, str]:
    """Return what a fit leaves that is interrupted, and its warning."""
    # Short windows, so that an epoch has reports before its last.
    small = {"max_epochs": 60, "dropout": 0, "dropout_input": 0, "batch_size": 1, "bptt_length": 6}
    lm = unfitted(tokenizer="char", **small, **params)
    with pytest.warns(UserWarning, match=r"^fit was interrupted") as caught:
        fitted = fit_language_model(
            ALTERNATING,
            OTHERWISE,
            plan_of(lm),
            device=torch.device("cpu"),
            seed=0,
            watch=interrupting(when),
        )
    assert len(caught) == 1
    return fitted, str(caught[0].message)


def held_out_nats(fitted: Fitted) -> float:
    lm = unfitted(tokenizer="char")
    lm._adopt(fitted)
    return mean_nats(lm, OTHERWISE)


def test_an_interrupt_keeps_the_best_weights_and_says_so():
    fitted, message = interrupted(
        lambda report: report.epoch == 10, early_stopping=True, n_iter_no_change=60
    )
    losses = [record.heldout_loss for record in fitted.history]
    best = losses.index(min(losses))
    assert len(losses) == 9
    assert best < 8  # or else the best weights would be the last ones
    assert message == (
        f"fit was interrupted in epoch 10; the best weights so far, those after epoch {best + 1}, "
        "are kept."
    )
    assert held_out_nats(fitted) == pytest.approx(losses[best], rel=1e-5)  # other float32 batches


def test_an_interrupt_in_the_first_epoch_keeps_what_was_reached():
    fitted, message = interrupted(lambda report: report.tokens > 0, early_stopping=True)
    assert message == "fit was interrupted in epoch 1; the weights it had reached are kept."
    assert fitted.history == []
    untrained = unfitted(tokenizer="char", max_epochs=0).fit(ALTERNATING)
    assert held_out_nats(fitted) != mean_nats(untrained, OTHERWISE)


def test_an_interrupt_without_early_stopping_keeps_what_was_reached():
    fitted, message = interrupted(lambda report: report.epoch == 10, early_stopping=False)
    losses = [record.heldout_loss for record in fitted.history]
    assert message == "fit was interrupted in epoch 10; the weights it had reached are kept."
    assert held_out_nats(fitted) != pytest.approx(min(losses), rel=1e-3)


def test_an_interrupted_estimator_is_fitted_and_the_warning_points_at_the_call(monkeypatch):
    class Interrupting(TrainingProgress):
        def __call__(self, report: Report) -> None:
            super().__call__(report)
            if report.epoch == 2:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(language_model, "TrainingProgress", Interrupting)
    lm = unfitted(tokenizer="char")
    message = r"^fit was interrupted in epoch 2; the weights it had reached are kept\.$"
    with pytest.warns(UserWarning, match=message) as caught:
        lm.fit(TEXTS)
    assert caught[0].filename == __file__
    assert lm.n_epochs_ == 1
    assert lm.score(TEXTS) > -lm.vocab_size_  # it has learned something


# ---- a budget of seconds ----


def test_max_seconds_ends_the_fit_with_the_rate_fallen(monkeypatch):
    """By a clock that ticks once a look: a busy machine's may reach the end between two epochs."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 1000)
    lm = unfitted(tokenizer="char", max_epochs="auto", max_seconds=1.0, early_stopping=True)
    lm.set_params(n_iter_no_change=10**6).fit(TEXTS)
    assert next(ticks) < 1050
    assert lm.params_["max_epochs"] is None
    assert lm.n_epochs_ >= 1
    assert lm.history_[-1].learning_rate <= 0.021 * FINAL_RATE  # less after many steps


def test_held_out_text_is_part_of_the_seconds(monkeypatch):
    """A clock that ticks once a look, and by two seconds for held-out text."""
    ticks = itertools.count()
    reading = 0.0

    def clock() -> float:
        return next(ticks) / 100 + reading

    def slow_tally(*args: object, **options: object) -> object:
        nonlocal reading
        reading += 2
        return tally(*args, **options)

    tally = heldout.tally_rows
    monkeypatch.setattr(heldout, "tally_rows", slow_tally)
    monkeypatch.setattr(time, "monotonic", clock)
    config = pace(max_epochs=None, early_stopping=True, n_iter_no_change=10**6)
    corpus = corpus_of(n_texts=60)
    reports = list(train(network(), corpus, corpus_of(), config, seed=0, seconds=20.0))
    ended = [report.ended for report in reports if report.ended]
    assert len(ended) > 2
    assert 16 < ended[-1].seconds < 20.1  # a step looks at the clock several times
    assert reports[-1].progress == 1.0
    assert reports[-1].learning_rate == pytest.approx(0.01 * FINAL_RATE)
    rates = [report.learning_rate for report in reports]
    assert max(rates) == 0.01
    assert rates[rates.index(0.01) :] == sorted(rates[rates.index(0.01) :], reverse=True)


def test_seconds_that_are_over_at_once_are_said():
    lm = unfitted(tokenizer="char", max_epochs="auto", max_seconds=1e-9)
    message = "max_seconds=1e-09 were over before the first training step; the weights are random."
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        lm.fit(TEXTS)
    assert lm.history_ == []
    assert math.isfinite(lm.score(TEXTS))


def test_whichever_budget_is_first_ends_the_fit():
    lm = unfitted(tokenizer="char", max_epochs=2, max_seconds=600.0).fit(TEXTS)
    assert lm.n_epochs_ == 2


# ---- a loss that is not finite ----


def test_divergence_says_where_and_what_to_try_and_leaves_the_old_model():
    lm = unfitted(tokenizer="char", precision="bf16").fit(TEXTS)
    before = lm.score_samples(TEXTS).tolist()
    lm.set_params(learning_rate=1e30, max_epochs=3)
    with pytest.raises(DivergenceError) as caught:
        lm.fit(TEXTS)
    assert str(caught.value) == (
        "the loss became nan by step 10 of epoch 1, at a learning rate of 1e+30. Try a lower "
        "learning_rate (for example 3e+29), a lower clip_norm (now 0.5), or precision='float32'."
    )
    assert isinstance(caught.value, FloatingPointError)
    assert lm.score_samples(TEXTS).tolist() == before


@pytest.mark.parametrize(
    ("early_stopping", "validation"), [(True, TEXTS[:2]), (False, TEXTS[:2]), (False, None)]
)
def test_a_last_step_that_diverges_is_not_missed(early_stopping, validation):
    lm = unfitted(tokenizer="char", learning_rate=1e30, batch_size=100, bptt_length=100)
    lm.set_params(max_epochs=1, early_stopping=early_stopping)  # a single step
    with pytest.raises(DivergenceError) as caught:
        lm.fit(TEXTS[:4], validation=validation)
    assert re.match(r"the loss became (nan|inf) by step 1 of epoch 1, ", str(caught.value))
    assert not hasattr(lm, "module_")


def test_a_fit_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unfitted(tokenizer="word", max_epochs=1).fit(TEXTS)


def test_training_leaves_its_corpus_and_settings_alone():
    corpus, config = corpus_of(), pace()
    before = copy.deepcopy((corpus.ids, corpus.begins, corpus.ends, config))
    list(train(network(), corpus, corpus_of(seed=1), config, seed=0))
    np.testing.assert_equal((corpus.ids, corpus.begins, corpus.ends), before[:3])
    assert config == before[3]


# ---- penalties ----


def penalty_of(config: TrainConfig, noise: torch.Generator | None = None) -> float:
    corpus, model = corpus_of(), network(dropout=0.5)
    rows = sort_rows(rows_of(corpus))
    (window,) = walk(rows, 100)
    start = model.zero_state(len(rows.begins))
    return window_loss(model, corpus.ids, window, start, config, noise).penalty.item()


def outputs_of(model: RecurrentLM, corpus: Corpus) -> list[torch.Tensor]:
    """Return the last layer's outputs of each text alone, shape (T, H)."""
    outputs = []
    for begin, end in zip(corpus.begins, corpus.ends, strict=True):
        ids = torch.from_numpy(corpus.ids[begin - 1 : end - 1].astype(np.int64))
        outputs.append(model.read(ids[None], model.zero_state(1))[0][0].detach())
    return outputs


def test_penalties_are_mean_squares_summed_over_the_tokens():
    outputs = outputs_of(network(), corpus_of())
    squares = sum(h.square().mean(-1).sum().item() for h in outputs)
    changes = sum((h[1:] - h[:-1]).square().mean(-1).sum().item() for h in outputs)
    # Sums of some dozens of float32 numbers.
    assert penalty_of(pace(activation_penalty=2.0)) == pytest.approx(2 * squares, rel=1e-5)
    assert penalty_of(pace(temporal_penalty=3.0)) == pytest.approx(3 * changes, rel=1e-5)
    both = pace(activation_penalty=2.0, temporal_penalty=3.0)
    assert penalty_of(both) == pytest.approx(2 * squares + 3 * changes, rel=1e-5)
    assert penalty_of(pace()) == 0


def test_the_activation_penalty_is_on_dropped_outputs_and_the_temporal_one_is_not():
    noise = torch.Generator().manual_seed(0)
    dropped = penalty_of(pace(activation_penalty=1.0), noise)
    # Half of the features are zeroed and the others doubled: their squares are about doubled.
    assert dropped > 1.3 * penalty_of(pace(activation_penalty=1.0))
    temporal = pace(temporal_penalty=1.0)
    assert penalty_of(temporal, noise.manual_seed(1)) != penalty_of(temporal)  # inner layers drop


@pytest.mark.parametrize("penalty", ["activation_penalty", "temporal_penalty"])
def test_a_penalty_makes_outputs_smaller_and_is_not_part_of_the_loss_shown(penalty):
    def size(lm: LSTMLanguageModel) -> float:
        corpus = Corpus.of(lm.tokenizer_.encode(TEXTS), END)
        outputs = outputs_of(lm.module_, corpus)
        if penalty == "temporal_penalty":
            outputs = [h[1:] - h[:-1] for h in outputs]
        return sum(h.square().sum().item() for h in outputs)

    free = unfitted(tokenizer="char", max_epochs=3).fit(TEXTS)
    held = unfitted(tokenizer="char", max_epochs=3, **{penalty: 10.0}).fit(TEXTS)
    assert size(held) < 0.5 * size(free)
    uniform = math.log(free.vocab_size_)
    assert held.history_[0].train_loss < 1.5 * uniform  # the penalty alone is larger than that
