"""Which oldest messages leave the prompt when the context is full."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import ContextTooLong

BLOCK = 0.75     # of the room: a cut frees at least a quarter, so that the prompt's start stays the same for many turns
DEEPEST = 0.5    # of the room: more than half is never given up for speed
TURNS = 12       # a cut makes room for so many turns like the last ones, within these two: eight, and the next may be longer


def choose_cut(message_tokens: Sequence[int], fixed_tokens: int, room: int, keep_from: int, *, roles: Sequence[str] = ()) -> int:
    """Index of the first message to keep; message_tokens[n] is what message n costs in the prompt.

    `keep_from`, where the branch was cut before, stays while everything from there fits `room` together with fixed_tokens
    (system prompt, glue); else the first place after it is taken from which at most 75 % of the room is used, at a user message
    where `roles` tells them and one is there; less, down to half of the room, where twelve turns like the last ones would not fit
    beside that. The last user message and what follows it always stay; without roles, the last message. A history that fits into
    75 % of the room is kept whole again. Raises ContextTooLong, with the counts.
    """
    last = max((n for n, role in enumerate(roles) if role == "user"), default=max(len(message_tokens) - 1, 0))
    used = [fixed_tokens] * (len(message_tokens) + 1)  # used[n]: prompt tokens when messages from n on are kept
    for n in range(len(message_tokens) - 1, -1, -1):
        used[n] = used[n + 1] + message_tokens[n]
    if used[last] > room:
        raise ContextTooLong(
            f"The last message needs {used[last] - fixed_tokens} tokens and what is always sent {fixed_tokens}; together "
            f"{used[last]}, but the context has room for {room}. Shorten the message or the character, or load the model with a "
            "larger context.", param="messages")
    keep_from = min(max(keep_from, 0), last)
    if used[0] <= BLOCK * room:
        return 0
    if used[keep_from] <= room:
        return keep_from
    target = max(DEEPEST * room, min(BLOCK * room, room - TURNS * _turn_tokens(message_tokens, roles)))
    fitting = [n for n in range(keep_from + 1, last + 1) if used[n] <= target]
    starts = [n for n in fitting if roles and roles[n] == "user"]
    return next(iter(starts or fitting), last)


def _turn_tokens(message_tokens: Sequence[int], roles: Sequence[str]) -> float:
    """What one of the last turns took on average; without roles a turn is two messages."""
    starts = [n for n, role in enumerate(roles) if role == "user"] or list(range(0, len(message_tokens), 2))
    first = starts[-TURNS:][0] if starts else 0
    return sum(message_tokens[first:]) / max(1, len(starts[-TURNS:]))
