"""Model folders: what is saved is loaded, and what was damaged is refused in one line."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from strategies import batches
from tiny import ENGLISH, TEXTS, fitted, unfitted

from lstmlm import DecodeConfig, LSTMLanguageModel, ModelFolderError
from lstmlm.batches import Corpus
from lstmlm.config import TextConfig
from lstmlm.errors import DiskFullError
from lstmlm.storage import (
    CONFIG,
    FILES,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    MappedIds,
    SpooledTexts,
    load_folder,
    renumber,
    save_folder,
    workspace,
    write_corpus,
)
from lstmlm.text import END, learn_tokenizer, readable

CONFIGURATION = {"name": "漢 \u2028", "sizes": [1, 2.5, None, True], "nested": {"a": {}}}
TOKENIZER_JSON = '{"model": "é 漢\\u0000"}\n\n'


def some_tensors():
    return {
        "matrix": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "columns": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "ids": torch.tensor([3, 1, 2], dtype=torch.int32),
        "half": torch.tensor([1.5, float("inf")], dtype=torch.bfloat16),
        "none": torch.zeros(0, 4),
    }


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def listing(folder):
    """Return the bytes of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def sign(folder):
    """Make the manifest fit the files, as whoever damages a folder on purpose would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in FILES:
        data = (folder / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        manifest["files"][name] = {"sha256": digest, "bytes": len(data)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


# ---- saving ----


def test_what_is_saved_is_loaded(tmp_path):
    save_folder(tmp_path / "model", CONFIGURATION, TOKENIZER_JSON, some_tensors())
    config, tokenizer_json, read_tensors = load_folder(tmp_path / "model")
    assert config == CONFIGURATION
    assert tokenizer_json.decode() == TOKENIZER_JSON
    loaded = read_tensors(shapes_of(some_tensors()))
    assert loaded.keys() == some_tensors().keys()
    for name, tensor in some_tensors().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_a_folder_holds_four_files_and_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        save_folder(str(tmp_path / name), CONFIGURATION, TOKENIZER_JSON, some_tensors())
    files = listing(tmp_path / "a")
    assert sorted(files) == sorted([*FILES, MANIFEST])
    assert files == listing(tmp_path / "b")
    manifest = json.loads(files[MANIFEST])
    assert manifest["format_version"] == 1
    for name in FILES:
        assert manifest["files"][name] == {
            "sha256": hashlib.sha256(files[name]).hexdigest(),
            "bytes": len(files[name]),
        }


def test_folders_above_are_made_and_others_may_read(tmp_path):
    before = os.umask(0o022)
    try:
        save_folder(tmp_path / "new" / "er" / "model", {}, "", {})
    finally:
        os.umask(before)
    assert [path.name for path in (tmp_path / "new" / "er").iterdir()] == ["model"]
    assert stat.S_IMODE((tmp_path / "new" / "er" / "model").stat().st_mode) == 0o755


def test_an_older_model_and_an_empty_folder_are_replaced(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for version in (1, 2):
        save_folder(folder, {"version": version}, "", {})
        assert load_folder(folder)[0] == {"version": version}
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def refusal(target):
    return (
        f"{target} is there already and is no model folder; nothing was written. "
        "Give a new name, or remove it first."
    )


@pytest.mark.parametrize(
    "names",
    [
        ["thesis.tex"],
        ["sub/folder/file"],
        [CONFIG, TOKENIZER, WEIGHTS],
        [MANIFEST, "thesis.tex"],  # another program's manifest, or notes beside a model
        [MANIFEST, CONFIG, TOKENIZER, WEIGHTS, "notes/of/mine.txt"],
    ],
    ids=" ".join,
)
def test_a_folder_with_other_content_is_refused_and_left(tmp_path, names):
    target = tmp_path / "mine"
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(ModelFolderError) as caught:
        save_folder(target, {}, "", {})
    assert str(caught.value) == refusal(target)
    assert listing(tmp_path) == before


def test_a_file_is_refused_and_left(tmp_path):
    target = tmp_path / "mine"
    target.write_text("mine")
    with pytest.raises(ModelFolderError) as caught:
        save_folder(target, {}, "", {})
    assert str(caught.value) == refusal(target)
    assert listing(tmp_path) == {"mine": b"mine"}


SHARED = torch.zeros(3)


@pytest.mark.parametrize(
    ("config", "tokenizer_json", "tensors", "error"),
    [
        ({"not": object()}, "", {}, TypeError),  # fails at the first file,
        ({}, "\ud800", {}, UnicodeEncodeError),  # at the second,
        ({}, "", {"a": SHARED, "b": SHARED}, RuntimeError),  # and at the third
    ],
)
def test_writing_that_fails_leaves_nothing_behind(tmp_path, config, tokenizer_json, tensors, error):
    with pytest.raises(error):
        save_folder(tmp_path / "new", config, tokenizer_json, tensors)
    assert list(tmp_path.iterdir()) == []
    save_folder(tmp_path / "old", CONFIGURATION, TOKENIZER_JSON, some_tensors())
    before = listing(tmp_path)
    with pytest.raises(error):
        save_folder(tmp_path / "old", config, tokenizer_json, tensors)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_an_interruption_between_renamings_leaves_a_whole_model(tmp_path, monkeypatch, nth):
    save_folder(tmp_path / "model", {"version": 1}, "", {})
    rename, calls = type(tmp_path).replace, []

    def interrupted(path, target):
        calls.append(path)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "replace", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        save_folder(tmp_path / "model", {"version": 2}, "", {})
    assert calls, "saving renames in another way: let this test interrupt that"
    assert load_folder(tmp_path / "model")[0]["version"] in (1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# ---- damage that anybody can do ----


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder to copy from."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted(output="softmax", tokenizer="word").save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A model folder to damage."""
    return shutil.copytree(saved, tmp_path / "model")


