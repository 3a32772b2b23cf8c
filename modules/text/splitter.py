"""Splits a reply's tokens into channels and ends it before the first stop string, token by token."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..core.errors import BadRequest
from ..core.events import Channel, Delta
from ..core.loader import Token
from .finder import Finder
from .reasoning import ReasoningMarks, detect_marks, starts_inside

__all__ = ["ReasoningMarks", "Splitter", "detect_marks", "starts_inside"]

MAX_STOP_LENGTH = 4096  # characters; the finder's memory grows with them
MAX_LEAD = 1024         # characters of white space after which an open mark no longer counts as the reply's start


class Splitter:
    """One reply's text, cut into the channels text and reasoning. Fed by one thread.

    First marks part the channels, then stop strings are looked for in the text channel, in each stretch between two marks.
    White space around reasoning is dropped: before and after its open mark, before its close mark; after that, line breaks.
    stop_string: the one that ended the reply, else "". A token's cost does not grow with the reply.
    """

    def __init__(self, stop: Sequence[str], marks: ReasoningMarks | None, in_reasoning: bool = False) -> None:
        for text in stop:
            if len(text) > MAX_STOP_LENGTH:
                raise BadRequest(f"A stop string may be {MAX_STOP_LENGTH} characters long; one is {len(text)}.", param="stop")
        self.stop_string = ""
        self.channel: Channel = "reasoning" if marks is not None and in_reasoning else "text"
        self._stops = Finder(stop)
        self._marks = marks
        anywhere = () if marks is None else (*marks.dropped, *((marks.open,) if marks.anywhere else ()))
        self._finders = {"text": Finder(anywhere), "reasoning": Finder(() if marks is None else (marks.close,))}
        self._fresh = marks is not None                  # only white space and marks came in this stretch of the channel
        self._crossed = self.channel == "reasoning"      # a mark came before this stretch
        self._lead = ""                                  # while fresh: white space, and what may still become a mark
        self._spaces: list[str] = []                     # trailing white space of the reasoning
        self._fed = 0                                    # characters
        self._waiting: deque[tuple[Token, int]] = deque()  # tokens in no delta yet, each with where its text ends
        self._deltas: list[Delta] = []

    @property
    def unshown(self) -> tuple[Token, ...]:
        """Fed tokens that are in no delta: at the reply's end, those whose text was swallowed or empty."""
        return tuple(token for token, _ in self._waiting)

    def feed(self, token: Token) -> list[Delta]:
        """The deltas that `token` makes certain; none after a stop string was hit."""
        self._fed += len(token.text)
        self._waiting.append((token, self._fed))
        if token.text:
            self._read(token.text)
        return self._take()

    def flush(self) -> list[Delta]:
        """What was held back, now that the reply has ended."""
        mark = "yes"
        while mark and not self.stop_string:
            if self._fresh:
                self._read(self._end_lead())
            before, mark, rest = self._finders[self.channel].flush()
            self._say(before, after=len(mark) + len(rest))
            if mark:
                self._cross(mark, after=len(rest))
                self._read(rest)
        self._emit("reasoning", "".join(self._spaces), after=0)
        self._spaces = []
        self._end_stretch(after=0)
        return self._take()

    def _take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas

    def _read(self, text: str) -> None:
        """Everything in `text` that is certain goes on to `_say`. `after` below counts fed characters behind what is said."""
        while text and not self.stop_string:
            if self._fresh:
                text = self._begin(text)
                continue
            finder = self._finders[self.channel]
            before, mark, text = finder.feed(text)
            self._say(before, after=len(mark) + len(text) + len(finder.held))
            if mark:
                self._cross(mark, after=len(text))

    def _begin(self, text: str) -> str:
        """Reads the start of a stretch; returns what is still to be read, after a mark or as ordinary text."""
        assert self._marks is not None, "only marks make a stretch fresh"
        self._lead += text
        core = self._lead.lstrip()
        n_spaces = len(self._lead) - len(core)
        if n_spaces > MAX_LEAD:
            self._lead, beyond = self._lead[:MAX_LEAD], self._lead[MAX_LEAD:]
            return self._end_lead() + beyond
        known = (self._marks.open, *self._marks.dropped) if self.channel == "text" else (self._marks.open,)
        for mark in sorted(known, key=len):
            if core.startswith(mark):
                self._lead = ""
                rest = core[len(mark):]
                self._cross(mark, after=len(rest))
                return rest
        return "" if any(mark.startswith(core) for mark in known) else self._end_lead()

    def _end_lead(self) -> str:
        """The stretch is ordinary text: what of its start is kept, to be read again."""
        lead, self._lead, self._fresh = self._lead, "", False
        core = lead.lstrip()
        spaces = lead[:len(lead) - len(core)]
        return (spaces[spaces.rfind("\n") + 1:] if self._crossed else spaces) + core

    def _cross(self, mark: str, *, after: int) -> None:
        assert self._marks is not None, "only marks are crossed"
        self._end_stretch(after=after + len(mark))
        closes = self.channel == "reasoning" and mark == self._marks.close
        if closes or mark == self._marks.open:
            self._fresh = True
            self._spaces = []
            self.channel = "text" if closes else "reasoning"
        self._crossed = True

    def _say(self, text: str, *, after: int) -> None:
        if self.channel == "reasoning":
            body = text.rstrip()
            if body:
                self._emit("reasoning", "".join(self._spaces) + body, after=after + len(text) - len(body))
                self._spaces = []
            self._spaces.append(text[len(body):])
        elif not self.stop_string:
            before, self.stop_string, rest = self._stops.feed(text)
            self._emit("text", before, after=after + len(self.stop_string) + len(rest) + len(self._stops.held))

    def _end_stretch(self, *, after: int) -> None:
        """A stop string does not reach across a mark or the end."""
        if not self.stop_string:
            before, self.stop_string, rest = self._stops.flush()
            self._emit("text", before, after=after + len(self.stop_string) + len(rest))

    def _emit(self, channel: Channel, text: str, *, after: int) -> None:
        if not text:
            return
        tokens = []
        while self._waiting and self._waiting[0][1] <= self._fed - after:
            tokens.append(self._waiting.popleft()[0])
        if self._deltas and self._deltas[-1].channel == channel:
            last = self._deltas.pop()
            text, tokens = last.text + text, [*last.tokens, *tokens]
        self._deltas.append(Delta(text, channel, tuple(tokens)))
