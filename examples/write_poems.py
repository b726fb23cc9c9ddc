"""Verse to a title: poems of five or seven characters a line, whose form is always right.

The model learns to go on from a poem's first line, by which many are known. Left alone it mostly
keeps the form; with `line_lengths` it always does. What that costs is told in bits a character: how
much more surprising the verse is to the model itself.

    python examples/write_poems.py                      six poems, to see that it works
    python examples/write_poems.py --poems FILE         a poem a line, best thousands of them
"""

import argparse
import math
import random
import re
from pathlib import Path

from lstmlm import LSTMTextToText

POEMS = """
床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。
白日依山盡，黃河入海流。欲窮千里目，更上一層樓。
春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。
千山鳥飛絕，萬徑人蹤滅。孤舟蓑笠翁，獨釣寒江雪。
朝辭白帝彩雲間，千里江陵一日還。兩岸猿聲啼不住，輕舟已過萬重山。
月落烏啼霜滿天，江楓漁火對愁眠。姑蘇城外寒山寺，夜半鐘聲到客船。
"""


def verses(path: Path | None) -> list[list[str]]:
    """Return the poems of at least four lines that all have five, or all have seven, characters."""
    text = POEMS if path is None else path.read_text("utf-8")
    poems = [re.findall(r"[^，。！？；、\s]+", line) for line in text.splitlines()]
    return [lines for lines in poems if len(lines) >= 4 and {len(x) for x in lines} in ({5}, {7})]


def has_form(text: str, length: int) -> bool:
    """Return whether a text is three lines of so many characters."""
    return [len(line) for line in text.split("\n")] == [length] * 3


def main() -> None:
    """Learn poems, and write some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--poems", type=Path, help="a file with a poem a line")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--titles", type=int, default=100)
    args = parser.parse_args()

    poems = verses(args.poems)
    random.Random(0).shuffle(poems)
    # Of each poem the first four lines; every fiftieth is kept for its title alone.
    kept = max(2, len(poems) // 50)
    titles = [lines[0] for lines in poems[:kept]][: args.titles]
    model = LSTMTextToText(
        tokenizer="char", attention=True, max_seconds=args.seconds, random_state=0, verbose=1
    ).fit([lines[0] for lines in poems[kept:]], ["\n".join(lines[1:4]) for lines in poems[kept:]])

    free, held = [], []
    for number, title in enumerate(titles):
        options = {"random_state": number, "max_new_tokens": 40}
        free += model.generate_records([title], **options)
        held += model.generate_records([title], line_lengths=[len(title)] * 3, **options)
    for name, records in (("free", free), ("held to the form", held)):
        right = [has_form(r.text, len(title)) for r, title in zip(records, titles, strict=True)]
        nats = -math.fsum(r.log_prob for r in records)
        n_chars = sum(len(r.text) + 1 for r in records)
        bits = nats / math.log(2) / n_chars
        print(f"{name}: form right in {sum(right) / len(right):.1%}, {bits:.2f} bits a character")
    for title, record in list(zip(titles, held, strict=True))[:3]:
        print("\n" + title + "\n" + record.text)


if __name__ == "__main__":
    main()
