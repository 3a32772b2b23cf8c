"""Cells: admitted runs can fill what they reserved, prefixes are what the memory holds, idle ones give way oldest first."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loaders.llama_cpp_parts.cells import LEAST_SHARE, Cells, NoRoom, Seq, common_length


class FakeMemory:
    """Remembers the ids of each sequence as llama.cpp would, a byte each; `can_trim` False refuses to cut within one."""

    def __init__(self, *, can_trim: bool = True) -> None:
        self.can_trim = can_trim
        self.can_restore = True
        self.held: dict[int, list[int]] = {}

    def keep(self, seq: int, length: int) -> int:
        length = length if self.can_trim else 0
        self.held[seq] = self.held.get(seq, [])[:length]
        return length

    def copy(self, source: int, target: int, length: int) -> int:
        assert not self.held.get(target), "only an empty sequence may share another's cells"
        self.held[target] = self.held[source][:length]
        return length


    def state_size(self, seq: int) -> int:
        return len(self.held[seq])

    def save(self, seq: int) -> list[int]:
        return self.held[seq][:]

    def restore(self, seq: int, state: list[int]) -> bool:
        assert not self.held.get(seq), "only an empty sequence takes a saved state"
        self.held[seq] = state[:] if self.can_restore else []
        return self.can_restore


def make(total: int = 1024, n_sequences: int = 6, *, is_alone: bool = False, can_trim: bool = True,
         parking_bytes: int = 0) -> tuple[Cells, FakeMemory]:
    memory = FakeMemory(can_trim=can_trim)
    return Cells(memory, total, n_sequences, is_alone=is_alone, can_trim=can_trim, parking_bytes=parking_bytes), memory


def play(cells: Cells, memory: FakeMemory, prompt: list[int], key: str, reply: list[int]) -> tuple[Seq, int]:
    """A whole run: admitted, evaluated, answered, released."""
    seq, cached = cells.admit(prompt, key, max(1, len(reply)))
    put(cells, memory, seq, prompt[cached:] + reply)
    cells.release(seq)
    return seq, cached


def put(cells: Cells, memory: FakeMemory, seq: Seq, ids: list[int]) -> None:
    cells.extend(seq, ids)
    memory.held.setdefault(seq.id, []).extend(ids)


@pytest.mark.parametrize(("left", "right", "n"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1), ([5], [6], 0),
                                                  (list(range(1000)), [*range(999), 7], 999)])
def test_common_length(left: list[int], right: list[int], n: int) -> None:
    assert common_length(left, right) == common_length(right, left) == n


def test_the_next_turn_takes_over_the_chats_sequence() -> None:
    cells, memory = make()
    first, _ = play(cells, memory, [1, 2, 3], "chat", [4, 5])
    second, cached = play(cells, memory, [1, 2, 3, 4, 5, 6, 7], "chat", [8])
    assert (second, cached) == (first, 5)


def test_the_last_prompt_token_is_never_cached() -> None:
    cells, memory = make()
    play(cells, memory, [1, 2, 3], "chat", [4])
    assert cells.admit([1, 2, 3], "chat", 5)[1] == 2


def test_another_key_shares_nothing() -> None:
    cells, memory = make()
    play(cells, memory, [1, 2, 3], "mine", [])
    assert cells.admit([1, 2, 3], "yours", 5)[1] == 0


def test_a_running_reply_is_shared_but_not_taken() -> None:
    """Two swipes at once: the second one shares the prompt's cells, which are then counted once."""
    cells, memory = make(total=300)
    prompt = list(range(200))
    one, _ = cells.admit(prompt, "chat", 40)
    put(cells, memory, one, prompt[:199])
    two, cached = cells.admit(prompt, "chat", 40)
    assert two is not one and cached == 199
    assert cells.n_free == 300 - 199


def test_a_new_chat_with_a_common_start_leaves_the_old_one_its_cells() -> None:
    cells, memory = make()
    system = list(range(100))
    play(cells, memory, system + [200 + n for n in range(300)], "me", [])
    seq, cached = cells.admit([*system, 900], "me", 5)
    assert cached == 100
    cells.release(seq)
    assert cells.admit(system + [200 + n for n in range(300)] + [7], "me", 5)[1] == 400


