"""A spaCy component that says how surprising text is and what could come next."""

from spacy_lstmlm.component import LanguageModel
from spacy_lstmlm.rendering import render

__all__ = ["LanguageModel", "render"]
