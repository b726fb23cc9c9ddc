"""Foreign tokenizers: used as they are, by everything that uses a tokenizer."""

import copy
import json
import math
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from foreign import MAKERS, byte_fallback, byte_level, spread_ids, unigram, word_level, word_piece
from hypothesis import given, settings
from sklearn.base import clone
from strategies import texts
from tiny import CHINESE, ENGLISH, TEXTS, unfitted
from tokenizers import Tokenizer, pre_tokenizers

from lstmlm import LSTMLanguageModel, ModelFolderError, ParameterError
from lstmlm.storage import workspace, write_corpus
from lstmlm.text import END, ForeignTokenizer, foreign_tokenizer, written_form

ALL = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
SENTENCES = ["the cat sat on the mat", "It's [CLS] 3 o'clock.", "床前明月光 🙂🐈 zq"]
LOSSY = pytest.mark.filterwarnings("ignore:the given tokenizer does not give every text back")


def taken(make) -> ForeignTokenizer:
    return foreign_tokenizer(written_form(make()), "a Tokenizer")


def fit(tokenizer, **params) -> LSTMLanguageModel:
    return unfitted(tokenizer=tokenizer, **{"max_epochs": 1} | params).fit(TEXTS)


# ---- ids ----


@ALL
def test_ids_are_the_backends_own_in_another_numbering(make):
    backend, tokenizer = make(), taken(make)
    assert tokenizer.vocab_size == backend.get_vocab_size() + 1
    for text, ids in zip(SENTENCES, tokenizer.encode(SENTENCES), strict=True):
        expected = backend.encode(text, add_special_tokens=False).ids
        assert ids.tolist() == [tokenizer.ranks[i] for i in expected]
        assert END not in ids


def test_nothing_is_added_to_a_text_nor_cut_off_and_the_given_tokenizer_is_left_alone():
    backend = byte_level()
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    before = backend.to_str()
    lm = fit(backend)
    assert backend.to_str() == before
    assert lm.tokenizer is backend
    (ids,) = lm.tokenizer_.encode([" ".join(ENGLISH)])
    assert lm.tokenizer_.decode(ids) == " ".join(ENGLISH)
    assert "[CLS]" not in lm.tokenizer_.decode(ids)


def test_merges_are_not_dropped_by_chance():
    described = json.loads(byte_level().to_str())
    described["model"]["dropout"] = 0.5
    tokenizer = foreign_tokenizer(json.dumps(described), "x")
    (once,) = tokenizer.encode(["the cat sat on the mat"])
    for (again,) in (tokenizer.encode(["the cat sat on the mat"]) for _ in range(20)):
        assert again.tolist() == once.tolist()


@pytest.mark.parametrize(
    ("make", "unknown"),
    [
        (byte_level, None),
        (word_piece, "[UNK]"),
        (unigram, "<unk>"),
        (byte_fallback, "<unk>"),
        (word_level, "<u>"),
    ],
)
def test_the_unknown_token_is_the_models(make, unknown):
    tokenizer = taken(make)
    expected = None if unknown is None else tokenizer.ranks[make().token_to_id(unknown)]
    assert tokenizer.unknown_id == expected


@pytest.mark.parametrize("make", [byte_level, word_level], ids=lambda make: make.__name__)
def test_ids_with_holes(make):
    dense, spread = taken(make), foreign_tokenizer(spread_ids(make()), "x")
    assert spread.vocab_size == dense.vocab_size
    assert spread.unknown_id == dense.unknown_id
    for text in SENTENCES:
        assert spread.encode([text])[0].tolist() == dense.encode([text])[0].tolist()
        assert spread.decode(spread.encode([text])[0]) == dense.decode(dense.encode([text])[0])
    counts = np.random.default_rng(0).integers(0, 9, dense.vocab_size)
    ordered = spread.reordered(counts)
    assert ordered.ranks[spread.ranks > 0].tolist() == dense.reordered(counts).ranks.tolist()
    assert not ordered.ranks[spread.ranks == 0].any()


def test_a_special_token_that_is_spelled_is_read_as_itself_and_the_end_mark_is_never():
    tokenizer = taken(byte_level)
    (ids,) = tokenizer.encode(["a [CLS] b"])
    assert tokenizer.ranks[tokenizer.backend.token_to_id("[CLS]")] in ids
    assert END not in ids
    assert tokenizer.decode(ids) == "a [CLS] b"


