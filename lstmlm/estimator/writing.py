"""The estimator's methods that write what comes next."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import DecodeConfig
from lstmlm.decoding import starts_of
from lstmlm.estimator.completing import CompletesText
from lstmlm.estimator.generations import Call, Generation, callables
from lstmlm.estimator.seeds import seed_of
from lstmlm.model import RecurrentLM
from lstmlm.text import Tokenizer, each_text


class WritesText(CompletesText):
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
        prefix_allowed_tokens: Any = None,
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
        prefix_allowed_tokens : callable, optional
            Called with a text's number and its ids so far, the prompt's first, it returns the ids
            that may follow; the end mark is 0.
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
            prompts,
            random_state=random_state,
            logits_processor=logits_processor,
            prefix_allowed_tokens=prefix_allowed_tokens,
            **options,
        )
        return [record.text for record in records]

    def generate_records(
        self,
        prompts: Iterable[str] | None = None,
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        prefix_allowed_tokens: Any = None,
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
        prefix_allowed_tokens : callable, optional
            Which ids may follow.
        **options
            See `generate`.

        Returns
        -------
        list of Generation
        """
        call = self._call(options, random_state, logits_processor, prefix_allowed_tokens)
        return call.records([""] if prompts is None else list(each_text(prompts)))

    def generate_stream(
        self,
        prompt: str = "",
        *,
        random_state: Any = None,
        logits_processor: Any = None,
        prefix_allowed_tokens: Any = None,
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
        prefix_allowed_tokens : callable, optional
            Which ids may follow; see `generate`.
        **options
            See `generate`; of `num_return_sequences` one is written.

        Yields
        ------
        str
            The next piece, never empty and never half a character. The pieces joined are what
            `generate` gives for the same prompt and random state.
        """
        call = self._call(options, random_state, logits_processor, prefix_allowed_tokens)
        return call.streamed(prompt)

    def _call(self, options: dict[str, Any], random_state: Any, processors: Any, ask: Any) -> Call:
        check_is_fitted(self)
        return Call(
            model=self.module_,
            tokenizer=self.tokenizer_,
            config=DecodeConfig.merged(self.generation_config, **options),
            seed=seed_of(self.random_state if random_state is None else random_state),
            own=callables("logits_processor", processors),
            ask=ask,
            starts=lambda prompt, heal: starts_of(self.module_, self.tokenizer_, prompt, heal=heal),
            rank=self._rank,
        )
