"""The estimator's methods that write what comes next."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import DecodeConfig
from lstmlm.decoding import (
    LogitsProcessor,
    Step,
    generate_ids,
    make_processors,
    search_ids,
)
from lstmlm.errors import ParameterError, TextTypeError
from lstmlm.estimator.seeds import seed_of
from lstmlm.model import RecurrentLM
from lstmlm.text import END, FOREIGN, Ids, Tokenizer, each_text

GENERATE_BATCH = 128  # texts that are written side by side


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


class WritesText(BaseEstimator):
    """The half of `LSTMLanguageModel` that generates."""

    tokenizer_: Tokenizer
    module_: RecurrentLM
    generation_config: Any
    random_state: Any
    __metadata_request__predict: ClassVar = {"prompts": UNUSED}  # the data, not what goes with it

    def predict(self, prompts: Iterable[str]) -> NDArray[np.object_]:
        """Continue each prompt with the likeliest token at every step.

        Parameters
        ----------
        prompts : iterable of str
            Beginnings of texts.

        Returns
        -------
        ndarray of object, shape (n_prompts,)
            The new text alone.
        """
        continued = self.generate(prompts, do_sample=False, num_beams=1, num_return_sequences=1)
        predicted = np.empty(len(continued), dtype=object)
        predicted[:] = continued
        return predicted

    def generate(
        self,
        prompts: Iterable[str] | None = None,
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        **options: Any,
    ) -> list[str]:
        """Write the rest of each prompt, or one text from nothing.

        The unknown token is never written.

        Parameters
        ----------
        prompts : iterable of str, optional
            Beginnings of texts, each continued on its own. None is one empty prompt.
        random_state : int, RandomState or None
            Of the sampling; None takes the estimator's. A prompt's text depends on its place among
            the prompts, not on the others.
        logits_processor : callable or sequence of callables, optional
            Of your own: called with the ids so far, shape (B, T), and the scores of the next one,
            shape (B, V), each returns new scores; see `lstmlm.decoding.LogitsProcessor`.
        **options
            Of `lstmlm.DecodeConfig`, for example ``max_new_tokens=50, temperature=0.8, top_p=0.9``;
            they go before the estimator's `generation_config`.

        Returns
        -------
        list of str
            The new text alone, `num_return_sequences` a prompt, one prompt's after the other's:
            ``prompt + text`` is the whole.

        Raises
        ------
        ParameterError
            If an option doesn't exist or is out of its range.
        TextError, TextTypeError
            If the prompts are a single str, or one of them is not a str.
        """
        records = self.generate_records(
            prompts, random_state=random_state, logits_processor=logits_processor, **options
        )
        return [record.text for record in records]

    def generate_records(
        self,
        prompts: Iterable[str] | None = None,
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        **options: Any,
    ) -> list[Generation]:
        """Write as `generate` does, and give each token and its log-probability too.

        Parameters
        ----------
        prompts : iterable of str, optional
            Beginnings of texts.
        random_state : int, RandomState or None
            Of the sampling.
        logits_processor : callable or sequence of callables, optional
            Of your own.
        **options
            See `generate`.

        Returns
        -------
        list of Generation
        """
        config, seed = self._decoding(random_state, options)
        own = _callables(logits_processor)
        n = config.num_return_sequences
        read = [""] if prompts is None else list(each_text(prompts))
        written: list[Generation] = []
        if config.num_beams > 1:
            size = max(1, GENERATE_BATCH // config.num_beams)
            for start in range(0, len(read), size):
                written += self._search(read[start : start + size], config, own)
            return written
        rows = [prompt for prompt in read for _ in range(n)]
        for start in range(0, len(rows), GENERATE_BATCH):
            written += self._continue(
                rows[start : start + GENERATE_BATCH], config, seed, start, own
            )
        return written

    def generate_stream(
        self,
        prompt: str = "",
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        **options: Any,
    ) -> Iterator[str]:
        """Write the rest of one prompt, piece by piece as it comes.

        Parameters
        ----------
        prompt : str, default ""
            The beginning of a text.
        random_state : int, RandomState or None
            Of the sampling; None takes the estimator's.
        logits_processor : callable or sequence of callables, optional
            Of your own; see `generate`.
        **options
            See `generate`; of `num_return_sequences` one is written.

        Yields
        ------
        str
            The next piece, never empty and never half a character. The pieces joined are what
            `generate` gives for the same prompt and random state.
        """
        config, seed = self._decoding(random_state, options)
        if not isinstance(prompt, str):
            raise TextTypeError(
                f"prompt is a {type(prompt).__name__}; generate_stream takes one str. "
                "For several prompts use generate."
            )
        if config.num_beams > 1:
            raise ParameterError(
                f"num_beams={config.num_beams} gives a text as a whole: a search may change any of "
                "it until it ends. Use generate, or generate_stream with num_beams=1."
            )
        return self._stream(prompt, config, seed, _callables(logits_processor))

    def _decoding(self, random_state: Any, options: dict[str, Any]) -> tuple[DecodeConfig, int]:
        check_is_fitted(self)
        config = DecodeConfig.merged(self.generation_config, **options)
        source = self.random_state if random_state is None else random_state
        return config, seed_of(source)

    def _continue(
        self,
        prompts: Sequence[str],
        config: DecodeConfig,
        seed: int,
        first: int,
        own: Sequence[LogitsProcessor],
    ) -> list[Generation]:
        writers = [_Writer(self.tokenizer_, prompt, config) for prompt in prompts]
        for step in self._steps(prompts, config, seed, first, own):
            values = zip(step.rows, step.ids.tolist(), step.log_probs.tolist(), strict=True)
            for row, token_id, log_prob in values:
                writers[row].add(token_id, log_prob)
                if writers[row].ended:
                    step.ended.add(row)
        return [writer.record() for writer in writers]

    def _search(
        self, prompts: Sequence[str], config: DecodeConfig, own: Sequence[LogitsProcessor]
    ) -> list[Generation]:
        encoded = self.tokenizer_.encode(prompts)

        def writer_of(prompt: int, ids: Sequence[int], log_probs: Sequence[float]) -> _Writer:
            writer = _Writer(self.tokenizer_, prompts[prompt], config)
            for token_id, log_prob in zip(ids, log_probs, strict=True):
                writer.add(token_id, log_prob)
            return writer

        def ends(prompt: int, ids: tuple[int, ...]) -> bool:
            return writer_of(prompt, ids, [0.0] * len(ids)).ended

        found = search_ids(
            self.module_, encoded, config.max_new_tokens, num_beams=config.num_beams,
            length_penalty=config.length_penalty, ends=ends if config.stop_strings else None,
            processors=self._processors(encoded, config, own),
        )  # fmt: skip
        return [
            writer_of(prompt, hypothesis.ids, hypothesis.log_probs).record()
            for prompt, hypotheses in enumerate(found)
            for hypothesis in hypotheses[: config.num_return_sequences]
        ]

    def _stream(
        self, prompt: str, config: DecodeConfig, seed: int, own: Sequence[LogitsProcessor]
    ) -> Iterator[str]:
        writer = _Writer(self.tokenizer_, prompt, config)
        for step in self._steps([prompt], config, seed, 0, own):
            if piece := writer.add(int(step.ids[0]), float(step.log_probs[0])):
                yield piece
            if writer.ended:
                return

    def _steps(
        self,
        prompts: Sequence[str],
        config: DecodeConfig,
        seed: int,
        first: int,
        own: Sequence[LogitsProcessor],
    ) -> Iterator[Step]:
        encoded = self.tokenizer_.encode(prompts)
        return generate_ids(
            self.module_, encoded, config.max_new_tokens, do_sample=config.do_sample, seed=seed,
            first_row=first, processors=self._processors(encoded, config, own),
        )  # fmt: skip

    def _processors(
        self, prompts: Sequence[Ids], config: DecodeConfig, own: Sequence[LogitsProcessor]
    ) -> list[LogitsProcessor]:
        tokenizer = self.tokenizer_
        if config.bad_words and tokenizer.kind == FOREIGN:
            raise ParameterError(
                "bad_words needs one of the library's tokenizers, which say what characters an id "
                "stands for; with a tokenizer of your own forbid ids by a logits_processor."
            )
        return make_processors(
            config,
            start=1 + max(map(len, prompts), default=0),
            forbidden=() if tokenizer.unknown_id is None else (tokenizer.unknown_id,),
            pieces=tokenizer.pieces if config.bad_words else (),
            glue=tokenizer.glue,
            own=own,
        )


class _Writer:
    """Takes one text's tokens, and says when a stop string ended it.

    Parameters
    ----------
    tokenizer : Tokenizer
        What the ids are of.
    prompt : str
        What the text continues.
    config : DecodeConfig
        Its stop strings.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str, config: DecodeConfig) -> None:
        self.ended = False
        self._decoder = tokenizer.decoder(after=prompt)
        self._stops = config.stop_strings or ()
        self._reach = max(map(len, self._stops), default=1) - 1
        self._tail = ""  # what a stop string may have begun in
        self._tokens: list[str] = []
        self._log_probs: list[float] = []

    def add(self, token_id: int, log_prob: float) -> str:
        """Take a token; return what it adds to the text, up to the end of a stop string."""
        piece = "" if token_id == END else self._decoder.feed(token_id)
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


def _callables(given: Any) -> list[LogitsProcessor]:
    several = [given] if callable(given) else given or []
    if isinstance(several, list | tuple) and all(map(callable, several)):
        return list(several)
    raise ParameterError(
        f"logits_processor={given!r} is not valid; it is a callable (ids, logits) -> logits, or "
        "several."
    )
