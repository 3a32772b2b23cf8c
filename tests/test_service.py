"""The worker's loop admits in order, starves nobody, and outlives what can be outlived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from modules.core.errors import AppError, BadRequest, Busy, OutOfMemory
from modules.core.loader import ModelFacts, Prefilled, RunFailed, StepResult, Token
from modules.core.params import GenerationParams
from modules.worker import messages
from modules.worker.frames import Admitted, FrameReader, Waiting, WorkerEvent
from modules.worker.messages import Add, Answer, Call, Close, Command, Events, Remove
from modules.worker.outbox import Outbox
from modules.worker.service import MAX_FAILED_STEPS, LoaderBroken, Service


class Fake:
    """A loader of `cells`, each run wanting prompt + max_tokens of them; `at_step` runs the test's own code before a step."""

    def __init__(self, slots: int = 8, cells: int = 10**9) -> None:
        self.facts = ModelFacts(context=10**6, vocab_size=9, slots=slots)
        self.cells = cells
        self.runs: dict[str, list[int]] = {}  # wanted cells, tokens left
        self.n_steps = 0
        self.asked: list[str] = []
        self.at_step: Callable[[int], None] = lambda n: None

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams, cache_key: str) -> int:
        self.asked.append(run)
        if cache_key == "bad":
            raise BadRequest("A bad grammar.")
        if cache_key == "odd":
            raise KeyError("odd")
        wanted = len(prompt) + params.max_tokens
        if wanted + sum(cells for cells, _ in self.runs.values()) > self.cells:
            raise Busy("Not now.")
        self.runs[run] = [wanted, params.max_tokens]
        return 0

    def step(self) -> list[tuple[str, StepResult]]:
        self.n_steps += 1
        self.at_step(self.n_steps)
        results: list[tuple[str, StepResult]] = []
        for run, state in list(self.runs.items()):
            state[1] -= 1
            results.append((run, Token(1, "x", finish=None if state[1] else "length")))
            if not state[1]:
                del self.runs[run]
        return results

    def remove(self, run: str) -> None:
        self.runs.pop(run, None)

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        return [len(text), int(control)]

    def score(self, ids: Sequence[int]) -> Any:
        raise MemoryError

    def detokenize(self, ids: Sequence[int]) -> bytes:
        raise ZeroDivisionError("by zero")


class Stage:
    """A service with its loader, what it is told, and what it said."""

    def __init__(self, loader: Fake) -> None:
        self.loader = loader
        self.inbox: SimpleQueue[Command] = SimpleQueue()
        self.said: list[tuple[str, WorkerEvent]] = []
        self.answers: list[Answer] = []
        self._reader = FrameReader()
        self._outbox = Outbox(self._send)

    def _send(self, piece: bytes) -> None:
        for reply in map(messages.decode_reply, self._reader.feed(piece)):
            if isinstance(reply, Events):
                self.said += [(run, event) for run, events in reply.runs for event in events]
            elif isinstance(reply, Answer):
                self.answers.append(reply)

    def add(self, run: str, n_prompt: int = 1, n_tokens: int = 3, key: str = "") -> None:
        self.inbox.put(Add(run, [0] * n_prompt, GenerationParams(max_tokens=n_tokens), key))

    def play(self, closing_at: int) -> None:
        """Run until that step, in which Close is put."""
        before = self.loader.at_step

        def at_step(n: int) -> None:
            before(n)
            if n == closing_at:
                self.inbox.put(Close())

        self.loader.at_step = at_step
        Service(self.loader, self.inbox, self._outbox).run()  # type: ignore[arg-type]

    def of(self, run: str) -> list[WorkerEvent]:
        return [event for name, event in self.said if name == run]


