"""Which tokens each sequence of the KV cache holds, who may grow how far, and which idle prefix goes first; pure bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence as Ids
from collections.abc import Sized
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

# What an unlimited run is promised at admission, and the least it takes when it grows.
LEAST_SHARE = 256
# Fewer idle tokens than these, together, are not worth a move.
LEAST_IDLE = 64


class Memory(Protocol):
    """The KV memory itself. Lengths count tokens from the sequence's start."""

    def keep(self, seq: int, length: int) -> int:
        """Drop all after the first `length` tokens; returns how many are left: `length`, or 0 where the memory cannot trim."""

    def copy(self, source: int, target: int, length: int) -> int:
        """Let the empty `target` share the first `length` tokens of `source`; returns `length`, or 0 where it cannot."""

    def state_size(self, seq: int) -> int:
        """Bytes that `save` returns for this sequence."""

    def save(self, seq: int) -> Sized | None:
        """The sequence's state outside of the memory, or None where that failed."""

    def restore(self, seq: int, state: Any) -> bool:
        """Put a saved state into an empty sequence; False, and the sequence empty, where there is no room."""


@dataclass(eq=False)
class Seq:
    """One sequence of the memory: the ids evaluated in it, by position, and the cell that holds each.

    Changed by Cells alone. limit: how many tokens it may hold while it runs; is_open: whether it may ask for more then.
    unmoved: the bytes that were too few to park it.
    """

    id: int
    key: str = ""
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    is_running: bool = False
    limit: int = 0
    is_open: bool = False
    used: int = 0
    unmoved: int = 0


@dataclass(frozen=True)
class Parked:
    """An idle prefix that was moved out of the cells."""

    key: str
    tokens: list[int]
    state: Sized


class NoRoom(Exception):
    """Admission cannot be granted while the present runs hold what they reserved."""


def common_length(left: Ids[int], right: Ids[int]) -> int:
    """Length of the longest common prefix."""
    n = min(len(left), len(right))
    if left[:n] == right[:n]:
        return n
    low, high = 0, n  # the prefixes of length low are equal, those of length high are not
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


