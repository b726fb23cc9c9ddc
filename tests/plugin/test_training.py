"""Training inside spaCy: by its command line, for real, and by hand."""

import json
import math
import shutil
import subprocess
import sys
from itertools import product

import pytest
import spacy
from pipelines import pipeline
from scripts import run
from spacy.tokens import DocBin
from spacy.training import Example
from spacy.util import registry
from tiny import TEXTS, fitted

from lstmlm import LSTMLanguageModel, TextError

SENTENCES = [
    f"{first} {animal} {did} {second} {place}."
    for first, animal, did, second, place in product(
        ["the", "a", "my"], ["cat", "dog", "bird"], ["saw", "found", "left"], ["the", "your"],
        ["house", "tower", "boat"],
    )
]  # fmt: skip
DEV = SENTENCES[::7]
TRAIN = [text for text in SENTENCES if text not in DEV]
SMALL = {"hidden_size": 24, "embedding_dim": 12, "learning_rate": 0.02}

CONFIG = """
[paths]
train = null
dev = null

[nlp]
lang = "en"
pipeline = ["lstmlm"]

[components]

[components.lstmlm]
factory = "lstmlm"

[corpora]

[corpora.train]
@readers = "lstmlm.TextLines.v1"
path = ${paths.train}

[corpora.dev]
@readers = "lstmlm.TextLines.v1"
path = ${paths.dev}

[training]
max_steps = 30
eval_frequency = 10

[training.batcher]
@batchers = "spacy.batch_by_words.v1"
size = 200
discard_oversize = false
tolerance = 0.2

[training.logger]
@loggers = "spacy.ConsoleLogger.v3"
output_file = "log.jsonl"

[initialize]

[initialize.components]

[initialize.components.lstmlm]
vocab_size = 300
seed = 1
params = {"hidden_size": 24, "embedding_dim": 12, "learning_rate": 0.02}
"""


