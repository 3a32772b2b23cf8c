"""Runs a program and shows what it is doing in one line, with the seconds; all it prints goes to a log."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

LOG_LINE_SECONDS = 15.0  # between lines where the output is a file or a CI's log
LINE_WIDTH = 100


def summary(line: str, before: str) -> str:
    """What a line of pip's or the compiler's says in a few words, or `before` where it says nothing new."""
    line = line.strip()
    compiled = re.search(r"\[\s*(\d+)/(\d+)\]", line)
    if compiled:
        return f"compiling {compiled[1]} of {compiled[2]}"
    downloaded = re.fullmatch(r"Progress (\d+) of (\d+)", line)
    if downloaded and int(downloaded[2]):
        return f"{before.partition(':')[0]}: {100 * int(downloaded[1]) // int(downloaded[2])} %"
    for pattern, words in _PATTERNS:
        found = re.match(pattern, line)
        if found:
            return words.format(*found.groups())
    collected = re.match(r"Installing collected packages: (.*)", line)
    return f"installing {collected[1].count(',') + 1} packages" if collected else before


_PATTERNS = (
    (r"Collecting ([^\s(]+)", "looking for {0}"),
    (r"(?:Downloading|Using cached) (?:\S*/)?([^\s/-]+)-\S+ \((.*?)\)", "downloading {0} ({1})"),
    (r"Building wheel for (\S+)", "building {0}"),
    (r"Installing build dependencies", "installing build tools"),
    (r"Successfully installed", "installed"),
)


def run_visibly(command: Sequence[str], *, title: str, log: Path, env: Mapping[str, str] | None = None,
                out: TextIO | None = None) -> int:
    """Run to the end and return the exit status; the log is written anew. Ctrl-C ends the program and is then raised."""
    out = out or sys.stdout
    started, told, doing = time.monotonic(), 0.0, title
    is_terminal = out.isatty()
    lines: queue.Queue[str | None] = queue.Queue()
    with log.open("w", encoding="utf-8") as file, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, text=True,
            encoding="utf-8", errors="replace", start_new_session=sys.platform != "win32") as process:
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        try:
            while (line := _next(lines)) is not None:
                file.write(line)
                doing = summary(line, doing)
                seconds = time.monotonic() - started
                if is_terminal:
                    out.write(f"\r\x1b[K{_shown(title, doing, seconds)}")
                elif seconds - told >= LOG_LINE_SECONDS:
                    out.write(_shown(title, doing, seconds) + "\n")
                    told = seconds
                out.flush()
        except KeyboardInterrupt:
            _end(process)
            raise
        finally:
            status = process.wait()
            ending = "done" if status == 0 else f"failed with status {status}"
            out.write(("\r\x1b[K" if is_terminal else "") + _shown(title, ending, time.monotonic() - started) + "\n")
            out.flush()
    return status


def tail(log: Path, n_lines: int = 30) -> str:
    """The last lines of a log, or nothing where there is none."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-n_lines:]) if log.is_file() else ""


def _end(process: subprocess.Popen[str]) -> None:
    """End the program and what it started: pip's compilers would go on for minutes without it."""
    if sys.platform == "win32":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGTERM)


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None, "it was opened with a pipe"
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _next(lines: queue.Queue[str | None]) -> str | None:
    """The next line; empty after a second without one, so that the seconds go on."""
    try:
        return lines.get(timeout=1)
    except queue.Empty:
        return ""


def _shown(title: str, doing: str, seconds: float) -> str:
    text = title if doing == title else f"{title}: {doing}"
    return f"[{seconds:4.0f} s] {text[:LINE_WIDTH]}"