@ALL
def test_long_texts_are_not_cut_where_that_is_not_proven_safe(make, monkeypatch):
    monkeypatch.setattr("lstmlm.text.raw.PIECE_CHARS", 5)
    tokenizer = taken(make)
    assert not tokenizer.has_safe_cuts
    with workspace() as folder:
        corpus = write_corpus(SENTENCES, tokenizer, folder / "ids")
        for begin, end, ids in zip(
            corpus.begins, corpus.ends, tokenizer.encode(SENTENCES), strict=True
        ):
            assert corpus.ids[begin : end - 1].tolist() == ids.tolist()


# ---- spans ----


def test_spans_refer_to_the_original_text_under_a_normaliser():
    text = "  The CÁT sat\ton ½ THE mat "
    (pair,) = taken(word_piece).encode_with_spans([text])
    tokens = [text[start:end] for start, end in pair[1].tolist()]
    assert tokens[:3] == ["The", "CÁT", "sat"]
    assert tokens[-1] == "mat"


# ---- decoding ----


@ALL
@settings(max_examples=40)
@given(text=texts())
def test_what_comes_piece_by_piece_is_the_decoders_own_text(make, text):
    tokenizer = _taken_once(make)
    (ids,) = tokenizer.encode([text])
    decoder = tokenizer.decoder()
    pieces = [decoder.feed(token_id) for token_id in ids.tolist()]
    assert "".join(pieces) + decoder.finish() == tokenizer.decode(ids)


_KEPT = {}


def _taken_once(make):
    return _KEPT.setdefault(make, taken(make))


@pytest.mark.parametrize("make", [byte_level, byte_fallback], ids=lambda make: make.__name__)
def test_no_half_character_comes_out(make):
    tokenizer = taken(make)
    (ids,) = tokenizer.encode(["x👩‍👩‍👧y"])
    decoder = tokenizer.decoder()
    pieces = list(filter(None, map(decoder.feed, ids.tolist())))
    assert "".join(pieces) == "x👩‍👩‍👧y"
    assert "\ufffd" not in "".join(pieces)
    for n_ids in range(len(ids)):
        half = tokenizer.decoder()
        said = "".join(map(half.feed, ids.tolist()[:n_ids]))
        assert "x👩‍👩‍👧y".startswith(said)


@pytest.mark.parametrize(
    ("make", "prompt", "more", "expected"),
    [
        (word_piece, "the cat", "sat on", " sat on"),
        (word_piece, "the cat ", "sat on", "sat on"),
        (word_piece, "", "sat on", "sat on"),
        (word_level, "the cat", "sat on", " sat on"),
        (unigram, "the cat", "sat on", " sat on"),
        (byte_level, "the cat", " sat on", " sat on"),
        (byte_fallback, "明", "sat", " sat"),
    ],
)
def test_a_prompt_is_continued_as_the_decoder_joins(make, prompt, more, expected):
    tokenizer = taken(make)
    decoder = tokenizer.decoder(after=prompt)
    (ids,) = tokenizer.encode([more])
    assert "".join(map(decoder.feed, ids.tolist())) + decoder.finish() == expected


@ALL
def test_end_marks_are_passed_over(make):
    tokenizer = taken(make)
    (ids,) = tokenizer.encode(["the cat"])
    marked = [END, *(token for one in ids.tolist() for token in (one, END))]
    assert tokenizer.decode(marked) == tokenizer.decode(ids)
    decoder = tokenizer.decoder()
    assert "".join(map(decoder.feed, marked)) + decoder.finish() == tokenizer.decode(ids)


# ---- the whole estimator ----