def test_the_oldest_idle_prefix_gives_way_from_its_end() -> None:
    cells, memory = make(total=300)
    play(cells, memory, [1] * 100, "old", [])
    play(cells, memory, [2] * 100, "new", [])
    seq, _ = cells.admit([3] * 150, "third", 1)
    put(cells, memory, seq, [3] * 149)
    assert cells.admit([1] * 100 + [9], "old", 1)[1] == 51, "300 - 100 - 149 are left of it"


def test_admission_counts_what_others_reserved_and_not_what_is_idle() -> None:
    cells, memory = make(total=300)
    play(cells, memory, [1] * 250, "idle", [])
    cells.admit([2] * 50, "a", 150)
    with pytest.raises(NoRoom):
        cells.admit([3] * 50, "b", 51)
    cells.admit([3] * 50, "b", 50)


def test_an_open_run_takes_half_and_half_again_but_alone_all() -> None:
    cells, memory = make(total=4096)
    seq, _ = cells.admit([1] * 96, "a", 0)
    assert seq.limit == 96 + 2000
    put(cells, memory, seq, [1] * 2096)
    assert cells.grow(seq) and seq.limit == 2096 + 1000
    other, _ = cells.admit([2] * 96, "b", 800)
    put(cells, memory, seq, [1] * 1000)
    assert cells.grow(seq) and seq.limit == 3200, "1000 - 896 are left, less than the least share, so all of them"
    put(cells, memory, seq, [1] * 104)
    assert not cells.grow(seq)
    put(cells, memory, other, [2] * 896)
    alone, _ = make(total=4096, is_alone=True)
    assert alone.admit([1] * 96, "a", 0)[0].limit == 4096


def test_a_limited_run_never_grows() -> None:
    cells, _ = make()
    assert not cells.grow(cells.admit([1], "a", 5)[0])


def test_an_open_run_wants_a_least_share() -> None:
    cells, _ = make(total=1024)
    cells.admit([1] * 500, "a", 200)
    with pytest.raises(NoRoom):
        cells.admit([2] * 100, "b", 0)  # 324 are free: 224 beside the prompt
    cells.admit([2] * (324 - LEAST_SHARE), "b", 0)


def test_memory_that_cannot_trim_is_reused_only_as_a_whole() -> None:
    cells, memory = make(can_trim=False)
    play(cells, memory, [1, 2, 3], "chat", [4])
    assert cells.admit([1, 2, 3, 4, 5], "chat", 2)[1] == 4
    cells, memory = make(can_trim=False)
    play(cells, memory, [1, 2, 3], "chat", [4])
    assert cells.admit([1, 2, 3], "chat", 2)[1] == 0


def test_a_trim_that_fails_costs_a_recomputation_only() -> None:
    """Sliding windows: the memory says so only when asked to cut."""
    cells, memory = make()
    play(cells, memory, [1, 2, 3, 4], "chat", [5])
    memory.can_trim = False
    seq, cached = cells.admit([1, 2, 3, 9], "chat", 2)
    assert cached == 0 and seq.tokens == [] and cells.n_free == 1024


def test_a_parked_chat_frees_its_cells_and_is_found_again() -> None:
    cells, memory = make(total=1024, parking_bytes=10_000)
    prompt = list(range(600))
    play(cells, memory, prompt, "chat", [])
    cells.park(100, 10_000)
    assert cells.n_free == 424, "600 bytes are more than the 100 that may be moved now"
    cells.park(10_000, 10_000)
    assert cells.n_free == 1024
    seq, cached = cells.admit([*prompt[:500], 7], "chat", 5)
    assert cached == 500 and seq.tokens == memory.held[seq.id] == prompt[:500]
    cells.release(seq)
    assert cells.admit([*prompt, 7], "other", 5)[1] == 0


def test_little_is_not_worth_parking() -> None:
    cells, memory = make(parking_bytes=10_000)
    play(cells, memory, [1] * 60, "chat", [])
    cells.park(10_000, 10_000)
    assert cells.n_free == 1024 - 60


def test_several_chats_are_parked_at_once_while_that_takes_little() -> None:
    """A byte a token here: three of 200 bytes within 450 together make two."""
    cells, memory = make(total=2048, parking_bytes=10_000)
    running = [cells.admit([n] * 200, str(n), 1)[0] for n in range(3)]
    for n, seq in enumerate(running):
        cells.extend(seq, [n] * 200)
        memory.held[seq.id] = list(seq.tokens)
        cells.release(seq)
    cells.park(10_000, 450)
    assert cells.n_free == 2048 - 200
    cells.park(10_000, 450)
    assert cells.n_free == 2048


