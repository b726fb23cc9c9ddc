"""Text to ids and back, over the Rust library `tokenizers`.

Three kinds of tokenizer are learned from text. All are built so that a long text can be cut safely:
no pre-token is longer than a fixed number of characters counted from its own start, and none runs
over white space that follows something else.

- ``"bpe"``: byte-level byte-pair encoding (Sennrich et al. 2016, section 3.2; on bytes as in
Radford
  et al. 2019, section 2.2). Nothing is out of vocabulary, and decoding gives the text back.
- ``"char"``: one id a character (Unicode code point).
- ``"word"``: what stands between white space, the convention of PTB and WikiText.

Ids are the library's own: `END`, the end mark, is 0 and belongs to no text, whatever it spells; the
tokenizer's types follow in the order of their frequency in the training text.
"""

from lstmlm.text.foreign import ForeignTokenizer, foreign_tokenizer, written_form
from lstmlm.text.incoming import REACH, Incoming, given_and_held
from lstmlm.text.learning import learn_tokenizer
from lstmlm.text.lexicon import CharClass, Lexicon, char_class
from lstmlm.text.raw import (
    WHITE_SPACE,
    check_iterable,
    check_pair,
    check_text,
    count_bytes,
    count_words,
    each_text,
    in_chunks,
    in_pieces,
    readable,
    sample,
    word_spans,
)
from lstmlm.text.tokenizer import END, FOREIGN, KINDS, UNKNOWN, Decoder, Ids, Kind, Tokenizer

__all__ = [
    "END",
    "FOREIGN",
    "KINDS",
    "REACH",
    "UNKNOWN",
    "WHITE_SPACE",
    "CharClass",
    "Decoder",
    "ForeignTokenizer",
    "Ids",
    "Incoming",
    "Kind",
    "Lexicon",
    "Tokenizer",
    "char_class",
    "check_iterable",
    "check_pair",
    "check_text",
    "count_bytes",
    "count_words",
    "each_text",
    "foreign_tokenizer",
    "given_and_held",
    "in_chunks",
    "in_pieces",
    "learn_tokenizer",
    "readable",
    "sample",
    "word_spans",
    "written_form",
]
