"""The spaCy component on Docs: its figures, settings, streams and errors."""

import math
import re

import numpy as np
import pytest
import spacy
import torch
from pipelines import folder_of, pipeline
from spacy.tokens import Doc, DocBin, Span, Token
from spacy.util import filter_spans
from spacy_lstmlm import LanguageModel
from tiny import TEXTS, fitted, unfitted

from lstmlm import Completion, LSTMLanguageModel, ModelFolderError, ParameterError

KINDS = ["bpe", "char", "word"]
on_kinds = pytest.mark.parametrize("tokenizer", KINDS)


def figures(doc):
    """All that a Doc, its tokens and a Span of it say."""
    spans = [doc[i:j] for i in range(0, len(doc), 3) for j in (i + 1, i + 3)]
    return [
        doc._.lm_log_prob,
        doc._.lm_perplexity,
        doc._.lm_bits_per_char,
        [token._.lm_log_prob for token in doc],
        [(span._.lm_log_prob, span._.lm_perplexity) for span in spans],
    ]


# ---- figures ----


@on_kinds
def test_a_docs_figures_are_the_estimators(tokenizer):
    nlp, lm = pipeline(tokenizer), fitted(tokenizer=tokenizer)
    for doc, scored in zip(nlp.pipe(TEXTS), lm.pipe(TEXTS), strict=True):
        assert doc._.lm_log_prob == pytest.approx(scored.log_prob, rel=1e-5)
        assert doc._.lm_perplexity == pytest.approx(scored.perplexity, rel=1e-5)
        assert doc._.lm_bits_per_char == pytest.approx(scored.bits_per_char, rel=1e-5)
    sums = lm.score_samples(TEXTS)
    np.testing.assert_allclose([nlp(text)._.lm_log_prob for text in TEXTS], sums, rtol=1e-5)


def test_a_word_models_tokens_are_spacys_where_spaces_part_them():
    nlp, text = pipeline("word"), "the cat sat on the mat"
    scored = next(fitted(tokenizer="word").pipe([text]))
    doc = nlp(text)
    found = [token._.lm_log_prob for token in doc]
    np.testing.assert_allclose(found, scored.log_probs[:-1], rtol=1e-5)
    np.testing.assert_allclose(
        [token._.lm_surprisal for token in doc], scored.surprisals[:-1], rtol=1e-5
    )


def test_a_spans_figures_are_of_its_tokens():
    doc = pipeline("char")("the dog sat on the log")
    span = doc[1:4]
    nats = sum(token._.lm_log_prob for token in span)
    assert span._.lm_log_prob == pytest.approx(nats)
    n_pieces = len(" dog sat on")
    assert span._.lm_perplexity == pytest.approx(math.exp(-nats / n_pieces))


def test_what_owns_no_piece_is_none_and_not_zero():
    doc = pipeline("word")("do not don't")
    assert [token.text for token in doc] == ["do", "not", "do", "n't"]
    assert doc[3]._.lm_log_prob is None
    assert doc[3]._.lm_surprisal is None
    assert doc[3:4]._.lm_log_prob is None
    assert doc[3:4]._.lm_perplexity is None
    assert doc[2]._.lm_log_prob < 0


def test_unscored_docs_say_none():
    nlp = pipeline(score=False)
    doc = nlp("the cat")
    assert figures(doc) == [None, None, None, [None, None], [(None, None), (None, None)]]
    assert doc._.lm_completions is None
    assert figures(spacy.blank("en")("the cat"))[:3] == [None, None, None]


@on_kinds
def test_the_empty_doc_is_scored_too(tokenizer):
    doc = pipeline(tokenizer)("")
    assert doc._.lm_log_prob == pytest.approx(
        fitted(tokenizer=tokenizer).score_samples([""])[0], rel=1e-5
    )


def test_a_streams_model_reads_every_doc_afresh(tmp_path):
    unfitted(context="stream").fit(TEXTS).save(tmp_path / "stream")
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm", config={"model": str(tmp_path / "stream")})
    together = [doc._.lm_log_prob for doc in nlp.pipe(TEXTS)]
    alone = [nlp(text)._.lm_log_prob for text in TEXTS]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


# ---- completions ----


def test_completions_are_the_estimators():
    nlp, lm = pipeline(complete=True, n_completions=3), fitted(tokenizer="bpe")
    doc = nlp("the cat s")
    assert doc._.lm_completions == lm.complete("the cat s", 3)
    assert all(isinstance(one, Completion) for one in doc._.lm_completions)
    assert doc._.lm_complete(n=2) == lm.complete("the cat s", 2)
    assert doc._.lm_complete(n=2, unit="line") == lm.complete("the cat s", 2, unit="line")
    assert doc[:2]._.lm_complete(4) == lm.complete("the cat", 4)


def test_max_new_tokens_bounds_completions():
    doc = pipeline("char", complete=True, n_completions=1, max_new_tokens=1)("the ho")
    assert doc._.lm_completions == fitted(tokenizer="char").complete("the ho", 1, max_new_tokens=1)


def test_a_doc_without_a_model_cannot_complete():
    pipeline()
    with pytest.raises(ValueError, match="no component with attr_prefix='lm' has processed it"):
        spacy.blank("en")("the cat")._.lm_complete()


def test_a_doc_whose_model_is_gone_says_so():
    nlp = pipeline("char")
    doc = nlp("the cat")
    doc.user_data["lstmlm:lm"]["model"] = "0" * 64
    with pytest.raises(
        ValueError, match=r"the model that processed this Doc \(0{12}\.\.\.\) isn't"
    ):
        doc._.lm_complete()


def test_two_pipelines_with_one_prefix_find_their_own_models():
    one, other = pipeline("bpe"), pipeline("char")
    docs = one("the cat s"), other("the cat s")
    for doc, kind in zip(docs, ["bpe", "char"], strict=True):
        assert doc._.lm_complete(3) == fitted(tokenizer=kind).complete("the cat s", 3)
        assert doc._.lm_log_prob == pytest.approx(
            fitted(tokenizer=kind).score_samples(["the cat s"])[0], rel=1e-5
        )


def test_two_components_with_different_prefixes_live_in_one_pipeline():
    nlp = pipeline("bpe")
    nlp.add_pipe("lstmlm", "chars", config={"model": folder_of("char"), "attr_prefix": "by_char"})
    doc = nlp("the cat s")
    for prefix, kind in [("lm", "bpe"), ("by_char", "char")]:
        lm = fitted(tokenizer=kind)
        found = doc._.get(f"{prefix}_log_prob")
        assert found == pytest.approx(lm.score_samples(["the cat s"])[0], rel=1e-5)
        assert doc._.get(f"{prefix}_complete")(2) == lm.complete("the cat s", 2)
        assert doc[1]._.get(f"{prefix}_surprisal") > 0


# ---- Docs that travel and change ----


def test_scores_survive_bytes_docbin_and_copies():
    nlp = pipeline(complete=True)
    docs = list(nlp.pipe(TEXTS))
    binned = DocBin(store_user_data=True, docs=docs).to_bytes()
    for way in (
        [Doc(nlp.vocab).from_bytes(doc.to_bytes()) for doc in docs],
        list(DocBin(store_user_data=True).from_bytes(binned).get_docs(nlp.vocab)),
        [doc.copy() for doc in docs],
    ):
        assert list(map(figures, way)) == list(map(figures, docs))
        assert [one._.lm_completions for one in way] == [one._.lm_completions for one in docs]
        assert way[0]._.lm_complete(2) == docs[0]._.lm_complete(2)


def test_scores_survive_retokenisation():
    doc = pipeline("char")("the dog sat on the log")
    whole, first, second = doc._.lm_log_prob, doc[1]._.lm_log_prob, doc[2]._.lm_log_prob
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[1:3])
    assert doc[1].text == "dog sat"
    assert doc[1]._.lm_log_prob == pytest.approx(first + second)
    with doc.retokenize() as retokenizer:
        retokenizer.split(doc[4], ["l", "og"], heads=[doc[3], doc[3]])
    assert sum(token._.lm_log_prob for token in doc[4:6]) == pytest.approx(
        whole - sum(token._.lm_log_prob for token in doc[:4]) - residue(doc)
    )


def residue(doc):
    return float(doc.user_data["lstmlm:lm"]["log_probs"][-1])


def test_a_part_made_a_doc_is_not_given_the_wholes_figures():
    nlp = pipeline(complete=True)
    doc = nlp("the dog sat on the log")
    part = doc[2:4].as_doc(copy_user_data=True)
    assert part._.lm_log_prob is None
    assert part._.lm_completions is None
    assert part._.lm_complete(1) == fitted(tokenizer="bpe").complete("sat on ", 1)
    assert doc[:].as_doc(copy_user_data=True)._.lm_log_prob == doc._.lm_log_prob


def test_user_data_is_plain():
    entry = pipeline()("the dog").user_data["lstmlm:lm"]
    assert {name: type(value) for name, value in entry.items()} == {
        "model": str, "n_chars": int, "owners": np.ndarray, "log_probs": np.ndarray,
    }  # fmt: skip


def test_figures_go_into_json():
    doc = pipeline()("the dog")
    assert doc.to_json(underscore=["lm_log_prob"])["_"] == {"lm_log_prob": doc._.lm_log_prob}


# ---- streams ----


