"""One instance a data folder, by a lock that the system frees when its holder dies, and the port this instance listens on."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import IO

from .core.errors import BadRequest, Conflict

LOCK_FILE = "instance.lock"
STATE_FILE = "instance.json"
MAX_STATE_BYTES = 4096
PORTS_TRIED = 100


class AlreadyRunning(Conflict):
    """Another process holds the data folder; `url` is its page, or empty while it has not said one."""

    code = "already_running"

    def __init__(self, data_dir: Path, url: str) -> None:
        where = f"and its page is {url}" if url else "and is still starting"
        super().__init__(f"Colloquy already runs with the data folder {data_dir} {where}. "
                         "Use that one, stop it, or start this one with another --data-dir.", param="data_dir")
        self.url = url


class Instance:
    """Holds the data folder for this process from `hold` until `close`; the holder's death frees it at once.

    The lock is the system's on an open file, never a process number, which another process may bear after a restart.
    Worker processes do not inherit it, because Python opens files close-on-exec. Only the thread that made it calls it.
    """

    def __init__(self, data_dir: Path, lock: IO[bytes]) -> None:
        self._state = data_dir / STATE_FILE
        self._lock = lock

    @classmethod
    def hold(cls, data_dir: Path, *, wait_seconds: float = 0.0) -> Instance:
        """Take the data folder, which exists; raises AlreadyRunning with the other's URL.

        `wait_seconds` is how long to wait for an instance that is still starting to say its URL.
        """
        lock = (data_dir / LOCK_FILE).open("ab")
        deadline = time.monotonic() + wait_seconds
        while not try_lock(lock):
            url = _read_url(data_dir / STATE_FILE)
            if url or time.monotonic() >= deadline:
                lock.close()
                raise AlreadyRunning(data_dir, url)
            time.sleep(0.05)
        # What a killed instance left would send the next start to a page that is gone.
        (data_dir / STATE_FILE).unlink(missing_ok=True)
        return cls(data_dir, lock)

    def announce(self, url: str) -> None:
        """Say where this instance's page is, for a second start to open; `url` bears no key."""
        beside = self._state.with_suffix(".json.new")
        beside.write_text(json.dumps({"url": url, "pid": os.getpid(), "started": time.time()}), encoding="utf-8")
        os.replace(beside, self._state)

    def close(self) -> None:
        """Give the data folder back; twice is harmless."""
        if not self._lock.closed:
            self._state.unlink(missing_ok=True)
            self._lock.close()


def try_lock(file: IO[bytes]) -> bool:
    """Whether this process now holds the file; the two systems' calls say 'taken' with different errors."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)  # the call locks from the current position
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise Conflict(f"The data folder's lock {file.name} cannot be taken: {error}. "
                       "Choose a --data-dir on a disk that supports file locks.", param="data_dir") from error
    return True


def _read_url(path: Path) -> str:
    """The URL that the running instance announced, or empty when it has not yet (or another program wrote the file)."""
    try:
        with path.open("rb") as file:
            state = json.loads(file.read(MAX_STATE_BYTES))
        url = state["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else ""


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket for the server to listen on; port 0 takes any. The caller closes it.

    Raises Conflict naming the next free port when `port` is taken, BadRequest when the address is not this machine's
    or the port is not allowed. Binding here, and not only looking, leaves no moment for another process to take it.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE or getattr(error, "winerror", 0) == 10048:
            free = _next_free_port(host, port)
            advice = f"port {free} is free: start with --port {free}" if free else "start with another --port"
            raise Conflict(f"Port {port} on {host} is taken by another program; {advice}.", param="port") from error
        if isinstance(error, PermissionError):
            raise BadRequest(f"Port {port} on {host} is not allowed ({error.strerror}); choose one from 1024 up.",
                             param="port") from error
        raise BadRequest(f"Cannot listen on {host}, port {port}: {error}. Give an address of this machine with --host.",
                         param="host") from error


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    made = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Ports of connections that linger after a restart; a listening program still refuses us.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        # Two sockets may be bound with SO_REUSEADDR as long as neither listens; listening makes the port ours.
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _next_free_port(host: str, taken: int) -> int:
    """The first port above `taken` that can be listened on, or 0 where none of the next ones can."""
    for port in range(taken + 1, min(taken + 1 + PORTS_TRIED, 65536)):
        try:
            _bind(host, port).close()
        except OSError:
            continue
        return port
    return 0
