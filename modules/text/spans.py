"""Renders messages by a template and says which part of the text came from which message, and what is the template's own."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import regex

from ..core.messages import Message
from .shapes import SHAPES, Dicts, Field, fields_of, message_dicts
from .template import TemplateRefused, TemplateRenderer

GLUE = -1
_FIRST_MARK, _LAST_MARK = 0xF0000, 0xFFFF0  # private use, plane 15; the renderer keeps the last ones for itself
_PRIVATE = re.compile(f"[{chr(_FIRST_MARK)}-{chr(_LAST_MARK)}]")
SpanField = Literal["glue", "content", "reasoning", "name"]


@dataclass(frozen=True)
class Span:
    """text[start:stop] came from `field` of message number `source`, or from the template (source -1, field glue).

    whole: it is all of that field, but for outer white space that the template trimmed.
    """

    start: int
    stop: int
    source: int
    field: SpanField = "glue"
    whole: bool = True


@dataclass(frozen=True)
class Rendered:
    """A prompt's text and its spans, which follow each other without gaps and make up the whole text.

    exact: the spans are known, not searched for. unplaced: texts that the template tore or changed: parts may be in the glue.
    """

    text: str
    spans: tuple[Span, ...]
    exact: bool = True
    unplaced: tuple[str, ...] = ()

    def contents(self) -> tuple[Span, ...]:
        """The spans that are not glue."""
        return tuple(span for span in self.spans if span.source != GLUE)


async def build(renderer: TemplateRenderer, template: str, messages: Sequence[Message], *, bos_token: str = "",
                eos_token: str = "", add_generation_prompt: bool = True, continue_final_message: bool = False,
                special_texts: Sequence[str] = (), **extra: Any) -> Rendered:
    """The messages as one text with spans.

    Rendered twice, plain and with private-use marks inside each text's outer white space; where the marked text without its
    marks is the plain one, the marks are the spans, else the texts are searched for in order. Templates that refuse a system
    message, or messages that do not alternate, are given them folded into the user's, and merged. In texts that the template
    tears apart each of `special_texts`, the control tokens' spellings, still gets its span. Raises what the renderer does.
    """
    variables = {"bos_token": bos_token, "eos_token": eos_token, "add_generation_prompt": add_generation_prompt, **extra}
    fields = fields_of(messages, template)
    marks = _Marks(fields, template)

    async def render(shape: Callable[[Dicts], Dicts], *writers: Callable[[int, str], str]) -> list[str]:
        chats = [shape(message_dicts(messages, template, write)) for write in writers]
        return await renderer.render_all(template, chats, variables, continue_final_message=continue_final_message)

    refusal: TemplateRefused | None = None
    for shape in SHAPES:
        try:
            plain, marked, *bare = await render(shape, lambda _, text: text, marks.around, *marks.bare_writers())
        except TemplateRefused as error:
            refusal = refusal or error
            continue
        kept_whole = marks.strip(marked) == plain
        rendered = marks.read(plain, marked, bare[0] if bare else marked) if kept_whole else _search(plain, fields)
        if not rendered.unplaced or not special_texts:
            return rendered
        spelled, = await render(shape, marks.around_spellings(rendered.unplaced, tuple(special_texts)))
        return marks.read_spellings(rendered, spelled) if marks.strip(spelled) == plain else rendered
    assert refusal is not None, "there is at least one shape"
    raise refusal


@functools.lru_cache(maxsize=4)
def spellings(special_texts: tuple[str, ...]) -> regex.Pattern[str] | None:
    """Finds any of the control tokens' spellings; None where there are none."""
    words = [text for text in special_texts if text]
    return regex.compile(r"\L<words>", words=words) if words else None


