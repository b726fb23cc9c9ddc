"""What ``lstmlm demo`` shows: a model of the Python language reference, trained before your eyes.

The text ships with Python. Beside the model stand baselines that know the same tokens: guessing
blindly, the tokens' frequencies, and an n-gram model with Kneser-Ney smoothing.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pydoc_data.topics import topics

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lstmlm.estimator import LSTMLanguageModel
from lstmlm.text import END

PREFIXES = ("The class statement ", "If the object is not a se", "An excep", "import sy")
SECONDS = 60.0
HELD_OUT_EVERY = 12  # every so many topics one is held out
PROMPTS = ("The class statement", "If the object is not", "An exception is raised when")
DISCOUNT = 0.75


class KneserNey:
    """An interpolated Kneser-Ney n-gram model (Chen and Goodman 1999, section 3).

    Parameters
    ----------
    texts : sequence of sequences of int
        Ids without end marks.
    order : int
        The n of n-gram.
    vocab_size : int
        Number of ids; below the unigrams lies the uniform distribution.
    """

    def __init__(self, texts: Sequence[Sequence[int]], order: int, vocab_size: int) -> None:
        self.order, self.vocab_size = order, vocab_size
        counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order)]
        for text in texts:
            marked = (END,) * (order - 1) + tuple(text) + (END,)
            counts[-1].update(marked[i : i + order] for i in range(len(marked) - order + 1))
        for n in range(order - 1, 0, -1):  # lower orders count the distinct ids before an n-gram
            counts[n - 1].update(gram[1:] for gram in counts[n])
        self.counts = counts
        self.totals = [Counter[tuple[int, ...]]() for _ in range(order)]
        self.followers = [Counter[tuple[int, ...]]() for _ in range(order)]
        for n, grams in enumerate(counts):
            for gram, count in grams.items():
                self.totals[n][gram[:-1]] += count
                self.followers[n][gram[:-1]] += 1

    def probability(self, history: tuple[int, ...], token: int) -> float:
        """Return the probability of `token` after `history`, of at most order - 1 ids."""
        n = len(history)
        lower = self.probability(history[1:], token) if history else 1 / self.vocab_size
        if not (total := self.totals[n][history]):
            return lower
        own = max(self.counts[n][(*history, token)] - DISCOUNT, 0.0)
        return (own + DISCOUNT * self.followers[n][history] * lower) / total

    def perplexity(self, texts: Sequence[Sequence[int]]) -> float:
        """Return the perplexity per token, each text's end mark included."""
        nats, n_tokens = 0.0, 0
        for text in texts:
            marked = (END,) * (self.order - 1) + tuple(text) + (END,)
            for i in range(self.order - 1, len(marked)):
                nats -= math.log(self.probability(marked[i - self.order + 1 : i], marked[i]))
            n_tokens += len(text) + 1
        return math.exp(nats / n_tokens)


def split_topics() -> tuple[list[str], list[str]]:
    """Return the reference's paragraphs: those to train on, and those of the topics held out."""
    kept: dict[bool, list[str]] = defaultdict(list)
    seen = set()
    for number, name in enumerate(sorted(topics)):
        for paragraph in topics[name].split("\n\n"):
            text = " ".join(paragraph.split())
            if len(text) >= 40 and text not in seen:  # some paragraphs stand under several topics
                seen.add(text)
                kept[number % HELD_OUT_EVERY == 0].append(text)
    return kept[False], kept[True]


def run(console: Console, seconds: float = SECONDS) -> None:
    """Train for some seconds, and show what the model can do."""
    train, test = split_topics()
    console.rule("[bold]1. Train")
    console.print(
        f"The Python language reference: {sum(map(len, train)):,} characters in {len(train):,} "
        f"paragraphs to learn from, {len(test):,} paragraphs of other topics held out.\n"
    )
    began = time.monotonic()
    model = LSTMLanguageModel(max_seconds=seconds, random_state=0, verbose=1).fit(train)
    console.print(f"\nTrained in {time.monotonic() - began:.0f} s.\n")
    console.rule("[bold]2. Score")
    console.print(compare(model, train, test))
    sample = max((text for text in test if len(text) < 400), key=len)
    console.print(
        "\nHow surprising is each word? The more bits, the warmer; the highest five are given.\n"
    )
    console.print(shade(model, sample))
    console.rule("[bold]3. Complete")
    for prefix in PREFIXES:
        console.print(Text(prefix, style="bold"), end="")
        offered = [one.text for one in model.complete(prefix, n=4)]
        console.print(Text("  |  ".join(offered), style="green"))
    console.rule("[bold]4. Continue")
    for prompt, rest in zip(PROMPTS, model.predict(PROMPTS), strict=True):
        console.print(Text(prompt, style="bold").append(first_words(rest, 12), style="green"))
    console.rule("[bold]5. Write")
    for prompt in ("", PROMPTS[0]):
        console.print(Text(prompt, style="bold"), end="")
        for piece in model.generate_stream(prompt, max_new_tokens=80, temperature=0.8):
            console.print(Text(piece, style="green"), end="")
        console.print("\n")


def compare(model: LSTMLanguageModel, train: list[str], test: list[str]) -> Table:
    """Return a table of the model's figures on held-out text beside those of baselines."""
    tokenizer = model.tokenizer_
    learned, heldout = (
        [ids.tolist() for ids in tokenizer.encode(texts)] for texts in (train, test)
    )
    evaluation = model.evaluate(test)
    rows = {"every token alike": float(tokenizer.vocab_size)}
    for name, order in (("token frequencies", 1), ("Kneser-Ney trigrams", 3)):
        rows[name] = KneserNey(learned, order, tokenizer.vocab_size).perplexity(heldout)
    rows["LSTM"] = evaluation.perplexity
    table = Table("", "perplexity a token", "bits a character", title="On held-out topics")
    for name, perplexity in rows.items():
        bits = math.log2(perplexity) * evaluation.n_tokens / evaluation.n_chars
        style = "bold green" if name == "LSTM" else ""
        table.add_row(name, f"{perplexity:,.1f}", f"{bits:.2f}", style=style)
    return table


def shade(model: LSTMLanguageModel, text: str) -> Text:
    """Return a text whose words are coloured by their surprisal."""
    (scored,) = model.pipe([text])
    words = [(word, -nats / math.log(2)) for word, nats in scored.words()]
    highest = sorted((bits for _, bits in words), reverse=True)[:5][-1]
    shaded = Text()
    for word, bits in words:
        heat = min(1.0, bits / 20)
        colour = f"rgb(255,{round(235 - 175 * heat)},{round(225 - 200 * heat)})"
        shaded.append(word, style=f"black on {colour}")
        shaded.append(f" {bits:.0f}" if bits >= highest else "", style="bold red")
        shaded.append(" ")
    return shaded


def first_words(text: str, n: int) -> str:
    """Return the first words of a text, the space before them kept."""
    parts = text.split(" ")
    return " ".join(parts[: n + 1]) + (" ..." if len(parts) > n + 1 else "")
