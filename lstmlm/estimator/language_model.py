"""`LSTMLanguageModel`: parameters and fitting."""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from sklearn.utils import Tags
from sklearn.utils.metadata_routing import UNUSED

from lstmlm.errors import ParameterError
from lstmlm.estimator.callbacks import CallbackSupportMixin, FitTasks, with_callbacks
from lstmlm.estimator.describing import DescribesText
from lstmlm.estimator.documented import DocumentedOnline
from lstmlm.estimator.given import plan_of, resume_of
from lstmlm.estimator.keeping import KeepsModel
from lstmlm.estimator.reading import ReadsText
from lstmlm.estimator.seeds import seed_of
from lstmlm.estimator.showing import ShowsTraining
from lstmlm.estimator.streaming import StreamsText
from lstmlm.estimator.writing import WritesText
from lstmlm.fitting import (
    Fitted,
    Momentum,
    Plan,
    choose_device,
    fit_language_model,
    fit_partially,
)
from lstmlm.progress import TrainingProgress
from lstmlm.text import check_iterable
from lstmlm.training import Report


class LSTMLanguageModel(
    CallbackSupportMixin,
    DocumentedOnline,
    ReadsText,
    WritesText,
    StreamsText,
    DescribesText,
    ShowsTraining,
    KeepsModel,
):
    """A recurrent language model of your own text.

    Fitted on texts, it says how probable other texts are and writes new ones. Every parameter may
    be left alone: ``"auto"`` becomes a number that follows from the text, recorded in ``params_``.

    Parameters
    ----------
    tokenizer : {"bpe", "char", "word"}, path or tokenizers.Tokenizer, default "bpe"
        What a token is. "bpe": byte-level pieces learned from the text, to which nothing is
        unknown; "char": one character; "word": what stands between white space, where "<unk>" is
        the unknown token. The path of a ``tokenizer.json`` or of a folder that holds one, or a
        tokenizer of the `tokenizers` library: used as it is.
    vocab_size : int or "auto"
        Number of ids, the end mark included. "auto": for "char" and "word" all types, for "bpe" a
        number that grows with the text.
    min_frequency : int or "auto"
        How often a type (for "bpe" a merge) must occur to be kept. "auto": 2, but 1 for words where
        the text holds "<unk>".
    lowercase : bool, default False
        Read all text in lower case.
    cell : {"lstm", "gru", "peephole_lstm"}, default "lstm"
        The recurrent layers' kind.
    peephole : {"diagonal", "full"}, default "diagonal"
        For "peephole_lstm", how gates see the cell. "diagonal" (Gers et al. 2000): each unit its
        own, through vectors, the output gate the new cell; "full": all units, through matrices, the
        candidate too.
    output : {"softmax", "adaptive"} or "auto"
        The output layer. Both give exact, normalised probabilities; "adaptive" (Grave et al. 2017)
        is several times faster where the vocabulary is large.
    embedding_dim, hidden_size, num_layers : int or "auto"
        Width of the embedding, width and number of the recurrent layers.
    tie_weights : bool, default True
        Share the embedding's rows with the output layer.
    dropout, dropout_input : float in [0, 1) or "auto"
        Locked dropout after each recurrent layer, and on the embedded tokens.
    dropout_embedding, dropout_weight : float in [0, 1) or "auto"
        Share of types whose embedding is dropped, and of the recurrent matrices' weights, anew at
        each step of the training.
    context : {"document", "stream"}, default "document"
        "document": every text starts from a fresh state. "stream": texts are consecutive parts of
        one long text, and the state is carried from each to the next.
    max_epochs : int, "auto" or None
        Passes over the text. "auto" follows from its size, and is no limit where `max_seconds` is
        given; None is no limit. 0 builds the tokenizer and the first weights.
    max_seconds : float, optional
        Time that `fit` may take, reading and held-out text included.
    batch_size, bptt_length : int or "auto"
        Lanes of text that are read side by side, and the tokens of each that a step sees.
    learning_rate : float or "auto"
        AdamW's step size at its largest; it warms up and falls over the given budget, and the mean
        of the weights over the last ninth or so of the training is what is left.
    weight_decay : float or "auto"
        AdamW's decoupled weight decay.
    clip_norm : float or None, default 0.5
        Largest norm of the gradient of a step.
    activation_penalty, temporal_penalty : float, default 0.0
        Weights, in nats a token, of the mean square of the last layer's dropped outputs and of
        their change from token to token (Merity et al. 2017).
    input_noise : float in [0, 1) or "auto"
        Share of the tokens that are read as others in training, of those of which least is known
        what follows them (Xie et al. 2017).
    early_stopping : bool, default True
        Hold text out, stop when it gets no better, and keep the weights that were best on it. What
        `fit` held out itself is trained on in the end, at a low rate; `validation` never is.
    validation_fraction : float or "auto"
        Share of the tokens that is held out where `fit` gets no `validation`: the end of a stream
        or of a single text, else whole texts. "auto" is 2 % where there is plenty.
    n_iter_no_change : int, default 10
        Epochs without improvement after which training stops.
    warm_start : bool, default False
        Let `fit` on a fitted estimator go on from its tokenizer and weights, with a new optimiser;
        `history_` goes on too. The network must stay the same.
    generation_config : DecodeConfig, dict or None
        Defaults of the options of `generate`, `generate_stream` and `predict`.
    checkpoint_dir : path, optional
        Where `fit` keeps its state twice a minute, in a subfolder that is named after the settings
        and the texts: if the process is killed, the same call goes on from there, and ends with the
        very weights that it would have had where epochs and not seconds end it. The subfolder is
        removed when `fit` returns.
    device : str or torch.device, default "auto"
        "auto" takes a CUDA GPU where there is one, else the CPU.
    precision : {"float32", "bf16"} or "auto"
        Numbers of matrix products, all else being float32. "auto" trains with bf16 where the
        machine is fast at it, and there scores with it if the network is large (from 8 million
        products a token on, as with 650 units and a softmax over 10,000 words): float32's figures
        agree to 1e-5 whatever a text is scored with, bf16's to 1e-3. A fitted model scores as the
        parameter is set at the time.
    n_jobs : int, optional
        Processes in which `pipe` scores, as joblib counts them.
    random_state : int, RandomState or None
        Of the first weights, dropout, the order of texts, and generation. The same int gives the
        same weights, bit for bit on the CPU with the same number of threads, where epochs and not
        seconds end the training.
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
    >>> from lstmlm import LSTMLanguageModel
    >>> texts = ["the cat sat on the mat", "the dog sat on the log"] * 20
    >>> lm = LSTMLanguageModel(tokenizer="word", max_epochs=20, random_state=0).fit(texts)
    >>> lm.perplexity(["the cat sat on the log"]) < lm.perplexity(["log the on sat cat the"])
    True
    """

    __metadata_request__fit: ClassVar = {"texts": UNUSED}  # the data, not what goes with them

    _momentum: Momentum | None = None  # of partial fits

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
        dropout: Any = "auto",
        dropout_input: Any = "auto",
        dropout_embedding: Any = "auto",
        dropout_weight: Any = "auto",
        context: Any = "document",
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
        warm_start: Any = False,
        generation_config: Any = None,
        checkpoint_dir: Any = None,
        device: Any = "auto",
        precision: Any = "auto",
        n_jobs: Any = None,
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
        self.dropout = dropout
        self.dropout_input = dropout_input
        self.dropout_embedding = dropout_embedding
        self.dropout_weight = dropout_weight
        self.context = context
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
        self.warm_start = warm_start
        self.generation_config = generation_config
        self.checkpoint_dir = checkpoint_dir
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    def fit(
        self, texts: Iterable[str], y: Any = None, validation: Iterable[str] | None = None
    ) -> Self:
        """Learn a tokenizer and train a model.

        Parameters
        ----------
        texts : iterable of str
            The training text; a one-shot generator may be larger than memory.
        y : ignored
            There for scikit-learn's pipelines.
        validation : iterable of str, optional
            Held-out text, in place of a part of `texts`.

        Returns
        -------
        LSTMLanguageModel
            The estimator itself.

        Raises
        ------
        TextError
            If `texts` is a single str, a mapping, a table, or empty.
        TextTypeError
            If something among the texts is not a str.
        ParameterError
            If a parameter is out of its range.
        DivergenceError
            If the loss stops being finite.

        Notes
        -----
        Interrupting it (Ctrl-C) keeps the best weights so far, with a warning. A scikit-learn
        callback (``set_callbacks``, scikit-learn 1.9) may stop it after an epoch, with the same
        weights and no warning.
        """
        plan = plan_of(self)
        device = choose_device(self.device)
        seed = seed_of(self.random_state)
        start = self._fitted() if self.warm_start and hasattr(self, "module_") else None
        tasks = FitTasks(self, check_iterable(texts), y)
        with TrainingProgress(enabled=self.verbose > 0) as show:

            def watch(report: Report, fitted: Fitted) -> bool:
                show(report)
                return tasks(report, fitted)

            fitted = fit_language_model(
                texts,
                validation,
                plan,
                device=device,
                seed=seed,
                watch=watch,
                start=start,
                resume=resume_of(self),
            )
        self._adopt(fitted)
        tasks.finish(fitted)
        return self

    def partial_fit(self, texts: Iterable[str], y: Any = None) -> Self:
        """Train on more texts: one pass, at a steady learning rate, with nothing held out.

        The first call on an estimator that isn't fitted learns the tokenizer and settles what is
        ``"auto"`` from its texts; later ones keep the vocabulary, the network and the optimiser's
        state. After `fit`, which keeps no such state, the optimiser warms up anew.

        Parameters
        ----------
        texts : iterable of str
            The texts to read.
        y : ignored
            There for scikit-learn's pipelines.

        Returns
        -------
        LSTMLanguageModel
            The estimator itself.

        Raises
        ------
        TextError, TextTypeError, DivergenceError
            As `fit` does.
        ParameterError
            If a parameter is out of its range, or does not fit the network that is there.
        """
        plan = plan_of(self)
        start = self._fitted() if hasattr(self, "module_") else None
        with TrainingProgress(enabled=self.verbose > 0) as show:
            fitted, momentum = fit_partially(
                texts,
                plan,
                device=choose_device(self.device) if start is None else self.device_,
                seed=seed_of(self.random_state),
                watch=lambda report, _: show(report),
                start=start,
                momentum=self._momentum,
            )
        self._adopt(fitted)
        self._momentum = momentum
        return self

    def _adopt(self, fitted: Fitted) -> None:
        super()._adopt(fitted)
        self.__dict__.pop("_momentum", None)

    def _fitted(self) -> Fitted:
        """Return what the last fit left, to be trained further."""
        if self.module_.quantized:
            raise ParameterError(
                "a quantized model can't be trained further; train the one that it was made from."
            )
        plan = Plan.of(self.params_)
        return Fitted(self.tokenizer_, self.module_, plan, self.history_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "module_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = False
        return tags
