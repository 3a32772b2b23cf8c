"""Saved messages: drawn once, kept within bounds, and shown even where Markdown fails."""

from __future__ import annotations

from typing import Any

import pytest

from modules.ui import history
from modules.ui.history import RenderedTexts


async def test_a_text_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(history, "_draw", lambda text: drawn.append(text) or f"<p>{text}</p>")
    texts = RenderedTexts()
    assert await texts.html(["a", "", "b", "a"]) == ["<p>a</p>", "", "<p>b</p>", "<p>a</p>"]
    await texts.html(["b", "c"])
    assert sorted(drawn) == ["a", "b", "c"]


async def test_the_oldest_texts_go_first_when_the_cache_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "CACHED_CHARACTERS", 100)
    drawn: list[str] = []
    monkeypatch.setattr(history, "_draw", lambda text: drawn.append(text[:1]) or "")
    texts = RenderedTexts()
    for letter in "abcaca":
        assert await texts.html([letter * 40]) == [""]
    assert drawn == ["a", "b", "c", "a"], "of a, b, c two fit: c pushed a out, a then b; c and a stayed"


async def test_a_message_that_breaks_the_parser_is_shown_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> Any:
        raise RecursionError

    monkeypatch.setattr(history, "render_message", broken)
    assert "*still* here" in (await RenderedTexts().html(["*still* here"]))[0]
