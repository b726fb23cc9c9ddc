"""Writing text: how ids are chosen one after another, and what could come next.

`processors` lower or forbid scores before an id is chosen, `sampling` chooses and reads on, a
column of ids a step, `beams` search for the likeliest continuations, and `suggestions` rank what
could come next.
"""

from lstmlm.decoding.beams import Hypothesis, search_ids
from lstmlm.decoding.processors import LogitsProcessor, make_processors
from lstmlm.decoding.sampling import Step, generate_ids
from lstmlm.decoding.suggestions import Completion, likeliest_next

__all__ = [
    "Completion",
    "Hypothesis",
    "LogitsProcessor",
    "Step",
    "generate_ids",
    "likeliest_next",
    "make_processors",
    "search_ids",
]
