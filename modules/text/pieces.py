"""Cuts a rendered prompt into what is tokenized with control tokens, what is plain text, and what is known as ids already."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import regex

from ..core.errors import BadRequest
from .spans import Rendered, Span, spellings


@dataclass(frozen=True)
class Piece:
    """Either `ids`, or where that is None `text` to tokenize; control: whether control tokens' spellings become those tokens."""

    text: str
    control: bool
    ids: tuple[int, ...] | None = None


def pieces(rendered: Rendered, special_texts: Sequence[str], spliced: Mapping[int, tuple[int, ...]], *,
           eog_ids: Collection[int] = ()) -> list[Piece]:
    """The prompt in pieces, in order; as few as possible, since text tokenizes best whole.

    spliced: sampled ids by message index; they stand in for that message's content where it was found for certain, at one place.
    An end-of-generation id at their end is left out: the template's glue brings it. Texts of people that spell a control token
    are pieces of their own without control tokens. Raises BadRequest where a template tears such a text apart.
    """
    spelled = spellings(tuple(special_texts))
    _refuse_torn(rendered, spelled)
    hostile = _touched(rendered, spelled)
    made: list[Piece] = []
    start = 0
    places = _places(rendered, spliced)
    for span in rendered.contents():
        if span not in hostile and span not in places:
            continue
        made.append(Piece(rendered.text[start:span.start], control=True))
        text = rendered.text[span.start:span.stop]
        made.append(Piece(text, False, _without_end(spliced[span.source], eog_ids) if span in places else None))
        start = span.stop
    made.append(Piece(rendered.text[start:], control=True))
    return [piece for piece in made if piece.text or piece.ids]


def sampled_ids(tokens: Sequence[tuple[int, str]], content: str) -> tuple[int, ...]:
    """The last tokens (id, text) whose joined text is exactly `content`, or () where no cut between tokens gives that.

    What a reply's ids must pass before they may be spliced: reasoning, stop strings and edits make them differ from the text.
    """
    last = len(tokens)
    while last and not tokens[last - 1][1]:
        last -= 1
    first, length = last, 0
    while first and length < len(content):
        first -= 1
        length += len(tokens[first][1])
    while first and not tokens[first - 1][1]:  # the beginnings of the first character
        first -= 1
    if not content or "".join(text for _, text in tokens[first:last]) != content:
        return ()
    return tuple(id for id, _ in tokens[first:last])


def _refuse_torn(rendered: Rendered, spelled: regex.Pattern[str] | None) -> None:
    for text in rendered.unplaced:
        found = spelled.search(text) if spelled is not None else None
        if found is not None:
            raise BadRequest(f"A message contains {found[0]!r}, a control token of this model, and the chat template changes "
                             "that message, so that the two cannot be told apart. Remove it from the message.", param="messages")


def _touched(rendered: Rendered, spelled: regex.Pattern[str] | None) -> set[Span]:
    """The spans of people's and models' texts that hold any part of a control token's spelling."""
    found = [match.span() for match in spelled.finditer(rendered.text, overlapped=True)] if spelled is not None else []
    touched: set[Span] = set()
    first = 0
    for span in rendered.contents():
        while first < len(found) and found[first][1] <= span.start:
            first += 1
        n = first
        while n < len(found) and found[n][0] < span.stop:
            if found[n][1] > span.start:
                touched.add(span)
                break
            n += 1
    return touched


def _places(rendered: Rendered, spliced: Mapping[int, tuple[int, ...]]) -> set[Span]:
    if not rendered.exact:
        return set()
    by_message: dict[int, list[Span]] = {}
    for span in rendered.contents():
        if span.field == "content" and span.whole and spliced.get(span.source):
            by_message.setdefault(span.source, []).append(span)
    return {spans[0] for spans in by_message.values() if len(spans) == 1}


def _without_end(ids: tuple[int, ...], eog_ids: Collection[int]) -> tuple[int, ...]:
    return ids[:-1] if ids and ids[-1] in eog_ids else ids