def spacy_command(folder, *arguments):
    """Run spaCy's command line in a folder."""
    done = run("-m", "spacy", *arguments, cwd=folder, strict=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PATHS = ("--paths.train", "train.txt", "--paths.dev", "dev.txt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which ``spacy train`` has trained a pipeline."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "train.txt").write_text("\n".join(TRAIN) + "\n", "utf-8")
    (folder / "dev.txt").write_text("\n\n".join(DEV) + "\n", "utf-8")
    (folder / "base.cfg").write_text(CONFIG, "utf-8")
    nlp = spacy.blank("en")
    DocBin(docs=map(nlp, DEV)).to_disk(folder / "dev.spacy")
    spacy_command(folder, "init", "fill-config", "base.cfg", "config.cfg")
    assert "Config is valid" in spacy_command(folder, "debug", "config", "config.cfg", *PATHS)
    spacy_command(folder, "train", "config.cfg", "--output", "out", *PATHS)
    return folder


def score_of(nlp):
    """exp of the mean log-probability a character, by the estimator itself."""
    evaluation = nlp.get_pipe("lstmlm").model.evaluate(DEV)
    return math.exp(-evaluation.nats / evaluation.n_chars)


def test_the_score_rises_and_picks_the_best(trained):
    lines = (trained / "log.jsonl").read_text().splitlines()
    scores = [record["score"] for record in map(json.loads, lines) if record["score"] is not None]
    assert len(scores) == 4
    assert scores == sorted(scores)
    assert scores[-1] > 1.3 * scores[0] > 0
    best = spacy.load(trained / "out/model-best")
    assert score_of(best) == pytest.approx(max(scores), rel=1e-3)


def test_what_was_trained_is_a_model_like_any_other(trained):
    lm = LSTMLanguageModel.load(trained / "out/model-best/lstmlm/model", device="cpu")
    assert lm.vocab_size_ <= 300
    assert lm.params_["hidden_size"] == 24
    assert lm.perplexity(DEV) < 10
    assert spacy.load(trained / "out/model-best")(DEV[0])._.lm_log_prob == pytest.approx(
        lm.score_samples(DEV[:1])[0], rel=1e-5
    )


def test_evaluate(trained):
    spacy_command(trained, "evaluate", "out/model-best", "dev.spacy", "--output", "metrics.json")
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["lm_score"] == pytest.approx(
        score_of(spacy.load(trained / "out/model-best")), rel=1e-3
    )
    assert metrics["lm_bits_per_char"] == pytest.approx(-math.log2(metrics["lm_score"]))


def test_apply(trained):
    lines = [json.dumps({"text": text}) for text in DEV]
    (trained / "dev.jsonl").write_text("\n".join(lines))
    spacy_command(trained, "apply", "out/model-best", "dev.jsonl", "scored.spacy")
    nlp = spacy.load(trained / "out/model-best")
    docs = list(DocBin().from_disk(trained / "scored.spacy").get_docs(nlp.vocab))
    found = {doc.text: doc._.lm_log_prob for doc in docs}
    assert {text: found[text] for text in DEV} == {
        text: pytest.approx(nlp(text)._.lm_log_prob, rel=1e-5) for text in DEV
    }


def test_package(trained):
    (trained / "packages").mkdir()
    spacy_command(trained, "package", "out/model-best", "packages", "--build", "sdist")
    (archive,) = (trained / "packages").rglob("*.tar.gz")
    shutil.unpack_archive(archive, trained / "packages")
    script = f"import en_pipeline; print(en_pipeline.load()({DEV[0]!r})._.lm_log_prob)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=trained / "packages" / "en_pipeline-0.0.0",
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    meta = json.loads((trained / "packages" / "en_pipeline-0.0.0" / "meta.json").read_text())
    assert [one for one in meta["requirements"] if one.startswith("lstmlm[spacy]>=0.1.0")]
    expected = spacy.load(trained / "out/model-best")(DEV[0])._.lm_log_prob
    assert float(done.stdout) == pytest.approx(expected)


def fingerprint(folder, name="lstmlm"):
    return spacy.load(folder).get_pipe(name).model.fingerprint_


def train_from(trained, output, changes):
    """Train again with other lines in the config."""
    config = (trained / "base.cfg").read_text()
    for old, new in changes.items():
        assert old in config
        config = config.replace(old, new)
    (trained / f"{output}.cfg").write_text(config, "utf-8")
    spacy_command(trained, "init", "fill-config", f"{output}.cfg", f"{output}-full.cfg")
    spacy_command(trained, "train", f"{output}-full.cfg", "--output", output, *PATHS)
    return trained / output / "model-last"


SOURCED = {'factory = "lstmlm"': 'source = "out/model-best"', "max_steps = 30": "max_steps = 2"}


def test_a_sourced_component_learns_on(trained):
    result = train_from(trained, "resumed", SOURCED)
    assert fingerprint(result) != fingerprint(trained / "out/model-best")
    nlp, before = spacy.load(result), spacy.load(trained / "out/model-best")
    vocabularies = [
        one.get_pipe("lstmlm").model.tokenizer_.backend.to_str() for one in (nlp, before)
    ]
    assert vocabularies[0] == vocabularies[1]
    assert score_of(nlp) > 0.8 * score_of(before)


def test_a_frozen_component_stays_as_it_is(trained):
    other = """
[components.chars]
factory = "lstmlm"
attr_prefix = "chars"

[corpora]
"""
    result = train_from(trained, "frozen", SOURCED | {
        'pipeline = ["lstmlm"]': 'pipeline = ["lstmlm", "chars"]',
        "\n[corpora]\n": other,
        "[training]\n": '[training]\nfrozen_components = ["lstmlm"]\n',
        "[initialize.components.lstmlm]": "[initialize.components.chars]",
        '"embedding_dim": 12,': '"embedding_dim": 12, "tokenizer": "char",',
        "vocab_size = 300": 'vocab_size = "auto"',
    })  # fmt: skip
    assert fingerprint(result) == fingerprint(trained / "out/model-best")
    chars = spacy.load(result).get_pipe("chars").model
    assert chars.params_["tokenizer"] == "char"
    assert chars.n_epochs_ == 3


def test_gradients_can_be_accumulated(trained):
    result = train_from(trained, "accumulated", {
        "max_steps = 30": "max_steps = 3\naccumulate_gradient = 3"
    })  # fmt: skip
    assert spacy.load(result).get_pipe("lstmlm").model.n_epochs_ == 4


# ---- by hand ----


def examples(nlp, texts):
    return [Example(nlp.make_doc(text), nlp.make_doc(text)) for text in texts]


def initialized(shown=TRAIN, **settings):
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm")
    settings = {"params": SMALL, "vocab_size": 300} | settings
    nlp.config["initialize"]["components"]["lstmlm"] = settings
    return nlp, nlp.initialize(lambda: examples(nlp, shown))


def test_updates_lower_the_loss_and_raise_the_score():
    nlp, sgd = initialized()
    found = examples(nlp, TRAIN)
    losses, before = [], nlp.evaluate(examples(nlp, DEV))["lm_score"]
    for _ in range(30):
        losses.append(nlp.update(found, sgd=sgd, losses={})["lstmlm"])
    assert losses[-1] < 0.7 * losses[0]
    assert nlp.evaluate(examples(nlp, DEV))["lm_score"] > before


def test_nothing_moves_before_finish_update():
    nlp, _ = initialized()
    component, losses = nlp.get_pipe("lstmlm"), {}
    before = component.model.fingerprint_
    for text in TRAIN[:2]:
        component.update(examples(nlp, [text]), losses=losses)
    assert component.model.fingerprint_ == before
    assert losses == {"lstmlm": 0.0}
    component.finish_update(None)
    assert component.model.fingerprint_ != before
    assert losses["lstmlm"] > 0
    assert (
        component.model.history_[-1].tokens
        == sum(map(len, component.model.tokenizer_.encode(TRAIN[:2]))) + 2
    )


def test_two_updates_are_one_of_both():
    one, other = (initialized()[0].get_pipe("lstmlm") for _ in range(2))
    nlp = spacy.blank("en")
    one.update(examples(nlp, TRAIN[:4]))
    other.update(examples(nlp, TRAIN[:2]))
    other.update(examples(nlp, TRAIN[2:4]))
    for component in (one, other):
        component.finish_update(None)
    assert one.model.fingerprint_ == other.model.fingerprint_


def test_the_same_seed_makes_the_same_model():
    prints = [initialized(seed=seed)[0].get_pipe("lstmlm").model.fingerprint_ for seed in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


def test_dropout_is_spacys():
    nlp, sgd = initialized()
    nlp.update(examples(nlp, TRAIN[:3]), sgd=sgd, drop=0.25)
    params = nlp.get_pipe("lstmlm").model.params_
    assert (params["dropout"], params["dropout_input"]) == (0.25, 0.25)


def test_texts_are_read_from_a_file_a_folder_or_a_reader(tmp_path):
    (tmp_path / "b.txt").write_text("\n".join(TRAIN), "utf-8")
    (tmp_path / "a.txt").write_bytes("Zürich\r\n \n\x85\n".encode())
    reader = {"@readers": "lstmlm.TextLines.v1", "path": str(tmp_path / "b.txt")}
    sizes = []
    for texts in (str(tmp_path / "b.txt"), reader, str(tmp_path)):
        nlp, _ = initialized(["x"], texts=texts, vocab_size="auto", params={"tokenizer": "word"})
        sizes.append(nlp.get_pipe("lstmlm").model.vocab_size_)
    words = {word for text in TRAIN for word in text.split()}
    assert sizes == [len(words) + 2, len(words) + 2, len(words) + 2]
    assert "Zürich" not in words


def test_initialize_begins_with_the_configs_model():
    nlp = pipeline()
    sgd = nlp.initialize(lambda: examples(nlp, ["anything"]))
    assert nlp.get_pipe("lstmlm").model.fingerprint_ == fitted(tokenizer="bpe").fingerprint_
    nlp.update(examples(nlp, TEXTS), sgd=sgd)
    model = nlp.get_pipe("lstmlm").model
    assert model.fingerprint_ != fitted(tokenizer="bpe").fingerprint_
    assert model.vocab_size_ == fitted(tokenizer="bpe").vocab_size_


def test_initialize_again_begins_anew():
    nlp, sgd = initialized()
    before = nlp.get_pipe("lstmlm").model.fingerprint_
    nlp.update(examples(nlp, TRAIN), sgd=sgd)
    nlp.initialize(lambda: examples(nlp, TRAIN))
    assert nlp.get_pipe("lstmlm").model.fingerprint_ == before


def test_what_cannot_be_learned_from_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt is not there; name a text file"):
        initialized(texts=str(tmp_path / "nowhere.txt"))
    with pytest.raises(FileNotFoundError, match=r"a folder without \*\.txt files"):
        initialized(texts=str(tmp_path))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(TextError, match="0 texts came"):
        initialized(texts=str(tmp_path / "empty.txt"))
    with pytest.raises(ValueError, match="Invalid parameter 'hiden_size'"):
        initialized(params={"hiden_size": 3})


# ---- scorer and reader ----


def test_the_scorer_counts_characters_and_end_marks():
    nlp = pipeline("char")
    evaluation = fitted(tokenizer="char").evaluate(TEXTS)
    scores = nlp.evaluate(examples(nlp, TEXTS))
    assert scores["lm_bits_per_char"] == pytest.approx(evaluation.bits_per_char, rel=1e-5)
    assert scores["lm_perplexity"] == pytest.approx(evaluation.perplexity, rel=1e-5)
    assert scores["lm_score"] == pytest.approx(2**-evaluation.bits_per_char, rel=1e-5)


def test_the_scorer_names_scores_by_prefix():
    nlp = pipeline("char", attr_prefix="by_char")
    assert {"by_char_score", "by_char_perplexity"} <= nlp.evaluate(examples(nlp, TEXTS)).keys()


def test_without_scores_there_is_no_score():
    nlp = pipeline("char", score=False)
    scores = nlp.evaluate(examples(nlp, TEXTS))
    assert scores["lm_score"] is scores["lm_perplexity"] is scores["lm_bits_per_char"] is None


def test_the_reader_keeps_lines_as_they_are(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(" one\r\n\n   \ntwo\x0cthree\n\xff four".encode("latin-1"))
    read = registry.get("readers", "lstmlm.TextLines.v1")(str(path))
    found = [example.reference.text for example in read(spacy.blank("en"))]
    assert found == [" one", "two\x0cthree", "\ufffd four"]
    read = registry.get("readers", "lstmlm.TextLines.v1")(str(path), limit=2)
    assert len(list(read(spacy.blank("en")))) == 2
