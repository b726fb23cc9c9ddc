"""A Doc as HTML."""

import re
from html.parser import HTMLParser

import pytest
import spacy
import spacy_lstmlm
from pipelines import pipeline

from lstmlm import ParameterError


class Read(HTMLParser):
    """What a reader of the HTML sees: its text, the shades, and the figures on hover."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.titles, self.shades = [], "", [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta",):
            self.open.append(tag)
        attrs = dict(attrs)
        if "title" in attrs:
            self.titles.append(attrs["title"])
            self.shades.append(float(re.search(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", attrs["style"])[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", ['the dog <sat> & "it\'s" on\n the  log', "明月几时有 🙂", ""])
def test_each_token_is_shaded_by_its_surprisal(text):
    doc = pipeline("char")(text)
    read = Read(spacy_lstmlm.render(doc, jupyter=False))
    bits = [token._.lm_surprisal for token in doc if token._.lm_surprisal is not None]
    assert read.text.endswith(text)
    assert read.titles == [f"{one:.2f} bits" for one in bits]
    for shade, one in zip(read.shades, bits, strict=True):
        assert shade == pytest.approx(0.7 * min(1, one / 16), abs=0.006)


def test_tokens_that_own_nothing_have_no_shade():
    read = Read(spacy_lstmlm.render(pipeline("word")("do not don't"), jupyter=False))
    assert len(read.titles) == 3
    assert read.text.endswith("do not don't")


def test_a_span_is_shown_alone():
    doc = pipeline("char")("the dog sat on the log")
    read = Read(spacy_lstmlm.render(doc[1:3], jupyter=False))
    assert read.text.endswith("dog sat ")
    assert read.titles == [f"{token._.lm_surprisal:.2f} bits" for token in doc[1:3]]


def test_long_docs_are_folded_and_nothing_is_lost():
    doc = pipeline("char")("the dog " * 500)
    html = spacy_lstmlm.render(doc, jupyter=False, options={"fold": 100})
    shown, folded = html.split("<details>")
    assert Read(shown + "</div>").text.count("dog") == 50
    assert "<summary>900 more tokens</summary>" in folded
    assert Read(html).text.count("dog") == 500
    assert "<details>" not in spacy_lstmlm.render(doc, jupyter=False, options={"fold": 1000})


def test_pages_have_their_language_and_direction():
    nlp = pipeline("char", lang="ar")
    page = spacy_lstmlm.render([nlp("سلام"), nlp("the")], page=True, jupyter=False)
    assert '<html lang="ar" dir="rtl">' in page
    assert page.count('<div class="lstmlm" dir="rtl"') == 2
    assert 'name="color-scheme" content="light dark"' in page
    Read(page.split("\n", 1)[1])


def test_in_a_notebook_it_shows_itself(monkeypatch):
    shown = []
    display = type("display", (), {"HTML": str, "display": staticmethod(shown.append)})
    monkeypatch.setitem(__import__("sys").modules, "IPython.display", display)
    assert spacy_lstmlm.render(pipeline("char")("the dog"), jupyter=True) is None
    assert "bits" in shown[0]


def test_what_cannot_be_shown_is_an_error():
    with pytest.raises(ParameterError, match="a Doc without scores came"):
        spacy_lstmlm.render(spacy.blank("en")("the dog"), jupyter=False)
    with pytest.raises(ParameterError, match=r"options\['colour'\] is not known; there are attr_"):
        spacy_lstmlm.render(pipeline()("the"), jupyter=False, options={"colour": "red"})
    with pytest.raises(ParameterError, match=r"options\['darkest'\]=0 is not valid; it is above 0"):
        spacy_lstmlm.render(pipeline()("the"), jupyter=False, options={"darkest": 0})


def test_no_doc_is_an_empty_page():
    assert "<body" in spacy_lstmlm.render([], page=True, jupyter=False)
    assert spacy_lstmlm.render([], jupyter=False) == ""
