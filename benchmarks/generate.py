"""Writing: tokens a second of generation, the time of a key's suggestions, and what they save.

    python benchmarks/generate.py --data FOLDER
    python benchmarks/generate.py --data FOLDER --only speed

FOLDER holds WikiText-2, tinyshakespeare and Tang poems as wikitext-2/, tinyshakespeare/ and
tang-poems/.

- Speed: tokens a second of one stream with 33,278 words, at 2 x 200 and 2 x 650, with the adaptive
  head that `fit` chooses and with the full softmax, in float32 and int8; beside them the step loop
  of PyTorch's word_language_model example, written out here, and a transformer of GPT-2 small's
  shape with its cache, where transformers is installed. In turns; the ratio is to the loop of the
  same size. Then 64 sequences at once.
- Keys: a person types held-out text. With each key a session is fed and gives suggestions; the
  median and the 99th percentile of the time both take, on a bpe model of WikiText-2. The share of
  characters that need not be typed if a right one among three suggestions is taken, on three
  corpora, beside a completer that knows n-grams: words (of Tang poems characters) after the two
  before them, after the one before, or alone, by stupid backoff (Brants et al. 2007, section 4).
- Loops: the share of runs of four tokens that come again in the same text, in 100 samples of 200
  tokens at the defaults, and in as many pieces of the training text.

Nothing else should run on the machine.
"""

import argparse
import importlib.util
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from corpora import read
from tables import in_turns, machine, table
from torch import nn

from lstmlm import LSTMLanguageModel, Session

SIZES = (200, 650)
WARM_UP = 20  # tokens before the time is taken
WORD = re.compile(r"\s*(?:[\w'’]+|[^\w\s]+)")
KEYS = {  # what is typed on which model
    "wikitext-2": {"tokenizer": "bpe", "context": "stream"},
    "tinyshakespeare": {"tokenizer": "bpe", "context": "stream"},
    "tang-poems": {"tokenizer": "char", "context": "document"},
}