def message_of(folder):
    """Load a folder that can't be loaded and return what is said, one line of it."""
    with pytest.raises(ModelFolderError) as caught:
        LSTMLanguageModel.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file"):
        assert message_of(path) == f"{path} is no folder; give a folder that save() wrote."


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    message = f"{tmp_path} is no model folder: it has no MANIFEST.json."
    assert message_of(tmp_path) == message
    assert message_of(str(tmp_path)) == message


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    assert message_of(folder) == f"{folder / name} is missing or not a plain file."


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    assert message_of(folder) == f"{folder / name} is missing or not a plain file."


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_not_followed(folder, tmp_path, name):
    outside = (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(outside)
    assert message_of(folder) == f"{folder / name} is missing or not a plain file."


def test_the_manifest_is_no_link_either(folder, tmp_path):
    outside = (folder / MANIFEST).rename(tmp_path / "outside")
    (folder / MANIFEST).symlink_to(outside)
    assert message_of(folder) == f"{folder / MANIFEST} is missing or not a plain file."


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [-1, 1, "all"])
def test_a_file_that_was_cut_off_or_grew(folder, name, change):
    data = (folder / name).read_bytes()
    changed = {-1: data[:-1], 1: data + b"\n", "all": b""}[change]
    (folder / name).write_bytes(changed)
    assert message_of(folder) == (
        f"{folder / name} has {len(changed)} bytes, not the number that MANIFEST.json names: it "
        "was cut off or altered."
    )


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert message_of(folder) == (
        f"{folder / name} was altered: its sha256 is not the one MANIFEST.json names."
    )


# ---- damage done on purpose: the manifest fits the files ----


