"""Replies in flight, on disk: an append-only file per run, at most a quarter of a second behind, read back after a crash.

A file is JSON lines: `{"run", "header"}` first, then `{"c": channel, "t": text, "i": [token ids]}`; ASCII only, so that a
line torn anywhere is a line that does not parse and never a wrong character. Written to the system every INTERVAL, not synced
to the disk: a killed process loses at most the last INTERVAL, a power cut somewhat more.

The header is the caller's, with these keys understood by recovery: `instance` (the process), and either `conversation` and
`node`, or `document`, `base` (the version written on) and `owner`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..core.errors import AppError, Conflict
from ..core.events import Channel
from .files import private_folder, read_bounded, safe_path, set_aside

INTERVAL = 0.1          # seconds; with a slow disk's write this stays below 250 ms
MAX_FILE = 64 << 20
MAX_FILES = 10_000
SUFFIX = ".journal"
UNREADABLE = "unreadable"
CHANNELS = ("text", "reasoning", "tool")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JournalEntry:
    """What a journal file holds. channels: text by channel, "" where there was none. header is {} where it was unreadable.

    damaged: some lines could not be read; the text of the others is there, in order, and ids is then ().
    """

    run: str
    header: dict[str, Any]
    channels: dict[Channel, str]
    ids: tuple[int, ...]
    damaged: bool
    path: Path


class JournalWriter:
    """One run's file. One thread appends; the journal's own thread writes. Close it when the run's text is saved."""

    def __init__(self, path: Path, run: str, closed: Callable[[JournalWriter], None]) -> None:
        self.path = path
        self.run = run
        self.error = ""          # why the last write failed, as half a sentence; the text is written when the disk allows
        self._pending: deque[tuple[Channel, str, tuple[int, ...]]] = deque()
        self._unwritten = b""
        self._lock = threading.Lock()
        self._closed = closed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o600)

    def append(self, text: str, channel: Channel = "text", ids: Sequence[int] = ()) -> None:
        """Take new text, and the tokens that became visible with it. Returns at once and never raises; see `error`."""
        self._pending.append((channel, text, tuple(ids)))

    def flush(self) -> None:
        """Hand everything appended so far to the system; on failure `error` says why and the next flush tries again."""
        with self._lock:
            self._write()

    def close(self, *, delete: bool = False) -> None:
        """Write the rest and close; delete=True removes the file: the text is saved elsewhere. A second call does nothing."""
        with self._lock:
            if self._descriptor < 0:
                return
            if not delete:
                self._write()
            os.close(self._descriptor)
            self._descriptor = -1
        self._closed(self)
        if delete:
            self.path.unlink(missing_ok=True)

    def begin(self, header: Mapping[str, Any]) -> None:
        """Write the first line; the journal calls it once, before anybody appends."""
        with self._lock:
            self._unwritten = _line({"run": self.run, "header": dict(header)})
            self._write()

    def _write(self) -> None:
        if self._descriptor < 0:
            return
        taken = [self._pending.popleft() for _ in range(len(self._pending))]
        self._unwritten += b"".join(
            _line({"c": channel, "t": "".join(text for _, text, _ in group), "i": [i for _, _, ids in group for i in ids]})
            for channel, group in ((channel, list(pieces)) for channel, pieces in groupby(taken, key=lambda piece: piece[0])))
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._descriptor, self._unwritten):]
            self.error = ""
        except OSError as error:
            if not self.error:
                logger.error("The reply in flight cannot be written to %s: %s", self.path, error)
            self.error = f"the journal cannot be written ({error.strerror}); free some disk space."


