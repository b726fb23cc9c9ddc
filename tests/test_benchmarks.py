"""The peers and the parts of the benchmarks, small: what they claim is only as good as they are."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SENTENCES = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a dog and a cat ran",
    "the cat ran to the house",
    "a cat and a mouse ran to the mat",
    "the mouse sat",
]


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """Let scripts import each other, as they do when they are run."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in [name for name, module in sys.modules.items() if _is_script(module)]:
        del sys.modules[name]


def _is_script(module):
    return str(getattr(module, "__file__", None) or "").startswith(str(BENCHMARKS))


def drawn_sentences(n_sentences):
    """Return sentences with n-grams of all orders that occur once, twice, three and four times."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 8, n_sentences)
    return [[f"w{k}" for k in rng.zipf(1.2, n) if k < 400] for n in lengths]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("prefix", ["", "w1", "w1 w2", "w9 w1 w1", "w3 new w1", "w1 w1 w1 w1 w1"])
def test_kneser_neys_probabilities_sum_to_one(order, prefix):
    from kneser_ney import KneserNey

    model, words = KneserNey(drawn_sentences(2000), order), prefix.split()
    nexts = [*model.ids, "never seen"]
    total = sum(math.exp(model.log_probs([[*words, word]])[len(words)]) for word in nexts)
    total += math.exp(model.log_probs([words])[-1])  # the end mark
    assert total == pytest.approx(1, abs=1e-12)


class SlowKneserNey:
    """The same, written down from Chen and Goodman's equations with dicts and recursion."""

    def __init__(self, sentences, order):
        grams = {}
        for sentence in sentences:
            words = ("<s>", *sentence, "</s>")
            for end in range(len(words)):
                for n in range(1, min(order, end + 1) + 1):
                    gram = words[end + 1 - n : end + 1]
                    grams[gram] = grams.get(gram, 0) + 1
        self.counts = {
            gram: count
            if len(gram) == order or (gram[0] == "<s>" and len(gram) > 1)
            else len({longer[0] for longer in grams if longer[1:] == gram})
            for gram, count in grams.items()
            if gram != ("<s>",)
        }
        self.vocab_size = len({word for gram in grams for word in gram} - {"<s>"}) + 1
        self.taken = {n: self.discounts(n) for n in range(1, order + 1)}
        self.order = order

    def discounts(self, n):
        of = [count for gram, count in self.counts.items() if len(gram) == n]
        n1, n2, n3, n4 = (of.count(c) for c in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        return [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]

    def prob(self, context, word):
        context = context[max(0, len(context) - self.order + 1) :]
        n = len(context) + 1
        lower = self.prob(context[1:], word) if context else 1 / self.vocab_size
        after = [c for gram, c in self.counts.items() if len(gram) == n and gram[:-1] == context]
        if not after:
            return lower
        taken = self.taken[n]
        count = self.counts.get((*context, word), 0)
        back_off = sum(taken[min(c, 3)] for c in after) / sum(after)
        return (count - taken[min(count, 3)]) / sum(after) + back_off * lower


@pytest.mark.parametrize("order", [1, 2, 3])
def test_kneser_ney_is_its_equations(order):
    from kneser_ney import KneserNey

    text = drawn_sentences(400)
    fast, slow = KneserNey(text, order), SlowKneserNey(text, order)
    tests = [["w1", "w2", "w1", "w1"], ["w30", "w5", "w1"], ["w1", "new", "w2"], []]
    expected = [
        math.log(slow.prob(("<s>", *sentence[:at]), word))
        for sentence in tests
        for at, word in enumerate([*sentence, "</s>"])
    ]
    np.testing.assert_allclose(fast.log_probs(tests), expected, rtol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_kneser_ney_of_few_types_still_sums_to_one(order):
    from kneser_ney import KneserNey

    model = KneserNey(["abracadabra " * 5], order)  # too few letters are rare to discount by
    for context in ("", "a", "abra", "abracad"):
        nexts = [model.log_probs([context + letter])[len(context)] for letter in "abrcd ?"]
        end = model.log_probs([context])[-1]
        assert sum(math.exp(value) for value in [*nexts, end]) == pytest.approx(1)


@pytest.mark.parametrize("extra", [[], ["<unk>"]])
def test_an_n_gram_model_means_the_same_in_arpas_format(extra):
    from kneser_ney import KneserNey

    model = KneserNey([sentence + extra for sentence in drawn_sentences(500)], 3)
    lines = "\n".join(model.arpa()).split("\n")
    sections = [line for line in lines if line.startswith("ngram ")]
    assert len(sections) == 3
    entries = dict[tuple[str, ...], list[float]]()
    for line in lines:
        if "\t" in line:
            log_prob, words, *back_off = line.split("\t")
            assert tuple(words.split(" ")) not in entries
            entries[tuple(words.split(" "))] = [float(log_prob), *map(float, back_off)]
    assert sum(int(line.split("=")[1]) for line in sections) == len(entries)

    def log_prob(context, word):
        if (*context, word) in entries:
            return entries[*context, word][0]
        return entries.get(context, [0, 0])[1] + log_prob(context[1:], word)

    unknown = [] if extra else [["w3", "<unk>", "w1", "w2"]]
    for sentence in ([], ["w1", "w2", "w1", *extra], ["w2", "w3", "w1", "w1"], *unknown):
        marked = ["<s>", *sentence, "</s>"]
        found = [log_prob(tuple(marked[max(0, i - 2) : i]), marked[i])
                 for i in range(1, len(marked))]  # fmt: skip
        # Seven digits are written.
        np.testing.assert_allclose(
            np.array(found) * math.log(10), model.log_probs([sentence]), atol=1e-5
        )


def test_the_plain_loops_learn():
    from char_loop import CharLoop
    from word_loop import WordLoop

    words = WordLoop(SENTENCES * 60)
    words.rate = 1.0  # 20 is for the means over 33,000 types
    before = words.nats(SENTENCES, n_lanes=1)
    assert words.speed(1.5) > 0
    assert words.nats(SENTENCES, n_lanes=1) < before
    characters = CharLoop([" ".join(SENTENCES * 12)] * 2)
    before = characters.nats(SENTENCES)
    assert characters.fit(1.5) > 0
    assert characters.nats(SENTENCES) < before


def test_neighbours_are_halves_and_doubles(tmp_path):
    from neighbours import changed, results

    settled = {"dropout": 0.6, "dropout_input": 0.1, "batch_size": 1, "learning_rate": 6e-3}
    assert changed(settled, "dropout", 2.0) == {"dropout": 0.9, "dropout_input": 0.2}
    assert changed(settled, "batch_size", 0.5) == {"batch_size": 1}
    assert changed(settled, "learning_rate", 0.5) == {"learning_rate": 3e-3}
    path = tmp_path / "runs.jsonl"
    assert results(path) == {}
    path.write_text('{"corpus": "a", "run": "defaults", "nats": 1}\n')
    assert results(path)["a", "defaults"]["nats"] == 1


def test_the_plain_scoring_loop_has_our_figures():
    from score import plain_loop

    from lstmlm import LSTMLanguageModel

    lm = LSTMLanguageModel(
        tokenizer="word", embedding_dim=8, hidden_size=8, num_layers=2, output="softmax",
        max_epochs=2, early_stopping=False, random_state=0,
    ).fit(SENTENCES)  # fmt: skip
    np.testing.assert_allclose(plain_loop(lm, SENTENCES), lm.score_samples(SENTENCES), rtol=1e-5)


def test_a_corpus_of_words_holds_each_of_them():
    from growth import zipf_lines

    words = {word for line in zipf_lines(500, 10_000) for word in line.split()}
    assert len(words) == 500


def test_operations_of_products_are_counted():
    from roofline import Product, there_and_back

    product = Product("layer, from the state", 20, 650, 2600, times=35)
    assert product.operations == 2 * 20 * 650 * 2600 * 35
    assert [p.operations for p in there_and_back([product])] == [product.operations] * 3


def test_tables_are_markdown():
    from tables import in_turns, machine, table

    assert table([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]) == (
        "| a | b |\n| --- | --- |\n| 1 | x |\n| 2 | y |"
    )
    assert "torch" in machine()
    answers = iter([1.0, 9.0, 2.0, 8.0, 3.0, 7.0])
    assert in_turns(3, one=lambda: next(answers), other=lambda: next(answers)) == {
        "one": 2.0,
        "other": 8.0,
    }


# ---- generate ----


def test_a_typist_saves_what_is_suggested_rightly():
    import generate

    offers = {"": [" cat", "the"], "c": ["at", "ow"], " ": ["sat"]}
    fed = []
    typist = generate.Typist(lambda before, begun: offers.get(begun, []), fed.append)
    typist.type(["the", " sat", " cow"])
    # " sat" after its space; " cow" letter by letter: nothing is offered behind " c".
    assert fed == ["the", " ", "sat", " ", "c", "o", "w"]
    assert typist.saved == 1 - 5 / 11
    assert len(typist.times) == len(fed)


def test_ngrams_complete_with_what_followed_most():
    import generate

    texts = [generate.cut_in_words(text, by_char=False) for text in SENTENCES]
    ngrams = generate.Ngrams(texts)
    assert ngrams.complete(["the", " cat"], "", 2) == [" sat", " ran"]
    assert ngrams.complete(["the", " cat"], " r", 3) == ["an"]
    assert ngrams.complete(["no", " word"], " m", 1) == ["at"]
    assert generate.cut_in_words("it's 3 o'clock.", by_char=False) == [
        "it's",
        " 3",
        " o'clock",
        ".",
    ]


def test_runs_that_come_again():
    import generate

    assert generate.repeated([1, 2, 3, 4, 5]) == 0
    assert generate.repeated([1, 2, 3, 4] * 2) == pytest.approx(1 / 5)
    assert generate.repeated([7] * 13) == pytest.approx(0.9)


def test_all_ways_of_generating_are_timed(tmp_path):
    import generate

    lm = generate.LSTMLanguageModel(tokenizer="word", max_epochs=0, hidden_size=8).fit(SENTENCES)
    assert generate.ours(lm, 5, 2) > 0
    assert generate.plain_loop(50, 8, 5) > 0
    row = generate.loops(lm, SENTENCES, "sentences")
    assert row["typed"].startswith("sentences")


def test_the_spacy_benchmark_runs_as_a_script_beside_its_own_name(tmp_path):
    """Its file is called spacy.py, and must find spaCy all the same."""
    corpus = tmp_path / "wikitext-2"
    corpus.mkdir()
    lines = [f"{text} and number {n} too ." for n in range(60) for text in SENTENCES]
    for part in ("train", "valid", "test"):
        (corpus / f"{part}.txt").write_text("\n".join(lines), "utf-8")
    options = ["--data", str(tmp_path), "--texts", "40", "--docs", "100", "--train-seconds", "2"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "spacy.py"), *options],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"costs \*\*[+-][\d.]+ %\*\* on top of the estimator", done.stdout)
    assert re.search(r"^\| 100 \| [\d.]+ \|", done.stdout, re.M)
