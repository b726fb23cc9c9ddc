"""Lanes and windows: every token counts exactly once, whatever is read side by side."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstmlm.batches import (
    MIN_PIECE,
    PIECE_WINDOWS,
    Corpus,
    Rows,
    _permutation,
    cut_in_lanes,
    cut_in_pieces,
    group_rows,
    position_type,
    rows_of,
    shuffled_groups,
    sort_rows,
    walk,
)

END = 0

# Tokens of a text, its end mark included: mostly short ones, some that are cut in pieces.
lengths = st.lists(
    st.integers(1, 40) | st.integers(MIN_PIECE - 2, 4 * MIN_PIECE), min_size=1, max_size=12
)
short_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)
widths = st.integers(1, 60)
lanes = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


def corpus_of(lengths):
    """Return a corpus whose ids are all different but for the end marks."""
    texts, first = [], 1
    for length in lengths:
        texts.append(np.arange(first, first + length - 1, dtype=np.int32))
        first += length - 1
    return Corpus.of(texts, END)


def times_counted(corpus, groups):
    """Return how often each position of a corpus is counted in a walk through groups of rows."""
    times = np.zeros(len(corpus.ids), dtype=np.int64)
    for rows, width, first in groups:
        for window in walk(rows, width, first=first):
            np.add.at(times, window.positions[window.counted], 1)
    return times


# ---- Corpus ----


@given(short_lengths)
def test_a_corpus_is_an_end_mark_then_texts_with_an_end_mark_each(lengths):
    corpus = corpus_of(lengths)
    assert corpus.ids[0] == END
    assert corpus.begins[0] == 1
    assert corpus.ends.tolist() == [*corpus.begins[1:].tolist(), len(corpus.ids)]
    assert (corpus.ends - corpus.begins).tolist() == lengths
    assert corpus.n_texts == len(lengths)
    assert corpus.n_tokens == sum(lengths) == len(corpus.ids) - 1
    seen = 0
    for begin, end, length in zip(corpus.begins, corpus.ends, lengths, strict=True):
        text = corpus.ids[begin:end].tolist()
        assert text == [*range(seen + 1, seen + length), END]
        assert corpus.ids[begin - 1] == END  # what the first token is predicted from
        seen += length - 1


def test_the_empty_text_is_its_end_mark():
    corpus = Corpus.of([np.array([], dtype=np.int32)], END)
    assert corpus.ids.tolist() == [END, END]
    assert corpus.ids.dtype == np.int32
    assert (corpus.begins.tolist(), corpus.ends.tolist()) == ([1], [2])


@given(short_lengths)
def test_a_stream_is_one_range_of_the_same_tokens(lengths):
    corpus = corpus_of(lengths)
    stream = corpus.as_stream()
    assert (stream.begins.tolist(), stream.ends.tolist()) == ([1], [len(corpus.ids)])
    assert stream.ids is corpus.ids
    assert stream.n_tokens == corpus.n_tokens


def test_take():
    corpus = corpus_of([3, 1, 5])
    taken = corpus.take(np.array([2, 0]))
    assert taken.begins.tolist() == [5, 1]
    assert taken.ends.tolist() == [10, 4]


# ---- held-out text ----


@given(lengths, st.floats(0.001, 0.999), seeds)
def test_split_holds_out_whole_texts_of_about_the_fraction(lengths, fraction, seed):
    corpus = corpus_of(lengths)
    kept, heldout = corpus.split(fraction, np.random.default_rng(seed))
    wanted = round(corpus.n_tokens * fraction)
    if heldout is None:
        assert corpus.n_tokens < 20 or wanted < 1
        assert kept is corpus
        return
    assert kept.ids is heldout.ids is corpus.ids
    assert kept.n_tokens + heldout.n_tokens == corpus.n_tokens
    assert kept.n_tokens >= 1
    if corpus.n_texts == 1:
        assert (kept.begins, kept.ends) == (corpus.begins, heldout.begins)
        assert (heldout.ends, heldout.n_tokens) == (corpus.ends, wanted)
        return
    ranges = [set(zip(part.begins, part.ends, strict=True)) for part in (kept, heldout, corpus)]
    assert ranges[0] | ranges[1] == ranges[2]
    assert kept.begins.tolist() == sorted(kept.begins)
    assert heldout.begins.tolist() == sorted(heldout.begins)
    # Whole texts until there is enough, but never more than half of them.
    assert heldout.n_tokens - max(lengths) < wanted
    assert heldout.n_tokens >= wanted or heldout.n_texts == corpus.n_texts // 2


@given(lengths, st.floats(0.01, 0.9), st.integers(0, 9), st.integers(1, 9))
def test_types_are_those_of_the_texts(lengths, fraction, seed, read_at_once):
    corpus = corpus_of(lengths)
    ids = np.random.default_rng(seed).integers(0, 50, size=len(corpus.ids), dtype=np.int32)
    corpus = replace(corpus, ids=ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstmlm.batches.READ_IDS", read_at_once)
        for part in corpus.split(fraction, np.random.default_rng(seed)):
            if part is None:
                continue
            ranges = zip(part.begins, part.ends, strict=True)
            expected = {int(i) for begin, end in ranges for i in ids[begin:end]}
            assert set(np.flatnonzero(part.types(50)).tolist()) == expected


def test_split_holds_out_near_the_fraction_of_many_texts():
    rng = np.random.default_rng(0)
    corpus = corpus_of(rng.integers(1, 50, size=5000).tolist())
    kept, heldout = corpus.split(0.02, np.random.default_rng(1))
    share = heldout.n_tokens / corpus.n_tokens
    assert share == pytest.approx(0.02, abs=50 / corpus.n_tokens)  # at most a text's length more
    assert not set(kept.begins) & set(heldout.begins)


def test_split_depends_on_the_generator_alone():
    corpus = corpus_of([10] * 50)
    generators = [np.random.default_rng(seed) for seed in (1, 1, 2)]
    first, again, other = (corpus.split(0.2, rng)[1].begins.tolist() for rng in generators)
    assert first == again != other


@pytest.mark.parametrize("lengths", [[19], [10, 9], [1] * 19])
def test_split_shares_nothing_of_too_little(lengths):
    corpus = corpus_of(lengths)
    assert corpus.split(0.5, np.random.default_rng(0)) == (corpus, None)


# ---- rows ----


@given(lengths, lanes, st.integers(0, 3000))
def test_lanes_keep_short_texts_whole_and_cut_long_ones_evenly(lengths, n_lanes, warm_up):
    corpus = corpus_of(lengths)
    rows = cut_in_lanes(corpus, n_lanes, warm_up)
    most = max(-(-corpus.n_tokens // n_lanes), MIN_PIECE)
    for begin, end in zip(corpus.begins, corpus.ends, strict=True):
        here = np.flatnonzero((rows.ends > begin) & (rows.ends <= end))
        counted, ends = rows.counted[here], rows.ends[here]
        assert counted.tolist() == [begin, *ends[:-1].tolist()]  # no gap, nothing twice
        assert ends[-1] == end
        sizes = ends - counted
        assert sizes.max() <= most
        assert sizes.max() - sizes.min() <= 1
        assert len(here) == -(-(end - begin) // most)
        assert rows.begins[here].tolist() == [max(begin, c - warm_up) for c in counted]


def test_no_text_shorter_than_a_piece_is_cut():
    corpus = corpus_of([MIN_PIECE, MIN_PIECE + 1])
    rows = cut_in_lanes(corpus, n_lanes=100, warm_up=10)
    assert rows.begins.tolist() == [1, 1001, 1491]
    assert rows.counted.tolist() == [1, 1001, 1501]
    assert rows.ends.tolist() == [1001, 1501, 2002]


@pytest.mark.parametrize(("n_tokens", "n_groups"), [(11_900, 1), (12_100, 2), (40_000, 6)])
def test_pieces_of_a_stream_fill_all_lanes_and_stay_long(n_tokens, n_groups):
    n_lanes, width = 3, 20
    corpus = corpus_of([n_tokens]).as_stream()
    rows = cut_in_pieces(corpus, n_lanes, width)
    assert len(rows.ends) == n_groups * n_lanes
    sizes = rows.ends - rows.counted
    assert sizes.sum() == n_tokens
    if n_groups > 1:
        assert sizes.min() >= PIECE_WINDOWS * width
    assert (rows.counted - rows.begins).tolist() == [0] + [width] * (len(sizes) - 1)


def test_in_each_epoch_a_piece_is_read_beside_others():
    corpus, rng = corpus_of([100_000]).as_stream(), np.random.default_rng(0)
    rows = cut_in_pieces(corpus, 5, 10)
    beside = []
    for _ in range(2):
        groups = [set(group.ends.tolist()) for group in shuffled_groups(rows, 5, 10, rng)]
        assert [len(group) for group in groups] == [5] * 20
        beside.append(groups)
    assert not any(group in beside[1] for group in beside[0])


@given(lengths)
def test_sorted_rows_are_the_same_rows_longest_first(lengths):
    corpus = corpus_of(lengths)
    rows = sort_rows(rows_of(corpus))
    sizes = rows.ends - rows.begins
    assert sizes.tolist() == sorted(lengths, reverse=True)
    assert sorted(rows.begins) == corpus.begins.tolist()
    ties = [(-size, begin) for size, begin in zip(sizes, rows.begins, strict=True)]
    assert ties == sorted(ties)  # equal ones as they stand
    assert rows.counted.tolist() == rows.begins.tolist()


@given(lengths, lanes, widths)
def test_groups_are_full_and_lose_nothing(lengths, n_rows, width):
    rows = sort_rows(rows_of(corpus_of(lengths)))
    groups = list(group_rows(rows, n_rows, width))
    assert np.concatenate([group.begins for group in groups]).tolist() == rows.begins.tolist()
    assert np.concatenate([group.ends for group in groups]).tolist() == rows.ends.tolist()
    for number, group in enumerate(groups):
        first_window = np.minimum(group.ends - group.begins, width)
        assert len(group.begins) * first_window.max() <= n_rows * width
        assert len(group.begins) >= n_rows or number == len(groups) - 1


# ---- walks ----


@given(lengths, widths, st.none() | st.integers(1, 90))
def test_a_walk_reads_each_row_from_its_begin_to_its_end(lengths, width, first):
    rows = sort_rows(rows_of(corpus_of(lengths)))
    reads = [[] for _ in lengths]
    live = len(lengths)
    for number, window in enumerate(walk(rows, width, first=first)):
        n_rows, n_tokens = window.positions.shape
        assert window.counted.shape == window.positions.shape
        assert window.fresh == (number == 0)
        assert 1 <= n_rows <= live
        assert n_tokens <= ((first if number == 0 else None) or width)
        live = n_rows
        assert (window.positions < rows.ends[:live, None]).all()  # padding stays inside its row
        for row in range(live):
            counted = window.counted[row]
            assert counted[0], "a row whose end was reached is read on"
            assert (np.diff(counted.astype(int)) <= 0).all()
            reads[row] += window.positions[row, counted].tolist()
    for read, begin, end in zip(reads, rows.begins, rows.ends, strict=True):
        assert read == list(range(begin, end))


def test_a_walk_by_hand():
    rows = Rows(np.array([1, 9]), np.array([6, 12]), np.array([3, 9]))
    first, second = walk(rows, 3, first=2)
    assert first.positions.tolist() == [[1, 2], [9, 10]]
    assert first.counted.tolist() == [[False, False], [True, True]]
    assert second.positions.tolist() == [[3, 4, 5], [11, 11, 11]]
    assert second.counted.tolist() == [[True, True, True], [True, False, False]]
    assert (first.fresh, second.fresh) == (True, False)


@given(lengths, lanes, lanes, widths, st.integers(1, 60), st.integers(0, 2000), seeds)
def test_an_epoch_counts_every_token_exactly_once(
    lengths, n_lanes, n_rows, width, first, warm_up, seed
):
    for corpus in (corpus_of(lengths), corpus_of(lengths).as_stream()):
        for rows in (
            cut_in_lanes(corpus, n_lanes, warm_up),
            cut_in_pieces(corpus, n_lanes, width),
        ):
            groups = shuffled_groups(rows, n_rows, width, np.random.default_rng(seed))
            times = times_counted(corpus, ((group, width, first) for group in groups))
            assert times.tolist() == [0] + [1] * corpus.n_tokens


@given(lengths, lanes, widths, seeds)
def test_a_part_of_a_corpus_counts_its_own_tokens_alone(lengths, n_rows, width, seed):
    corpus = corpus_of(lengths)
    kept, heldout = corpus.split(0.3, np.random.default_rng(seed))
    total = np.zeros(len(corpus.ids), dtype=np.int64)
    for part in filter(None, (kept, heldout)):
        groups = group_rows(sort_rows(rows_of(part)), n_rows, width)
        times = times_counted(part, ((group, width, None) for group in groups))
        assert times.sum() == part.n_tokens
        total += times
    assert total.tolist() == [0] + [1] * corpus.n_tokens


@given(short_lengths, lanes, widths, seeds)
def test_the_same_generator_gives_the_same_groups(lengths, n_rows, width, seed):
    rows = rows_of(corpus_of(lengths))
    once, again = (
        [
            group.begins.tolist()
            for group in shuffled_groups(rows, n_rows, width, np.random.default_rng(seed))
        ]
        for _ in range(2)
    )
    assert once == again


def test_epochs_are_read_in_different_orders():
    rows, rng = rows_of(corpus_of([7] * 200)), np.random.default_rng(0)
    first, second = (
        [begin for group in shuffled_groups(rows, 4, 10, rng) for begin in group.begins]
        for _ in range(2)
    )
    assert sorted(first) == sorted(second)
    assert first != second


# ---- many texts in little memory ----


@given(st.integers(0, 3000), seeds)
def test_half_the_memory_draws_the_same_order(n, seed):
    ours, numpys = np.random.default_rng(seed), np.random.default_rng(seed)
    assert _permutation(n, ours).tolist() == numpys.permutation(n).tolist()
    assert ours.random() == numpys.random()


def test_positions_are_kept_in_half_the_memory_while_they_fit():
    assert position_type(2**31 - 1) == np.int32
    assert position_type(2**31) == np.int64


@given(short_lengths, widths)
def test_windows_at_the_end_of_the_largest_positions_dont_overflow(lengths, width):
    bounds = np.cumsum([0, *lengths])
    bounds += np.iinfo(np.int32).max - bounds[-1]
    large, small = (Corpus.bounded(np.zeros(0), bounds.astype(t)) for t in (np.int64, np.int32))
    windows = [list(walk(sort_rows(rows_of(corpus)), width)) for corpus in (large, small)]
    for wide, narrow in zip(*windows, strict=True):
        assert narrow.positions.dtype == np.int64
        assert narrow.positions.tolist() == wide.positions.tolist()
        assert narrow.counted.tolist() == wide.counted.tolist()


def test_long_texts_among_the_largest_positions_are_cut_without_overflow():
    bounds = np.array([0, 5, 2_000_000_005, 2_000_000_010], dtype=np.int32)
    rows = cut_in_lanes(Corpus.bounded(np.zeros(0), bounds), n_lanes=4, warm_up=10)
    fourth = 500_000_000  # of the long text, which is cut into as many pieces
    starts = [0, *(5 + fourth * i for i in range(4)), 2_000_000_005]
    assert rows.counted.tolist() == starts
    assert rows.ends.tolist() == [*starts[1:], 2_000_000_010]
    assert rows.begins.tolist() == [0, 5, *(start - 10 for start in starts[2:5]), starts[5]]


def test_a_corpus_of_short_texts_is_neither_copied_nor_cut():
    corpus = corpus_of([3] * 1000)
    assert corpus.begins.base is corpus.ends.base is not None
    rows = cut_in_lanes(corpus, 4, warm_up=10)
    assert rows.begins is rows.counted is corpus.begins
    assert rows.ends is corpus.ends


@pytest.mark.parametrize("n_texts", [1, 7, 1000])
@pytest.mark.parametrize("most", [700, 5_000, 10_000])
def test_a_sample_is_all_or_about_as_much_as_is_wanted_from_all_over(n_texts, most):
    ids = np.arange(10_001, dtype=np.int32)
    bounds = np.linspace(1, 10_001, n_texts + 1, dtype=np.int64)
    sample = Corpus.bounded(ids, bounds).sample(most)
    assert 0.8 * most <= len(sample) <= 1.05 * most
    assert len(set(sample.tolist())) == len(sample)
    assert np.abs(np.quantile(sample, [0.25, 0.5, 0.75]) - [2500, 5000, 7500]).max() < 200


def test_a_sample_leaves_out_what_is_held_out():
    ids = np.arange(2_001, dtype=np.int32)
    corpus = Corpus.bounded(ids, np.arange(1, 2_002, 20))
    kept, held_out = corpus.split(0.1, np.random.default_rng(0))
    both = np.concatenate([kept.sample(10**6), held_out.sample(10**6)])
    assert len(kept.sample(10**6)) == kept.n_tokens
    assert sorted(both.tolist()) == list(range(1, 2_001))
