"""Where the top-level blocks of a parsed message lie, in tokens and in lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it.token import Token

_DETAILS = re.compile(r"<(/?)details\b", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """One block: tokens first..stop, lines begin..end; `is_held` while a <details> in it is not closed."""

    first: int
    stop: int
    begin: int
    end: int
    is_held: bool = False


def spans_of(tokens: Sequence[Token]) -> list[Span]:
    """The top-level blocks; those between <details> and </details> are one, so that the page can fold them."""
    spans: list[Span] = []
    held = 0
    begun: Token | None = None
    for index, token in enumerate(tokens):
        if token.level == 0 and token.nesting >= 0:
            begun, first = token, index
        if token.level or token.nesting > 0:
            continue
        assert begun is not None and begun.map is not None, "every top-level token has its lines"
        before = held
        if token.type == "html_block":
            held = max(0, held + sum(-1 if mark.group(1) else 1 for mark in _DETAILS.finditer(token.content)))
        begin, end = begun.map
        if before and spans:
            spans[-1] = Span(spans[-1].first, index + 1, spans[-1].begin, end, held > 0)
        else:
            spans.append(Span(first, index + 1, begin, end, held > 0))
    return spans


def lines_of(text: str) -> list[str]:
    """The lines with their line feeds, as the parser counts them: other separators of str.splitlines end no line."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)