@on_kinds
def test_pipe_says_what_single_calls_do(tokenizer):
    nlp = pipeline(tokenizer)
    alone = [figures(nlp(text)) for text in TEXTS]
    for batch_size in (1, 3, 1000):
        for one, other in zip(nlp.pipe(TEXTS, batch_size=batch_size), alone, strict=True):
            np.testing.assert_allclose(flat(figures(one)), flat(other), rtol=1e-5)


def flat(nested):
    """All numbers of nested lists; NaN for None."""
    if isinstance(nested, list | tuple):
        return [number for one in nested for number in flat(one)]
    return [math.nan if nested is None else nested]


def test_order_and_companions_are_kept():
    nlp = pipeline(batch_size=4)
    pairs = list(nlp.pipe([(text, n) for n, text in enumerate(TEXTS)], as_tuples=True))
    assert [n for _, n in pairs] == list(range(len(TEXTS)))
    assert [doc.text for doc, _ in pairs] == TEXTS


def read_ahead(component, sizes, **options):
    """How many Docs were asked for when the first one came."""
    nlp, asked = spacy.blank("en"), []

    def docs():
        for size in sizes:
            asked.append(size)
            yield Doc(nlp.vocab, words=["the"] * size)

    next(component.pipe(docs(), **options))
    return len(asked)


def test_batches_have_a_budget_of_docs_and_of_tokens():
    sizes = [2, 3, 4, 5, 6]
    component = pipeline(batch_size=4, max_batch_tokens=10).get_pipe("lstmlm")
    assert read_ahead(component, sizes) == 4  # 2 + 3 + 4 = 9, and the next would be too many
    assert read_ahead(component, sizes, batch_size=2) == 2
    assert read_ahead(component, [1] * 9, batch_size=1000) == 4
    assert read_ahead(component, [50, 1, 1]) == 1


def test_a_doc_that_fails_goes_to_the_error_handler_alone(monkeypatch):
    nlp = pipeline()
    component = nlp.get_pipe("lstmlm")
    pipe = LSTMLanguageModel.pipe

    def failing(self, texts, **options):
        if "bad" in "".join(texts):
            raise MemoryError("too much")
        return pipe(self, texts, **options)

    monkeypatch.setattr(LSTMLanguageModel, "pipe", failing)
    seen = []
    nlp.set_error_handler(lambda name, proc, docs, error: seen.append((name, proc, docs, error)))
    docs = list(nlp.pipe(["the cat", "a bad one", "the dog", "bad"]))
    assert [doc.text for doc in docs] == ["the cat", "the dog"]
    assert all(doc._.lm_log_prob < 0 for doc in docs)
    assert [(name, proc, [doc.text for doc in docs]) for name, proc, docs, _ in seen] == [
        ("lstmlm", component, ["a bad one"]),
        ("lstmlm", component, ["bad"]),
    ]
    assert all(isinstance(error, MemoryError) for *_, error in seen)


def test_without_a_handler_the_error_is_raised(monkeypatch):
    def failing(self, texts, **options):
        raise MemoryError("too much")

    monkeypatch.setattr(LSTMLanguageModel, "pipe", failing)
    for failing_call in (lambda nlp: nlp("the cat"), lambda nlp: list(nlp.pipe(["a", "b"]))):
        with pytest.raises(MemoryError, match="too much"):
            failing_call(pipeline())


def test_memory_zones_are_fine():
    nlp = pipeline()
    before = nlp("the cat and 17 zebras")._.lm_log_prob
    with nlp.memory_zone():
        assert [doc._.lm_log_prob for doc in nlp.pipe(["the cat and 17 zebras"] * 3)] == [
            pytest.approx(before)
        ] * 3
    assert nlp("the cat and 17 zebras")._.lm_log_prob == pytest.approx(before)


def test_a_long_doc_is_read_in_windows_with_the_state_carried():
    text = " ".join(TEXTS * 40)
    nlp = pipeline("char", max_batch_tokens=10)
    expected = fitted(tokenizer="char").score_samples([text])[0]
    assert nlp(text)._.lm_log_prob == pytest.approx(expected, rel=1e-5)


# ---- settings ----


def test_analyze_pipes_knows_what_is_assigned():
    analysis = pipeline().analyze_pipes()
    assert "token._.lm_surprisal" in analysis["summary"]["lstmlm"]["assigns"]
    assert analysis["summary"]["lstmlm"]["scores"] == [
        "lm_score", "lm_perplexity", "lm_bits_per_char",
    ]  # fmt: skip


def test_the_defaults_are_in_the_config():
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm")
    config = nlp.config["components"]["lstmlm"]
    assert config == {
        "factory": "lstmlm", "model": None, "device": None, "batch_size": 256,
        "max_batch_tokens": 50_000, "attr_prefix": "lm", "score": True, "complete": False,
        "n_completions": 5, "max_new_tokens": 32,
        "scorer": {"@scorers": "lstmlm.lm_scorer.v1"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"modle": "x"}, "modle"),
        ({"batch_size": "many"}, "batch_size"),
        ({"score": "perhaps"}, "score"),
        ({"attr_prefix": 3}, "attr_prefix"),
    ],
)
def test_a_wrong_key_or_type_is_spacys_own_error(config, said):
    with pytest.raises(ValueError, match=said) as caught:
        spacy.blank("en").add_pipe("lstmlm", config=config)
    assert type(caught.value).__name__ == "ConfigValidationError"


