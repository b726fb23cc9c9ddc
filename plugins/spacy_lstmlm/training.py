"""How the component is trained inside spaCy."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from spacy.language import Language
from spacy.training import Example, validate_examples, validate_get_examples

from lstmlm import LSTMLanguageModel
from spacy_lstmlm.holding import HoldsModel
from spacy_lstmlm.registered import read_lines

UPDATE_WINDOW = 200  # tokens that back-propagation goes through at most


class LearnsText(HoldsModel):
    """The part of `LanguageModel` that learns."""

    _pending: list[str]  # texts of the step to come
    _losses: list[dict[str, float]]  # where its loss goes

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        texts: str | Callable[[Language | None], Iterable[Example]] | None = None,
        vocab_size: int | str = "auto",
        seed: int = 0,
        params: dict[str, Any] | None = None,
    ) -> None:
        """Learn the vocabulary and make the first weights; training comes with `update`.

        A component with a model folder begins with that model instead, whose vocabulary stays.

        Parameters
        ----------
        get_examples : callable
            Gives the Examples whose texts are read where there are no `texts`.
        nlp : Language, optional
            The pipeline.
        texts : str or callable, optional
            A file of lines or a folder of such, or a corpus reader.
        vocab_size : int or "auto", default "auto"
            Number of pieces.
        seed : int, default 0
            Of the first weights and of training.
        params : dict, optional
            Any others of `lstmlm.LSTMLanguageModel`'s parameters, such as ``hidden_size``.
        """
        self._pending, self._losses = [], []
        if self._folder is not None:
            self._take(LSTMLanguageModel.load(self._folder, self._device()))
            return
        validate_get_examples(get_examples, "LanguageModel.initialize")
        if isinstance(texts, str):
            found = read_lines(texts)
        else:
            examples = get_examples() if texts is None else texts(nlp)
            found = (example.reference.text for example in examples)
        settings = {"vocab_size": vocab_size, "random_state": seed, "device": self._device()}
        settings |= {"max_epochs": 0, "early_stopping": False}
        model = LSTMLanguageModel().set_params(**settings | (params or {}))
        self._take(model.fit(found))

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Any = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Take a batch of texts for the next step of the training.

        Parameters
        ----------
        examples : iterable of Example
            What to learn from: their texts.
        drop : float, default 0.0
            Dropout, of the embedding's and the recurrent layers' outputs.
        sgd : optional
            If given, `finish_update` follows at once.
        losses : dict, optional
            To the component's name is added the mean loss a piece, in nats, by `finish_update`.

        Returns
        -------
        dict
            The losses.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "LanguageModel.update")
        self._ready().set_params(dropout=drop, dropout_input=drop)
        self._pending.extend(example.reference.text for example in examples)
        self._losses.append(losses)
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Any) -> None:
        """Take a step down the gradient of all texts that `update` took since the last one.

        The optimiser is the model's own AdamW, at the model's own learning rate.

        Parameters
        ----------
        sgd : ignored
            The optimiser of spaCy's other components.
        """
        texts, losses = self._pending, self._losses
        self._pending, self._losses = [], []
        if not texts:
            return
        model = self._ready()
        # Texts of up to a window are read in one step, side by side.
        model.set_params(batch_size=len(texts), bptt_length=UPDATE_WINDOW)
        model.partial_fit(texts)
        for one in {id(one): one for one in losses}.values():
            one[self.name] += model.history_[-1].train_loss

    def use_params(self, params: dict[Any, Any]) -> Iterator[None]:
        """Do nothing: spaCy's averaged parameters are those of thinc's models.

        Parameters
        ----------
        params : ignored
            The parameters.
        """
        yield