def manifest_of(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version(folder, version):
    manifest_of(folder, format_version=version)
    assert message_of(folder) == (
        f"{folder} has format version {version!r}; this version of lstmlm reads 1."
    )


@pytest.mark.parametrize("files", [None, [], "model.safetensors"])
def test_a_manifest_without_files(folder, files):
    manifest_of(folder, files=files)
    assert message_of(folder) == f"{folder / MANIFEST} does not list the files of a model."


@pytest.mark.parametrize("entry", [{}, [], None, {"sha256": "", "bytes": "all"}])
def test_a_manifest_without_a_files_size(folder, entry):
    files = json.loads((folder / MANIFEST).read_text())["files"]
    manifest_of(folder, files=files | {CONFIG: entry})
    size = (folder / CONFIG).stat().st_size
    assert message_of(folder) == (
        f"{folder / CONFIG} has {size} bytes, not the number that MANIFEST.json names: it was cut "
        "off or altered."
    )


@pytest.mark.parametrize("name", [MANIFEST, CONFIG])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff{}", b"pickle\x80\x04.", b"[" * 200_000], ids=lambda c: str(c[:9])
)
def test_a_file_that_is_not_json(folder, name, content):
    (folder / name).write_bytes(content)
    if name != MANIFEST:
        sign(folder)
    assert re.fullmatch(
        re.escape(f"{folder / name} is not valid JSON: ") + r".+\.", message_of(folder)
    )


@pytest.mark.parametrize("content", ["[]", "null", '"config"', "3"])
def test_json_of_another_shape(folder, content):
    (folder / CONFIG).write_text(content)
    sign(folder)
    assert message_of(folder) == f"{folder / CONFIG} does not hold a model's settings."
    (folder / MANIFEST).write_text(content)
    assert message_of(folder) == (
        f"{folder} has format version None; this version of lstmlm reads 1."
    )


def change_config(folder, change):
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))
    sign(folder)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda c: c.pop("settled"), "KeyError('settled')"),
        (lambda c: c.pop("vocab_size"), "KeyError('vocab_size')"),
        (
            lambda c: c.update(vocab_size=2**24 + 1),
            "ParameterError('vocab_size=16777217 is not valid; vocab_size is an integer at least 2 "
            'and at most 16777216, or "auto".\')',
        ),
        (
            lambda c: c["settled"].update(output="lookup"),
            "ParameterError('output=\\'lookup\\' is not valid; output is \\'softmax\\' or "
            "\\'adaptive\\', or \"auto\".')",
        ),
    ],
)
def test_settings_that_are_no_models(folder, change, error):
    change_config(folder, change)
    assert message_of(folder) == f"the settings in {folder} are not a model's: {error}."


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(settled=[]),
        lambda c: c.update(history=None),
        lambda c: c.update(history=[{"epoch": 1}]),
        lambda c: c.update(params=3),
        lambda c: c["settled"].update(hidden_size=None),
        lambda c: c["settled"].update(hidden_size="auto"),
        lambda c: c["settled"].update(dropout="auto"),
        lambda c: c["params"].update(no_parameter=1),
        lambda c: c["params"].update(self=1),
        lambda c: c.update(vocab_size="auto"),
        lambda c: c.update(cutoffs=[5, 5]),
        lambda c: c.update(cutoffs=[10**6]),
        lambda c: c.pop("cutoffs"),
        lambda c: c.update(embedding_scale=0),
        lambda c: c.update(tail_width=0),
        lambda c: c.update(tail_width="wide"),
    ],
    ids=[
        "settled is a list",
        "no history",
        "half an epoch",
        "params is a number",
        "no size",
        "auto size",
        "auto dropout",
        "unknown parameter",
        "a parameter called self",
        "auto vocabulary",
        "an empty tail",
        "a tail beyond the vocabulary",
        "no cut-offs",
        "no scale",
        "tails without a width",
        "tails of a width that is no number",
    ],
)
def test_settings_that_are_no_settings(folder, change):
    change_config(folder, change)
    pattern = re.escape(f"the settings in {folder} are not a model's: ") + r".+\."
    assert re.fullmatch(pattern, message_of(folder))


@pytest.mark.parametrize("output", ["softmax", "adaptive"])
def test_a_model_keeps_the_rules_it_was_fitted_by(tmp_path, monkeypatch, output):
    lm = fitted(output=output, tokenizer="word")
    lm.save(tmp_path / "model")
    monkeypatch.setattr("lstmlm.fitting.network.cutoffs", lambda vocab_size: [3, 4])
    monkeypatch.setattr("lstmlm.fitting.network.tail_width", lambda width: 1)
    monkeypatch.setattr("lstmlm.fitting.network.embedding_scale", lambda vocab_size: 7.0)
    kept = LSTMLanguageModel.load(tmp_path / "model")
    assert kept.score_samples(ENGLISH).tolist() == lm.score_samples(ENGLISH).tolist()