def test_parked_chats_leave_in_turn_when_the_parking_is_full() -> None:
    cells, memory = make(total=2048, parking_bytes=1300)
    for n in range(3):
        play(cells, memory, [n] * 600, str(n), [])
        cells.park(10_000, 10_000)
    assert [cells.admit([n] * 601, str(n), 1)[1] for n in range(3)] == [0, 600, 600]


def test_a_parked_chat_without_room_stays_where_it_is() -> None:
    cells, memory = make(total=1024, parking_bytes=10_000)
    play(cells, memory, [1] * 600, "chat", [])
    cells.park(10_000, 10_000)
    running, _ = cells.admit([2] * 400, "a", 100)
    short, cached = cells.admit([1] * 50, "chat", 1)
    assert cached == 0
    cells.release(short)
    cells.release(running)
    assert cells.admit([1] * 601, "chat", 1)[1] == 600


def test_a_state_that_cannot_be_put_back_costs_a_recomputation_only() -> None:
    cells, memory = make(parking_bytes=10_000)
    play(cells, memory, [1] * 600, "chat", [])
    cells.park(10_000, 10_000)
    memory.can_restore = False
    assert cells.admit([1] * 601, "chat", 1)[1] == 0 and cells.n_free == 1024


class Machine(RuleBasedStateMachine):
    """Any order of arrivals, growth, ends: promises are kept and the books agree with the memory."""

    @initialize(total=st.sampled_from([256, 512, 1024]), is_alone=st.booleans())
    def begin(self, total: int, is_alone: bool) -> None:
        self.slots = 1 if is_alone else 3
        self.cells, self.memory = make(total, 2 * self.slots + 2, is_alone=is_alone, parking_bytes=total)
        self.runs: list[Seq] = []
        self.all: dict[int, Seq] = {}

    @precondition(lambda self: len(self.runs) < self.slots)
    @rule(start=st.integers(0, 2), shared=st.integers(0, 150), own=st.integers(1, 100), key=st.sampled_from("ab"),
          max_tokens=st.sampled_from([0, 1, 50, 5000]))
    def arrive(self, start: int, shared: int, own: int, key: str, max_tokens: int) -> None:
        prompt = [start * 1000 + n for n in range(shared)] + [7_000_000 + len(self.all) * 1000 + n for n in range(own)]
        try:
            seq, cached = self.cells.admit(prompt, key, max_tokens)
        except NoRoom:
            assert self.runs, "with nobody running everything fits"
            return
        assert seq not in self.runs
        assert cached == len(seq.tokens) < len(prompt) and seq.tokens == prompt[:cached]
        put(self.cells, self.memory, seq, prompt[cached:])
        self.runs.append(seq)
        self.all[seq.id] = seq

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99), n=st.integers(1, 120))
    def write(self, which: int, n: int) -> None:
        seq = self.runs[which % len(self.runs)]
        for _ in range(n):
            if len(seq.tokens) >= seq.limit and not self.cells.grow(seq):
                break
            put(self.cells, self.memory, seq, [which])

    @rule(largest=st.sampled_from([0, 300, 5000]))
    def park(self, largest: int) -> None:
        self.cells.park(largest, largest)

    @precondition(lambda self: self.runs)
    @rule(which=st.integers(0, 99))
    def end(self, which: int) -> None:
        self.cells.release(self.runs.pop(which % len(self.runs)))

    @invariant()
    def reservations_fit(self) -> None:
        if hasattr(self, "cells"):
            held = set().union(*(seq.cells for seq in self.runs))
            assert len(held) + sum(seq.limit - len(seq.tokens) for seq in self.runs) <= self.cells.total

    @invariant()
    def books_agree_with_the_memory(self) -> None:
        for seq in getattr(self, "cells", make()[0])._seqs:
            assert self.memory.held.get(seq.id, []) == seq.tokens and len(seq.cells) == len(seq.tokens)
        if hasattr(self, "cells"):
            used = set().union(*(seq.cells for seq in self.cells._seqs))
            assert len(used) + self.cells.n_free == self.cells.total


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAnyOrder = Machine.TestCase