class Cells:
    """`total` cells shared by `n_sequences` sequences, of which one run each may be active and the others hold idle prefixes.

    Promise kept: a run that was admitted can fill what it reserved, whoever comes later. A limited run reserves prompt +
    max_tokens. A run without a limit, or one whose limit exceeds the context, reserves half of what is free beyond its prompt
    (all of it where `is_alone`, that is with one slot), and half of what is free again whenever that is used up: so it never
    takes the last room from those who come after it, and ends with "length" when nothing is left.
    Idle prefixes give way, the one longest unused first, from its end; `park` moves them out of the cells before.
    can_trim: the memory can drop a sequence's end; where not (recurrent models), a prefix is reused only as a whole.
    parking_bytes: how much memory parked prefixes may take together.
    """

    def __init__(self, memory: Memory, total: int, n_sequences: int, *, is_alone: bool, can_trim: bool = True,
                 parking_bytes: int = 0) -> None:
        self.total = total
        self._memory = memory
        self._parking_bytes = parking_bytes
        self._parked: list[Parked] = []  # the longest unused first
        self._is_alone = is_alone
        self._can_trim = can_trim
        self._seqs = [Seq(i) for i in range(n_sequences)]
        self._shares = [0] * total  # how many sequences hold each cell
        self._free = list(range(total))
        self._clock = count(1)

    @property
    def n_free(self) -> int:
        """Cells that hold nothing, not even an idle prefix."""
        return len(self._free)

    def admit(self, prompt: Ids[int], key: str, max_tokens: int) -> tuple[Seq, int]:
        """A sequence to run the prompt in, and how many of its tokens it holds already: at most len(prompt) - 1.

        max_tokens 0 is without limit. Raises NoRoom where the reservation cannot be granted beside the present runs'.
        """
        prompt = list(prompt)
        self._unpark(prompt, key)
        source, n_common = self._best_prefix(prompt, key)
        shared = n_common if source is not None and source.is_running else 0
        free = self._unreserved() - (len(prompt) - shared)
        is_open = not max_tokens or len(prompt) + max_tokens > self.total
        if is_open:
            room = min(self._share(free), self.total - len(prompt))
            if room < min(LEAST_SHARE, self.total - len(prompt)):
                raise NoRoom
        else:
            room = max_tokens
            if room > free:
                raise NoRoom
        seq, n_cached = self._claim(source, n_common)
        seq.key, seq.is_running, seq.is_open, seq.limit = key, True, is_open, len(prompt) + room
        seq.used = next(self._clock)
        return seq, n_cached

    def extend(self, seq: Seq, ids: Ids[int]) -> None:
        """Put ids at the end of a running sequence, within its limit; idle prefixes give way where cells are short."""
        assert len(seq.tokens) + len(ids) <= seq.limit, "a run stays within what it reserved"
        self._evict(len(ids) - len(self._free))
        self._take(seq, ids)

    def grow(self, seq: Seq) -> bool:
        """Raise the limit of a run that reached it; False where it may not, or nothing is left: it then ends with "length"."""
        free = min(self._unreserved(), self.total - seq.limit)
        if not seq.is_open or free <= 0:
            return False
        seq.limit += min(self._share(free), self.total - seq.limit)
        return True

    def release(self, seq: Seq) -> None:
        """The run is over; its tokens stay as an idle prefix."""
        seq.is_running = False
        seq.limit = seq.unmoved = 0
        seq.used = next(self._clock)

    def cut(self, seq: Seq, length: int) -> None:
        """Drop a sequence's tokens after the first `length`; all of them where the memory cannot trim."""
        self.undo(seq, len(seq.tokens) - self._memory.keep(seq.id, length))

    def undo(self, seq: Seq, n: int) -> None:
        """Take back the last n tokens of `extend`: the memory never got them."""
        kept = len(seq.cells) - n
        for cell in seq.cells[kept:]:
            self._drop(cell)
        del seq.cells[kept:], seq.tokens[kept:]

    def evict_idle(self) -> bool:
        """Drop every idle prefix; True if there was one."""
        idle = [seq for seq in self._seqs if not seq.is_running and seq.tokens]
        for seq in idle:
            self.cut(seq, 0)
        return bool(idle)

    def park(self, largest: int, together: int) -> None:
        """Move idle prefixes out of the cells, where all of them hold enough to matter: the one longest unused of at most
        `largest` bytes, and others while no more than `together` bytes are moved.

        Attention passes over idle cells too, and new ones come to lie behind them: on two cores 512 idle cells took 16 % of a
        125 M model's decode steps with its 12 KV heads.
        """
        idle = [seq for seq in self._seqs if not seq.is_running and seq.tokens]
        if not self._parking_bytes or sum(len(seq.tokens) for seq in idle) < LEAST_IDLE:
            return
        moved = 0
        for seq in sorted(idle, key=lambda s: s.used):
            if largest <= seq.unmoved:
                continue
            size = self._memory.state_size(seq.id)
            if size > largest:
                seq.unmoved = largest
            elif moved and moved + size > together:
                return
            else:
                self._is_moved_out(seq)
                moved += size

    def _is_moved_out(self, seq: Seq) -> bool:
        """Park this idle prefix; False, and it stays, where it is larger than all the parking."""
        size = self._memory.state_size(seq.id) if self._parking_bytes else 0
        if not 0 < size <= self._parking_bytes:
            return False
        while self._parked and sum(len(parked.state) for parked in self._parked) + size > self._parking_bytes:
            self._parked.pop(0)
        state = self._memory.save(seq.id)
        if state is None:
            return False
        self._parked.append(Parked(seq.key, seq.tokens[:], state))
        self.cut(seq, 0)
        return True

    def _unpark(self, prompt: list[int], key: str) -> None:
        """Bring a parked prefix back as an idle one, where it is longer than what the cells hold and has room."""
        best, found = self._best_prefix(prompt, key)[1], None
        for parked in self._parked:
            n = min(common_length(parked.tokens, prompt), len(prompt) - 1) if parked.key == key else 0
            if n > best and (self._can_trim or n == len(parked.tokens)) and len(parked.tokens) <= self._unreserved():
                best, found = n, parked
        if found is None:
            return
        self._parked.remove(found)
        seq = self._emptied(None)
        self._evict(len(found.tokens) - len(self._free))
        if self._memory.restore(seq.id, found.state):
            seq.key, seq.used = key, next(self._clock)
            self._take(seq, found.tokens)

    def _unreserved(self) -> int:
        """Cells that no run holds or has reserved; idle prefixes count as free."""
        running = [seq for seq in self._seqs if seq.is_running]
        held = len(set().union(*(seq.cells for seq in running)))
        return self.total - held - sum(seq.limit - len(seq.tokens) for seq in running)

    def _share(self, free: int) -> int:
        return free if self._is_alone or free <= LEAST_SHARE else max(free // 2, LEAST_SHARE)

    def _best_prefix(self, prompt: list[int], key: str) -> tuple[Seq | None, int]:
        """The sequence of this key with the longest usable prefix, an idle one before a running one, the latest first."""
        best: tuple[int, bool, int] = (0, False, 0)
        found: Seq | None = None
        for seq in self._seqs:
            if seq.key != key or not seq.tokens:
                continue
            n = min(common_length(seq.tokens, prompt), len(prompt) - 1)
            if not self._can_trim and (seq.is_running or n < len(seq.tokens)):
                continue
            if n and (n, not seq.is_running, seq.used) > best:
                best, found = (n, not seq.is_running, seq.used), seq
        return found, best[0]

    def _claim(self, source: Seq | None, n_common: int) -> tuple[Seq, int]:
        """A sequence that holds the first n_common tokens of `source`, or an empty one; and how many it really holds.

        An idle source is taken over where the prompt goes on with at least half of it; else it is left for its own next turn
        and only shared.
        """
        if source is not None and not source.is_running and (not self._can_trim or 2 * n_common >= len(source.tokens)):
            if n_common < len(source.tokens):
                self.cut(source, n_common)
            return source, len(source.tokens)
        seq = self._emptied(source)
        if source is None:
            return seq, 0
        if seq is source:
            self.cut(seq, n_common)
            return seq, len(seq.tokens)
        if self._memory.copy(source.id, seq.id, n_common) == n_common:
            seq.tokens, seq.cells = source.tokens[:n_common], source.cells[:n_common]
            for cell in seq.cells:
                self._shares[cell] += 1
        return seq, len(seq.tokens)

    def _emptied(self, source: Seq | None) -> Seq:
        """An idle sequence, emptied, the longest unused first; `source` as it is where there is no other."""
        idle = [seq for seq in self._seqs if not seq.is_running and seq is not source]
        if not idle:
            assert source is not None and not source.is_running, "there are more sequences than slots"
            return source
        seq = min(idle, key=lambda s: (bool(s.tokens), s.used))
        if seq.tokens and not self._is_moved_out(seq):
            self.cut(seq, 0)
        return seq

    def _evict(self, n: int) -> None:
        """Free at least n cells, if n is above 0, from idle prefixes; cells that another sequence shares do not count."""
        if n <= 0:
            return
        wanted = len(self._free) + n
        for seq in sorted((s for s in self._seqs if not s.is_running and s.tokens), key=lambda s: s.used):
            if len(self._free) < wanted and self._is_moved_out(seq):
                continue
            while seq.tokens and len(self._free) < wanted:
                self.cut(seq, max(0, len(seq.tokens) - (wanted - len(self._free))))
        assert len(self._free) >= wanted, "reservations never exceed what is there"

    def _take(self, seq: Seq, ids: Ids[int]) -> None:
        for token in ids:
            cell = self._free.pop()
            self._shares[cell] = 1
            seq.cells.append(cell)
            seq.tokens.append(token)

    def _drop(self, cell: int) -> None:
        self._shares[cell] -= 1
        if not self._shares[cell]:
            self._free.append(cell)
