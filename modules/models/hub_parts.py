"""Fetches one file of a repository: goes on where a part is, and gives it its name only when every byte is as the hub says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from ..core.errors import AppError
from ..store.files import read_bounded, sync_folder, write_atomic
from .hub import Answer, Hub, HubFailed
from .hub_files import HubFile

T = TypeVar("T")
BLOCK = 1 << 20          # bytes that are written and hashed at once
BLOCK_SECONDS = 0.5      # or what came in that time
CHECKED_AT_ONCE = 16 << 20
TRIES = 6                # in a row that bring nothing
LONGEST_BACKOFF = 30.0
STALL_BYTES = 64 << 10   # what has to come in STALL_SECONDS, or another connection is tried
STALL_SECONDS = 60.0
MAX_NOTE = 64 << 10
_STRONG_ETAG = re.compile(r'"[!#-~]{1,256}"')
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")


class Damaged(AppError):
    """What came is not what the hub says the file is; it has been deleted."""

    status = 502
    code = "damaged"


@dataclass(frozen=True)
class Told:
    """How a file's fetching is told, on the event loop. have: bytes of it that are on the disk, as often as that changes."""

    have: Callable[[int], None]
    say: Callable[[str], None]


class _Digest:
    """The hash that the hub names for a file: SHA-256, or that of a Git blob; where it names none, only bytes are counted."""

    def __init__(self, file: HubFile) -> None:
        self._wanted = file.sha256 or file.git_id
        self._hash = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def add(self, block: bytes) -> None:
        self._hash.update(block)

    @property
    def is_right(self) -> bool:
        return not self._wanted or self._hash.hexdigest() == self._wanted


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """As asyncio.to_thread, but a cancel waits for the thread, so that nobody closes or deletes what it is writing."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # taken note of: the cancel is what counts
        raise


def part_path(folder: Path, file: HubFile) -> Path:
    return folder / f"{file.name}.part"


async def fetch(hub: Hub, address: str, file: HubFile, folder: Path, told: Told) -> None:
    """Bring the file into `folder` under its name; what is there under it already is whole and right.

    address: where the hub has it. A part of it and a note of its ETag lie beside, before, while and after a cancel. Raises
    Damaged where it is not what the hub lists (the part is then gone), HubFailed or AppError where trying on is of no use.
    """
    if (folder / file.name).exists():
        told.have(file.size)
        return
    part = part_path(folder, file)
    failures = restarts = 0
    while True:
        attempt = _Attempt(hub, address, file, part, told)
        try:
            await attempt.run()
            break
        except HubFailed as error:
            failures = 1 if attempt.has_brought else failures + 1
            restarts += attempt.has_restarted
            if error.wait_seconds is None or failures > TRIES or restarts > TRIES:
                raise
            wait = max(error.wait_seconds, min(2.0 ** (failures - 1), LONGEST_BACKOFF))
            told.say(f"{file.name}: {error.message.partition('. ')[0].rstrip('.')}. It goes on in {wait:.0f} s.")
            await hub.pause(wait)
        except OSError as error:
            raise AppError(f"{part} cannot be written ({error.strerror}); what is there is kept. Free some disk space or look at "
                           "the folder's permissions, then resume.") from error
    await in_thread(_finish, part, folder / file.name)
    told.have(file.size)


class _Attempt:
    """One connection's worth of a file. has_brought: whether it brought anything; has_restarted: whether it threw away a part."""

    def __init__(self, hub: Hub, address: str, file: HubFile, part: Path, told: Told) -> None:
        self.hub, self.address, self.file, self.part, self.told = hub, address, file, part, told
        self.has_brought = self.has_restarted = False
        self.digest = _Digest(file)
        self.have = 0

    async def run(self) -> None:
        """Until every byte is there and right."""
        note = await in_thread(_read_note, _note_path(self.part))
        with await in_thread(_open, self.part) as out:
            await self._take_in(out)
            if self.have < self.file.size:
                await self._stream(out, note)
            if self.have < self.file.size:
                raise HubFailed(f"The connection ended after {self.have:,} of {self.file.size:,} bytes.", wait_seconds=0)
        if not self.digest.is_right:
            await self._discard()
            kind = "SHA-256" if self.file.sha256 else "hash"
            raise Damaged(f"{self.file.name} was refused and deleted: its {kind} is not the one that the hub lists, so it was "
                          "damaged on the way or is being replaced there. Resume to fetch it again.")

    async def _take_in(self, out: IO[bytes]) -> None:
        """Hash what an earlier connection, or an earlier start of the app, left."""
        size = await in_thread(out.seek, 0, os.SEEK_END)
        if size > self.file.size:
            await self._restart(out, "its part was longer than the file")
            return
        await in_thread(out.seek, 0)
        while self.have < size:
            block = await in_thread(out.read, CHECKED_AT_ONCE)
            if not block:
                break
            await in_thread(self.digest.add, block)
            self.have += len(block)
            self.told.have(self.have)

    async def _stream(self, out: IO[bytes], note: dict[str, Any]) -> None:
        headers = {"Accept-Encoding": "identity"}
        etag = str(note.get("etag", ""))
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            if _STRONG_ETAG.fullmatch(etag):
                headers["If-Range"] = etag
        async with self.hub.open(self.address, headers) as answer:
            await self._compare(answer, note, out)
            if not self.have and answer.status != 200:
                raise HubFailed("The server sent a piece of the file instead of its beginning.", wait_seconds=0)
            self._check(answer)
            fresh = {"url": self.address, "etag": answer.header("etag"), "identity": answer.identity, "size": self.file.size}
            await in_thread(write_atomic, _note_path(self.part), json.dumps(fresh).encode())
            await self._read(answer, out)

    async def _compare(self, answer: Answer, note: dict[str, Any], out: IO[bytes]) -> None:
        """Where what is there does not belong to this answer, it goes, and the person is told."""
        if not self.have:
            return
        found = _RANGE.fullmatch(answer.header("content-range"))
        known, identity = str(note.get("etag", "")), str(note.get("identity", ""))
        why = ""
        if (identity and answer.identity and identity != answer.identity) or (known and answer.header("etag") not in ("", known)):
            why = "it has changed on the hub"
        elif answer.status != 206 or found is None or int(found[1]) != self.have:
            why = "the server does not go on in the middle"
        if why:
            await self._restart(out, why)

    def _check(self, answer: Answer) -> None:
        """That the answer can be the file that the hub lists."""
        if answer.header("content-encoding") not in ("", "identity"):
            raise HubFailed(f"{self.file.name} comes packed, which was not asked for; it cannot be checked. Try another mirror.")
        if self.file.sha256 and re.fullmatch(r"[0-9a-f]{64}", answer.identity) and answer.identity != self.file.sha256:
            raise HubFailed(f"{self.file.name} has changed on the hub since its list was read; cancel this download and choose "
                            "it again.")
        found = _RANGE.fullmatch(answer.header("content-range"))
        length = answer.header("content-length")
        total = int(found[2]) if found and found[2] != "*" else int(length) if length.isdigit() and answer.status == 200 else -1
        if total not in (-1, self.file.size):
            raise HubFailed(f"{self.file.name} was refused: the hub lists {self.file.size:,} bytes, its server has {total:,}.")

    async def _read(self, answer: Answer, out: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        block, since, due = bytearray(), loop.time(), 0
        try:
            async with asyncio.timeout(STALL_SECONDS) as deadline:
                async for piece in answer.response.aiter_raw():
                    block += piece
                    due += len(piece)
                    if due >= STALL_BYTES:
                        due = 0
                        deadline.reschedule(loop.time() + STALL_SECONDS)
                    if self.have + len(block) > self.file.size:
                        block.clear()
                        raise HubFailed(f"{self.file.name} was refused: more than the {self.file.size:,} listed bytes came.")
                    if len(block) >= BLOCK or loop.time() - since >= BLOCK_SECONDS:
                        await self._write(out, block)
                        since = loop.time()
        except TimeoutError as error:
            raise HubFailed("The connection brings hardly anything.", wait_seconds=0) from error
        finally:
            await self._write(out, block)

    async def _write(self, out: IO[bytes], block: bytearray) -> None:
        if not block:
            return
        content = bytes(block)
        block.clear()
        await in_thread(_write_all, out, content)
        await in_thread(self.digest.add, content)
        self.have += len(content)
        self.has_brought = True
        self.told.have(self.have)

    async def _restart(self, out: IO[bytes], why: str) -> None:
        await in_thread(out.truncate, 0)
        await in_thread(out.seek, 0)
        self.digest, self.have, self.has_restarted = _Digest(self.file), 0, True
        self.told.have(0)
        self.told.say(f"{self.file.name} is fetched from its beginning: {why}.")

    async def _discard(self) -> None:
        await in_thread(self.part.unlink, True)
        await in_thread(_note_path(self.part).unlink, True)
        self.told.have(0)


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _open(part: Path) -> IO[bytes]:
    """To read and to append, unbuffered: what is written is the system's at once, and a killed process loses none of it."""
    part.parent.mkdir(parents=True, exist_ok=True)
    return part.open("a+b", buffering=0)


def _write_all(out: IO[bytes], content: bytes) -> None:
    """An unbuffered file may take less than it is given."""
    left = memoryview(content)
    while left:
        left = left[out.write(left):]


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(read_bounded(path, MAX_NOTE))
    except (AppError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _finish(part: Path, target: Path) -> None:
    """Make the bytes survive a power cut, then the name."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)
    _note_path(part).unlink(missing_ok=True)
    sync_folder(target.parent)
