"""The component in other processes."""

import subprocess
import sys
import textwrap

import pytest
from pipelines import folder_of, pipeline
from scripts import run
from tiny import TEXTS

METHODS = ["fork", "forkserver", "spawn"]

SCRIPT = """
import multiprocessing, warnings
import spacy
import torch

def main():
    multiprocessing.set_start_method({method!r})
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm", config={{"model": {folder!r}, "device": "cpu"}})
    torch.set_num_threads(2)
    texts = {texts!r}
    torch.rand(2000, 2000) @ torch.rand(2000, 2000)  # torch's threads begin
    alone = [doc._.lm_log_prob for doc in nlp.pipe(texts)]
    docs = list(nlp.pipe(texts, n_process=2, batch_size=5))
    assert [doc.text for doc in docs] == texts
    for doc, expected in zip(docs, alone, strict=True):
        found = doc._.lm_log_prob
        assert abs(found - expected) <= 1e-5 * abs(expected), (doc.text, found, expected)
    assert docs[0]._.lm_complete(2) == nlp(texts[0])._.lm_complete(2)
    assert torch.get_num_threads() == 2
    print("fine")

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_say_what_one_does(method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(method=method, folder=folder_of(), texts=TEXTS), "utf-8")
    done = run(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"
    assert done.stderr == ""


def test_a_fork_of_a_model_on_a_gpu_is_a_clear_error(monkeypatch):
    """What a forked child sees where there is a GPU: another process, and the device's name."""
    component = pipeline().get_pipe("lstmlm")

    class OnGpu:
        type = "cuda"

    component.model = type(component.model)().set_params(**component.model.get_params())
    component.model.device_ = OnGpu()
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(RuntimeError, match=r"a forked process can't use; set device=\"cpu\""):
        component.predict([])


def test_an_error_in_a_worker_reaches_the_caller(tmp_path):
    script = textwrap.dedent(
        """
        import multiprocessing, spacy
        if __name__ == "__main__":
            multiprocessing.set_start_method("fork")
            nlp = spacy.blank("en")
            nlp.add_pipe("lstmlm")
            try:
                list(nlp.pipe(["a", "b"], n_process=2))
            except ValueError as error:
                print("has no model yet" in str(error))
        """
    )
    path = tmp_path / "script.py"
    path.write_text(script, "utf-8")
    done = run(path, strict=False)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.gpu
def test_on_a_gpu_figures_are_the_same_and_a_forked_worker_says_why_not():
    script = textwrap.dedent(
        f"""
        import multiprocessing, spacy
        texts = {TEXTS!r}
        figures = []
        for device in ("cpu", "cuda"):
            nlp = spacy.blank("en")
            nlp.add_pipe("lstmlm", config={{"model": {folder_of()!r}, "device": device}})
            figures.append([doc._.lm_log_prob for doc in nlp.pipe(texts)])
        assert all(abs(a - b) <= 1e-4 * abs(a) for a, b in zip(*figures))
        multiprocessing.set_start_method("fork")
        try:
            list(nlp.pipe(texts, n_process=2))
        except ValueError as error:
            print("a forked process can't use" in str(error))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