def test_folders_of_the_first_version_have_tails_as_wide_as_their_features(tmp_path, monkeypatch):
    monkeypatch.setattr("lstmlm.fitting.network.tail_width", lambda width: width)
    lm = fitted(output="adaptive", tokenizer="word")
    lm.save(tmp_path / "model")
    change_config(tmp_path / "model", lambda c: c.pop("tail_width"))
    monkeypatch.setattr("lstmlm.fitting.network.tail_width", lambda width: 1)
    kept = LSTMLanguageModel.load(tmp_path / "model")
    assert kept.score_samples(ENGLISH).tolist() == lm.score_samples(ENGLISH).tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["settled"].update(hidden_size=2**16, embedding_dim=2**16, num_layers=64),
        lambda c: c.update(vocab_size=2**24),
        lambda c: c["settled"].update(hidden_size=17),
    ],
    ids=["terabytes of layers", "a gigabyte of rows", "one column"],
)
def test_sizes_that_dont_fit_allocate_nothing(folder, change):
    change_config(folder, change)
    tracemalloc.start()
    try:
        message = message_of(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    shape = r"(None|\(\d+(, \d+)*,?\))"
    assert re.fullmatch(
        re.escape(f"{folder / WEIGHTS} does not fit config.json: ")
        + rf"\S+ has shape {shape}, {shape} is needed\.",
        message,
    )
    # Tensors of terabytes would have been refused by torch, with another message; Python has read a
    # model's files, some kilobytes.
    assert peak < 50e6


def change_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    sign(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bias"), "head.bias has shape None, ({V},) is needed."),
        (lambda t: t.update(extra=torch.zeros(2)), "extra has shape (2,), None is needed."),
        (
            lambda t: t.update({"head.bias": t["head.bias"][:-1].clone()}),
            "head.bias has shape ({V_less_1},), ({V},) is needed.",
        ),
        (
            lambda t: t.update({"embedding.weight": t["embedding.weight"].T.contiguous()}),
            "embedding.weight has shape (12, {V}), ({V}, 12) is needed.",
        ),
        (
            lambda t: t.update({"tokenizer.ranks": torch.tensor(1, dtype=torch.int32)}),
            "tokenizer.ranks has shape (), ({V_less_1},) is needed.",
        ),
    ],
    ids=["missing", "extra", "short", "transposed", "a number"],
)
def test_tensors_that_dont_fit(folder, change, message):
    size = fitted(output="softmax", tokenizer="word").vocab_size_
    change_tensors(folder, change)
    expected = message.format(V=size, V_less_1=size - 1)
    assert message_of(folder) == f"{folder / WEIGHTS} does not fit config.json: {expected}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage, and more of it",
        b"\xff" * 100,
        (8).to_bytes(8, "little") + b"{}      ",
        (2**40).to_bytes(8, "little") + b"{}",
    ],
    ids=["empty", "text", "ones", "no tensors", "a header of a terabyte"],
)
def test_a_file_that_holds_no_tensors(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    sign(folder)
    message = message_of(folder)
    wrong = f"{folder / WEIGHTS} is not a file of tensors: "
    unfit = f"{folder / WEIGHTS} does not fit config.json: "
    assert re.fullmatch(f"({re.escape(wrong)}|{re.escape(unfit)}).+\\.", message)


@pytest.mark.parametrize(
    "change",
    [
        lambda ranks: ranks.flip(0).add(1),
        lambda ranks: ranks.mul(0),
        lambda ranks: ranks.neg(),
        lambda ranks: ranks.to(torch.float32),
        lambda ranks: ranks.to(torch.bfloat16),
    ],
    ids=["beyond the vocabulary", "all the same", "negative", "floats", "halves"],
)
def test_ranks_that_are_no_permutation(folder, change):
    change_tensors(folder, lambda t: t.update({"tokenizer.ranks": change(t["tokenizer.ranks"])}))
    assert message_of(folder) == f"the tokenizer in {folder} does not fit its model."


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b'{"version": "1.0"}', b"\xff\xfe", b"[" * 1000],
    ids=["empty", "no version", "no model", "not UTF-8", "nested"],
)
def test_a_tokenizer_that_cant_be_read(folder, content):
    (folder / TOKENIZER).write_bytes(content)
    sign(folder)
    pattern = re.escape(f"tokenizer.json in {folder} can't be read: ") + r".+\."
    assert re.fullmatch(pattern, message_of(folder))


