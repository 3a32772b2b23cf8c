"""The outbox sends what a person waits for at once, and wakes its reader seldom for the rest."""

from __future__ import annotations

import pytest

from modules.core.errors import AppError
from modules.core.loader import Prefilled, RunFailed, Token
from modules.worker import messages
from modules.worker.frames import Admitted, FrameReader, Waiting, WorkerEvent
from modules.worker.messages import Answer, Events
from modules.worker.outbox import MAX_DELAY_SECONDS, MAX_EVENTS_PER_SEND, Outbox


class Wire:
    """What was sent, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[float, messages.Reply]] = []
        self.reader = FrameReader()
        self.outbox = Outbox(self.send, clock=lambda: self.now)

    def send(self, piece: bytes) -> None:
        self.sent += [(self.now, messages.decode_reply(frame)) for frame in self.reader.feed(piece)]

    def step(self, seconds: float, *events: tuple[str, WorkerEvent]) -> None:
        self.now += seconds
        for run, event in events:
            self.outbox.put(run, event)
        self.outbox.step_ended(seconds)

    def events(self, run: str) -> list[WorkerEvent]:
        found = [reply.runs for _, reply in self.sent if isinstance(reply, Events)]
        return [event for runs in found for name, events in runs if name == run for event in events]


def token(text: str = "a", finish: str | None = None) -> Token:
    return Token(1, text, finish=finish)  # type: ignore[arg-type]


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_first_token_is_sent_at_once(wire: Wire) -> None:
    wire.step(0.004, ("a", token()))
    assert len(wire.sent) == 1
    wire.step(0.004, ("a", token()), ("b", token()))
    assert len(wire.sent) == 2, "b's first token, and a's second with it"


def test_the_end_is_sent_at_once(wire: Wire) -> None:
    wire.step(0.004, ("a", token()))
    for end in (token(finish="stop"), RunFailed(AppError("It failed."))):
        before = len(wire.sent)
        wire.step(0.004, ("a", token()))
        assert len(wire.sent) == before
        wire.step(0.004, ("a", end))
        assert len(wire.sent) == before + 1
        wire.step(0.004, ("a", token()))  # a new first one


def test_fast_steps_go_out_together_about_every_thirty_milliseconds(wire: Wire) -> None:
    """Steps of 4 ms: eight of them, 32 ms apart, for a ninth would make the first wait longer than 30."""
    wire.step(0.004, ("a", token()))
    for _ in range(40):
        wire.step(0.004, ("a", token()))
    assert len(wire.sent) == 1 + 40 // 8
    assert len(wire.events("a")) == 41


@pytest.mark.parametrize("rate", [8, 25, 34, 45, 60, 90, 150, 500, 5000])
def test_no_token_waits_longer_than_the_bound(wire: Wire, rate: int) -> None:
    """Also where the steps' length wobbles by a fifth."""
    made: list[float] = []
    for n in range(400):
        wire.step((0.9 + 0.2 * (n % 2)) / rate, ("a", token(str(n))))
        made.append(wire.now)
    wire.outbox.flush()
    arrived = [at for at, reply in wire.sent if isinstance(reply, Events) for _, events in reply.runs for _ in events]
    delays = [at - at_made for at_made, at in zip(made, arrived, strict=True)]
    assert max(delays) <= MAX_DELAY_SECONDS * 1.2 and max(delays) <= 0.05


def test_steps_of_microseconds_do_not_send_thousands_of_times(wire: Wire) -> None:
    """20,000 tokens in a second: at most one send every five milliseconds."""
    for _ in range(20_000):
        wire.step(1 / 20_000, ("a", token()))
    assert len(wire.sent) <= 202


def test_a_send_is_bounded(wire: Wire) -> None:
    wire.step(0.0, ("a", token()))
    for _ in range(MAX_EVENTS_PER_SEND * 3):
        wire.step(0.0, ("a", token()))
    sizes = [len(events) for _, reply in wire.sent if isinstance(reply, Events) for _, events in reply.runs]
    assert max(sizes) <= MAX_EVENTS_PER_SEND


def test_prefill_progress_goes_out_ten_times_a_second_and_at_its_end(wire: Wire) -> None:
    for done in range(1, 1001):
        wire.step(0.001, ("a", Prefilled(done, 1000, 0)))
    wire.outbox.flush()
    seen = [event.done for event in wire.events("a") if isinstance(event, Prefilled)]
    assert len(seen) <= 11 and seen[-1] == 1000 and seen == sorted(seen)


def test_queue_and_admission_do_not_wait_for_a_step(wire: Wire) -> None:
    for event in (Waiting(2), Admitted(7)):
        wire.outbox.put("a", event)
        wire.outbox.send_urgent()
        assert wire.events("a")[-1] == event
    wire.step(0.001, ("a", token()))
    wire.outbox.put("a", token())
    wire.outbox.send_urgent()
    assert len(wire.events("a")) == 3, "a token is not urgent"


def test_a_forgotten_run_is_not_sent(wire: Wire) -> None:
    wire.step(0.001, ("a", token()), ("b", token()))
    wire.step(0.001, ("a", token()), ("b", token()))
    wire.outbox.forget("a")
    wire.outbox.flush()
    assert len(wire.events("a")) == 1 and len(wire.events("b")) == 2


def test_an_answer_goes_after_what_happened_before_it(wire: Wire) -> None:
    wire.step(0.001, ("a", token()))
    wire.step(0.001, ("a", token()))
    wire.outbox.reply(Answer(1))
    assert [type(reply) for _, reply in wire.sent] == [Events, Events, Answer]


def test_order_within_a_run_is_kept(wire: Wire) -> None:
    for n in range(50):
        wire.step(0.002, ("a", token(str(n))), ("b", token(str(-n))))
    wire.outbox.flush()
    for run in "ab":
        texts = [event.text for event in wire.events(run) if isinstance(event, Token)]
        assert [abs(int(text)) for text in texts] == list(range(50))


def test_a_frame_tells_when_the_newest_of_it_happened(wire: Wire) -> None:
    """A reply of seven tokens, 4 ms a step: the times of its first token and its end are exact, so its speed is too."""
    for n in range(7):
        wire.step(0.004, ("a", token(finish="stop" if n == 6 else None)))
    stamps = [reply.at for _, reply in wire.sent if isinstance(reply, Events)]
    assert stamps[0] == pytest.approx(100.004)
    assert stamps[-1] == pytest.approx(100.028)


def test_an_admission_is_stamped_with_its_own_time(wire: Wire) -> None:
    wire.step(0.004, ("a", token()))
    wire.now += 5
    wire.outbox.put("b", Admitted(3))
    wire.outbox.send_urgent()
    assert wire.sent[-1][1] == Events((("b", [Admitted(3)]),), 105.004)
