"""Hypothesis strategies that tests share."""

from hypothesis import strategies as st
from tiny import TEXTS

WORDS = sorted({word for text in TEXTS for word in text.split()})


def texts(max_size: int = 30) -> st.SearchStrategy[str]:
    """Texts of the tiny corpus, others of its words, and any string at all: lone surrogates too."""
    return st.one_of(
        st.sampled_from(TEXTS),
        st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
        st.text(st.characters(), max_size=max_size),
    )


def batches(min_size: int = 1, max_size: int = 8) -> st.SearchStrategy[list[str]]:
    """Lists of texts."""
    return st.lists(texts(), min_size=min_size, max_size=max_size)
