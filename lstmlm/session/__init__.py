"""Streams: text that comes in chunks, each token scored as soon as it is certain.

A stream is all that was fed since it began. It is cut into tokens as if it were one long text: what
might still become part of another token is held back. `Sessions` serves many streams together,
`Session` is one of them alone. Their memory does not depend on how much was fed.
"""

from lstmlm.session.reader import Reader
from lstmlm.session.streams import ScoredToken, Session, Sessions

__all__ = ["Reader", "ScoredToken", "Session", "Sessions"]
