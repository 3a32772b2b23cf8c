"""Files that are whole or not there: atomic writes, reads bounded before they happen, and names that stay in their folder."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import unicodedata
from pathlib import Path

from ..core.errors import AppError, BadRequest, NotFound, TooLarge

MAX_NAME = 120
_FORBIDDEN = re.compile(r'[/\\:*?"<>|]')
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$",
            *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")}


def private_folder(path: Path) -> Path:
    """Make the folder, with those above it, and leave it to its owner alone (0700)."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise AppError(f"The folder {path} cannot be used ({error.strerror}); give another --data-dir.") from error
    return path


def safe_path(folder: Path, name: str, suffix: str) -> Path:
    """The path of the file that a person or request calls `name`: `folder`/name + suffix, and never anywhere else.

    Every name from outside becomes a path here and only here. Raises BadRequest for what would leave the folder (separators,
    `..`, drive letters, NUL, a symlink out) and for what some system cannot store (reserved names, `:`, a final dot).
    The file need not exist; `suffix` is the caller's own.
    """
    given = unicodedata.normalize("NFC", name)
    reason = refusal(given, suffix)
    if reason:
        shown = given if len(given) <= 40 else given[:40] + "…"
        raise BadRequest(f"{shown!r} cannot be a name: {reason}. Use letters, digits, spaces, - and _.", param="name")
    path = folder / (given + suffix)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadRequest(f"{path.name} is a link that leads out of {folder}; replace it by the file itself.", param="name")
    return path


def refusal(name: str, suffix: str = "") -> str:
    """Why `name` + `suffix` cannot be a file name everywhere, or ""."""
    kinds = {unicodedata.category(char) for char in name}
    if kinds & {"Cc", "Cs"}:
        return "it holds a control character"
    if len(name) > MAX_NAME or len((name + suffix).encode()) > 255:
        return f"it is longer than {MAX_NAME} characters"
    if not name.strip():
        return "it is empty"
    if found := _FORBIDDEN.search(name):
        return f"it holds {found.group()}"
    if name.startswith((".", " ")) or name.endswith((".", " ")):
        return "it begins or ends with a dot or space"
    if name.split(".", 1)[0].rstrip().lower() in _DEVICES:
        return "Windows reserves it"
    return ""


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises NotFound, TooLarge before anything is read, or AppError for what is no file (a pipe would block, a device never
    ends) and for what the system cannot read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise AppError(f"{path} is not a regular file; replace it by one.")
            if status.st_size > limit:
                raise TooLarge(f"{path} has {status.st_size:,} bytes; at most {limit:,} are read.")
            content = file.read(limit + 1)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except OSError as error:
        raise AppError(f"{path} cannot be read ({error.strerror}); look at its permissions.") from error
    if len(content) > limit:
        raise TooLarge(f"{path} grew while it was read; at most {limit:,} bytes are read.")
    return content


def write_atomic(path: Path, content: bytes, *, private: bool = False) -> None:
    """Put `content` at `path`: after a crash at any moment the file holds either all of it or what it held before.

    private makes it readable by its owner alone (0600), for keys. Raises AppError where the disk refuses; the old file stays.
    """
    unfinished = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.chmod(unfinished, 0o600 if private else 0o644)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    except OSError as error:
        if unfinished:
            Path(unfinished).unlink(missing_ok=True)
        raise AppError(f"{path} could not be written ({error.strerror}); what was there is unchanged. Free some disk space or "
                       "look at the folder's permissions, then save again.") from error


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power cut; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path, folder: Path) -> Path:
    """Move a file into `folder` (a trash) under its name, numbered where that is taken; returns where it is now."""
    private_folder(folder)
    target, number = folder / path.name, 1
    while target.exists():
        number += 1
        target = folder / f"{path.stem} {number}{path.suffix}"
    path.replace(target)
    return target
