"""Text that comes in chunks: which part of it has certain ids, whatever comes next."""

import codecs
from typing import NamedTuple

from lstmlm.text.raw import WHITE_SPACE
from lstmlm.text.tokenizer import Tokenizer

# How many characters from its start on a pre-token can depend on: see `learning._BPE_PATTERN`,
# whose runs of white space look at one character more, and `learning._WORD_PATTERN`.
REACH = {"bpe": 65, "word": 1_000, "char": 1}


def certain_length(tokenizer: Tokenizer, text: str) -> int:
    """Return how many leading characters of a text have their ids for good.

    Encoded by themselves they have the ids that they have in any text that begins like this one.

    Parameters
    ----------
    tokenizer : Tokenizer
        One with safe cuts.
    text : str
        It begins at such a cut. What is left over has less than twice `REACH` characters.
    """
    if tokenizer.kind == "char":
        return len(text)
    cut = _last_cut(tokenizer, text)
    if len(text) - cut > REACH[tokenizer.kind]:
        cut += _last_long_run(tokenizer, text[cut:])
    return cut


def _last_cut(tokenizer: Tokenizer, text: str) -> int:
    """Return where the last safe cut is: for bpe before white space after something else."""
    behind_space = max(map(text.rfind, WHITE_SPACE)) + 1
    if tokenizer.kind == "word":
        return behind_space  # white space has no ids
    return len(text[:behind_space].rstrip(WHITE_SPACE))


def _last_long_run(tokenizer: Tokenizer, text: str) -> int:
    """Return the last place that is safe since a pre-token has its full length, or 0.

    Reading a pre-token that starts `REACH` characters before the end, the tokenizer has seen all
    that it depends on. It is cut behind one whose end says nothing about white space that follows,
    or that could not be longer.
    """
    reach, best = REACH[tokenizer.kind], 0
    for start, end in tokenizer.pre_tokens(text):
        if start + reach > len(text):
            break
        if text[end - 1] not in WHITE_SPACE or end - start == reach - 1:
            best = end
    return best


class Incoming(NamedTuple):
    """What has come of a stream and is held back, since its ids may still change.

    Parameters
    ----------
    held : str
        Characters whose ids are not certain yet.
    position : int
        Characters of the stream before them.
    bytes_held : bytes
        The beginning of a character that came as bytes.
    """

    held: str = ""
    position: int = 0
    bytes_held: bytes = b""

    def feed(self, tokenizer: Tokenizer, chunk: str | bytes) -> tuple[str, "Incoming"]:
        """Take a chunk; return the text that is certain now, from `position` on, and the rest.

        Bytes are UTF-8; what is no character of it becomes U+FFFD.
        """
        if isinstance(chunk, str):
            text, bytes_held = self._all_held() + chunk, b""
        else:
            data = self.bytes_held + chunk
            decoded, used = codecs.utf_8_decode(data, "replace", False)
            text, bytes_held = self.held + decoded, data[used:]
        n_chars = certain_length(tokenizer, text)
        return text[:n_chars], Incoming(text[n_chars:], self.position + n_chars, bytes_held)

    def end(self) -> tuple[str, "Incoming"]:
        """Return what was held back, to which nothing is added, and what is left: a position."""
        text = self._all_held()
        return text, Incoming(position=self.position + len(text))

    def _all_held(self) -> str:
        return self.held + ("\ufffd" if self.bytes_held else "")


def given_and_held(tokenizer: Tokenizer, text: str) -> tuple[str, str]:
    """Return a text in two: what has its ids for good, and its end, whose ids more text may change.

    Of a foreign tokenizer nothing can be said: all is end.
    """
    if not tokenizer.has_safe_cuts:
        return "", text
    given, rest = Incoming().feed(tokenizer, text)
    return given, rest.held
