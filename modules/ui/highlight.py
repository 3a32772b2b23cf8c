"""Source code to HTML spans with Pygments' short class names; text that needs no colour gets no span."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from typing import Any

MAX_CODE = 200_000  # characters; longer code is shown without colours
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")
PLAIN = frozenset({"", "n", "p", "w", "err", "x", "esc", "ld", "l"})  # drawn like the text around them


def language_of(info: str) -> str:
    """The language that a fence's info string names, "" for none: its first word."""
    match = _LANGUAGE.match(info.strip())
    return match.group().lower() if match else ""


@lru_cache(maxsize=64)
def highlight(code: str, language: str) -> str:
    """`code` escaped, with spans of Pygments' classes where the language is known."""
    lexer = _lexer(language) if language and len(code) <= MAX_CODE else None
    if lexer is None:
        return escape(code, quote=False)
    parts: list[str] = []
    run: list[str] = []
    current = ""
    for kind, value in lexer.get_tokens(code):
        name = _class_of(kind)
        if name != current and not value.isspace():
            _flush(parts, current, run)
            current = name
        run.append(value)
    _flush(parts, current, run)
    return "".join(parts)


def _flush(parts: list[str], name: str, run: list[str]) -> None:
    text = escape("".join(run), quote=False)
    run.clear()
    if text:
        parts.append(f'<span class="{name}">{text}</span>' if name else text)


@lru_cache(maxsize=64)
def _lexer(language: str) -> Any:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@lru_cache(maxsize=512)
def _class_of(kind: Any) -> str:
    from pygments.token import STANDARD_TYPES

    while kind not in STANDARD_TYPES:
        kind = kind.parent
    name = STANDARD_TYPES[kind]
    return "" if name in PLAIN else name


def class_names() -> frozenset[str]:
    """Every class that `highlight` may write."""
    from pygments.token import STANDARD_TYPES

    return frozenset(STANDARD_TYPES.values()) - PLAIN
