"""The estimator's methods that suggest what comes next."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from lstmlm.config import DecodeConfig, Rule
from lstmlm.decoding import (
    COMPLETING,
    Beginnings,
    Completion,
    NextToken,
    Unit,
    check_suggestions,
    log_probs_of,
    next_tokens,
    read_prompts,
    suggest,
)
from lstmlm.errors import ParameterError, TextTypeError
from lstmlm.model import RecurrentLM
from lstmlm.scoring import inference
from lstmlm.text import FOREIGN, Tokenizer, given_and_held

_K_RULE = Rule(help="How many tokens.", kind=int, low=1)


class CompletesText(BaseEstimator):
    """The part of `LSTMLanguageModel` that follows someone who is typing."""

    tokenizer_: Tokenizer
    module_: RecurrentLM
    generation_config: Any

    def complete(
        self, prefix: str, n: int = 5, unit: Unit = "word", **options: Any
    ) -> list[Completion]:
        """Return the likeliest continuations of a text, the likeliest first.

        A word that the text breaks off in is finished, wherever it breaks off and whatever tokens
        it would be cut into. To follow someone who is typing use `session`, which reads each
        character once.

        Parameters
        ----------
        prefix : str
            The text so far; it may be empty.
        n : int, default 5
            How many; fewer where no more are found.
        unit : {"token", "word", "line"}, default "word"
            What to suggest: the rest of the word, or the next one with the space before it; the
            rest of the line, up to a line break or the text's end; the next token. A word is a run
            of letters, marks, digits and apostrophes, or of other signs; in scripts without
            spaces, such as Chinese and Thai, it ends with its token; for ``tokenizer="word"`` it is
            what stands between white space.
        **options
            Of `lstmlm.DecodeConfig`: ``max_new_tokens``, a suggestion's tokens at most;
            ``bad_words``, strings that no suggestion has; ``choices``, texts to rank in place of
            units, by the probability that they come next; ``num_beams``, hypotheses of the search,
            which keeps 16 or twice `n` at least. They go before the estimator's
            `generation_config`, whose other options don't matter here.

        Returns
        -------
        list of Completion
            The text to append, and its log-probability given the prefix, in nats. That of a word
            holds that the word ends there. Its ways to be cut into tokens add up, but for some that
            are less likely than any of the n. Ends of different texts are different suggestions:
            ``quick`` may be finished by ``ly`` and followed by `` brown``.

        Raises
        ------
        TextTypeError
            If the prefix is not a str.
        ParameterError
            If an argument or option is out of its range, or words are wanted of a foreign
            tokenizer, of which only tokens can be suggested.

        Examples
        --------
        >>> from lstmlm import LSTMLanguageModel
        >>> texts = ["the cat sat on the mat", "the dog sat on the log"] * 20
        >>> lm = LSTMLanguageModel(tokenizer="char", max_epochs=30, random_state=0).fit(texts)
        >>> lm.complete("the cat s", n=1)[0].text
        'at'
        """
        check_is_fitted(self)
        _check_prefix(prefix)
        check_suggestions(n, unit)
        for name in options.keys() & DecodeConfig.rules().keys() - set(COMPLETING):
            raise ParameterError(
                f"{name} is no option of complete, which ranks by probability; its options are "
                f"{', '.join(COMPLETING)}."
            )
        config = DecodeConfig.merged(self.generation_config, **options)
        tokenizer = self.tokenizer_
        if tokenizer.kind == FOREIGN and unit != "token":
            raise ParameterError(
                f'unit="{unit}" needs one of the library\'s tokenizers, which say what characters '
                'an id stands for; with a tokenizer of your own use unit="token".'
            )
        if config.choices is not None:
            choices = list(dict.fromkeys(config.choices))
            values = self._rank(prefix, choices).tolist()
            ranked = sorted(map(Completion, choices, values), key=lambda one: -one.log_prob)
            return ranked[:n]
        read, rest = given_and_held(tokenizer, prefix)
        bad = config.bad_words or ()
        reach = max(map(len, bad), default=1) - 1
        tail = prefix[-reach:] if reach else ""
        return suggest(
            self._beginnings(read), rest, n, unit=unit,
            num_beams=config.num_beams, max_new_tokens=config.max_new_tokens,
            wanted=lambda text: not any(word in tail + text for word in bad),
        )  # fmt: skip

    def next_token_probs(self, prefix: str, k: int = 10) -> list[NextToken]:
        """Return the likeliest next tokens with their probabilities, the likeliest first.

        The prefix is taken as it is, as whole tokens: in the middle of a word use `complete`.

        Parameters
        ----------
        prefix : str
            The text so far; it may be empty.
        k : int, default 10
            How many; fewer where the vocabulary has no more. Over all the probabilities add up to
            1.

        Returns
        -------
        list of NextToken
            Text and probability. The end mark's text is ``""``, the unknown token's ``"<unk>"``.

        Raises
        ------
        TextTypeError
            If the prefix is not a str.
        ParameterError
            If `k` is no number from 1 on.
        """
        check_is_fitted(self)
        _check_prefix(prefix)
        _K_RULE.check("k", k)
        return next_tokens(self._beginnings(prefix), k, after=prefix)

    def _rank(self, prompt: str, choices: Sequence[str]) -> NDArray[np.float64]:
        """Return the log-probability of each choice as what follows a prompt."""
        read, rest = given_and_held(self.tokenizer_, prompt)
        return log_probs_of(self._beginnings(read), rest, choices)

    def _beginnings(self, text: str) -> Beginnings:
        """Return beginnings of what may follow a text."""
        with inference(self.module_):
            state = read_prompts(self.module_, self.tokenizer_.encode([text]))[1]
        return Beginnings(self.module_, self.tokenizer_, state)


def _check_prefix(prefix: object) -> None:
    if not isinstance(prefix, str):
        raise TextTypeError(
            f"prefix is a {type(prefix).__name__}; it is one str. For several prefixes call it "
            "for each."
        )
