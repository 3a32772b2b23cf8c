"""The worker process: loads one model with one loader and serves it over a private pipe until its parent closes or dies.

Run as `python -m modules.worker.main PARENT_PID`, commands on standard input, replies on standard output, the log on standard
error. It never imports gradio, fastapi or sqlalchemy.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue

from .. import registry
from ..core.errors import AppError, BadRequest, LoadFailed
from ..core.knobs import parse_values
from ..core.loader import WEIGHTS_FROM, Loader, ModelFacts
from . import memory_use, messages
from .frames import FrameError, FrameReader
from .messages import Close, Command, Load, LoadError, Progress, Ready
from .outbox import Outbox
from .service import LoaderBroken, Service, translated

READ_BYTES = 2**20
SECONDS_BETWEEN_PROGRESS = 0.1
BROKEN_EXIT = 70


def main(parent: int) -> int:
    """Serve until the parent closes; returns the exit code."""
    commands_fd, replies_fd = _take_descriptors()
    _die_with_parent(parent)
    _be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole terminal group; the parent decides what ends
    inbox: SimpleQueue[Command] = SimpleQueue()
    serving = threading.Event()
    threading.Thread(target=_read, args=(commands_fd, inbox, serving), name="commands", daemon=True).start()

    def send(piece: bytes) -> None:
        _write_all(replies_fd, piece)

    command = inbox.get()
    if not isinstance(command, Load):
        raise FrameError(f"The first command must be a load; got {command!r}.")
    try:
        loader, facts = _load(command, lambda fraction, what: send(messages.encode(Progress(fraction, what))))
        ready = messages.encode(Ready(facts))
    except Exception as error:  # noqa: BLE001 - the parent tells the person
        send(messages.encode(LoadError(_load_error(error))))
        return 0
    send(ready)
    serving.set()
    try:
        Service(loader, inbox, Outbox(send)).run()
    except LoaderBroken as error:
        translated(error, "generating")
        print(f"The loader is beyond use: {error}.", file=sys.stderr, flush=True)
        return BROKEN_EXIT
    loader.close()
    return 0


def _take_descriptors() -> tuple[int, int]:
    """Private copies of standard input and output; what libraries print then goes to the log, what they read is empty."""
    commands_fd, replies_fd = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(commands_fd, os.O_BINARY)
        msvcrt.setmode(replies_fd, os.O_BINARY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands_fd, replies_fd


def _die_with_parent(parent: int) -> None:
    """On Linux the kernel kills this process when its parent ends, even while native code holds the interpreter's lock."""
    if sys.platform != "linux":
        return  # the reading thread sees the end of the pipe
    import ctypes

    pr_set_pdeathsig = 1
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0) != 0:
        print(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
    if os.getppid() != parent:
        os._exit(0)  # it ended before the call


def _be_killed_first() -> None:
    """On Linux the model goes before the app when memory runs out: the app can say what happened, and load again."""
    if sys.platform != "linux":
        return
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError as error:
        print(f"oom_score_adj could not be raised: {error}", file=sys.stderr)


def _read(fd: int, inbox: SimpleQueue[Command], serving: threading.Event) -> None:
    """Thread: frames from the parent into the inbox; the parent's end is this process's, also in a load or a long step."""
    reader = FrameReader()
    while True:
        try:
            piece = os.read(fd, READ_BYTES)
            commands = [messages.decode_command(frame) for frame in reader.feed(piece)]
        except (OSError, FrameError) as error:
            print(f"The parent's commands cannot be read: {error}", file=sys.stderr, flush=True)
            os._exit(BROKEN_EXIT)
        if not piece:
            os._exit(0)
        for command in commands:
            if isinstance(command, Close) and not serving.is_set():
                os._exit(0)  # nobody waits for this load any more
            inbox.put(command)


def _write_all(fd: int, piece: bytes) -> None:
    """Blocks while the pipe is full: a parent that does not read slows the model down, not the machine's memory."""
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(fd, view):]
    except BrokenPipeError:
        os._exit(0)


def _load(command: Load, send_progress: Callable[[float, str], None]) -> tuple[Loader, ModelFacts]:
    """The loaded model and what it says of itself; raises LoadFailed naming an option the loader does not have."""
    spec = registry.find(command.loader)
    if spec is None:
        raise LoadFailed(f"There is no loader called {command.loader!r} that works; see the log.", param="loader")
    parsed, unknown = parse_values(spec.options, command.options)
    if unknown:
        raise LoadFailed(f"The loader {spec.name} has no option {', '.join(unknown)}; it has: "
                         f"{', '.join(spec.options) or 'none'}.", param="options")
    defaults = {name: knob.default for name, knob in spec.options.items()}
    tell, base_bytes = _seldom(send_progress), 0

    def progress(fraction: float, what: str) -> None:
        nonlocal base_bytes
        if fraction >= WEIGHTS_FROM and not base_bytes:  # the libraries have started, and no weight is read
            base_bytes = memory_use.bytes_of(os.getpid())
        tell(fraction, what)

    loader = spec.load(command.path, {**defaults, **parsed}, progress)
    memory_use.give_back()
    return loader, replace(loader.facts, base_bytes=base_bytes)


def _seldom(send: Callable[[float, str], None]) -> Callable[[float, str], None]:
    """Sends progress ten times a second; a new stage and the end at once. Numbers in the words do not make a new stage."""
    sent_at = 0.0
    stage = ""

    def progress(fraction: float, what: str) -> None:
        nonlocal sent_at, stage
        now, now_stage = time.monotonic(), f"{fraction >= 1} {re.sub(r'[0-9]+', '', what)}"
        if now - sent_at >= SECONDS_BETWEEN_PROGRESS or now_stage != stage:
            sent_at, stage = now, now_stage
            send(fraction, what)

    return progress


def _load_error(error: Exception) -> AppError:
    """LoadFailed and OutOfMemory as they are; a bad option's value and the unforeseen become LoadFailed."""
    if isinstance(error, BadRequest):
        return LoadFailed(error.message, param=error.param)
    if isinstance(error, AppError):
        return error
    known = translated(error, "loading the model")
    return known if type(known) is not AppError else LoadFailed(known.message)


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # the model is closed; a backend's own threads and exit handlers could only hang or crash now