class _Marks:
    """A pair of characters for each field, none of which occurs in any text or in the template."""

    def __init__(self, fields: Sequence[Field], template: str) -> None:
        self.fields = fields
        first = _FIRST_MARK
        for char in sorted(set(_PRIVATE.findall("".join((template, *(field.text for field in fields)))))):
            first = ord(char) + 1 if first <= ord(char) < first + 2 * len(fields) else first
        there_is_room = first + 2 * len(fields) <= _LAST_MARK
        self.first = first if there_is_room else _FIRST_MARK
        self.n_marked = len(fields) if there_is_room else 0
        self.pattern = re.compile(f"[{chr(self.first)}-{chr(self.first + 2 * max(self.n_marked, 1) - 1)}]")

    def around(self, n: int, text: str) -> str:
        field = self.fields[n]
        return field.lead + self.around_bare(n, text) + field.trail if field.core else text

    def around_bare(self, n: int, text: str) -> str:
        core = self.fields[n].core
        if not core or n >= self.n_marked:
            return core or text
        return chr(self.first + 2 * n) + core + chr(self.first + 2 * n + 1)

    def bare_writers(self) -> list[Callable[[int, str], str]]:
        """around_bare, where it differs from around."""
        return [self.around_bare] if any(field.text != field.core for field in self.fields) else []

    def strip(self, text: str) -> str:
        return self.pattern.sub("", text)

    def _cut(self, text: str) -> tuple[list[str], list[int]]:
        """The text between marks, and the marks as numbers: 2n opens field n, 2n + 1 closes it."""
        return self.pattern.split(text), [ord(mark) - self.first for mark in self.pattern.findall(text)]

    def read(self, plain: str, marked: str, bare: str) -> Rendered:
        """The spans of `plain`. `bare`, rendered without outer white space, tells which of it the template keeps."""
        gaps, marks = self._cut(marked)
        bare_gaps, bare_marks = self._cut(bare)
        spans: list[Span] = []
        broken: set[int] = set()
        place = 0
        for n, mark in enumerate(marks):
            place += len(gaps[n])
            opens = mark % 2 == 0
            if marks[n + 1:n + 2] != [mark + 1] if opens else marks[n - 1:n] != [mark - 1]:
                broken.add(mark // 2)
            elif opens:
                field = self.fields[mark // 2]
                start, stop = place, place + len(gaps[n + 1])
                if bare_marks == marks:
                    after = self.fields[marks[n + 2] // 2].lead if n + 2 < len(marks) else ""
                    before = self.fields[marks[n - 1] // 2].trail if n else ""
                    start -= _kept(gaps[n], bare_gaps[n], before, field.lead)[1]
                    stop += _kept(gaps[n + 2], bare_gaps[n + 2], field.trail, after)[0]
                spans.append(Span(start, stop, field.message, field.kind))
        good = [span for span in spans if not any(
            span.source == self.fields[k].message and span.field == self.fields[k].kind for k in broken)]
        return Rendered(plain, _with_glue(plain, good), unplaced=tuple(self.fields[k].text for k in sorted(broken)))

    def around_spellings(self, texts: Sequence[str], special_texts: tuple[str, ...]) -> Callable[[int, str], str]:
        """Writes `texts` with marks around the control tokens' spellings in them, all others as they are."""
        pattern = spellings(special_texts)

        def write(n: int, text: str) -> str:
            if pattern is None or n >= self.n_marked or text not in texts:
                return text
            return pattern.sub(lambda match: chr(self.first + 2 * n) + match[0] + chr(self.first + 2 * n + 1), text)
        return write

    def read_spellings(self, rendered: Rendered, spelled: str) -> Rendered:
        """`rendered` with a span for each spelling; a lone mark means that the spelling itself was torn and is none."""
        gaps, marks = self._cut(spelled)
        spans = list(rendered.contents())
        place = 0
        for n, mark in enumerate(marks):
            place += len(gaps[n])
            if mark % 2 == 0 and marks[n + 1:n + 2] == [mark + 1]:
                field = self.fields[mark // 2]
                spans.append(Span(place, place + len(gaps[n + 1]), field.message, field.kind, whole=False))
        return replace(rendered, spans=_with_glue(rendered.text, spans), unplaced=())


def _kept(gap: str, bare: str, trail: str, lead: str) -> tuple[int, int]:
    """How much white space of the text before, and of the text after, stands in a gap whose own glue is `bare`."""
    for before, after in ((trail, lead), ("", ""), (trail, ""), ("", lead)):
        if gap == before + bare + after:
            return len(before), len(after)
    return 0, 0


def _search(text: str, fields: Sequence[Field]) -> Rendered:
    """Spans found by looking for each text in order, whole or trimmed; short ones may be found in the wrong place."""
    spans, unplaced, place = [], [], 0
    for field in fields:
        if not field.core:
            continue
        start = text.find(field.core, place)
        if start < 0:
            unplaced.append(field.text)
            continue
        place = start + len(field.core)
        spans.append(Span(start, place, field.message, field.kind))
    return Rendered(text, _with_glue(text, spans), exact=False, unplaced=tuple(unplaced))


def _with_glue(text: str, spans: Sequence[Span]) -> tuple[Span, ...]:
    """The spans with glue between them; an overlap belongs to the earlier one."""
    tiled, place = [], 0
    for span in sorted(spans, key=lambda s: s.start):
        start = max(span.start, place)
        if span.stop <= start:
            continue
        if start > place:
            tiled.append(Span(place, start, GLUE))
        tiled.append(replace(span, start=start, whole=span.whole and start == span.start))
        place = span.stop
    if place < len(text):
        tiled.append(Span(place, len(text), GLUE))
    return tuple(tiled)