@pytest.fixture
def quiet(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    return capsys


def test_runs_join_and_leave_between_steps() -> None:
    stage = Stage(Fake())
    stage.add("a", n_tokens=6)
    stage.loader.at_step = lambda n: stage.add("b", n_tokens=2) if n == 2 else None
    stage.play(closing_at=7 - 1)
    assert [type(event) for event in stage.of("a")] == [Admitted] + [Token] * 6
    assert [type(event) for event in stage.of("b")] == [Admitted] + [Token] * 2


def test_more_runs_than_slots_wait_and_are_told_only_when_their_place_changes() -> None:
    stage = Stage(Fake(slots=1))
    for run in "abc":
        stage.add(run)
    stage.play(closing_at=9)
    assert stage.of("b")[:2] == [Waiting(1), Admitted(0)]
    assert stage.of("c")[:3] == [Waiting(2), Waiting(1), Admitted(0)]
    assert [type(event) for event in stage.of("a")] == [Admitted] + [Token] * 3


def test_a_big_run_is_not_starved_by_small_ones_behind_it() -> None:
    stage = Stage(Fake(cells=20))
    stage.add("small", n_prompt=5, n_tokens=5)
    stage.add("big", n_prompt=15, n_tokens=5)
    for n in range(5):
        stage.add(f"later {n}", n_prompt=1, n_tokens=1)
    stage.play(closing_at=30 - 19)
    admitted = [run for run, event in stage.said if isinstance(event, Admitted)]
    assert admitted == ["small", "big", *(f"later {n}" for n in range(5))]


def test_admission_is_not_tried_again_at_every_step() -> None:
    stage = Stage(Fake(cells=20))
    stage.add("small", n_prompt=1, n_tokens=15)
    stage.add("big", n_prompt=15, n_tokens=5)
    stage.play(closing_at=20)
    assert stage.loader.asked == ["small", "big", "big"]


def test_a_run_refused_while_nothing_runs_fails_instead_of_waiting_for_ever() -> None:
    stage = Stage(Fake(cells=4))
    stage.add("never", n_prompt=10)
    stage.add("fits", n_prompt=1)
    stage.play(closing_at=3)
    (failed,) = stage.of("never")
    assert isinstance(failed, RunFailed) and isinstance(failed.error, Busy)
    assert len(stage.of("fits")) == 4


def test_a_run_removed_from_the_queue_makes_room_for_those_behind_it() -> None:
    stage = Stage(Fake(cells=20))
    stage.add("small", n_prompt=1, n_tokens=10)
    stage.add("big", n_prompt=19, n_tokens=1)
    stage.add("next", n_prompt=1, n_tokens=2)
    stage.loader.at_step = lambda n: stage.inbox.put(Remove("big")) if n == 3 else None
    stage.play(closing_at=5)
    assert stage.of("big") == [Waiting(1)]
    assert stage.of("next") == [Waiting(2), Admitted(0), Token(1, "x"), Token(1, "x", finish="length")]


def test_a_cancel_is_obeyed_before_the_next_step() -> None:
    stage = Stage(Fake())
    stage.add("a", n_tokens=100)
    stage.add("b", n_tokens=100)
    stage.loader.at_step = lambda n: stage.inbox.put(Remove("a")) if n == 3 else None
    stage.play(closing_at=6)
    assert "a" not in stage.loader.runs
    assert len(stage.of("b")) == 1 + 6
    assert len(stage.of("a")) <= 1 + 3


def test_removing_what_is_unknown_or_over_is_harmless() -> None:
    stage = Stage(Fake())
    stage.add("a", n_tokens=1)

    def at_step(n: int) -> None:
        if n == 1:
            stage.inbox.put(Remove("a"))
            stage.inbox.put(Remove("ghost"))
            stage.add("b")

    stage.loader.at_step = at_step
    stage.play(closing_at=4)
    assert len(stage.of("b")) == 4


@pytest.mark.parametrize(("key", "kind", "words"), [("bad", BadRequest, "grammar"), ("odd", AppError, "KeyError")])
def test_a_refused_prompt_ends_its_own_run_only(quiet: pytest.CaptureFixture[str], key: str, kind: type, words: str) -> None:
    stage = Stage(Fake())
    stage.add("wrong", key=key)
    stage.add("right")
    stage.play(closing_at=3)
    (failed,) = stage.of("wrong")
    assert isinstance(failed, RunFailed) and type(failed.error) is kind and words in failed.error.message
    assert len(stage.of("right")) == 4


def test_a_failing_step_ends_its_runs_and_the_worker_goes_on(quiet: pytest.CaptureFixture[str]) -> None:
    stage = Stage(Fake())

    def at_step(n: int) -> None:
        if n == 2:
            stage.add("later")
            raise RuntimeError("llama_decode returned 1")

    stage.loader.at_step = at_step
    stage.add("a")
    stage.add("b")
    stage.play(closing_at=5)
    for run in "ab":
        last = stage.of(run)[-1]
        assert isinstance(last, RunFailed) and "RuntimeError: llama_decode returned 1" in last.error.message
    assert len(stage.of("later")) == 4
    assert "Traceback" in quiet.readouterr().err


def test_a_loader_whose_every_step_fails_ends_the_worker(quiet: pytest.CaptureFixture[str]) -> None:
    stage = Stage(Fake())

    def at_step(n: int) -> None:
        stage.add(f"again {n}")
        raise MemoryError

    stage.loader.at_step = at_step
    stage.add("a")
    with pytest.raises(LoaderBroken):
        stage.play(closing_at=100)
    assert stage.loader.n_steps == MAX_FAILED_STEPS
    last = stage.of("a")[-1]
    assert isinstance(last, RunFailed) and isinstance(last.error, OutOfMemory)


def test_calls_are_answered_between_steps_and_their_failures_are_the_askers(quiet: pytest.CaptureFixture[str]) -> None:
    stage = Stage(Fake())
    stage.add("a", n_tokens=4)
    pieces = (("abc", True, True), ("", False, False))
    for call in (Call(1, "tokenize", pieces), Call(2, "score", (), [1]), Call(3, "detokenize", (), [1])):
        stage.inbox.put(call)
    stage.play(closing_at=4)
    by_id = {answer.id: answer for answer in stage.answers}
    assert by_id[1].shape == (2, 2) and by_id[1].error is None
    assert isinstance(by_id[2].error, OutOfMemory)
    assert by_id[3].error is not None and "ZeroDivisionError: by zero" in by_id[3].error.message
    assert len(stage.of("a")) == 5


def test_heavy_questions_take_turns_with_steps(quiet: pytest.CaptureFixture[str]) -> None:
    """Three scores asked at once leave a step between each two, so that nobody's reply stands still for all three."""
    stage = Stage(Fake())
    seen: list[int] = []
    stage.loader.at_step = lambda n: seen.append(len(stage.answers))
    stage.add("a", n_tokens=10)
    for id_ in range(3):
        stage.inbox.put(Call(id_, "score", (), [1]))
    stage.play(closing_at=6)
    assert seen == [0, 1, 2, 3, 3, 3]


def test_prefill_results_pass_through() -> None:
    class Filling(Fake):
        def step(self) -> list[tuple[str, StepResult]]:
            return [("a", Prefilled(1, 1, 0)), *super().step()]

    stage = Stage(Filling())
    stage.add("a", n_tokens=1)
    stage.add("b", n_tokens=1)
    stage.loader.at_step = lambda n: stage.inbox.put(Close())
    stage.play(closing_at=99)
    assert stage.of("a") == [Admitted(0), Prefilled(1, 1, 0), Token(1, "x", finish="length")]