def test_a_tokenizer_of_another_model(folder):
    other, _ = learn_tokenizer("word", ENGLISH, TextConfig(min_frequency=1))
    (folder / TOKENIZER).write_text(other.backend.to_str(), "utf-8")
    sign(folder)
    assert message_of(folder) == f"the tokenizer in {folder} does not fit its model."


def change_types(folder, change):
    """Change the Rust tokenizer's types, their number apart."""
    described = json.loads((folder / TOKENIZER).read_text("utf-8"))
    change(described["model"]["vocab"])
    (folder / TOKENIZER).write_text(json.dumps(described), "utf-8")
    sign(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda vocab: vocab.update(the=10**6),  # an id that no row of the model has
        lambda vocab: vocab.update({"<UNK>": vocab.pop("<unk>")}),
    ],
    ids=["gap", "no unknown token"],
)
def test_a_tokenizer_whose_ids_are_not_the_models(folder, change):
    change_types(folder, change)
    assert message_of(folder) == f"the tokenizer in {folder} does not fit its model."


def test_a_tokenizer_of_another_kind(folder):
    change_config(folder, lambda c: c["settled"].update(tokenizer="wordpiece"))
    assert message_of(folder) == f"the tokenizer in {folder} does not fit its model."


# ---- the estimator in its folder ----


@pytest.mark.parametrize("output", ["softmax", "adaptive"])
@pytest.mark.parametrize("tokenizer", ["bpe", "char", "word"])
def test_a_loaded_estimator_is_the_saved_one(tmp_path, tokenizer, output):
    model = fitted(output=output, tokenizer=tokenizer)
    model.save(tmp_path / "model")
    loaded = LSTMLanguageModel.load(tmp_path / "model", device="cpu")
    assert loaded.get_params() == model.get_params()
    assert loaded.params_ == model.params_
    assert loaded.history_ == model.history_
    assert loaded.n_epochs_ == model.n_epochs_
    assert loaded.vocab_size_ == model.vocab_size_
    assert loaded.device_ == torch.device("cpu")
    assert loaded.score_samples(TEXTS).tolist() == model.score_samples(TEXTS).tolist()
    assert loaded.generate(TEXTS[:3], max_new_tokens=9) == model.generate(
        TEXTS[:3], max_new_tokens=9
    )


@pytest.mark.parametrize("tie_weights", [True, False])
def test_saving_what_was_loaded_writes_the_same_bytes(tmp_path, tie_weights):
    model = unfitted(tokenizer="char", max_epochs=0, tie_weights=tie_weights).fit(TEXTS)
    model.save(tmp_path / "a")
    LSTMLanguageModel.load(tmp_path / "a", device="cpu").save(tmp_path / "b")
    assert listing(tmp_path / "a") == listing(tmp_path / "b")


def test_a_loaded_estimator_can_be_fitted_again(saved):
    loaded = LSTMLanguageModel.load(saved, device="cpu")
    assert not loaded.module_.training
    again = loaded.fit(TEXTS)
    assert again.score(TEXTS) == fitted(output="softmax", tokenizer="word").score(TEXTS)


def test_parameters_that_json_has_no_word_for(tmp_path):
    model = unfitted(
        max_epochs=np.int64(0),
        tie_weights=np.bool_(False),
        dropout=np.float64(0.25),
        generation_config=DecodeConfig(top_k=3),
        random_state=np.random.RandomState(0),
        device=torch.device("cpu"),
    )
    model.fit(TEXTS).save(tmp_path / "model")
    loaded = LSTMLanguageModel.load(tmp_path / "model", device="cpu")
    params = loaded.get_params()
    assert (params["max_epochs"], params["tie_weights"], params["dropout"]) == (0, False, 0.25)
    assert DecodeConfig.merged(params["generation_config"]) == DecodeConfig(top_k=3)
    assert params["random_state"] is None
    assert params["device"] == "cpu"


def test_the_folder_of_a_saved_model_may_be_moved(saved, tmp_path):
    moved = shutil.copytree(saved, tmp_path / "ein Ordner mit Ümläuten")
    loaded = LSTMLanguageModel.load(moved)
    assert loaded.score(TEXTS) == fitted(output="softmax", tokenizer="word").score(TEXTS)