class PlainModel(nn.Module):
    """PyTorch's word_language_model: embedding, LSTM, a full softmax that shares its rows."""

    def __init__(self, n_words: int, size: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(n_words, size)
        self.rnn = nn.LSTM(size, size, 2)
        self.decoder = nn.Linear(size, n_words)
        self.decoder.weight = self.encoder.weight


@torch.no_grad()
def plain_loop(n_words: int, size: int, n_tokens: int) -> float:
    """Return the tokens a second of a loop as one writes it down."""
    model = PlainModel(n_words, size).eval()
    token, state = torch.randint(n_words, (1, 1)), None
    for number in range(WARM_UP + n_tokens):
        if number == WARM_UP:
            began = time.perf_counter()
        outputs, state = model.rnn(model.encoder(token), state)
        log_probs = model.decoder(outputs[0]).log_softmax(-1)
        weights = log_probs.squeeze().div(1.0).exp()
        token.fill_(torch.multinomial(weights, 1)[0])
    return n_tokens / (time.perf_counter() - began)


def ours(lm: LSTMLanguageModel, n_tokens: int, n_rows: int = 1) -> float:
    """Return the tokens a second of `generate`, once it is warm."""
    lm.generate([""] * n_rows, max_new_tokens=WARM_UP, random_state=1)
    began = time.perf_counter()
    written = lm.generate_records([""] * n_rows, max_new_tokens=n_tokens, random_state=0)
    return sum(len(one.tokens) for one in written) / (time.perf_counter() - began)


def transformer(n_tokens: int) -> float:
    """Return the tokens a second of a transformer of GPT-2 small's shape that samples."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    prompt = torch.randint(0, 50_257, (1, 1))
    model.generate(prompt, max_new_tokens=WARM_UP, do_sample=True, top_k=0, pad_token_id=0)
    began = time.perf_counter()
    out = model.generate(prompt, max_new_tokens=n_tokens, min_new_tokens=n_tokens, do_sample=True,
                         top_k=0, pad_token_id=0)  # fmt: skip
    return (out.shape[1] - 1) / (time.perf_counter() - began)


def speeds(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Time one stream, and 64 at once."""
    text = [" ".join(read(args.data, "wikitext-2", "train"))]
    work: dict[str, Callable[[], float]] = {}
    loops = {}
    for size in SIZES:
        loop = f"2 x {size}, a plain loop"
        work[loop] = partial(plain_loop, 33_278, size, args.tokens)
        for output in ("adaptive", "softmax"):
            lm = LSTMLanguageModel(
                tokenizer="word", embedding_dim=size, hidden_size=size, num_layers=2,
                output=output, max_epochs=0, random_state=0,
            ).fit(text)  # fmt: skip
            for name, model in (("float32", lm), ("int8", lm.quantize())):
                for n_rows, of in ((1, ""), (64, ", 64 at once")):
                    label = f"2 x {size}, {output}, {name}{of}"
                    work[label] = partial(ours, model, args.tokens, n_rows)
                    loops[label] = loop
    if importlib.util.find_spec("transformers") is not None:
        work["GPT-2 small's shape with its cache, float32"] = lambda: transformer(args.tokens)
    found = in_turns(args.repeat, **work)
    for label, speed in found.items():
        ratio = f"{speed / found[loops[label]]:.1f}" if label in loops else ""
        yield {"one stream": label, "tokens/s": f"{speed:,.0f}", "times the loop": ratio}


class Ngrams:
    """Completes words by what followed the two before them, or the one, or by frequency."""

    def __init__(self, texts: list[list[str]]) -> None:
        self.after: list[dict[tuple[str, ...], list[str]]] = []
        for n in range(3):
            counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
            for words in texts:
                for at in range(n, len(words)):
                    counts[tuple(words[at - n : at])][words[at]] += 1
            ranked = {
                context: [word for word, _ in of_context.most_common()]
                for context, of_context in counts.items()
            }
            self.after.append(ranked)

    def complete(self, before: list[str], begun: str, n: int) -> list[str]:
        """Return the likeliest words that begin so, without their beginning."""
        found: list[str] = []
        for order in range(min(2, len(before)), -1, -1):
            context = tuple(before[len(before) - order :]) if order else ()
            for word in self.after[order].get(context, []):
                if word.startswith(begun) and word != begun and word[len(begun) :] not in found:
                    found.append(word[len(begun) :])
                    if len(found) == n:
                        return found
        return found


def cut_in_words(text: str, by_char: bool) -> list[str]:
    """Return a text's words, each with the white space before it; or its characters."""
    return list(text) if by_char else WORD.findall(text)


class Typist:
    """Types texts, taking a right one of what is suggested.

    Parameters
    ----------
    suggest : callable
        Suggests what comes next, given a text's words so far and what is begun of the next one.
    feed : callable
        Gets what was typed or taken.
    end : callable
        Called at the end of a text.
    """

    def __init__(
        self,
        suggest: Callable[[list[str], str], list[str]],
        feed: Callable[[str], object] = str,
        end: Callable[[], object] = str,
    ) -> None:
        self.suggest, self.feed, self.end = suggest, feed, end
        self.n_chars = self.n_typed = 0
        self.times: list[float] = []

    def type(self, words: list[str]) -> None:
        """Type a text."""
        for number, word in enumerate(words):
            self.n_chars += len(word)
            for at in range(len(word)):
                began = time.perf_counter()
                offered = self.suggest(words[:number], word[:at])
                taken = word[at:] in offered
                self.feed(word[at:] if taken else word[at])
                self.times.append(time.perf_counter() - began)
                self.n_typed += not taken
                if taken:
                    break
        self.end()

    @property
    def saved(self) -> float:
        """The share of characters that were not typed."""
        return 1 - self.n_typed / self.n_chars


def keys(args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Type held-out text of each corpus."""
    for name, params in KEYS.items():
        train, test = (read(args.data, name, part) for part in ("train", "test"))
        lm = LSTMLanguageModel(**params, max_seconds=args.train_seconds, random_state=0).fit(train)
        by_char = params["tokenizer"] == "char"
        session = lm.session()
        with_model = Typist(partial(offered, session), session.feed, session.end_text)
        ngrams = Ngrams([cut_in_words(text, by_char) for text in train])
        with_ngrams = Typist(partial(ngrams.complete, n=3))
        for text in test:
            words = cut_in_words(text, by_char)
            for typist in (with_model, with_ngrams):
                typist.type(words[: args.keys])
            if with_model.n_chars > args.keys:
                break
        times = sorted(with_model.times)
        yield {
            "typed": name,
            "characters": f"{with_model.n_chars:,}",
            "not typed": f"{with_model.saved:.1%}",
            "with n-grams": f"{with_ngrams.saved:.1%}",
            "median ms a key": f"{statistics.median(times) * 1e3:.1f}",
            "99 %": f"{times[int(0.99 * len(times))] * 1e3:.1f}",
        }
        if args.loops:
            yield loops(lm, train, name)


def offered(session: Session, before: list[str], begun: str) -> list[str]:
    """Return three suggestions; the time is that of five."""
    return [one.text for one in session.complete(5)][:3]


def repeated(ids: list[int]) -> float:
    """Return the share of runs of four that came before in the same ids."""
    runs = [tuple(ids[i : i + 4]) for i in range(len(ids) - 3)]
    return 1 - len(set(runs)) / max(1, len(runs))


def loops(lm: LSTMLanguageModel, train: list[str], name: str) -> dict[str, object]:
    """Compare how often samples repeat themselves with how often the text does."""
    samples = lm.generate_records([""] * 100, max_new_tokens=200, random_state=0)
    written = [lm.tokenizer_.encode([one.text])[0].tolist() for one in samples]
    ids = lm.tokenizer_.encode(["\n".join(train)])[0].tolist()
    step = max(1, (len(ids) - 200) // 100)
    pieces = [ids[at : at + 200] for at in range(0, 100 * step, step)]
    shares = [statistics.mean(map(repeated, texts)) for texts in (written, pieces)]
    return {
        "typed": f"{name}: runs of four tokens that come again",
        "characters": "",
        "not typed": f"{shares[0]:.2%} in samples",
        "with n-grams": f"{shares[1]:.2%} in the text",
        "median ms a key": "",
        "99 %": "",
    }


def main() -> None:
    """Run the parts that are asked for, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=["speed", "keys"])
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--keys", type=int, default=4_000, help="characters to type")
    parser.add_argument("--train-seconds", type=float, default=120)
    parser.add_argument("--no-loops", dest="loops", action="store_false")
    args = parser.parse_args()
    print(machine(), "\n")
    if args.only != "keys":
        print(table(list(speeds(args))), "\n")
    if args.only != "speed":
        print(table(list(keys(args))), "\n")


if __name__ == "__main__":
    main()
