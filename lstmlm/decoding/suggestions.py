"""What could come next, the likeliest first."""

from typing import NamedTuple

from lstmlm.model import RecurrentLM
from lstmlm.nn.state import State
from lstmlm.scoring import inference
from lstmlm.text import END, Tokenizer


class Completion(NamedTuple):
    """What could come next.

    Parameters
    ----------
    text : str
        What to append.
    log_prob : float
        Its log-probability, in nats.
    """

    text: str
    log_prob: float


def likeliest_next(
    model: RecurrentLM, tokenizer: Tokenizer, state: State, n: int, *, after: str
) -> list[Completion]:
    """Return the n likeliest next tokens, the likeliest first.

    Left out are the end mark, the unknown token and tokens that end inside a character.

    Parameters
    ----------
    model : RecurrentLM
        The model.
    tokenizer : Tokenizer
        Its tokenizer.
    state : State, of one row
        What was read.
    n : int
        How many.
    after : str
        The text that they continue, as far as it decides on a space before them.
    """
    with inference(model):
        log_probs = model.head.log_probs(model.project(state.hidden[-1]))[0]
        values, ids = log_probs.sort(descending=True, stable=True)
    found: list[Completion] = []
    for token_id, value in zip(ids.tolist(), values.tolist(), strict=True):
        decoder = tokenizer.decoder(after=after)
        text = decoder.feed(token_id)
        if token_id not in (END, tokenizer.unknown_id) and text and not decoder.finish():
            found.append(Completion(text, value))
            if len(found) == n:
                break
    return found
