"""The Markdown dialect of messages: CommonMark with tables, strikethrough, task lists, footnotes, bare links and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.gfm_autolink import gfm_autolink_plugin

from .highlight import highlight, language_of
from .mathml import to_mathml
from .sanitize import image_link, showing_raw_html

if TYPE_CHECKING:
    from markdown_it.renderer import RendererHTML
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

LIVE = "live"  # env key: the text goes on, so an open fence stays plain
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_AFTER_MATH = re.compile(r"[.,;:!?)]?\s*$")
_CHECKBOXES = {True: '<span class="task done">☑</span> ', False: '<span class="task">☐</span> '}


@lru_cache(maxsize=1)
def parser() -> MarkdownIt:
    """The parser, whose output is not sanitised yet. Footnotes stay where they are written, under their own labels."""
    md = MarkdownIt("commonmark", {"html": True, "breaks": True, "tasklists": True, "maxNesting": 40})
    md.enable(["table", "strikethrough"])
    md.use(gfm_autolink_plugin)
    md.use(footnote_plugin, inline=False, move_to_end=False)
    md.block.ruler.before("fence", "math_block", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    md.inline.ruler.before("escape", "math_inline", _math_inline)
    rules = {"image": _image, "fence": _fence, "code_block": _fence, "html_inline": _html, "html_block": _html,
             "math_block": _math, "math_inline": _math, "th_open": _cell, "td_open": _cell, "list_item_open": _item,
             "footnote_ref": _footnote_ref, "footnote_reference_open": _footnote_open,
             "footnote_reference_close": _footnote_close}
    for name, rule in rules.items():
        md.add_render_rule(name, rule)
    return md


def is_closed(fence: Token) -> bool:
    """Whether a fence has its closing line: its map then covers two lines more than its content."""
    assert fence.map is not None, "block tokens have a map"
    content = fence.content
    n_lines = content.count("\n") + (1 if content and not content.endswith("\n") else 0)
    return fence.map[1] - fence.map[0] == n_lines + 2


def code_parts(language: str) -> tuple[str, str]:
    """What stands before and after a code block's own text."""
    label = f' data-lang="{escape(language)}"' if language else ""
    return f'<div class="code"{label}><pre><code>', "</code></pre></div>\n"


# --- LaTeX: `$..$`, `$$..$$`, `\(..\)`, `\[..\]`

def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A line that begins with $$ or \\[ opens a formula, closed by its mark, or else by a blank line or the container's end.

    It never looks ahead for its closer to decide, so that what was read so far cannot change its meaning. A line that goes on
    after a closer is no block: its formula is inline.
    """
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start]:state.eMarks[start]]
    mark = first[:2]
    if mark not in ("$$", "\\[") or first.startswith("$$$"):
        return False
    closer = _CLOSERS[mark]
    body, found, rest = first[2:].partition(closer)
    if found and (not _AFTER_MATH.match(rest) or not body.strip()):
        return False
    if silent:
        return True
    lines, line = [body], start + 1
    while not found and line < end:
        text = state.src[state.bMarks[line] + state.tShift[line]:state.eMarks[line]]
        if not text.strip() or state.sCount[line] < state.blkIndent:
            break
        body, found, rest = text.partition(closer)
        lines.append(body)
        line += 1
    token = state.push("math_block", "math", 0)
    token.content, token.markup, token.map = "\n".join(lines), mark, [start, line]
    token.info = rest.strip()
    token.meta = {"closed": bool(found)}
    state.line = line
    return True


def _math_inline(state: StateInline, silent: bool) -> bool:
    """Math inside a line. A single dollar is one only where it cannot be money: no space inside, no digit after."""
    source, pos = state.src, state.pos
    if source[pos] == "$":
        mark = "$$" if source.startswith("$$", pos) else "$"
    elif source.startswith(("\\(", "\\["), pos):
        mark = source[pos:pos + 2]
    else:
        return False
    closer = _CLOSERS.get(mark, mark)
    begin = pos + len(mark)
    close = _find_closer(source, closer, begin, state.posMax)
    if close <= begin or not source[begin:close].strip():
        return False
    if mark == "$" and not _is_dollar_math(source, pos, begin, close):
        return False
    if not silent:
        token = state.push("math_inline", "math", 0)
        token.content, token.markup = source[begin:close], mark
        token.meta = {"closed": True}
    state.pos = close + len(closer)
    return True


def _find_closer(source: str, closer: str, begin: int, end: int) -> int:
    """Where the closer stands, not escaped and in the same paragraph; -1 where nowhere."""
    close = source.find(closer, begin, end)
    while close > 0 and closer.startswith("$") and source[close - 1] == "\\":
        close = source.find(closer, close + 1, end)
    return close


def _is_dollar_math(source: str, pos: int, begin: int, close: int) -> bool:
    before = source[pos - 1] if pos else " "
    after = source[close + 1:close + 2]
    return not (source[begin].isspace() or source[close - 1].isspace() or before.isalnum() or after.isalnum() or after == "$")


# --- How a token becomes HTML; markdown-it calls these with the whole list and an index

def _math(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    display = token.markup in ("$$", "\\[")
    if not token.meta.get("closed"):
        source = escape(token.markup + token.content, quote=False)
        return f'<div class="math"><code class="latex">{source}</code></div>\n'
    html = to_mathml(token.content, display=display)
    return f'<div class="math">{html}{escape(token.info)}</div>\n' if token.type == "math_block" else html


def _fence(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    language = language_of(token.info)
    is_open = token.type == "fence" and env.get(LIVE) and not is_closed(token)
    before, after = code_parts(language)
    return before + highlight(token.content, "" if is_open else language) + after


def _html(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return showing_raw_html(tokens[index].content)


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    return image_link(str(token.attrs.get("src", "")), self.renderInlineAsText(token.children, options, env))


def _cell(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    align = str(token.attrs.get("style", "")).removeprefix("text-align:")
    return f'<{token.tag} data-align="{escape(align)}">' if align else f"<{token.tag}>"


def _item(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    checked = tokens[index].meta.get("checked")
    return "<li>" if checked is None else '<li class="task-item">' + _CHECKBOXES[checked]


def _footnote_ref(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    label = escape(tokens[index].meta["label"])
    return f'<sup class="fn"><a href="#fn-{label}">{label}</a></sup>'


def _footnote_open(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    label = escape(tokens[index].meta["label"])
    return f'<div class="fn" data-fn="{label}"><sup>{label}</sup>\n'


def _footnote_close(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return "</div>\n"