class Journal:
    """All journals of a data folder. One thread, started with the first run, writes for all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)
        self._writers: dict[str, JournalWriter] = {}
        self._state = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, run: str, header: Mapping[str, Any]) -> JournalWriter:
        """A new journal for the run, its header handed to the system. Raises Conflict where the run has one."""
        path = safe_path(self.folder, run, SUFFIX)
        try:
            writer = JournalWriter(path, run, self._forget)
        except FileExistsError as error:
            raise Conflict(f"Run {run} is already being written to {path}.") from error
        except OSError as error:
            raise AppError(f"{path} cannot be written ({error.strerror}); free some disk space, then try again.") from error
        writer.begin(header)
        with self._state:
            self._writers[run] = writer
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush_often, name="journal", daemon=True)
                self._thread.start()
            self._state.notify()
        return writer

    def _forget(self, writer: JournalWriter) -> None:
        with self._state:
            self._writers.pop(writer.run, None)

    def _flush_often(self) -> None:
        while not self._closing.is_set():
            with self._state:
                self._state.wait_for(lambda: bool(self._writers) or self._closing.is_set())
            self.flush()
            self._closing.wait(INTERVAL)

    def flush(self) -> None:
        """Hand everything appended so far, by all runs, to the system."""
        with self._state:
            writers = list(self._writers.values())
        for writer in writers:
            writer.flush()

    def close(self) -> None:
        """Write what is left and end the thread; the files stay for the next start. A second call does nothing."""
        self._closing.set()
        with self._state:
            self._state.notify_all()
            writers = list(self._writers.values())
        for writer in writers:
            writer.close()
        if self._thread:
            self._thread.join()

    def recover(self) -> list[JournalEntry]:
        """What the files hold that nobody here is writing, oldest first. One that cannot be read never hides the others."""
        with self._state:
            live = set(self._writers)
        return [entry for path in self._files() if path.stem not in live and (entry := _read(path))]

    def _files(self) -> list[Path]:
        paths = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda path: (path.lstat().st_mtime, path.name))
        if len(paths) > MAX_FILES:
            logger.warning("%s holds %d journals; only the oldest %d are read.", self.folder, len(paths), MAX_FILES)
        return paths[:MAX_FILES]

    def set_aside(self, entry: JournalEntry) -> None:
        """Keep a file that belongs to nothing known, where recovery does not meet it again."""
        logger.warning("%s belongs to no chat or document; it is kept in %s.", entry.path, self.folder / UNREADABLE)
        set_aside(entry.path, self.folder / UNREADABLE)

    def discard(self, *, runs: Iterable[str] = (), conversations: Iterable[str] = (), documents: Iterable[str] = ()) -> None:
        """Delete the journals of what was purged, live ones too, and all that were set aside, whose owner is unknown."""
        gone = {"conversation": set(conversations), "document": set(documents)}
        names = set(runs)
        for path in self._files():
            entry = _read(path)
            if path.stem in names or (entry and any(entry.header.get(key) in ids for key, ids in gone.items())):
                with self._state:
                    writer = self._writers.get(path.stem)
                if writer:
                    writer.close(delete=True)
                path.unlink(missing_ok=True)
        for path in (self.folder / UNREADABLE).glob("*"):
            path.unlink()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _read(path: Path) -> JournalEntry | None:
    """The entry in a file, or None (said in the log) where the system cannot read it."""
    try:
        lines = read_bounded(path, MAX_FILE).split(b"\n")
    except AppError as error:
        logger.warning("A journal was not read: %s", error.message)
        return None
    torn = lines.pop()                    # "" after a whole last line
    first = _parse(lines[0]) if lines else None
    header = first.get("header") if first and first.get("run") == path.stem else None
    channels: dict[Channel, list[str]] = {"text": [], "reasoning": [], "tool": []}
    ids: list[int] = []
    damaged = not isinstance(header, dict)
    for line in lines[1:] if first else lines:
        piece = _parse(line)
        if piece is None or not _is_piece(piece):
            damaged = True
            continue
        channels[piece["c"]].append(piece["t"])
        ids += piece["i"]
    if torn and damaged is False:
        logger.info("%s ends in the middle of a line, which was left out.", path)
    return JournalEntry(path.stem, header if isinstance(header, dict) else {},
                        {channel: "".join(texts) for channel, texts in channels.items()}, () if damaged else tuple(ids), damaged,
                        path)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_piece(value: dict[str, Any]) -> bool:
    ids = value.get("i")
    return (value.get("c") in CHANNELS and isinstance(value.get("t"), str) and isinstance(ids, list)
            and all(type(i) is int and 0 <= i < 1 << 32 for i in ids))