@LOSSY
@ALL
def test_an_estimator_does_all_it_does(make, tmp_path):
    lm = fit(make(), hidden_size=24)
    assert lm.params_["tokenizer"] == "foreign"
    json.dumps(lm.params_)
    assert lm.vocab_size_ == lm.params_["vocab_size"] == make().get_vocab_size() + 1
    scored = list(lm.pipe(SENTENCES))
    for one, nats in zip(scored, lm.score_samples(SENTENCES), strict=True):
        assert one.tokens == [one.text[start:end] for start, end in one.spans]
        assert one.log_prob == pytest.approx(nats, rel=1e-5)
    assert math.isfinite(lm.evaluate(SENTENCES).bits_per_char)
    written = lm.generate(["the cat", ""], max_new_tokens=20, random_state=0)
    for number, prompt in enumerate(["the cat"]):
        stream = lm.generate_stream(prompt, max_new_tokens=20, random_state=0)
        assert "".join(stream) == written[number]
    lm.save(tmp_path / "model")
    loaded = LSTMLanguageModel.load(tmp_path / "model", device="cpu")
    for other in (loaded, pickle.loads(pickle.dumps(lm)), copy.deepcopy(lm)):
        assert other.score_samples(SENTENCES).tolist() == lm.score_samples(SENTENCES).tolist()
        assert other.generate(["the"], random_state=1) == lm.generate(["the"], random_state=1)
        assert other.params_ == lm.params_
    again = clone(loaded).fit(TEXTS)
    assert again.score_samples(SENTENCES).tolist() == lm.score_samples(SENTENCES).tolist()


def test_a_fit_goes_on_with_the_same_tokenizer_and_with_no_other(tmp_path):
    lm = fit(byte_level(), warm_start=True)
    before = lm.tokenizer_
    lm.save(tmp_path / "model")
    for one in (lm, LSTMLanguageModel.load(tmp_path / "model", device="cpu")):
        one.fit(TEXTS).partial_fit(TEXTS)
        assert one.tokenizer_.ranks.tolist() == before.ranks.tolist()
    with pytest.raises(ParameterError) as caught:
        lm.set_params(tokenizer=word_piece()).fit(TEXTS)
    assert str(caught.value) == (
        "the given tokenizer is another than the one of the network that is to learn on; keep "
        "that, or fit anew with warm_start=False."
    )


@LOSSY
def test_ids_are_in_the_order_of_their_frequency():
    lm = fit(word_piece(), max_epochs=0)
    counts = np.bincount(np.concatenate(lm.tokenizer_.encode(TEXTS)), minlength=lm.vocab_size_)
    assert (np.diff(counts[1:]) <= 0).all()


@LOSSY
def test_the_unknown_token_is_counted_and_never_written():
    lm = fit(word_level())
    assert lm.evaluate(["qq ww the"]).unknown_rate == 2 / 4
    assert "<u>" not in "".join(lm.generate([""] * 20, max_new_tokens=30, random_state=0))


def test_a_file_a_folder_and_an_object_are_the_same(tmp_path):
    backend = byte_level()
    (tmp_path / "tokenizer.json").write_text(backend.to_str(), "utf-8")
    wrapped = SimpleNamespace(backend_tokenizer=backend)  # as transformers' fast tokenizers have it
    given = (backend, tmp_path / "tokenizer.json", str(tmp_path / "tokenizer.json"), tmp_path)
    figures = [fit(tokenizer).score_samples(SENTENCES).tolist() for tokenizer in (*given, wrapped)]
    assert all(figure == figures[0] for figure in figures)


def test_a_path_is_kept_as_it_was_given(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(byte_level().to_str(), "utf-8")
    for given_path in (path, str(path)):
        lm = fit(given_path)
        lm.save(tmp_path / "model")
        assert lm.tokenizer is given_path
        assert LSTMLanguageModel.load(tmp_path / "model").tokenizer == str(path)
    path.unlink()  # the model has its own
    assert LSTMLanguageModel.load(tmp_path / "model").score(SENTENCES) == lm.score(SENTENCES)


# ---- what it says ----


def test_a_tokenizer_that_loses_something_says_so_once():
    with pytest.warns(UserWarning, match="the given tokenizer") as caught:
        unfitted(tokenizer=word_piece(), max_epochs=0).fit(["the cat", "The cát", "a Dog"])
    assert [str(warning.message) for warning in caught] == [
        "the given tokenizer does not give every text back: 'The cát' becomes 'the cat'. "
        "Scores are the exact probabilities of what it reads; generated text is written as it "
        "writes."
    ]


def test_a_long_text_is_shown_where_it_differs():
    text = "the house " * 99 + "A cat sat on the mat"
    with pytest.warns(UserWarning, match="back: 'the house A cat .*' becomes 'the house a cat .*'"):
        unfitted(tokenizer=word_piece(), max_epochs=0).fit([text])


def test_a_tokenizer_that_loses_nothing_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(byte_level())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"vocab_size": 500},
            "vocab_size=500 can't be had of a given tokenizer, which is used as it is; leave "
            "vocab_size='auto'.",
        ),
        (
            {"min_frequency": 3},
            "min_frequency=3 can't be had of a given tokenizer, which is used as it is; leave "
            "min_frequency='auto'.",
        ),
        (
            {"lowercase": True},
            "lowercase=True can't be had of a given tokenizer, which is used as it is; leave "
            "lowercase=False.",
        ),
    ],
)
def test_what_only_a_learned_tokenizer_can_have(params, message):
    with pytest.raises(ParameterError) as caught:
        fit(byte_level(), **params)
    assert str(caught.value) == message


