"""Colours for code: few spans, every character kept, unknown languages left plain."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.ui.highlight import MAX_CODE, class_names, highlight, language_of

CODE = "def f(x, *, y='<a>'):\n    # note & more\n\n    return x + 1.5\n"


@pytest.mark.parametrize("language", ["python", "js", "c++", "html", "json", "bash", "sql", "yaml", "rust", "nosuchlanguage", ""])
def test_no_character_is_lost_or_unescaped(language: str) -> None:
    html = highlight(CODE, language)
    assert unescape(re.sub(r"<[^>]+>", "", html)) == CODE
    assert set(re.findall(r'class="(\w+)"', html)) <= class_names()


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab1 \n\t\"'<>&#/*(){}\\é", max_size=60), st.sampled_from(["python", "html", "js", "bash"]))
def test_any_text_comes_back_as_it_went_in(code: str, language: str) -> None:
    assert unescape(re.sub(r"<[^>]+>", "", highlight(code, language))) == code


def test_names_and_brackets_get_no_span() -> None:
    assert highlight("x = (y)\n", "python").count("<span") == 1


def test_long_code_and_unknown_languages_are_plain() -> None:
    assert "<span" not in highlight("x = 1\n" * (MAX_CODE // 6 + 1), "python")
    assert "<span" not in highlight("x = 1\n", "nosuchlanguage")


@pytest.mark.parametrize(("info", "language"), [("python", "python"), ("Python title=\"x\"", "python"), ("c++", "c++"), ("", ""),
                                                ("{.js}", ""), ('"onmouseover="x', "")])
def test_the_language_is_the_first_word(info: str, language: str) -> None:
    assert language_of(info) == language
