"""Has a child process make one model from another, and puts the result in its place when it is whole."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..core.errors import AppError, Cancelled, Conflict, LoadFailed, WorkerDied
from ..core.loader import ModelFile
from ..store.headers import read_model
from .make_child import RESULT
from .targets import Target, amounts, forecast_bytes, missing, refusal, scratch_bytes

ROOT = Path(__file__).resolve().parents[2]
WORK = ".converting"           # in the model folder that the result goes to, so that both are on one disk
SPARE_BYTES = 200 << 20        # stay free on the disk
LOG_LINES = 200
MAX_LINE = 64 << 10

Told = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Order:
    """What to make: `target` of `source` at `path`, which a GGUF file's name ends in .gguf. size and scratch: forecasts in bytes.

    root: where the work lies meanwhile. replace: a file that is there goes.
    """

    source: ModelFile
    target: Target
    path: Path
    root: Path
    size: int
    scratch: int
    replace: bool = False

    @property
    def title(self) -> str:
        return f"{self.source.name} → {self.target.name}"


def order(source: ModelFile, target: Target, path: Path, root: Path, *, replace: bool = False) -> Order:
    """Check everything that can be known before. Reads headers: for a thread. Raises AppError with the reason."""
    problem = refusal(source, target) or missing(target)
    if problem:
        raise LoadFailed(problem)
    found = amounts(source)
    return Order(source, target, path, root, forecast_bytes(found, target), scratch_bytes(source, found, target), replace)


def check_room(order: Order, taken: int = 0) -> None:
    """Raises Conflict where something has the name, AppError where the disk is too full. taken: bytes that others will need."""
    path = order.path
    if path.exists() and not (order.replace and path.is_file() and not path.samefile(order.source.path)):
        raise Conflict(f"There is a {path.name} already; choose another name, or rename or delete it first.", param="path")
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        raise AppError(f"{path.parent} cannot be used ({error.strerror}); look at the folder.") from error
    needed = order.size + order.scratch
    if needed + taken + SPARE_BYTES > free:
        beside = f", {order.scratch / 1e9:.1f} GB of them only meanwhile" if order.scratch else ""
        others = f", and {taken / 1e9:.1f} GB for others under way" if taken else ""
        raise AppError(f"The disk of {path.parent} has {free / 1e9:.1f} GB free; about {needed / 1e9:.1f} GB are needed{beside}"
                       f"{others}. Free some space, or choose a smaller type.")


@dataclass
class Making:
    """One order being worked on. `run` blocks, for a thread; `cancel` may come from any thread. log: the child's last lines."""

    order: Order
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    _process: subprocess.Popen[bytes] | None = None
    _cancelled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cancel(self) -> None:
        """End the child; `run` then cleans up and raises Cancelled."""
        with self._lock:
            self._cancelled = True
            if self._process is not None and self._process.poll() is None:
                self._process.kill()

    def run(self, told: Told) -> None:
        """Make it. told gets what, done, total, unit as the child tells them. Raises AppError; nothing is left but the result."""
        work = self.order.root / WORK / secrets.token_hex(6)
        try:
            work.mkdir(parents=True)
            (work / "pid").write_text(str(os.getpid()))
        except OSError as error:
            raise AppError(f"{work} cannot be made ({error.strerror}); look at the folder's permissions.") from error
        try:
            self._work(work, told)
            told({"what": "Checking the result"})
            self._put(work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if not any(work.parent.iterdir()):
                work.parent.rmdir()

    def _work(self, work: Path, told: Told) -> None:
        command = [sys.executable, "-m", "modules.models.make_child", self.order.source.path, self.order.target.name, str(work)]
        with self._lock:
            if self._cancelled:
                raise Cancelled("Cancelled.")
            self._process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=subprocess.PIPE)
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        reader = threading.Thread(target=self._read_log, args=(process.stderr,), daemon=True)
        reader.start()
        error, is_done = "", False
        try:
            while line := process.stdout.readline(MAX_LINE):
                values = _read_line(line)
                if "log" in values:
                    self.log.append(str(values["log"]).rstrip())
                error = str(values.get("error", error))
                is_done = is_done or "done_all" in values
                if "what" in values:
                    told(values)
        finally:
            with self._lock:
                if process.poll() is None and not is_done and not error:
                    process.kill()
            code = process.wait()
            reader.join(5)
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()
        if self._cancelled:
            raise Cancelled("Cancelled.")
        if error:
            raise LoadFailed(error, log="\n".join(self.log))
        if not is_done:
            last = " ".join(list(self.log)[-3:])[-500:] or "none"
            raise WorkerDied(f"The process that converted ended by itself (code {code}); memory may have run out, or the model "
                             f"is broken. Its last words: {last}", log="\n".join(self.log))

    def _put(self, work: Path) -> None:
        """Under its name, once it is whole and on the disk."""
        made = work / (RESULT if self.order.target.via != "gguf" else f"{RESULT}.gguf")
        problem = read_model(made).problem
        if problem:
            raise LoadFailed(f"What was made cannot be loaded, so it was not kept: {problem}", log="\n".join(self.log))
        for path in [made] if made.is_file() else [entry for entry in made.rglob("*") if entry.is_file()]:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        with self._lock:
            if self._cancelled:
                raise Cancelled("Cancelled.")
            if self.order.path.exists() and not self.order.replace:
                raise Conflict(f"There is a {self.order.path.name} by now; rename it and convert again.")
            os.replace(made, self.order.path)

    def _read_log(self, pipe: IO[bytes]) -> None:
        while line := pipe.readline(MAX_LINE):
            # Progress bars rewrite their line: the last state counts.
            text = line.decode("utf-8", "replace").rstrip().rpartition("\r")[2]
            if text:
                self.log.append(text[:500])


def clear(folder: Path) -> None:
    """Remove what conversions left in `folder` that were killed together with their process. For a thread."""
    import psutil

    for work in (folder / WORK).glob("*/"):
        try:
            pid = int((work / "pid").read_text()[:20])
        except (OSError, ValueError):
            pid = 0
        if pid <= 0 or not psutil.pid_exists(pid) or pid == os.getpid():
            shutil.rmtree(work, ignore_errors=True)
    try:
        (folder / WORK).rmdir()
    except OSError:
        return  # not there, or another process works in it


def _read_line(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        return {"log": line.decode("utf-8", "replace")[:500]}
    return values if isinstance(values, dict) else {}


def _environment() -> dict[str, str]:
    """This process's, without keys and tokens, with the project's root first on the path; nothing is fetched from anywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith(("_TOKEN", "_KEY", "_SECRET"))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}
