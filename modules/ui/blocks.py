"""Markdown to sanitised HTML, block by block: whole for history, and a growing text with only its last block drawn again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from .markdown import LIVE, is_closed, parser
from .open_blocks import OpenFence, OpenParts
from .sanitize import sanitize
from .spans import Span, lines_of, spans_of

if TYPE_CHECKING:
    from markdown_it.token import Token

MAX_MARKDOWN = 400_000  # characters; a longer message is shown as plain text, because parsing it would hold up everybody
SHORTEST_INTERVAL = 1 / 15  # seconds between two renders
LONGEST_INTERVAL = 0.5
CPU_SHARE = 0.04  # of one core that drawing the tail of one reply again and again may take

_BLANK_END = re.compile(r"(?:^|\n)[ \t]*\n\Z")
# HTML blocks that a blank line does not end.
_HTML_PAST_BLANK = re.compile(r"\s*<(?:script|pre|style|textarea|!|\?)", re.IGNORECASE)


@dataclass(frozen=True)
class Update:
    """Block `index` becomes its first `keep` characters and then `append`; a new block has keep 0."""

    index: int
    keep: int
    append: str


def render_message(text: str) -> list[str]:
    """The whole message as sanitised HTML, one string for each top-level block. Takes about 6 µs a character."""
    text = _normal(text)
    return [plain_block(text)] if len(text) > MAX_MARKDOWN else _render(text, {})


def plain_block(text: str) -> str:
    """A block that shows the text as it was written."""
    return sanitize(f"<pre><code>{escape(text, quote=False)}</code></pre>")


def diff(old: Sequence[str], new: Sequence[str]) -> list[Update]:
    """What turns the blocks `old` into `new`, once the reader has as many blocks as `new`: empty ones added, surplus removed."""
    updates = []
    for index, html in enumerate(new):
        before = old[index] if index < len(old) else ""
        if before is not html and before != html:
            keep = _common_prefix(before, html)
            updates.append(Update(index, keep, html[keep:]))
    return updates


class LiveBlocks:
    """The blocks of a text that grows. Closed blocks stay as they are until `finish`; the tail is drawn again each time.

    One thread at a time calls it. `cost_clock` measures what a render costs, in seconds of CPU.
    """

    def __init__(self, *, cost_clock: Callable[[], float] = time.thread_time) -> None:
        self.blocks: list[str] = []
        self.due = 0.0
        self.cost = 0.0  # of the last render
        self._cost_clock = cost_clock
        self._text: list[str] = []
        self._fed: list[str] = []
        self._ends_in_cr = False
        self._closed: list[str] = []
        self._env: dict[str, Any] = {}
        self._tail = ""
        self._tried = (0, False)
        self._fence: OpenFence | None = None
        self._parts: OpenParts | None = None
        self._size = 0

    @property
    def dirty(self) -> bool:
        """Whether text was fed that is not in `blocks` yet."""
        return bool(self._fed)

    def feed(self, text: str) -> None:
        """Take the next piece of the text, cut anywhere."""
        if self._ends_in_cr and text.startswith("\n"):
            text = text[1:]
        if text:
            self._ends_in_cr = text.endswith("\r")
            self._fed.append(_normal(text))

    def render(self, now: float) -> list[Update]:
        """What changed since the last render, or nothing before the next one is due (`now` in seconds, any clock)."""
        if not self._fed or now < self.due:
            return []
        began, known = self._cost_clock(), len(self._tail)
        self._take()
        again = known / max(1, len(self._tail))  # the share of what is drawn now that was drawn before
        if self._size > MAX_MARKDOWN:
            blocks = [plain_block("".join(self._text))]
        else:
            while self._close_some():
                pass
            blocks = self._closed + self._draw_tail()
        updates = diff(self.blocks, blocks)
        self.blocks = blocks
        before, self.cost = self.cost, self._cost_clock() - began
        # Text is to be drawn once in any case: only drawing it again is rationed. The cheaper of two, so that one block's
        # colouring, or a first import, holds up nothing.
        self.due = now + min(max(SHORTEST_INTERVAL, again * min(before, self.cost) / CPU_SHARE), LONGEST_INTERVAL)
        return updates

    def finish(self) -> list[Update]:
        """Draw the whole text once as `render_message` does, which mends what only the end could tell."""
        self._take()
        text = "".join(self._text)
        blocks = render_message(text) if self._size <= MAX_MARKDOWN else [plain_block(text)]
        updates = diff(self.blocks, blocks)
        self.blocks = self._closed = blocks
        self._tail, self._fence, self._parts = "", None, None
        return updates

    def give_up_markdown(self) -> None:
        """Show the text as it was written from now on: for a text that breaks the parser."""
        self._size = MAX_MARKDOWN + 1

    def _take(self) -> None:
        fed = "".join(self._fed)
        self._fed.clear()
        self._text.append(fed)
        self._size += len(fed)
        self._tail += fed

    # --- closing blocks

    def _close_some(self) -> bool:
        """Move finished blocks from the tail to the closed ones; True where a further look may find more."""
        if self._fence is not None:
            end = self._fence.end(self._tail)
            if end:
                self._fence = None
                self._cut(end)
            return bool(end)
        complete = self._tail[:self._tail.rfind("\n") + 1]
        ends_blank = bool(_BLANK_END.search(complete[-200:]))
        # After a blank line a letter at the margin begins a paragraph: no list, code or footnote goes on with one.
        is_new_paragraph = ends_blank and self._tail[len(complete):len(complete) + 1].isalpha()
        if not complete or self._tried == (len(complete), is_new_paragraph):
            return False
        self._tried = (len(complete), is_new_paragraph)
        if self._parts is not None and not is_new_paragraph and self._parts.goes_on(complete, self._live_env()):
            return False
        self._parts = None
        tokens: list[Token] = []
        parser().block.parse(complete, parser(), _fork(self._env), tokens)
        spans = spans_of(tokens)
        n_closed = len(spans)
        if spans and not _is_over(spans[-1], tokens, ends_blank=ends_blank, is_new_paragraph=is_new_paragraph):
            n_closed -= 1
        cut = _cut_after(complete, spans, n_closed)
        if cut:
            self._cut(cut)
        if n_closed < len(spans):
            self._watch(tokens, spans[-1], complete, cut)
        return self._fence is not None

    def _watch(self, tokens: Sequence[Token], span: Span, complete: str, cut: int) -> None:
        """Remember what the open block is, if the tail now begins with it, so that it need not be parsed whole each time."""
        if sum(map(len, lines_of(complete)[:span.begin])) != cut or span.is_held:
            return
        self._fence = OpenFence.of(tokens, span, complete[cut:])
        if self._fence is None:
            self._parts = OpenParts.of(tokens, span, complete[cut:], self._live_env())
            self._tried = (len(complete) - cut, False)

    def _cut(self, end: int) -> None:
        self._closed.extend(_render(self._tail[:end], self._env))
        self._tail = self._tail[end:]
        self._tried = (0, False)

    def _draw_tail(self) -> list[str]:
        if self._fence is not None:
            return [self._fence.draw(self._tail)]
        preview = self._parts.draw(self._tail, self._live_env()) if self._parts is not None else None
        if preview is not None:
            return [preview]
        return _render(self._tail, self._live_env()) if self._tail.strip() else []

    def _live_env(self) -> dict[str, Any]:
        return {**_fork(self._env), LIVE: True}


def _is_over(span: Span, tokens: Sequence[Token], *, ends_blank: bool, is_new_paragraph: bool) -> bool:
    """Whether the last block stays as it is, whatever follows."""
    last = tokens[span.stop - 1]
    if span.is_held:
        return False
    match last.type:
        case "heading_close" | "hr":
            return True
        case "fence":
            return is_closed(last)
        case "math_block":
            return ends_blank or bool(last.meta["closed"])
        case "paragraph_close" | "table_close" | "blockquote_close":
            return ends_blank
        case "html_block":
            return ends_blank and not _HTML_PAST_BLANK.match(last.content)
        case _:
            return is_new_paragraph


def _cut_after(complete: str, spans: Sequence[Span], n_closed: int) -> int:
    """The character after the first `n_closed` blocks, before any link definition that may still go on."""
    lines = lines_of(complete)
    line = spans[n_closed].begin if n_closed < len(spans) else len(lines)
    lowest = spans[n_closed - 1].end if n_closed else 0
    while line > lowest and lines[line - 1].strip(" \t\n"):
        line -= 1
    return sum(map(len, lines[:line]))


def _render(text: str, env: dict[str, Any]) -> list[str]:
    md = parser()
    tokens = md.parse(text, env)
    return [sanitize(md.renderer.render(tokens[span.first:span.stop], md.options, env)) for span in spans_of(tokens)]


def _fork(env: dict[str, Any]) -> dict[str, Any]:
    """A copy into which the parser may write link and footnote definitions that are not final."""
    forked: dict[str, Any] = {"references": dict(env.get("references", {}))}
    if "footnotes" in env:
        notes = env["footnotes"]
        forked["footnotes"] = {"refs": dict(notes["refs"]), "list": {key: dict(note) for key, note in notes["list"].items()}}
    return forked


def _normal(text: str) -> str:
    """With line feeds only, and without what is no character: NUL and lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "�")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not text.isascii() else text


def _common_prefix(one: str, two: str) -> int:
    """How many leading characters agree; found by bisection, because comparing slices runs at memory speed."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
