"""A worker's frames on their way: in order, a few in each turn of the loop, and no faster than they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from modules.worker import delivery as delivery_module
from modules.worker.delivery import TURN_SECONDS, Delivery
from modules.worker.frames import Frame


def frames(n: int) -> list[Frame]:
    return [Frame({"n": index}, b"") for index in range(n)]


class Ends:
    """Both ends of a Delivery, on a clock that a test moves: `seconds` is what each frame takes."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.taken: list[int] = []
        self.turns: list[int] = []  # in which turn of the loop each was taken
        self.reading: list[bool] = []
        self.n_idle = 0
        self.turn = 0
        self.at_each: Callable[[int], None] = lambda n: None
        self._seconds, self._now = seconds, 0.0
        self.delivery = Delivery(self._take, self.reading.append, self._idle, clock=lambda: self._now)

    def _take(self, frame: Frame) -> None:
        self._now += self._seconds
        self.turns.append(self.turn)
        self.taken.append(frame.header["n"])
        self.at_each(frame.header["n"])

    def _idle(self) -> None:
        self.n_idle += 1

    async def go_on(self, n_turns: int) -> None:
        for _ in range(n_turns):
            self.turn += 1
            await asyncio.sleep(0)


async def test_what_is_quickly_taken_is_handed_on_at_once() -> None:
    ends = Ends()
    ends.delivery.put(frames(50))
    assert ends.taken == list(range(50)) and ends.delivery.is_idle and ends.n_idle == 1
    assert not ends.reading, "the pipe is not paused for it"


async def test_other_work_of_the_loop_has_its_turn_between_two_frames() -> None:
    """One read of a full pipe used to be decoded and told to everybody in one go, while pages waited for what was drawn."""
    ends = Ends(seconds=TURN_SECONDS)
    ends.delivery.put(frames(50))
    assert ends.taken == [0], "the first at once"
    await ends.go_on(60)
    assert ends.taken == list(range(50))
    assert len(set(ends.turns)) == 50


async def test_the_pipe_is_read_only_when_what_came_was_handed_on() -> None:
    ends = Ends(seconds=TURN_SECONDS)
    ends.delivery.put(frames(3))
    assert ends.reading == [False] and not ends.n_idle
    await ends.go_on(5)
    assert ends.reading == [False, True] and ends.n_idle == 1


async def test_a_holder_has_everything_wait_until_it_lets_go() -> None:
    ends = Ends()
    ends.at_each = lambda n: ends.delivery.hold("reader") if n == 4 else None
    ends.delivery.put(frames(10))
    await ends.go_on(20)
    assert ends.taken == list(range(5)) and ends.reading == [False]
    ends.delivery.release("reader")
    await ends.go_on(2)
    assert ends.taken == list(range(10)) and ends.reading == [False, True]


async def test_what_comes_during_a_hold_waits_behind_what_waits() -> None:
    ends = Ends()
    ends.delivery.hold("one")
    ends.delivery.hold("two")
    ends.delivery.put(frames(2))
    ends.delivery.put([Frame({"n": 2}, b"")])
    ends.delivery.release("one")
    ends.delivery.release("nobody")
    await ends.go_on(3)
    assert not ends.taken
    ends.delivery.release("two")
    await ends.go_on(3)
    assert ends.taken == [0, 1, 2]


async def test_nobody_holds_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that never catches up slows the model down; it does not stop it, and holding again does not either."""
    monkeypatch.setattr(delivery_module, "LONGEST_HOLD", 0.01)
    ends = Ends()
    ends.delivery.hold("reader")
    ends.delivery.put(frames(1))
    assert not ends.taken
    async with asyncio.timeout(5):
        while not ends.taken:
            await asyncio.sleep(0.001)
    ends.delivery.hold("reader")
    ends.delivery.put([Frame({"n": 1}, b"")])
    assert ends.taken == [0, 1], "its time is over until it has let go"
    ends.delivery.release("reader")
    ends.delivery.hold("reader")
    ends.delivery.put([Frame({"n": 2}, b"")])
    assert ends.taken == [0, 1], "now it may again"


async def test_after_the_process_everything_is_handed_on_whoever_holds() -> None:
    ends = Ends(seconds=TURN_SECONDS)
    ends.delivery.hold("reader")
    ends.delivery.put(frames(3))
    assert ends.reading == [False]
    ends.delivery.hurry()
    assert ends.reading == [False, True], "the pipe is read to its end"
    ends.delivery.put([Frame({"n": 3}, b"")])
    await ends.go_on(6)
    assert ends.taken == [0, 1, 2, 3] and ends.n_idle == 1
    assert ends.reading == [False, True]


async def test_a_frame_that_cannot_be_taken_costs_none_of_those_after_it() -> None:
    ends = Ends()
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    ends.delivery.hold("until the loop runs")
    ends.delivery.put(frames(5))

    def fail(n: int) -> None:
        if n in (1, 4):
            raise ZeroDivisionError

    ends.at_each = fail
    ends.delivery.release("until the loop runs")
    await ends.go_on(6)
    assert ends.taken == list(range(5)) and ends.n_idle == 1 and ends.reading == [False, True]
    assert [type(error) for error in reported] == [ZeroDivisionError] * 2
