"""The estimator's methods that write what comes next."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import DecodeConfig
from lstmlm.decoding import generate_ids
from lstmlm.errors import TextTypeError
from lstmlm.estimator.seeds import seed_of
from lstmlm.model import RecurrentLM
from lstmlm.text import END, Tokenizer, each_text

GENERATE_BATCH = 128  # prompts that are continued side by side


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
        continued = self.generate(prompts, do_sample=False)
        predicted = np.empty(len(continued), dtype=object)
        predicted[:] = continued
        return predicted

    def generate(
        self, prompts: Iterable[str] | None = None, *, random_state: Any = None, **options: Any
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
        **options
            Of `lstmlm.DecodeConfig`, for example ``max_new_tokens=50, temperature=0.8, top_p=0.9``;
            they go before the estimator's `generation_config`.

        Returns
        -------
        list of str
            The new text alone, one a prompt: ``prompt + text`` is the whole.

        Raises
        ------
        ParameterError
            If an option doesn't exist or is out of its range.
        TextError, TextTypeError
            If the prompts are a single str, or one of them is not a str.
        """
        config, seed = self._decoding(random_state, options)
        read = [""] if prompts is None else list(each_text(prompts))
        texts: list[str] = []
        for start in range(0, len(read), GENERATE_BATCH):
            texts += self._continue(read[start : start + GENERATE_BATCH], config, seed, start)
        return texts

    def generate_stream(
        self, prompt: str = "", *, random_state: Any = None, **options: Any
    ) -> Iterator[str]:
        """Write the rest of one prompt, piece by piece as it comes.

        Parameters
        ----------
        prompt : str, default ""
            The beginning of a text.
        random_state : int, RandomState or None
            Of the sampling; None takes the estimator's.
        **options
            See `generate`.

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
        return self._stream(prompt, config, seed)

    def _decoding(self, random_state: Any, options: dict[str, Any]) -> tuple[DecodeConfig, int]:
        check_is_fitted(self)
        config = DecodeConfig.merged(self.generation_config, **options)
        source = self.random_state if random_state is None else random_state
        return config, seed_of(source)

    def _forbidden(self) -> tuple[int, ...]:
        unknown = self.tokenizer_.unknown_id
        return () if unknown is None else (unknown,)

    def _continue(
        self, prompts: Sequence[str], config: DecodeConfig, seed: int, first: int
    ) -> list[str]:
        encoded = self.tokenizer_.encode(prompts)
        forbidden = self._forbidden()
        columns = generate_ids(
            self.module_, encoded, config, forbidden=forbidden, seed=seed, first_row=first
        )
        decoders = [self.tokenizer_.decoder(after=prompt) for prompt in prompts]
        pieces: list[list[str]] = [[] for _ in prompts]
        for column in columns:
            for row, token_id in enumerate(column.tolist()):
                if token_id != END:
                    pieces[row].append(decoders[row].feed(token_id))
        return ["".join(row) for row in pieces]

    def _stream(self, prompt: str, config: DecodeConfig, seed: int) -> Iterator[str]:
        encoded = self.tokenizer_.encode([prompt])
        decoder = self.tokenizer_.decoder(after=prompt)
        columns = generate_ids(
            self.module_, encoded, config, forbidden=self._forbidden(), seed=seed
        )
        for (token_id,) in columns:
            if piece := decoder.feed(int(token_id)):
                yield piece
