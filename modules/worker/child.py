"""A worker's process as its parent's event loop sees it: starts it, reads its frames and its log, notices its end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from . import messages
from .delivery import Delivery
from .frames import Frame, FrameError, FrameReader
from .log import WorkerLog
from .messages import Command, Reply

ROOT = Path(__file__).resolve().parents[2]
LAST_WORDS_SECONDS = 0.5  # after the exit, for pipes that a grandchild keeps open
KILL_AFTER_SECONDS = 2.0  # after the child closed its replies, for it can say nothing more
SECRETS = ("COLLOQUY_API_KEY", "COLLOQUY_HUB_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Child(asyncio.SubprocessProtocol):
    """One child process. Every method runs on the event loop.

    `on_reply` gets each reply in order, a few in each turn of the loop (see Delivery); `on_exit` is called once, after the last
    reply, with the exit code. `ended` is set with it; the process is then reaped.
    """

    def __init__(self, log: WorkerLog, on_reply: Callable[[Reply], None], on_exit: Callable[[int], None]) -> None:
        self.ended = asyncio.Event()
        self.nonsense = ""
        self._log = log
        self._on_reply = on_reply
        self._on_exit = on_exit
        self._reader = FrameReader()
        self._exit_code: int | None = None
        self._open_pipes = {1, 2}
        self._transport: asyncio.SubprocessTransport | None = None
        self._commands: asyncio.WriteTransport | None = None
        self.delivery = Delivery(self._deliver, self._set_reading, self._finish_if_quiet)

    @classmethod
    async def start(cls, log: WorkerLog, on_reply: Callable[[Reply], None], on_exit: Callable[[int], None]) -> Child:
        """Spawn it. A cancel while spawning leaves no process behind."""
        child = cls(log, on_reply, on_exit)
        loop = asyncio.get_running_loop()
        await loop.subprocess_exec(
            lambda: child, sys.executable, "-m", "modules.worker.main", str(os.getpid()), cwd=ROOT, env=environment())
        return child

    @property
    def pid(self) -> int:
        assert self._transport is not None, "the process is started before anybody asks"
        return self._transport.get_pid()

    def send(self, command: Command) -> None:
        """Written in order, never blocking; after the process's end it goes nowhere. Raises FrameError where it is too large."""
        piece = messages.encode(command)
        if self._commands is not None and self._exit_code is None and not self._commands.is_closing():
            self._commands.write(piece)

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        if self._transport is not None and self._exit_code is None:
            try:
                self._transport.kill()
            except ProcessLookupError:
                return  # it ended by itself just now

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport), "asyncio hands a subprocess's protocol its own transport"
        self._transport = transport
        commands = transport.get_pipe_transport(0)
        assert isinstance(commands, asyncio.WriteTransport), "standard input is a pipe"
        self._commands = commands

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._log.write(data)
            return
        if self.nonsense:
            return
        try:
            frames = self._reader.feed(data)
        except FrameError as error:
            self._refuse(error)
        else:
            self.delivery.put(frames)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1 and self._exit_code is None:
            asyncio.get_running_loop().call_later(KILL_AFTER_SECONDS, self.kill)
        self._open_pipes.discard(fd)
        self._finish_if_quiet()

    def process_exited(self) -> None:
        assert self._transport is not None, "a process that ends was started"
        self._exit_code = self._transport.get_returncode() or 0
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._leave_pipes)
        self.delivery.hurry()
        self._finish_if_quiet()

    # What happens with it

    def _deliver(self, frame: Frame) -> None:
        if self.nonsense:
            return
        try:
            reply = messages.decode_reply(frame)
        except FrameError as error:
            self._refuse(error)
        else:
            self._on_reply(reply)

    def _refuse(self, error: FrameError) -> None:
        self.nonsense = str(error)
        self.kill()

    def _set_reading(self, is_wanted: bool) -> None:
        assert self._transport is not None, "what is read comes from a process"
        replies = self._transport.get_pipe_transport(1)
        assert isinstance(replies, asyncio.ReadTransport), "standard output is a pipe"
        if is_wanted:
            replies.resume_reading()
        else:
            replies.pause_reading()

    def _leave_pipes(self) -> None:
        self._open_pipes.clear()
        self._finish_if_quiet()

    def _finish_if_quiet(self) -> None:
        if self._exit_code is not None and not self._open_pipes and self.delivery.is_idle:
            self._finish()

    def _finish(self) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        if self._transport is not None:
            self._transport.close()
        assert self._exit_code is not None, "only an exit finishes"
        self._on_exit(self._exit_code)


def environment() -> dict[str, str]:
    """The parent's, without the app's own secrets, with the project's root first on the path."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
