"""From prompts to completions: the supervised sibling of the language model."""

from lstmlm.text_to_text.estimator import LSTMTextToText

__all__ = ["LSTMTextToText"]
