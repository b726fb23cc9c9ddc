"""Writing text: how ids are chosen one after another, and what could come next.

`processors` lower or forbid scores before an id is chosen, `constraints` say which ids may follow,
`sampling` chooses and reads on, a column of ids a step, `beams` search for the likeliest
continuations, `openings` weigh how a text that breaks off inside a word may go on, `beginnings`
know what was read of it, and `suggestions` rank what could come next.
"""

from lstmlm.decoding.beams import Hypothesis, search_ids
from lstmlm.decoding.beginnings import Beginnings
from lstmlm.decoding.constraints import (
    AllowedTokens,
    Constraint,
    FirstIds,
    Pattern,
    verse_pattern,
)
from lstmlm.decoding.openings import Start, log_probs_of, starts_of
from lstmlm.decoding.processors import LogitsProcessor, make_processors
from lstmlm.decoding.sampling import Draw, Step, generate_ids, processed, read_prompts
from lstmlm.decoding.suggestions import (
    COMPLETING,
    UNITS,
    Completion,
    NextToken,
    Unit,
    check_suggestions,
    next_tokens,
    suggest,
)

__all__ = [
    "COMPLETING",
    "UNITS",
    "AllowedTokens",
    "Beginnings",
    "Completion",
    "Constraint",
    "Draw",
    "FirstIds",
    "Hypothesis",
    "LogitsProcessor",
    "NextToken",
    "Pattern",
    "Start",
    "Step",
    "Unit",
    "check_suggestions",
    "generate_ids",
    "log_probs_of",
    "make_processors",
    "next_tokens",
    "processed",
    "read_prompts",
    "search_ids",
    "starts_of",
    "suggest",
    "verse_pattern",
]