@pytest.mark.parametrize(
    "name", ["batch_size", "max_batch_tokens", "n_completions", "max_new_tokens"]
)
def test_a_number_out_of_range_is_named(name):
    with pytest.raises(ParameterError, match=f"^{name}=0 is not valid; {name} is at least 1.$"):
        spacy.blank("en").add_pipe("lstmlm", config={name: 0})


def test_no_model_folder_is_an_error_at_once():
    with pytest.raises(ModelFolderError, match="nowhere"):
        spacy.blank("en").add_pipe("lstmlm", config={"model": "nowhere"})


def test_an_empty_component_says_what_it_needs():
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm", "mine")
    with pytest.raises(ValueError, match="component 'mine' has no model yet: give it a folder"):
        nlp("the cat")


@pytest.mark.parametrize("prefix", ["", "my prefix", "a-b", "1st"])
def test_a_prefix_is_a_name(prefix):
    with pytest.raises(ParameterError, match=re.escape(f"attr_prefix={prefix!r} is not valid")):
        pipeline(attr_prefix=prefix)


def test_other_packages_extensions_are_left_alone():
    Token.set_extension("theirs_surprisal", default=1)
    try:
        with pytest.raises(ParameterError, match=r"Token\._\.theirs_surprisal is there already"):
            pipeline(attr_prefix="theirs")
        assert Token.get_extension("theirs_surprisal")[0] == 1
        assert not Doc.has_extension("theirs_log_prob")
    finally:
        Token.remove_extension("theirs_surprisal")


def test_the_device_follows_spacy_or_the_setting():
    assert pipeline(device=None).get_pipe("lstmlm").model.device_.type == "cpu"
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    assert pipeline(device="auto").get_pipe("lstmlm").model.device_.type == auto
    with pytest.raises(ParameterError, match="warp"):
        pipeline(device="warp")


# ---- keeping ----


def test_a_pipeline_is_kept_in_a_folder_and_needs_no_other(tmp_path):
    model = tmp_path / "model"
    fitted(tokenizer="bpe").save(model)
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm", config={"model": str(model)})
    nlp.to_disk(tmp_path / "pipeline")
    files = sorted(path.name for path in (tmp_path / "pipeline/lstmlm/model").iterdir())
    assert files == ["MANIFEST.json", "config.json", "model.safetensors", "tokenizer.json"]
    for path in model.iterdir():
        path.unlink()
    model.rmdir()
    again = spacy.load(tmp_path / "pipeline")
    assert again("the cat")._.lm_log_prob == nlp("the cat")._.lm_log_prob


def test_what_was_saved_goes_before_the_folder_of_the_config(tmp_path):
    model = tmp_path / "model"
    fitted(tokenizer="bpe").save(model)
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm", config={"model": str(model)})
    nlp.to_disk(tmp_path / "pipeline")
    fitted(tokenizer="char").save(model)
    again = spacy.load(tmp_path / "pipeline")
    assert again("the cat")._.lm_log_prob == nlp("the cat")._.lm_log_prob


def test_a_pipeline_goes_through_bytes():
    nlp = pipeline()
    again = spacy.blank("en")
    again.add_pipe("lstmlm")
    again.from_bytes(nlp.to_bytes())
    assert again("the cat")._.lm_log_prob == nlp("the cat")._.lm_log_prob
    component = LanguageModel().from_bytes(nlp.get_pipe("lstmlm").to_bytes())
    assert component.model.fingerprint_ == nlp.get_pipe("lstmlm").model.fingerprint_


def test_an_empty_component_is_kept_too(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm")
    nlp.to_disk(tmp_path / "pipeline")
    assert spacy.load(tmp_path / "pipeline").get_pipe("lstmlm").model is None
    nlp.from_bytes(nlp.to_bytes())


def test_altered_files_are_not_loaded(tmp_path):
    nlp = pipeline()
    nlp.to_disk(tmp_path / "pipeline")
    weights = tmp_path / "pipeline/lstmlm/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFolderError, match=r"model\.safetensors"):
        spacy.load(tmp_path / "pipeline")


def test_spans_of_a_doc_may_be_anything_spacy_makes():
    doc = pipeline()("the dog sat on the log")
    spans = filter_spans([doc[0:2], doc[1:4], Span(doc, 4, 6, label="THING")])
    assert all(span._.lm_log_prob < 0 for span in spans)
    assert doc[2:2]._.lm_log_prob is None
