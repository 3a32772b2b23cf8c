"""The engine's side of a worker: starts it, hands it runs and questions, passes on what happens, and says why it died."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import AppError, BadRequest, Cancelled, LoadFailed, TooLarge, WorkerDied
from ..core.loader import ModelFacts, RunFailed
from ..core.params import GenerationParams
from . import death, frames
from .child import Child
from .frames import FrameError, WorkerEvent
from .log import WorkerLog
from .messages import Add, Answer, Call, Close, Command, Events, Load, LoadError, Method, Progress, Ready, Remove, Reply

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)
# What happened to a run, and when the newest of it did, in seconds of the worker's monotonic clock (messages.Events).
Sink = Callable[[list[WorkerEvent], float], None]
CLOSE_SECONDS = 5.0  # what a loader may take to free everything
KILL_SECONDS = 10.0  # a process that even a kill does not end hangs in a driver; nobody waits for it longer


class WorkerClient:
    """One loaded model in a process of its own. Every method runs on one event loop; whoever starts it closes it.

    Run ids are not used twice. `on_death`, if set, is called once with the reason when the process ends unasked.
    """

    facts: ModelFacts

    def __init__(self, model: str, log: WorkerLog, on_progress: Callable[[float, str], None]) -> None:
        self.on_death: Callable[[WorkerDied], None] | None = None
        self._model = model
        self._log = log
        self._on_progress = on_progress
        self._child: Child | None = None
        self._sinks: dict[str, Sink] = {}
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._next_call = 0
        self._end: AppError | None = None  # why it serves no more
        self._is_closing = False
        self._ready: asyncio.Future[ModelFacts] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, *, loader: str, path: str, options: dict[str, Any], log_path: Path,
                    on_progress: Callable[[float, str], None]) -> WorkerClient:
        """Spawn a worker and load a model in it; there is no time limit, and a cancel kills the child.

        Raises LoadFailed, OutOfMemory, or WorkerDied with the end of the log.
        """
        log = WorkerLog(log_path)
        client = cls(Path(path).name or loader, log, on_progress)
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {loader} {path}\n".encode())
        try:
            client._child = await _spawn(log, client)
            client._send(Load(loader, _from_anywhere(path), options))
            client.facts = await client._ready
        except BaseException as error:
            client._is_closing = True
            await client._kill()
            if isinstance(error, AppError) and not error.log:
                error.log = log.tail()
            raise
        return client

    @property
    def pid(self) -> int:
        assert self._child is not None, "start() makes the process"
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._end is None and not self._is_closing

    def log_tail(self) -> str:
        """The last lines of the worker's log."""
        return self._log.tail()

    # Runs

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams, cache_key: str, sink: Sink) -> None:
        """Queue a run; what happens comes to `sink`, on the loop and never during this call, until its end or `remove`."""
        assert run not in self._sinks, "a run id is used once"
        self._sinks[run] = sink
        try:
            self._send(Add(run, prompt, params, cache_key))
        except AppError as error:
            failed: list[WorkerEvent] = [RunFailed(error)]
            asyncio.get_running_loop().call_soon(self._deliver, run, failed, time.monotonic())

    def remove(self, run: str) -> None:
        """End a run early; nothing comes to its sink afterwards. Unknown and ended runs are ignored."""
        if self._sinks.pop(run, None) is not None and self._end is None:
            self._send(Remove(run))

    def hold_back(self, run: str, is_behind: bool) -> None:
        """While the run's readers are behind with work on this loop, take no more from the worker, for moments (see Delivery)."""
        if self._child is not None:
            (self._child.delivery.hold if is_behind else self._child.delivery.release)(run)

    # Questions, answered between steps

    async def tokenize(self, pieces: Sequence[tuple[str, bool]], *, joined: bool = False) -> list[list[int]]:
        """Ids of each (text, control) piece; control tokens are recognised only in pieces with control.

        joined: the pieces are parts of one text, so only the first may get the space that SentencePiece puts before a text.
        """
        answer = await self._call("tokenize", tuple((text, control, not joined or place == 0)
                                                    for place, (text, control) in enumerate(pieces)))
        ids = frames.unpack_ids(answer.raw)
        found, start = [], 0
        for length in answer.shape:
            found.append(ids[start:start + length])
            start += length
        return found

    async def detokenize(self, ids: Sequence[int]) -> bytes:
        return (await self._call("detokenize", ids=ids)).raw

    async def score(self, ids: Sequence[int]) -> np.ndarray:
        """(n,) float32 log-probabilities; the first is nan."""
        return _array(await self._call("score", ids=ids))

    async def logits(self, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
        """(stop - start, vocab_size) float32; at most 32 MB a call."""
        return _array(await self._call("logits", (start, stop), ids))

    async def embed(self, ids: Sequence[int]) -> np.ndarray:
        return _array(await self._call("embed", ids=ids))

    async def set_adapters(self, adapters: Sequence[tuple[str, float]]) -> None:
        """Attach exactly these (path, weight) to the model, without loading it again (core.adapters.TakesAdapters).

        Raises Busy while runs are active or wait, BadRequest where one does not fit: then all is as it was.
        """
        await self._call("set_adapters", tuple((_from_anywhere(path), weight) for path, weight in adapters))

    async def close(self) -> None:
        """Unload the model and end the process, by force where it takes longer than five seconds; a second call waits too."""
        if not self._is_closing and self._end is None:
            self._is_closing = True
            self._stop(Cancelled(f"The model {self._model} was unloaded."))
            if self._child is not None:
                self._child.send(Close())
        if self._child is None:
            return
        try:
            await asyncio.wait_for(self._child.ended.wait(), CLOSE_SECONDS)
        except TimeoutError:
            await self._kill()

    def _send(self, command: Command) -> None:
        """Raises why the worker serves no more, BadRequest for ids that are none, TooLarge for more than a frame holds."""
        if self._end is not None:
            raise self._end
        assert self._child is not None, "start() makes the process"
        try:
            self._child.send(command)
        except FrameError as error:
            raise TooLarge(f"This is too much to hand to the model at once: {error}") from error
        except (OverflowError, TypeError) as error:
            raise BadRequest(f"Token ids are whole numbers from 0 to 2147483647; {error}.", param="prompt") from error

    async def _call(self, method: Method, args: tuple[Any, ...] = (), ids: Sequence[int] = ()) -> Answer:
        self._next_call += 1
        call = Call(self._next_call, method, args, ids)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[call.id] = answered
        try:
            self._send(call)
            answer = await answered
        finally:
            self._answers.pop(call.id, None)
        if answer.error is not None:
            raise answer.error
        return answer

    async def _kill(self) -> None:
        """End the process at once and wait until it is reaped."""
        if self._child is None:
            self._log.close()
            return
        self._child.kill()
        try:
            await asyncio.wait_for(self._child.ended.wait(), KILL_SECONDS)
        except TimeoutError:
            _log.error("The process %d of the model %s does not end; it may still hold memory.", self.pid, self._model)

    # What the child says

    def _received(self, reply: Reply) -> None:
        match reply:
            case Events(runs, at):
                for run, events in runs:
                    self._deliver(run, events, at)
            case Answer(id_):
                answered = self._answers.get(id_)
                if answered is not None and not answered.done():
                    answered.set_result(reply)
            case Progress(fraction, what):
                if not self._ready.done():  # else the load was cancelled
                    self._on_progress(fraction, what)
            case Ready(facts):
                if not self._ready.done():
                    self._ready.set_result(facts)
            case LoadError(error):
                if not self._ready.done():
                    self._ready.set_exception(error)

    def _deliver(self, run: str, events: list[WorkerEvent], at: float) -> None:
        sink = self._sinks.get(run)
        if sink is None:
            return  # removed while this was on its way
        last = events[-1]
        if isinstance(last, RunFailed) or getattr(last, "finish", None) is not None:
            del self._sinks[run]
        try:
            sink(events, at)
        except Exception:  # noqa: BLE001 - a reader's fault ends its own run; the other runs' events come by this way too
            _log.exception("The reader of run %s failed; the run is stopped.", run)
            self.remove(run)

    def _exited(self, exit_code: int) -> None:
        """The process is gone: tell everybody who waits, once."""
        is_loading = not self._ready.done()
        words = death.sentence(self._model, exit_code, is_loading=is_loading)
        if self._child is not None and self._child.nonsense:
            words = f"The process of the model {self._model} was ended because it sent nonsense: {self._child.nonsense}"
        error = WorkerDied(words, log=self._log.tail())
        self._log.close()
        if self._is_closing or self._end is not None:
            return
        if is_loading:
            self._ready.set_exception(error)
        self._stop(error)
        if self.on_death is not None and not is_loading:
            self.on_death(error)

    def _stop(self, error: AppError) -> None:
        """Serve no more: every live run and open question ends with the error."""
        self._end = error
        for answered in self._answers.values():
            if not answered.done():
                answered.set_exception(error)
        for run in list(self._sinks):
            self._deliver(run, [RunFailed(error)], time.monotonic())


async def _spawn(log: WorkerLog, client: WorkerClient) -> Child:
    try:
        return await Child.start(log, client._received, client._exited)
    except OSError as error:
        raise LoadFailed(f"The model's process could not be started: {error}. Close other programs and try again.") from error


def _from_anywhere(path: str) -> str:
    """The child runs in the project's folder: a path that exists here is made absolute."""
    return os.path.abspath(path) if path and os.path.exists(path) else path


def _array(answer: Answer) -> np.ndarray:
    import numpy as np

    return np.frombuffer(answer.raw, np.float32).reshape(answer.shape)
