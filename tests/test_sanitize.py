"""Hostile texts: nothing in them reaches the page as anything but text and harmless markup, and none takes for ever."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from modules.ui.blocks import render_message
from modules.ui.sanitize import MATH_TAGS, TEXT_TAGS

from .probes import PROBES

SLOW = [
    "*a **b " * 2000, "[" * 20_000, "> " * 5000, "- " * 5000, "`" * 30_000, "<" * 30_000, "$" * 20_000, "![" * 10_000,
    "a@" * 10_000, "(" * 20_000 + "$x$", "|" * 20_000 + "\n|-|\n", "[a](" * 5000, "\\(" * 10_000, "http://" * 4000,
    "&" * 20_000, "<details>" * 4000, "\\[\n" * 5000, "~" * 20_001, "<!--" * 5000, "[^a]" * 5000 + "\n\n[^a]: b",
]


class Outline(HTMLParser):
    """Tags and attributes as a parser sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


ATTRIBUTES = {"href", "title", "target", "rel", "class", "data-lang", "data-fn", "data-align", "tabindex", "open", "start",
              "colspan", "rowspan", "display", "stretchy", "form", "lspace", "rspace", "scriptlevel", "width"}


@pytest.mark.parametrize("probe", PROBES)
def test_a_hostile_text_is_neutralised(probe: str) -> None:
    for text in (probe, f"- {probe}", f"a {probe} b"):
        for block in render_message(text):
            for tag, attributes in Outline(block).tags:
                assert tag in TEXT_TAGS | MATH_TAGS
                assert set(attributes) <= ATTRIBUTES
                href = attributes.get("href") or "#fn-"
                assert href.startswith(("http://", "https://", "mailto:", "#fn-")), href
                assert not {"message", "composer", "notice"} & set((attributes.get("class") or "").split())


@pytest.mark.parametrize("nasty", SLOW)
@pytest.mark.timeout(60)
def test_a_text_made_to_be_slow_is_drawn_all_the_same(nasty: str) -> None:
    assert render_message(nasty)