def message_of(tokenizer) -> str:
    with pytest.raises(ParameterError) as caught:
        fit(tokenizer)
    return str(caught.value)


def test_a_path_that_leads_nowhere(tmp_path):
    missing, empty = tmp_path / "none.json", tmp_path / "empty"
    empty.mkdir()
    for path in (missing, str(missing)):
        assert message_of(path) == (
            f"tokenizer={str(missing)!r} is not valid; tokenizer is 'bpe' or 'char' or 'word', or "
            "the path of a tokenizer.json that is there, or a tokenizers.Tokenizer."
        )
    assert message_of(empty) == (
        f"tokenizer={str(empty)!r} can't be read: it is a folder without a tokenizer.json."
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"no json", b'{"model": 7}', b"[" * 10_000],
    ids=["empty", "an object", "a list", "text", "no model", "nested"],
)
def test_a_file_that_is_no_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    message = message_of(path)
    assert message.startswith(f"tokenizer={str(path)!r} can't be read as a tokenizer.json: ")
    assert message.count("\n") == 0


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe")
    assert message_of(path).startswith(f"tokenizer={str(path)!r} can't be read: ")


def test_types_none_or_too_many():
    assert message_of(Tokenizer.from_str(Tokenizer(_empty_model()).to_str())) == (
        "tokenizer=a Tokenizer has 0 types with ids up to 0; at least one type is needed, and ids "
        "below 16777216."
    )


def _empty_model():
    from tokenizers import models

    return models.WordLevel({}, unk_token="<unk>")


@pytest.mark.parametrize("tokenizer", [7, None, ["bpe"], object(), str.split], ids=type)
def test_what_is_no_tokenizer(tokenizer):
    assert message_of(tokenizer) == (
        f"tokenizer is a {type(tokenizer).__name__}; it is one of the kinds of tokenizer by name, "
        "the path of a tokenizer.json, or a tokenizers.Tokenizer."
    )


def test_parts_in_python_cant_be_kept():
    backend = byte_level()

    class Mine:
        def pre_tokenize(self, text):
            raise NotImplementedError

    backend.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Mine())
    message = message_of(backend)
    assert message.startswith("the given tokenizer can't be written to a tokenizer.json: ")
    assert message.endswith("must be replaced by the tokenizers library's own.")


def test_a_saved_models_tokenizer_may_not_be_exchanged(tmp_path):
    from test_storage import sign

    fit(byte_level()).save(tmp_path / "model")
    path = Path(tmp_path / "model" / "tokenizer.json")
    described = json.loads(path.read_text("utf-8"))
    described["model"]["vocab"]["zzzz"] = 10**6
    path.write_text(json.dumps(described), "utf-8")
    sign(tmp_path / "model")
    with pytest.raises(ModelFolderError) as caught:
        LSTMLanguageModel.load(tmp_path / "model")
    assert str(caught.value) == f"the tokenizer in {tmp_path / 'model'} does not fit its model."


@LOSSY
def test_chinese_under_a_tokenizer_that_never_saw_it():
    lm = unfitted(tokenizer=byte_fallback(), max_epochs=1).fit(ENGLISH * 3)
    (scored,) = lm.pipe(CHINESE[:1])
    assert np.isfinite(scored.log_probs).all()
    assert {tuple(span) for span in scored.spans.tolist()} >= {(0, 1), (1, 2)}
