"""The log of a worker: its standard error, kept in a bounded file, its last lines in memory."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path

MAX_FILE_BYTES = 2**20
TAIL_LINES = 40
MAX_LINE = 500  # characters of a line that the tail keeps
_LINE_END = re.compile(rb"\r\n|\r|\n")


class WorkerLog:
    """Appends to `path`; at one megabyte the file becomes `<path>.1`, in place of the one before. For one thread.

    The file can fail (a full disk, say) without stopping the worker: the tail then says so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._fd: int | None = None
        self._size = 0
        self._open()

    def write(self, piece: bytes) -> None:
        # A progress bar redraws its line after a carriage return: each drawing counts as a line.
        *lines, self._partial = _LINE_END.split(self._partial + piece)
        self._partial = self._partial[:4 * MAX_LINE]
        self._lines.extend(line.decode("utf-8", "replace")[:MAX_LINE] for line in lines[-TAIL_LINES:] if line.strip())
        if self._size + len(piece) > MAX_FILE_BYTES:
            self._start_anew()
        if self._fd is None:
            return
        try:
            os.write(self._fd, piece[-MAX_FILE_BYTES:])
            self._size += len(piece)
        except OSError as error:
            self._failed(error)

    def tail(self) -> str:
        """The last lines, joined."""
        partial = self._partial.decode("utf-8", "replace").strip()[:MAX_LINE]
        return "\n".join([*self._lines, partial] if partial else self._lines)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
            self._size = os.fstat(self._fd).st_size
        except OSError as error:
            self._failed(error)

    def _start_anew(self) -> None:
        self.close()
        try:
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
        except OSError as error:  # on Windows, while another process reads it
            self._failed(error)
            return
        self._open()

    def _failed(self, error: OSError) -> None:
        self.close()
        self._size = 0
        self._lines.append(f"(The log file {self._path} cannot be written: {error.strerror}.)")
