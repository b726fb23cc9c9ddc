"""Writing: a call of `generate`, from its prompts to what was written."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lstmlm.config import DecodeConfig
from lstmlm.decoding import (
    AllowedTokens,
    Constraint,
    Draw,
    FirstIds,
    LogitsProcessor,
    Pattern,
    Start,
    Step,
    generate_ids,
    make_processors,
    processed,
    search_ids,
    verse_pattern,
)
from lstmlm.errors import ParameterError, TextTypeError
from lstmlm.model import RecurrentLM
from lstmlm.text import END, FOREIGN, WHITE_SPACE, Ids, Tokenizer

GENERATE_BATCH = 128  # texts that are written side by side
HEALING = 1 << 20  # added to a row's number for the stream that draws its start
Starts = tuple[list[Start], NDArray[np.float64]]  # and their probabilities


class Generation(NamedTuple):
    """A text that was written.

    Parameters
    ----------
    text : str
        The new text alone.
    tokens : list of str
        What each token added to it; the end mark, if the text ended itself, is ``""`` and last.
    log_probs : ndarray of float32
        The log-probability of each token under the model, in nats, whatever options had made of it
        when it was drawn.
    """

    text: str
    tokens: list[str]
    log_probs: NDArray[np.float32]

    @property
    def log_prob(self) -> float:
        """The sum over the tokens, in nats."""
        return float(self.log_probs.sum(dtype=np.float64))


class Writer:
    """Takes one text's tokens, and says when a stop string ended it.

    Parameters
    ----------
    tokenizer : Tokenizer
        What the ids are of.
    config : DecodeConfig
        Its stop strings.
    start : Start
        From where the prompt is continued.
    """

    def __init__(self, tokenizer: Tokenizer, config: DecodeConfig, start: Start) -> None:
        self.ended = False
        self._decoder = tokenizer.decoder(after=start.after)
        held = start.ids[len(start.ids) - start.n_held :].tolist()
        # Characters of the prompt that the first new tokens will give once more.
        self._known = len(start.held) - len("".join(map(self._decoder.feed, held)))
        self._stops = config.stop_strings or ()
        self._reach = max(map(len, self._stops), default=1) - 1
        self._tail = ""  # what a stop string may have begun in
        self._tokens: list[str] = []
        self._log_probs: list[float] = []

    def add(self, token_id: int, log_prob: float) -> str:
        """Take a token; return what it adds to the text, up to the end of a stop string."""
        piece = "" if token_id == END else self._decoder.feed(token_id)
        if self._known:
            piece, self._known = piece[self._known :], max(0, self._known - len(piece))
        text = self._tail + piece
        ends = [at + len(stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.ended = True
            piece = piece[: min(ends) - len(self._tail)]
        self._tail = text[-self._reach :] if self._reach else ""
        self._tokens.append(piece)
        self._log_probs.append(log_prob)
        return piece

    def record(self) -> Generation:
        """Return the text as far as it was written."""
        values = np.array(self._log_probs, dtype=np.float32)
        return Generation("".join(self._tokens), self._tokens, values)


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a call of `generate` wants of which model.

    Parameters
    ----------
    model : RecurrentLM
    tokenizer : Tokenizer
    config : DecodeConfig
    seed : int
        Of the sampling.
    own : sequence of callables
        A user's processors.
    ask : callable or None
        A user's ``prefix_allowed_tokens``.
    starts : callable
        From where a prompt may be continued; whether it may break off is its second argument.
    rank : callable
        Gives the log-probabilities of continuations of a prompt.
    """

    model: RecurrentLM
    tokenizer: Tokenizer
    config: DecodeConfig
    seed: int
    own: Sequence[LogitsProcessor] = ()
    ask: Callable[[int, torch.Tensor], Iterable[int]] | None = None
    starts: Callable[[str, bool], Starts]
    rank: Callable[[str, Sequence[str]], NDArray[np.float64]]

    def __post_init__(self) -> None:
        config = self.config
        if self.ask is not None and not callable(self.ask):
            raise ParameterError(
                f"prefix_allowed_tokens={self.ask!r} is not valid; it is a callable of a text's "
                "number and its ids that returns ids."
            )
        for name in ("bad_words", "regex", "line_lengths"):
            if getattr(config, name) is not None and self.tokenizer.kind == FOREIGN:
                raise ParameterError(
                    f"{name} needs one of the library's tokenizers, which say what characters an "
                    "id stands for; with a tokenizer of your own forbid ids by a "
                    "logits_processor, or name those that may follow by prefix_allowed_tokens."
                )
        if self.pattern is not None and config.stop_strings:
            raise ParameterError(
                "stop_strings can't be had together with regex or line_lengths, which say where a "
                "text ends; give one."
            )
        if self.ask is not None and self.pattern is not None:
            raise ParameterError(
                "prefix_allowed_tokens can't be had together with regex or line_lengths; give one."
            )

    @cached_property
    def pattern(self) -> str | None:
        """The regular expression that texts shall match."""
        lengths = self.config.line_lengths
        return self.config.regex if lengths is None else verse_pattern(lengths)

    def records(self, prompts: Sequence[str]) -> list[Generation]:
        """Write to each prompt as many texts as are wanted."""
        n, beams, written = self.config.num_return_sequences, self.config.num_beams, []
        if self.config.choices is not None:
            return [one for row, prompt in enumerate(prompts) for one in self._chosen(prompt, row)]
        if beams > 1:
            size = max(1, GENERATE_BATCH // beams)
            for start in range(0, len(prompts), size):
                written += self._searched(prompts[start : start + size], start)
            return written
        rows = [prompt for prompt in prompts for _ in range(n)]
        for start in range(0, len(rows), GENERATE_BATCH):
            written += self._continued(rows[start : start + GENERATE_BATCH], start)
        return written

    def streamed(self, prompt: str) -> Iterator[str]:
        """Write one text, piece by piece.

        Raises
        ------
        TextTypeError
            If the prompt is not a str.
        ParameterError
            If beams are wanted, which give a text as a whole.
        """
        if not isinstance(prompt, str):
            raise TextTypeError(
                f"prompt is a {type(prompt).__name__}; generate_stream takes one str. "
                "For several prompts use generate."
            )
        if (beams := self.config.num_beams) > 1:
            raise ParameterError(
                f"num_beams={beams} gives a text as a whole: a search may change any of it until "
                "it ends. Use generate, or generate_stream with num_beams=1."
            )
        return self._stream(prompt)

    def _stream(self, prompt: str) -> Iterator[str]:
        if self.config.choices is not None:
            if text := self._chosen(prompt, 0)[0].text:
                yield text
            return
        start = self._started([prompt], 0)[0]
        writer = Writer(self.tokenizer, self.config, start)
        for step in self._steps([prompt], [start], 0):
            if piece := writer.add(int(step.ids[0]), float(step.log_probs[0])):
                yield piece
            if writer.ended:
                return

    def _continued(self, prompts: Sequence[str], first: int) -> list[Generation]:
        starts = self._started(prompts, first)
        writers = [
            Writer(self.tokenizer, self.config, start)
            for prompt, start in zip(prompts, starts, strict=True)
        ]
        for step in self._steps(prompts, starts, first):
            values = zip(step.rows, step.ids.tolist(), step.log_probs.tolist(), strict=True)
            for row, token_id, log_prob in values:
                writers[row].add(token_id, log_prob)
                if writers[row].ended:
                    step.ended.add(row)
        return [writer.record() for writer in writers]

    def _steps(self, prompts: Sequence[str], starts: list[Start], first: int) -> Iterator[Step]:
        encoded = [start.ids for start in starts]
        return generate_ids(
            self.model,
            encoded,
            self.config.max_new_tokens,
            do_sample=self.config.do_sample,
            seed=self.seed,
            first_row=first,
            processors=self._processors(encoded),
            allow=self._constraint(prompts, starts, first),
        )

    def _searched(self, prompts: Sequence[str], first: int) -> list[Generation]:
        starts = self._started(prompts, first)
        encoded = [start.ids for start in starts]

        def writer_of(prompt: int, ids: Sequence[int], log_probs: Sequence[float]) -> Writer:
            writer = Writer(self.tokenizer, self.config, starts[prompt])
            for token_id, log_prob in zip(ids, log_probs, strict=True):
                writer.add(token_id, log_prob)
            return writer

        def ends(prompt: int, ids: tuple[int, ...]) -> bool:
            return writer_of(prompt, ids, [0.0] * len(ids)).ended

        found = search_ids(
            self.model,
            encoded,
            self.config.max_new_tokens,
            num_beams=self.config.num_beams,
            length_penalty=self.config.length_penalty,
            ends=ends if self.config.stop_strings else None,
            processors=self._processors(encoded),
            allow=self._constraint(prompts, starts, first),
        )
        return [
            writer_of(prompt, hypothesis.ids, hypothesis.log_probs).record()
            for prompt, hypotheses in enumerate(found)
            for hypothesis in hypotheses[: self.config.num_return_sequences]
        ]

    def _started(self, prompts: Sequence[str], first: int) -> list[Start]:
        """Return from where each prompt is continued: drawn where texts are, else the likeliest."""
        heal = self.config.token_healing and self.pattern is None and self.ask is None
        found, chosen = cache(self.starts), []
        draws = self.config.do_sample and self.config.num_beams == 1
        for row, prompt in enumerate(prompts, start=first):
            starts, probs = found(prompt, heal)
            if draws and len(starts) > 1:
                rng = np.random.default_rng([self.seed, row + HEALING])
                chosen.append(starts[int(rng.choice(len(starts), p=probs))])
            else:
                chosen.append(starts[int(probs.argmax())])
        return chosen

    def _constraint(
        self, prompts: Sequence[str], starts: list[Start], first: int
    ) -> Constraint | None:
        if self.pattern is not None:
            glued = [
                not self.tokenizer.glue or start.after[-1:] not in ("", *WHITE_SPACE)
                for start in starts
            ]
            return Pattern(self.pattern, self.tokenizer, self.config.max_new_tokens, glued)
        if self.ask is not None:
            encoded, n = [start.ids for start in starts], self.tokenizer.vocab_size
            return AllowedTokens(self.ask, encoded, first, n)
        firsts = {row: s.firsts for row, s in enumerate(starts) if s.firsts is not None}
        return FirstIds(firsts) if firsts else None

    def _processors(self, prompts: Sequence[Ids]) -> list[LogitsProcessor]:
        tokenizer = self.tokenizer
        return make_processors(
            self.config,
            start=1 + max(map(len, prompts), default=0),
            forbidden=() if tokenizer.unknown_id is None else (tokenizer.unknown_id,),
            pieces=tokenizer.pieces if self.config.bad_words else (),
            glue=tokenizer.glue,
            own=self.own,
        )

    def _chosen(self, prompt: str, number: int) -> list[Generation]:
        """Return choices: the likeliest ones, or as many as are wanted, drawn."""
        config, n = self.config, self.config.num_return_sequences
        choices = list(dict.fromkeys(config.choices or ()))
        values = self.rank(prompt, choices)
        if config.do_sample and config.num_beams == 1:
            # What shapes the distribution of tokens shapes that of choices.
            shaped = DecodeConfig(
                temperature=config.temperature,
                top_k=config.top_k,
                top_p=config.top_p,
                min_p=config.min_p,
            )
            logits = torch.from_numpy(values).unsqueeze(0)
            nothing = torch.zeros(1, 0, dtype=torch.int64)
            logits = processed(make_processors(shaped), logits, nothing).expand(n, -1)
            rows = range(number * n, (number + 1) * n)
            picked = Draw(self.seed, rows)(logits, np.arange(n)).tolist()
        else:
            picked = np.argsort(-values, kind="stable").tolist()[:n]
        return [
            Generation(choices[at], [choices[at]], np.array([values[at]], dtype=np.float32))
            for at in picked
        ]


def callables(name: str, given: Any) -> list[Any]:
    """Return the callables that were given for an option: none, one or several."""
    several = [given] if callable(given) else given or []
    if isinstance(several, list | tuple) and all(map(callable, several)):
        return list(several)
    raise ParameterError(
        f"{name}={given!r} is not valid; it is a callable (ids, logits) -> logits, or several."
    )
