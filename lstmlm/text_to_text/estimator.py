"""`LSTMTextToText`: from prompts to completions."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from lstmlm.batches import Corpus, rows_of
from lstmlm.estimator.documented import DocumentedOnline
from lstmlm.estimator.given import plan_of
from lstmlm.estimator.keeping import KeepsModel
from lstmlm.estimator.seeds import seed_of
from lstmlm.estimator.showing import ShowsTraining
from lstmlm.fitting import choose_device, fit_language_model
from lstmlm.measures import Tally
from lstmlm.progress import TrainingProgress
from lstmlm.scoring import inference, read_windows
from lstmlm.text import END, count_bytes, count_words
from lstmlm.text_to_text.pairs import checked_pairs, taking_turns
from lstmlm.text_to_text.writing import WritesCompletions
from lstmlm.training import Report

SCORE_PAIRS = 2048  # pairs that are scored together at most


class LSTMTextToText(DocumentedOnline, WritesCompletions, ShowsTraining, KeepsModel):
    """A recurrent model that writes a completion to a prompt: from pairs of your own.

    One network reads the prompt, an end mark and the completion; only the completion's tokens and
    the end mark behind it are learned and scored. With attention it looks back at the prompt's
    states while it writes, as long prompts need. Every parameter may be left
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
    input_noise : float in [0, 1) or "auto"
        Share of the tokens that are read as others in training, of those of which least is known
        what follows them (Xie et al. 2017).
    early_stopping : bool, default True
        Hold pairs out, stop when they get no better, and keep the weights that were best on them.
        What `fit` held out itself is trained on in the end, at a low rate; `validation` never is.
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

    _kept_as: ClassVar[str] = "LSTMTextToText"
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
        input_noise: Any = "auto",
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
        self.input_noise = input_noise
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
        pairs = taking_turns(*checked_pairs(prompts, completions))
        heldout = None if validation is None else taking_turns(*checked_pairs(*validation))
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
        read, written = checked_pairs(prompts, completions)
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
        parts = self._log_probs(*checked_pairs(prompts, completions))
        return np.array([part.sum(dtype=np.float64) for part in parts])

    def _log_probs(
        self, prompts: Sequence[str], completions: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Return the log-probabilities of each completion's tokens, its end mark the last."""
        check_is_fitted(self)
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(prompts), SCORE_PAIRS):
            some = slice(start, start + SCORE_PAIRS)
            texts = self.tokenizer_.encode(taking_turns(prompts[some], completions[some]))
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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags
