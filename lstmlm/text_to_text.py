"""`LSTMTextToText`: from prompts to completions."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.attending import AttendingLM
from lstmlm.batches import Corpus, rows_of
from lstmlm.config import DecodeConfig
from lstmlm.decoding import Start
from lstmlm.errors import ParameterError, TextError, TextTypeError
from lstmlm.estimator.documented import DocumentedOnline
from lstmlm.estimator.generations import Call, Generation, Starts, callables
from lstmlm.estimator.given import plan_of
from lstmlm.estimator.keeping import KeepsModel
from lstmlm.estimator.seeds import seed_of
from lstmlm.estimator.showing import ShowsTraining
from lstmlm.fitting import choose_device, fit_language_model
from lstmlm.measures import Tally
from lstmlm.plotting import plot_matrix
from lstmlm.progress import TrainingProgress
from lstmlm.scoring import inference, read_windows
from lstmlm.text import END, count_bytes, count_words, each_text
from lstmlm.training import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORE_PAIRS = 2048  # pairs that are scored together at most


class LSTMTextToText(DocumentedOnline, ShowsTraining, KeepsModel):
    """A recurrent model that writes a completion to a prompt: from pairs of your own.

    One network reads the prompt, an end mark and the completion; only the completion's tokens and
    the end mark behind it are learned and scored. With attention it looks back at the prompt's
    states while it writes, which translation and all copying need. Every parameter may be left
    alone: ``"auto"`` becomes a number that follows from the pairs, recorded in ``params_``.

    Parameters
    ----------
    tokenizer : {"bpe", "char", "word"}, path or tokenizers.Tokenizer, default "bpe"
        What a token is; see `LSTMLanguageModel`. It is learned from prompts and completions.
    vocab_size, min_frequency : int or "auto"
        See `LSTMLanguageModel`.
    lowercase : bool, default False
        Read all text in lower case.
    cell : {"lstm", "gru", "peephole_lstm"}, default "lstm"
        The recurrent layers' kind.
    peephole : {"diagonal", "full"}, default "diagonal"
        For "peephole_lstm", how gates see the cell.
    output : {"softmax", "adaptive"} or "auto"
        The output layer.
    embedding_dim, hidden_size, num_layers : int or "auto"
        Width of the embedding, width and number of the recurrent layers.
    tie_weights : bool, default True
        Share the embedding's rows with the output layer.
    attention : bool, default False
        Look back at the prompt's states (Luong et al. 2015). Pairs are then read whole in training,
        and writing takes memory for each of the prompt's tokens.
    dropout, dropout_input, dropout_embedding, dropout_weight : float in [0, 1) or "auto"
        See `LSTMLanguageModel`.
    max_epochs : int, "auto" or None
        Passes over the pairs. "auto" follows from their size, and is no limit where `max_seconds`
        is given; None is no limit.
    max_seconds : float, optional
        Time that `fit` may take.
    batch_size, bptt_length : int or "auto"
        A step reads about ``batch_size * bptt_length`` tokens of pairs of like length. "auto" reads
        pairs whole, about 64 a step.
    learning_rate, weight_decay : float or "auto"
        AdamW's.
    clip_norm : float or None, default 0.5
        Largest norm of the gradient of a step.
    activation_penalty, temporal_penalty : float, default 0.0
        See `LSTMLanguageModel`.
    early_stopping : bool, default True
        Hold pairs out, stop when they get no better, and keep the weights that were best on them.
    validation_fraction : float or "auto"
        Share of the pairs that is held out where `fit` gets no `validation`.
    n_iter_no_change : int, default 10
        Epochs without improvement after which training stops.
    generation_config : DecodeConfig, dict or None
        Defaults of the options of `generate` and `predict`.
    device : str or torch.device, default "auto"
        "auto" takes a CUDA GPU where there is one, else the CPU.
    precision : {"float32", "bf16"} or "auto"
        Numbers of matrix products in training; scoring and writing are in float32.
    random_state : int, RandomState or None
        Of the first weights, dropout, the order of pairs, and generation.
    verbose : int, default 0
        1 shows the training's progress.

    Attributes
    ----------
    tokenizer_ : Tokenizer
        Text to ids.
    vocab_size_ : int
        Number of ids, the end mark included.
    params_ : dict
        The parameters of text, network and training as they were settled.
    n_epochs_ : int
        Epochs begun.
    history_ : list of Epoch
        One record an epoch.
    module_ : RecurrentLM
        The network.
    device_ : torch.device
        Where it is.

    Examples
    --------
    >>> from lstmlm import LSTMTextToText
    >>> prompts, completions = ["one", "two", "three"] * 60, ["1", "2", "3"] * 60
    >>> model = LSTMTextToText(tokenizer="char", max_epochs=30, random_state=0)
    >>> model.fit(prompts, completions).predict(["two", "three"])
    array(['2', '3'], dtype=object)
    """

    __metadata_request__fit: ClassVar = {"prompts": UNUSED, "completions": UNUSED}
    __metadata_request__score: ClassVar = {"prompts": UNUSED, "completions": UNUSED}
    __metadata_request__predict: ClassVar = {"prompts": UNUSED}

    def __init__(
        self,
        *,
        tokenizer: Any = "bpe",
        vocab_size: Any = "auto",
        min_frequency: Any = "auto",
        lowercase: Any = False,
        cell: Any = "lstm",
        peephole: Any = "diagonal",
        output: Any = "auto",
        embedding_dim: Any = "auto",
        hidden_size: Any = "auto",
        num_layers: Any = "auto",
        tie_weights: Any = True,
        attention: Any = False,
        dropout: Any = "auto",
        dropout_input: Any = "auto",
        dropout_embedding: Any = "auto",
        dropout_weight: Any = "auto",
        max_epochs: Any = "auto",
        max_seconds: Any = None,
        batch_size: Any = "auto",
        bptt_length: Any = "auto",
        learning_rate: Any = "auto",
        weight_decay: Any = "auto",
        clip_norm: Any = 0.5,
        activation_penalty: Any = 0.0,
        temporal_penalty: Any = 0.0,
        early_stopping: Any = True,
        validation_fraction: Any = "auto",
        n_iter_no_change: Any = 10,
        generation_config: Any = None,
        device: Any = "auto",
        precision: Any = "auto",
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.min_frequency = min_frequency
        self.lowercase = lowercase
        self.cell = cell
        self.peephole = peephole
        self.output = output
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.tie_weights = tie_weights
        self.attention = attention
        self.dropout = dropout
        self.dropout_input = dropout_input
        self.dropout_embedding = dropout_embedding
        self.dropout_weight = dropout_weight
        self.max_epochs = max_epochs
        self.max_seconds = max_seconds
        self.batch_size = batch_size
        self.bptt_length = bptt_length
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.activation_penalty = activation_penalty
        self.temporal_penalty = temporal_penalty
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.generation_config = generation_config
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        prompts: Iterable[str],
        completions: Iterable[str],
        validation: tuple[Iterable[str], Iterable[str]] | None = None,
    ) -> Self:
        """Learn to write completions to prompts.

        Parameters
        ----------
        prompts, completions : iterable of str
            Pairs, as many of the one as of the other; they are kept in memory.
        validation : pair of iterables of str, optional
            Held-out prompts and completions, in place of a part of these.

        Returns
        -------
        LSTMTextToText
            The estimator itself.

        Raises
        ------
        TextError
            If there are no pairs, or not as many completions as prompts.
        TextTypeError
            If something among them is not a str.
        ParameterError
            If a parameter is out of its range.
        DivergenceError
            If the loss stops being finite.

        Notes
        -----
        Interrupting it (Ctrl-C) keeps the best weights so far, with a warning.
        """
        plan = plan_of(self)
        pairs = _taking_turns(*_pairs(prompts, completions))
        heldout = None if validation is None else _taking_turns(*_pairs(*validation))
        with TrainingProgress(enabled=self.verbose > 0) as show:

            def watch(report: Report, _: object) -> None:
                show(report)

            fitted = fit_language_model(
                pairs,
                heldout,
                plan,
                device=choose_device(self.device),
                seed=seed_of(self.random_state),
                watch=watch,
                pairs=True,
            )
        self._adopt(fitted)
        return self

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

    def score(self, prompts: Iterable[str], completions: Iterable[str]) -> float:
        """Return minus the perplexity of the completions given the prompts: greater is better.

        Parameters
        ----------
        prompts, completions : iterable of str
            Pairs; at least one.

        Returns
        -------
        float
        """
        return -self.perplexity(prompts, completions)

    def perplexity(
        self, prompts: Iterable[str], completions: Iterable[str], per: str = "token"
    ) -> float:
        """Return the perplexity of the completions given the prompts.

        Parameters
        ----------
        prompts, completions : iterable of str
            Pairs; at least one.
        per : {"token", "word", "char", "byte"}, default "token"
            The unit, each completion's end mark counted as one.

        Returns
        -------
        float

        Raises
        ------
        TextError
            If there are no pairs, or not as many completions as prompts.
        ParameterError
            If there is no such unit.
        """
        read, written = _pairs(prompts, completions)
        parts = self._log_probs(read, written)
        tally = Tally(
            nats=-sum(float(part.sum(dtype=np.float64)) for part in parts),
            texts=len(parts),
            tokens=sum(map(len, parts)),
            words=len(parts) + sum(map(count_words, written)),
            chars=len(parts) + sum(map(len, written)),
            bytes=len(parts) + sum(map(count_bytes, written)),
        )
        return tally.perplexity(per)

    def score_samples(
        self, prompts: Iterable[str], completions: Iterable[str]
    ) -> NDArray[np.float64]:
        """Return the log-probability of each completion given its prompt.

        Parameters
        ----------
        prompts, completions : iterable of str
            Pairs; at least one.

        Returns
        -------
        ndarray of float64, shape (n_pairs,)
            In nats, the end mark included.
        """
        parts = self._log_probs(*_pairs(prompts, completions))
        return np.array([part.sum(dtype=np.float64) for part in parts])

    def attention_weights(self, prompt: str, completion: str | None = None) -> NDArray[np.float32]:
        """Return how a completion looks back at its prompt.

        Parameters
        ----------
        prompt : str
        completion : str, optional
            None takes the one that `predict` writes.

        Returns
        -------
        ndarray of float32, shape (n_completion_tokens + 1, n_prompt_tokens + 1)
            A row for each token of the completion and its end mark: the share of each of the
            prompt's tokens, and of the end mark behind it. A row sums to 1.

        Raises
        ------
        ParameterError
            If the model was fitted without attention.
        """
        return self._attention(prompt, completion)[0]

    def plot_attention(
        self, prompt: str, completion: str | None = None, ax: "Axes | None" = None
    ) -> "Axes":
        """Draw how a completion looks back at its prompt: the darker, the more.

        Parameters
        ----------
        prompt : str
        completion : str, optional
            None takes the one that `predict` writes.
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The prompt's tokens lie along it, the completion's go down.

        Raises
        ------
        ParameterError
            If the model was fitted without attention, or `ax` is no Axes.
        MissingExtraError
            If matplotlib isn't installed.
        """
        weights, read, written = self._attention(prompt, completion)
        return plot_matrix(weights, written, read, "completion", "prompt", ax)

    def _attention(
        self, prompt: str, completion: str | None
    ) -> tuple[NDArray[np.float32], list[str], list[str]]:
        """Return the weights, and what the prompt's and the completion's tokens say."""
        check_is_fitted(self)
        if not isinstance(self.module_, AttendingLM):
            raise ParameterError("the model has no attention; fit it with attention=True.")
        if completion is None:
            (completion,) = self.predict([prompt])
        _pairs([prompt], [completion])
        read, written = self.tokenizer_.encode_with_spans([prompt, str(completion)])
        ids = np.concatenate([[END], read[0], [END], written[0]]).astype(np.int64)
        with inference(self.module_):
            on_device = torch.from_numpy(ids).to(self.device_)
            found = self.module_.attention_weights(on_device, len(read[0]) + 1)
        weights: NDArray[np.float32] = found.float().cpu().numpy()
        texts = [
            [text[start:end] for start, end in spans.tolist()] + [""]
            for text, (_, spans) in zip((prompt, str(completion)), (read, written), strict=True)
        ]
        return weights, texts[0], texts[1]

    def _log_probs(
        self, prompts: Sequence[str], completions: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Return the log-probabilities of each completion's tokens, its end mark the last."""
        check_is_fitted(self)
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(prompts), SCORE_PAIRS):
            some = slice(start, start + SCORE_PAIRS)
            texts = self.tokenizer_.encode(_taking_turns(prompts[some], completions[some]))
            corpus = Corpus.of(texts, END).as_pairs()
            assert corpus.counted is not None
            found = np.empty(len(corpus.ids), dtype=np.float32)
            with inference(self.module_):
                for seen in read_windows(self.module_, corpus.ids, rows_of(corpus)):
                    nll = self.module_.head.nll(seen.features, seen.targets)
                    found[seen.positions] = -nll.cpu()
            bounds = zip(corpus.counted.tolist(), corpus.ends.tolist(), strict=True)
            parts += [found[begin:end] for begin, end in bounds]
        return parts

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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags


def _pairs(prompts: Iterable[str], completions: Iterable[str]) -> tuple[list[str], list[str]]:
    """Check pairs of texts, and return them as lists."""
    if completions is None:
        raise TextError("completions are needed, one for each prompt; None came.")
    read = _texts("prompts", prompts)
    written = _texts("completions", completions)
    if len(read) != len(written):
        raise TextError(
            f"{len(read)} prompts and {len(written)} completions came; each prompt needs one."
        )
    if not read:
        raise TextError("0 pairs came; at least one is needed.")
    return read, written


def _texts(name: str, texts: Iterable[str]) -> list[str]:
    try:
        return list(each_text(texts))
    except (TextError, TextTypeError) as error:
        raise type(error)(str(error).replace("texts", name, 1)) from None


def _taking_turns(prompts: Sequence[str], completions: Sequence[str]) -> list[str]:
    return [text for pair in zip(prompts, completions, strict=True) for text in pair]