# ---- texts and ids on the disk ----


@given(st.lists(st.text(st.characters(codec=None)), max_size=10))
def test_spooled_texts_can_be_read_again_and_again(some):
    with workspace() as folder:
        spooled = SpooledTexts((text for text in some), folder / "texts")
        for _ in range(2):
            assert list(spooled) == [readable(text) for text in some]
        first, second = iter(spooled), iter(spooled)
        assert list(zip(first, second, strict=True)) == [(readable(t), readable(t)) for t in some]


def test_a_workspace_is_gone_afterwards():
    with contextlib.suppress(KeyboardInterrupt), workspace() as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        raise KeyboardInterrupt
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
@given(texts=batches())
def test_a_written_corpus_is_the_one_in_memory(kind, texts):
    tokenizer, _ = learn_tokenizer(kind, TEXTS, TextConfig(vocab_size=300))
    with workspace() as folder:
        written = write_corpus(iter(texts), tokenizer, folder / "ids")
        expected = Corpus.of(tokenizer.encode(texts), END)
        assert written.ids.tolist() == expected.ids.tolist()
        assert written.ids.dtype == np.int32
        assert written.begins.tolist() == expected.begins.tolist()
        assert written.ends.tolist() == expected.ends.tolist()
        assert written.begins.dtype == written.ends.dtype == np.int32
        del written


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
@given(texts=batches())
def test_renumbered_ids_fall_in_frequency_and_mean_the_same(kind, texts):
    tokenizer, _ = learn_tokenizer(kind, TEXTS, TextConfig(vocab_size=300))
    with workspace() as folder:
        corpus = write_corpus(texts, tokenizer, folder / "ids")
        ordered = renumber(corpus, tokenizer)
        counts = np.bincount(corpus.ids, minlength=ordered.vocab_size)[1:]
        assert (np.diff(counts) <= 0).all()
        assert np.flatnonzero(corpus.ids == END).tolist() == [0, *(corpus.ends - 1).tolist()]
        encoded = zip(ordered.encode(texts), corpus.begins, corpus.ends, strict=True)
        for ids, begin, end in encoded:
            assert corpus.ids[begin : end - 1].tolist() == ids.tolist()
        on_disk = np.fromfile(folder / "ids", dtype=np.int32)
        assert on_disk.tolist() == corpus.ids.tolist()
        del corpus


def test_ids_that_were_read_do_not_stay_in_memory(tmp_path):
    np.zeros(1 << 25, dtype=np.int32).tofile(tmp_path / "ids")  # 128 MiB
    ids = MappedIds(tmp_path / "ids", dtype=np.int32, mode="r+")
    before = resident_of_files()
    for start in range(0, len(ids), 1 << 20):
        part = ids[start : start + (1 << 20)]
        part += 1
        assert ids[np.arange(start, start + (1 << 20), 512)].sum() == 1 << 11
    # A part is 4 MiB; the kernel maps 64 KiB around a page, and other files' pages come along.
    assert resident_of_files() - before < 32 << 20
    del part
    assert (np.asarray(ids) == 1).all()
    assert (np.fromfile(tmp_path / "ids", dtype=np.int32) == 1).all()


def resident_of_files() -> int:
    """Return how much of the files that this process has mapped lies in its memory, in bytes."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("only Linux tells")
    return int(re.search(r"RssFile:\s+(\d+) kB", status.read_text())[1]) * 1024


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_said_in_one_line():
    said = (
        "the disk that holds /dev is full. fit keeps there the texts of an iterator and, four "
        "bytes a token, the ids of all texts: set TMPDIR to a folder with more room."
    )
    tokenizer, _ = learn_tokenizer("char", TEXTS, TextConfig())
    for write in (SpooledTexts, lambda texts, path: write_corpus(texts, tokenizer, path)):
        with pytest.raises(DiskFullError) as caught:
            write(iter(TEXTS), Path("/dev/full"))
        assert str(caught.value) == said


def test_other_faults_of_a_disk_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        SpooledTexts(iter(TEXTS), tmp_path / "no folder" / "texts")
