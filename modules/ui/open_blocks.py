"""Blocks that are still being written, drawn without parsing again what is already settled: a fence, a list, a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from .highlight import highlight, language_of
from .markdown import LIVE, code_parts, parser
from .sanitize import sanitize
from .spans import Span, lines_of, spans_of

if TYPE_CHECKING:
    from markdown_it.token import Token

FEWEST_PARTS = 6  # below that parsing the whole block is as quick


@dataclass
class OpenFence:
    """A code block at the margin that is still being written: only new lines are looked at, for its closing line."""

    closer: re.Pattern[str]
    language: str
    begin: int  # where its content begins in the tail
    looked: int  # how much of the tail was searched for the closer
    coloured: int = 0  # how many characters of the content have colours
    html: str = ""  # those

    @classmethod
    def of(cls, tokens: Sequence[Token], span: Span, tail: str) -> OpenFence | None:
        """The fence that the tail begins with, if it is all of the last span and not indented; else None."""
        token = tokens[span.first]
        if token.type != "fence" or span.stop - span.first > 1 or not tail.startswith(token.markup):
            return None
        mark = re.escape(token.markup[0])
        begin = tail.index("\n") + 1
        return cls(re.compile(rf"^ {{0,3}}{mark}{{{len(token.markup)},}}[ \t]*\n", re.MULTILINE),
                   language_of(token.info), begin, begin)

    def end(self, tail: str) -> int:
        """Where the code block ends in the tail, its closing line included; 0 while it is open."""
        found = self.closer.search(tail, self.looked)
        self.looked = max(self.looked, tail.rfind("\n") + 1)
        return found.end() if found else 0

    def draw(self, tail: str) -> str:
        """The block's HTML: colours up to the line where they were last worked out, then plain text.

        It needs no sanitiser: all of the text is escaped here or by the highlighter.
        """
        content = tail[self.begin:]
        complete = content.rfind("\n") + 1
        if self.language and content.count("\n", self.coloured, complete) >= max(20, content.count("\n", 0, self.coloured) // 4):
            self.html, self.coloured = highlight(content[:complete], self.language), complete
        before, after = code_parts(self.language)
        return sanitize(before + after)[:-len(after)] + self.html + escape(content[self.coloured:], quote=False) + after


@dataclass
class OpenParts:
    """A list or table at the margin that is still being written: only its last item or row is parsed again.

    What it draws is a preview: when the block closes it is rendered as a whole. `head` is what stands before a part to be
    parsed: a table's first two lines, or an item whose paragraph tells whether the list is loose. `before` and `after` are the
    HTML around the parts.
    """

    kind: str  # the type of the block's first token
    markup: str  # a list's marker
    part: str  # the type of a part's first token
    head: str
    before: str
    after: str
    begin: int  # where the last part begins in the tail
    is_loose: bool = False
    settled: list[str] = field(default_factory=list)  # HTML of the parts before that

    @classmethod
    def of(cls, tokens: Sequence[Token], span: Span, tail: str, env: dict[str, Any]) -> OpenParts | None:
        """The list or table that the tail begins with, if it is the last block and long enough to be worth it; else None."""
        first = tokens[span.first]
        if first.type == "table_open":
            head = "".join(lines_of(tail)[:2])
            top = parser().parse(head, env)
            before = sanitize(_render(top[:_index_of(top, "thead_close", 0) + 1]) + "</table>")
            opened = cls(first.type, "", "tr_open", head, before.removesuffix("</table>") + "<tbody>\n", "</tbody>\n</table>\n",
                         len(head))
        elif first.type in ("bullet_list_open", "ordered_list_open"):
            after = f"</{first.tag}>\n"
            before = sanitize(_render([first]) + after).removesuffix(after)
            marker = first.markup if first.tag == "ul" else "1" + first.markup
            opened = cls(first.type, first.markup, "list_item_open", f"{marker} x\n", before, after, 0)
        else:
            return None
        if sum(token.type == opened.part for token in tokens[span.first:span.stop]) < FEWEST_PARTS:
            return None
        return opened if opened.goes_on(tail[:tail.rfind("\n") + 1], env) else None

    def goes_on(self, complete: str, env: dict[str, Any]) -> bool:
        """Settle the parts that are followed by another in the tail's complete lines; False where the block has ended there."""
        tokens = self._parse(complete[self.begin:], env)
        if tokens is None:
            return False
        parts = self._parts(tokens)
        if complete[self.begin:self.begin + 1] == " ":
            return False  # an indented item's depth depends on the items before it
        for first, stop in parts[:-1]:
            self.settled.append(self._draw_part(tokens[first:stop]))
        if len(parts) > 1:
            line = tokens[parts[-1][0]].map
            assert line is not None, "rows and items have their lines"
            lines = lines_of(complete[self.begin:])
            self.begin += sum(map(len, lines[:line[0] - self.head.count("\n")]))
        return True

    def draw(self, tail: str, env: dict[str, Any]) -> str | None:
        """The block's HTML, or None where the tail's last line may end it: then all of the tail is to be parsed."""
        tokens = self._parse(tail[self.begin:], env)
        if tokens is None:
            return None
        newest = "".join(self._draw_part(tokens[first:stop]) for first, stop in self._parts(tokens))
        return self.before + "".join(self.settled) + newest + self.after

    def _parse(self, text: str, env: dict[str, Any]) -> list[Token] | None:
        """Tokens of the last parts, if they are one block of this kind; None too where a tight list turns loose.

        Raw HTML may reach out of its part, so with it the block is parsed as a whole.
        """
        tokens = parser().parse(self.head + text, env)
        is_one = len(spans_of(tokens)) == 1 and (tokens[0].type, tokens[0].markup) == (self.kind, self.markup)
        if not is_one or _has_raw_html(tokens):
            return None
        if self.kind != "table_open":
            if not tokens[2].hidden and self.settled and not self.is_loose:
                return None
            self.is_loose = self.is_loose or not tokens[2].hidden
            for token in tokens:
                if token.level == 2 and token.type in ("paragraph_open", "paragraph_close"):
                    token.hidden = not self.is_loose
        return tokens

    def _parts(self, tokens: Sequence[Token]) -> list[tuple[int, int]]:
        """Where each item or row begins and ends among the tokens, without the head's."""
        level = 2 if self.part == "tr_open" else 1
        closer = self.part.replace("_open", "_close")
        begins = [n for n, token in enumerate(tokens) if token.type == self.part and token.level == level]
        ends = [n + 1 for n, token in enumerate(tokens) if token.type == closer and token.level == level]
        return list(zip(begins, ends, strict=True))[1:]

    def _draw_part(self, tokens: Sequence[Token]) -> str:
        before, after = ("<table><tbody>", "</tbody></table>") if self.part == "tr_open" else ("<ul>", "</ul>")
        return sanitize(before + _render(tokens) + after).removeprefix(before).removesuffix(after)


def _render(tokens: Sequence[Token]) -> str:
    md = parser()
    return str(md.renderer.render(tokens, md.options, {LIVE: True}))


def _has_raw_html(tokens: Sequence[Token]) -> bool:
    return any(one.type in ("html_block", "html_inline") for token in tokens for one in (token, *(token.children or ())))


def _index_of(tokens: Sequence[Token], kind: str, start: int) -> int:
    """The index of the first token of this type, -1 where there is none."""
    return next((n for n in range(start, len(tokens)) if tokens[n].type == kind), -1)
