"""Finds the first of several strings in a stream of text, holding back only what may still become one."""

from __future__ import annotations

from collections.abc import Sequence


class Finder:
    """Looks for the leftmost occurrence of any pattern; of two that start together the shorter one wins.

    An Aho-Corasick automaton: a character costs the same however long the stream, the patterns or the held text are.
    Fed by one thread; after a match or a flush it is as new.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.steps: list[dict[str, int]] = [{}]
        self.depth = [0]
        self.fail = [0]
        self.found = [""]
        for pattern in patterns:
            if pattern:
                self._add(pattern)
        self._link()
        self._reset()

    def _add(self, pattern: str) -> None:
        state = 0
        for char in pattern:
            if char not in self.steps[state]:
                self.steps[state][char] = len(self.steps)
                self.steps.append({})
                self.depth.append(self.depth[state] + 1)
                self.fail.append(0)
                self.found.append("")
            state = self.steps[state][char]
        self.found[state] = pattern

    def _link(self) -> None:
        """Breadth first: fail[s] is the longest proper suffix of s that begins a pattern; found[s] the longest that is one."""
        level = list(self.steps[0].values())
        while level:
            following = []
            for state in level:
                for char, child in self.steps[state].items():
                    back = self.fail[state]
                    while back and char not in self.steps[back]:
                        back = self.fail[back]
                    self.fail[child] = self.steps[back].get(char, 0)
                    self.found[child] = self.found[child] or self.found[self.fail[child]]
                    following.append(child)
            level = following

    def _reset(self) -> None:
        self.held = ""
        self.state = 0
        self.match = ""
        self.match_start = 0

    def feed(self, text: str) -> tuple[str, str, str]:
        """(text that is before any match, the pattern matched or "", what follows it and was not looked at yet).

        A match is only reported when no other that starts further left can still complete.
        """
        if not self.held and self.steps[0].keys().isdisjoint(text):
            return text, "", ""
        seen = len(self.held)
        text = self.held + text
        for end in range(seen + 1, len(text) + 1):
            self._step(text[end - 1])
            pattern = self.found[self.state]
            if pattern and (not self.match or end - len(pattern) < self.match_start):
                self.match, self.match_start = pattern, end - len(pattern)
            if self.match and end - self.depth[self.state] >= self.match_start:
                return self._take(text)
        keep = len(text) - self.depth[self.state]
        self.held = text[keep:]
        self.match_start -= keep
        return text[:keep], "", ""

    def _step(self, char: str) -> None:
        state = self.state
        while state and char not in self.steps[state]:
            state = self.fail[state]
        self.state = self.steps[state].get(char, 0)

    def _take(self, text: str) -> tuple[str, str, str]:
        pattern, start = self.match, self.match_start
        self._reset()
        return text[:start], pattern, text[start + len(pattern):]

    def flush(self) -> tuple[str, str, str]:
        """As feed, at the stream's end: nothing more can complete."""
        text = self.held
        if self.match:
            return self._take(text)
        self._reset()
        return text, "", ""
