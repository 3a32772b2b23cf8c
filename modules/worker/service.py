"""The worker's loop: commands in, steps of the loader, events out; one thread owns the model."""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from queue import Empty, SimpleQueue

from ..core.errors import AppError, Busy, OutOfMemory
from ..core.loader import Loader, RunFailed, Token
from . import calls
from .frames import Admitted, Waiting
from .messages import Add, Answer, Call, Close, Command, Remove
from .outbox import Outbox

MAX_FAILED_STEPS = 3  # so many in a row without a result: the loader is beyond use


class LoaderBroken(Exception):
    """The loader cannot go on; the process ends, and its parent says so."""


def translated(error: BaseException, doing: str) -> AppError:
    """An AppError as it is; anything else with its class name, its traceback in the log (standard error)."""
    if isinstance(error, AppError):
        return error
    traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, MemoryError):
        return OutOfMemory(f"Memory ran out while {doing}. Close other programs, or load the model with a smaller context.")
    words = str(error)[:500]
    return AppError(f"The loader failed while {doing}: {type(error).__name__}{': ' if words else ''}{words}. "
                    "The model's log has the details; if it happens again, load the model again.")


class Service:
    """Queues, admits and steps runs. Everything happens on the thread that calls `run`; another one fills the inbox.

    Runs are admitted in the order they came: where the first is refused as Busy, those behind it wait too, or small runs would
    starve a big one.
    """

    def __init__(self, loader: Loader, inbox: SimpleQueue[Command], outbox: Outbox) -> None:
        self._loader = loader
        self._inbox = inbox
        self._outbox = outbox
        self._active: set[str] = set()
        self._queue: deque[Add] = deque()
        self._positions: dict[str, int] = {}
        self._heavy: deque[Call] = deque()
        self._has_room = True  # admission is tried again only when something ended
        self._failed_steps = 0

    def run(self) -> None:
        """Serve until Close; raises LoaderBroken where the loader is beyond use."""
        while self._drain():
            self._admit()
            if self._active:
                self._outbox.send_urgent()
                self._step()
            if self._heavy:
                self._answer(self._heavy.popleft())

    def _drain(self) -> bool:
        """Obey every command that has come; wait for one where there is nothing else to do. False after Close."""
        inbox = self._inbox
        if not self._active and not self._heavy and not (self._queue and self._has_room):
            self._outbox.flush()
            if not self._obey(inbox.get()):
                return False
        while not inbox.empty():
            try:
                command = inbox.get_nowait()
            except Empty:
                break
            if not self._obey(command):
                return False
        return True

    def _obey(self, command: Command) -> bool:
        match command:
            case Add():
                self._queue.append(command)
            case Remove(run):
                self._remove(run)
            case Call(method=method):
                if method in calls.HEAVY:
                    self._heavy.append(command)  # one between two steps
                else:
                    self._answer(command)
            case Close():
                self._outbox.flush()
                return False
        return True

    def _remove(self, run: str) -> None:
        if run in self._active:
            self._loader.remove(run)
            self._ended(run)
        else:
            self._queue = deque(add for add in self._queue if add.run != run)
            self._has_room = True  # the one refused may have left the queue
        self._positions.pop(run, None)
        self._outbox.forget(run)

    def _ended(self, run: str) -> None:
        self._active.discard(run)
        self._has_room = True

    def _admit(self) -> None:
        """Hand runs to the loader until it is full, then tell those left where they stand."""
        while self._queue and self._has_room and len(self._active) < self._loader.facts.slots:
            add = self._queue[0]
            try:
                cached = self._loader.add(add.run, add.prompt, add.params, add.cache_key)
            except Busy as error:
                if self._active:
                    self._has_room = False
                    break
                self._queue.popleft()  # nothing runs that could make room
                self._outbox.put(add.run, RunFailed(error))
            except Exception as error:  # noqa: BLE001 - whatever a backend raises is that run's end, not the worker's
                self._queue.popleft()
                self._outbox.put(add.run, RunFailed(translated(error, "taking the prompt")))
            else:
                self._queue.popleft()
                self._active.add(add.run)
                self._outbox.put(add.run, Admitted(cached))
            self._positions.pop(add.run, None)
        for position, add in enumerate(self._queue, 1):
            if self._positions.get(add.run) != position:
                self._positions[add.run] = position
                self._outbox.put(add.run, Waiting(position))

    def _step(self) -> None:
        started = time.monotonic()
        try:
            results = self._loader.step()
        except Exception as error:  # noqa: BLE001 - which runs are touched is not known, so all of them end; the worker goes on
            self._fail_all(error)
            return
        put = self._outbox.put
        for run, result in results:
            put(run, result)
            if isinstance(result, RunFailed) or (isinstance(result, Token) and result.finish is not None):
                self._ended(run)
        if results:
            self._failed_steps = 0
        self._outbox.step_ended(time.monotonic() - started)

    def _fail_all(self, error: Exception) -> None:
        failure = RunFailed(translated(error, "generating"))
        self._failed_steps += 1
        for run in list(self._active):
            try:
                self._loader.remove(run)
            except Exception as second:
                raise LoaderBroken("it failed in a step and then could not let go of a run") from second
            self._outbox.put(run, failure)
            self._ended(run)
        self._outbox.flush()
        if self._failed_steps >= MAX_FAILED_STEPS:
            raise LoaderBroken(f"{self._failed_steps} steps failed, one after the other") from error

    def _answer(self, call: Call) -> None:
        try:
            if call.method in calls.EXCLUSIVE and (self._active or self._queue):
                raise Busy(f"{len(self._active) + len(self._queue)} replies are being written or wait for the model; try again "
                           "when they are done.")
            reply = calls.answer(self._loader, call)
        except Exception as error:  # noqa: BLE001 - the asker gets it; the worker goes on
            reply = Answer(call.id, error=translated(error, f"answering {call.method}"))
        self._outbox.reply(reply)
