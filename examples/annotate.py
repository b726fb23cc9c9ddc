"""Annotation helper: show an annotator where a text is odd, and what was to be expected there.

A language model reads the text inside a spaCy pipeline. The most surprising tokens are flagged,
each with what the model would have written in its place. To see how well that works, some words of
texts that the model doesn't know are replaced by others first: the flags should find them.

    python examples/annotate.py                         English that ships with Python, a minute
    python examples/annotate.py --model FOLDER --text FILE --html flagged.html
"""

import argparse
import random
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

import spacy
import spacy_lstmlm
from spacy.language import Language
from spacy.tokens import Doc, Token

from lstmlm import LSTMLanguageModel


def paragraphs() -> list[str]:
    """Return the paragraphs of the Python reference that are prose."""
    found = [" ".join(part.split()) for text in topics.values() for part in text.split("\n\n")]
    return [text for text in dict.fromkeys(found) if len(text.split()) > 20 and text[0].isalpha()]


def pipeline(model: Path) -> Language:
    """Return an English pipeline with a model."""
    nlp = spacy.blank("en")
    nlp.add_pipe("lstmlm", config={"model": str(model)})
    return nlp


def flag(doc: Doc, n: int) -> list[Token]:
    """Return the `n` most surprising words, as they stand in the text; the first has no context."""
    words = [token for token in doc[1:] if token.is_alpha and token._.lm_surprisal is not None]
    worst = sorted(words, key=lambda token: -token._.lm_surprisal)[:n]
    return sorted(worst, key=lambda token: token.i)


def show(doc: Doc, n: int, n_suggestions: int = 3) -> None:
    """Print the flagged tokens with their surroundings, and what was to be expected."""
    for token in flag(doc, n):
        before = doc.text[max(0, token.idx - 30) : token.idx].replace("\n", " ")
        expected = [one.text.strip() for one in doc[: token.i]._.lm_complete(n_suggestions)]
        print(
            f"{token._.lm_surprisal:5.1f} bits  {before:>30}[{token.text}]   "
            f"expected: {', '.join(expected)}"
        )


def spoiled(nlp: Language, text: str, words: list[str], rng: random.Random) -> tuple[Doc, set[int]]:
    """Replace one word in fifteen by another; return the text and the replaced tokens' numbers."""
    doc = nlp.make_doc(text)
    places = [token.i for token in doc[1:] if token.is_alpha]
    chosen = set(rng.sample(places, max(1, len(places) // 15)))
    tokens = [rng.choice(words) if token.i in chosen else token.text for token in doc]
    spaces = [bool(token.whitespace_) for token in doc]
    return nlp(Doc(nlp.vocab, words=tokens, spaces=spaces)), chosen


def found_share(docs: list[tuple[Doc, set[int]]]) -> float:
    """Return the share of the replaced words among as many flags."""
    hits = sum(len({token.i for token in flag(doc, len(odd))} & odd) for doc, odd in docs)
    return hits / sum(len(odd) for _, odd in docs)


def main() -> None:
    """Train if need be, flag, and say how many replaced words were found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a model folder; else one is trained")
    parser.add_argument("--text", type=Path, help="the text to flag, in UTF-8")
    parser.add_argument("--seconds", type=float, default=45.0, help="to train for")
    parser.add_argument("--top", type=int, default=8, help="tokens to flag")
    parser.add_argument("--html", type=Path, help="where to write the text with all surprisals")
    args = parser.parse_args()

    rng = random.Random(0)
    texts = paragraphs()
    rng.shuffle(texts)
    unseen, seen = texts[:60], texts[60:]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or Path(folder) / "model"
        if args.model is None:
            LSTMLanguageModel(max_seconds=args.seconds, random_state=0).fit(seen).save(model)
        nlp = pipeline(model)

    if args.text is None:
        words = sorted(
            {token.text for text in seen for token in nlp.make_doc(text) if token.is_alpha}
        )
        docs = [spoiled(nlp, text, words, rng) for text in unseen]
        doc, odd = max(docs[:10], key=lambda one: len(one[0]))
        print(f"{len(odd)} words of this text were replaced: {[doc[i].text for i in sorted(odd)]}")
        print(f"\n{doc.text}\n")
    else:
        docs, doc = [], nlp(args.text.read_text("utf-8"))
    show(doc, args.top)
    if docs:
        chance = sum(len(odd) for _, odd in docs) / sum(
            sum(token.is_alpha for token in doc[1:]) for doc, _ in docs
        )
        print(
            f"\nof the replaced words in {len(docs)} texts, as many flags find "
            f"{100 * found_share(docs):.1f} %; by chance {100 * chance:.1f} %"
        )
    if args.html:
        args.html.write_text(spacy_lstmlm.render(doc, page=True, jupyter=False) or "", "utf-8")
        print(f"{args.html} shows every token's surprisal")


if __name__ == "__main__":
    main()
