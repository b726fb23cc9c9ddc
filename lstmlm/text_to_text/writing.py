"""Writing completions."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import DecodeConfig
from lstmlm.decoding import Start
from lstmlm.estimator.generations import Call, Generation, Starts, callables
from lstmlm.estimator.seeds import seed_of
from lstmlm.model import RecurrentLM
from lstmlm.text import END, Tokenizer, each_text
from lstmlm.text_to_text.looking import ShowsAttention


class WritesCompletions(ShowsAttention):
    """The part of `LSTMTextToText` that writes."""

    module_: RecurrentLM
    tokenizer_: Tokenizer
    generation_config: Any
    random_state: Any

    def predict(self, prompts: Iterable[str]) -> NDArray[np.object_]:
        """Write to each prompt the likeliest token at every step.

        Parameters
        ----------
        prompts : iterable of str

        Returns
        -------
        ndarray of object, shape (n_prompts,)
            The completions.
        """
        written = self.generate(prompts, do_sample=False, num_beams=1, num_return_sequences=1)
        predicted = np.empty(len(written), dtype=object)
        predicted[:] = written
        return predicted

    def generate(
        self,
        prompts: Iterable[str],
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        prefix_allowed_tokens: Any = None,
        **options: Any,
    ) -> list[str]:
        """Write completions; see `LSTMLanguageModel.generate` for arguments and errors.

        Parameters
        ----------
        prompts : iterable of str
            Each is read as a whole.
        random_state : int, RandomState or None
            Of the sampling; None takes the estimator's.
        logits_processor : callable or sequence of callables, optional
            Of your own.
        prefix_allowed_tokens : callable, optional
            Which ids may follow.
        **options
            Of `lstmlm.DecodeConfig`.

        Returns
        -------
        list of str
            `num_return_sequences` a prompt, one prompt's after the other's.
        """
        records = self.generate_records(
            prompts,
            random_state=random_state,
            logits_processor=logits_processor,
            prefix_allowed_tokens=prefix_allowed_tokens,
            **options,
        )
        return [record.text for record in records]

    def generate_records(
        self,
        prompts: Iterable[str],
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        prefix_allowed_tokens: Any = None,
        **options: Any,
    ) -> list[Generation]:
        """Write as `generate` does, and give each token and its log-probability too.

        Parameters
        ----------
        prompts : iterable of str
        random_state, logits_processor, prefix_allowed_tokens, **options
            See `generate`.

        Returns
        -------
        list of Generation
        """
        call = self._call(options, random_state, logits_processor, prefix_allowed_tokens)
        return call.records(list(each_text(prompts)))

    def generate_stream(
        self,
        prompt: str,
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        prefix_allowed_tokens: Any = None,
        **options: Any,
    ) -> Iterator[str]:
        """Write one completion, piece by piece as it comes.

        Parameters
        ----------
        prompt : str
        random_state, logits_processor, prefix_allowed_tokens, **options
            See `generate`.

        Yields
        ------
        str
            The next piece, never empty and never half a character.
        """
        call = self._call(options, random_state, logits_processor, prefix_allowed_tokens)
        return call.streamed(prompt)

    def score_samples(
        self, prompts: Iterable[str], completions: Iterable[str]
    ) -> NDArray[np.float64]:
        """Return the log-probability of each completion given its prompt."""
        raise NotImplementedError

    def _call(self, options: dict[str, Any], random_state: Any, processors: Any, ask: Any) -> Call:
        check_is_fitted(self)
        return Call(
            model=self.module_,
            tokenizer=self.tokenizer_,
            config=DecodeConfig.merged(self.generation_config, **options),
            seed=seed_of(self.random_state if random_state is None else random_state),
            own=callables("logits_processor", processors),
            ask=ask,
            starts=self._starts,
            rank=lambda prompt, choices: self.score_samples([prompt] * len(choices), choices),
        )

    def _starts(self, prompt: str, heal: bool) -> Starts:
        """Return the start behind a prompt and the end mark that closes it."""
        (ids,) = self.tokenizer_.encode([prompt])
        return [Start(np.append(ids, np.int32(END)), "")], np.ones(1)
