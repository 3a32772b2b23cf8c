"""Caches of runs that have ended, kept for the next prompt that begins with the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .cache import copy_of, cut


@dataclass(frozen=True)
class Idle:
    """ids: the tokens whose keys and values the cache holds."""

    cache_key: str
    ids: list[int]
    cache: Any


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading ids are equal."""
    n = min(len(one), len(other))
    if list(one[:n]) == list(other[:n]):
        return n
    return next(i for i in range(n) if one[i] != other[i])


class IdleCaches:
    """At most `slots` of them less the running ones; oldest first, which are also the first to go."""

    def __init__(self, slots: int, new_cache: Callable[[], Any]) -> None:
        self._slots, self._new_cache = slots, new_cache
        self._kept: list[Idle] = []

    def take(self, cache_key: str | None, prompt: Sequence[int], n_running: int) -> tuple[Any, int]:
        """A cache for the prompt, and how many of its tokens it already holds; always fewer than all, the last gives the logits.

        cache_key None reuses nothing. n_running: runs that hold a cache already, without this one.
        """
        cache, n_held = self._reused(cache_key, prompt, n_running)
        while self._kept and len(self._kept) + n_running + 1 > self._slots:
            self._kept.pop(0)
        return cache, n_held

    def put(self, cache_key: str, ids: list[int], cache: Any) -> None:
        """Keep the cache of an ended run, which holds exactly these ids."""
        if ids:
            self._kept.append(Idle(cache_key, ids, cache))

    def clear(self) -> bool:
        """Drop all of them; whether there was one."""
        had = bool(self._kept)
        self._kept.clear()
        return had

    def _reused(self, cache_key: str | None, prompt: Sequence[int], n_running: int) -> tuple[Any, int]:
        best, n_best = None, 0
        for idle in self._kept:
            n = min(common_prefix(idle.ids, prompt), len(prompt) - 1) if idle.cache_key == cache_key else 0
            if n > 0 and n >= n_best:
                best, n_best = idle, n
        if best is None:
            return self._new_cache(), 0
        has_room = len(self._kept) + n_running < self._slots or best is not self._kept[0]
        if n_best < len(best.ids) // 2 and has_room:
            # Another branch of the same chat: the long one stays for those who come back to it, if need be for an older one.
            copied = copy_of(best.cache, self._new_cache(), n_best)
            if copied is not None:
                return copied, n_best
        self._kept.remove(best)
        return (best.cache, n_best) if cut(best.cache, len(best.ids), n_best) else (self._new_cache(), 0)
