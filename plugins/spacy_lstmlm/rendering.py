"""A Doc as HTML, each token shaded by its surprisal."""

import html
import math
from collections.abc import Iterable
from typing import Any

from spacy.tokens import Doc, Span, Token
from spacy.util import is_in_jupyter

from lstmlm import ParameterError
from spacy_lstmlm.attributes import pieces_of

DARKEST = 16.0  # bits from which on the shade stays the same
FOLD = 400  # tokens from which on a Doc is folded

# Shades are translucent, so that they lie as well on a dark page as on a white one, and no letter's
# colour is set: the page's own stays readable on both.
_SHADE = "background:rgba(230,97,0,{:.2f});border-radius:0.2em;padding:0.15em 0"
DEEPEST = 0.7  # the darkest shade's opacity
_BOX = (
    "line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere;font-family:system-ui,sans-serif;"
    "max-width:60em;margin-bottom:1.5em"
)
_LEGEND = "font-size:0.8em;opacity:0.8;margin-bottom:0.6em"
_PAGE = (
    '<!DOCTYPE html>\n<html lang="{lang}" dir="{direction}">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n</head>\n'
    '<body style="margin:2em">\n{body}\n</body>\n</html>\n'
)


def render(
    docs: Doc | Span | Iterable[Doc | Span],
    *,
    page: bool = False,
    jupyter: bool | None = None,
    options: dict[str, Any] | None = None,
) -> str | None:
    """Return Docs as HTML, or show them in a notebook, as ``displacy.render`` does.

    Each token is shaded by its surprisal, whose figure shows when the mouse rests on it. The
    colours suit light and dark pages. Longer Docs are folded after some tokens.

    Parameters
    ----------
    docs : Doc, Span or iterable of such
        What the component has scored.
    page : bool, default False
        Whether to return a whole page.
    jupyter : bool, optional
        Whether to show it in a notebook and return nothing; None finds out.
    options : dict, optional
        ``attr_prefix`` ("lm"), the component's; ``darkest`` (16.0), the surprisal in bits from
        which on the shade is the darkest; ``fold`` (400), the tokens that are shown of a longer
        Doc.

    Returns
    -------
    str or None

    Raises
    ------
    lstmlm.ParameterError
        If an option isn't known or is out of its range, or a Doc wasn't scored.

    Examples
    --------
    >>> import spacy_lstmlm
    >>> html = spacy_lstmlm.render(nlp("the cat sat"), jupyter=False)  # doctest: +SKIP
    """
    known: dict[str, Any] = {"attr_prefix": "lm", "darkest": DARKEST, "fold": FOLD}
    for name in (options or {}).keys() - known.keys():
        raise ParameterError(f"options[{name!r}] is not known; there are {', '.join(known)}.")
    settings = known | (options or {})
    for name in ("darkest", "fold"):
        if not settings[name] > 0:
            raise ParameterError(f"options[{name!r}]={settings[name]} is not valid; it is above 0.")
    shown = [docs] if isinstance(docs, Doc | Span) else list(docs)
    body = "\n".join(_render(one, **settings) for one in shown)
    if page:
        writing = shown[0].vocab.writing_system if shown else {}
        body = _PAGE.format(
            lang=html.escape(shown[0].vocab.lang if shown else "en"),
            direction=html.escape(writing.get("direction", "ltr")),
            title="Surprisal",
            body=body,
        )
    if jupyter or (jupyter is None and is_in_jupyter()):
        from IPython.display import HTML, display

        display(HTML(body))
        return None
    return body


def _render(part: Doc | Span, *, attr_prefix: str, darkest: float, fold: int) -> str:
    doc = part.doc
    pieces = pieces_of(doc, attr_prefix)
    if pieces is None:
        raise ParameterError(
            f"a Doc without scores came; process it with a component with attr_prefix="
            f'"{attr_prefix}" and score=True.'
        )
    log_probs = pieces.by_token(token.idx for token in doc)
    bits = [None if one is None else -one / math.log(2) for one in log_probs]
    tokens = [_token(token, bits[token.i], darkest) for token in part]
    direction = html.escape(doc.vocab.writing_system.get("direction", "ltr"))
    first, rest = tokens[:fold], tokens[fold:]
    folded = f"<details><summary>{len(rest):,} more tokens</summary>{''.join(rest)}</details>"
    return (
        f'<div class="lstmlm" dir="{direction}" style="{_BOX}">'
        f"{_legend(darkest)}{''.join(first)}{folded if rest else ''}</div>"
    )


def _token(token: Token, bits: float | None, darkest: float) -> str:
    text = html.escape(token.text)
    if bits is None:
        return text + token.whitespace_
    return f'<span title="{bits:.2f} bits" style="{_shade(bits, darkest)}">{text}</span>' + (
        token.whitespace_
    )


def _shade(bits: float, darkest: float) -> str:
    return _SHADE.format(DEEPEST * min(1.0, max(0.0, bits) / darkest))


def _legend(darkest: float) -> str:
    steps = [darkest * share for share in (0, 0.25, 0.5, 0.75, 1)]
    shown = " ".join(
        f'<span style="{_shade(bits, darkest)}">&nbsp;{bits:g}&nbsp;</span>' for bits in steps
    )
    return f'<div style="{_LEGEND}">surprisal in bits: {shown} and more</div>'
