"""Downloads from the hub as the page sees them: started, paused, resumed, cancelled, and found again after a crash."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .core.errors import AppError, Conflict, NotFound
from .instance import try_lock
from .jobs import Jobs, Report
from .models.hub import Hub
from .models.hub_files import Choice, Listing, read_listing
from .models.hub_parts import Damaged, Told, fetch, in_thread
from .models.hub_plan import Place, make_plan, unfinished
from .models.hub_search import Card, read_card
from .models.hub_token import HubToken

log = logging.getLogger(__name__)
KIND = "download"
AT_ONCE = 2            # others wait: more connections make none of them faster
TOLD_SECONDS = 0.25    # between two steps of the progress
MAX_ENDED = 20

Status = Literal["waiting", "running", "paused", "failed", "done"]


@dataclass(frozen=True)
class FileState:
    """One file of a download, by its name, in bytes."""

    name: str
    done: int
    size: int


@dataclass(frozen=True)
class DownloadState:
    """One moment of a download. done of size are bytes. what: what is being done, what came of it, or why it failed.

    speed: bytes a second since it was started or resumed, 0 where unknown. notes: what was told on the way, the latest last.
    """

    id: str
    title: str
    status: Status
    done: int
    size: int
    files: tuple[FileState, ...]
    what: str = ""
    speed: float = 0.0
    notes: tuple[str, ...] = ()
    model: str = ""


@dataclass
class _Entry:
    """Changed on the event loop only."""

    place: Place
    have: dict[str, int]
    status: Status = "paused"
    what: str = ""
    job: str = ""
    model: str = ""
    notes: list[str] = field(default_factory=list)
    came: int = 0          # bytes since `began`
    began: float = 0.0
    told: float = 0.0


class Downloads:
    """Every method runs on the event loop. `models` is the folder that downloads go to: the first of the model folders.

    finished counts downloads that have come to their end here, so that whoever shows the list of models can see that it changed.
    """

    def __init__(self, hub: Hub, jobs: Jobs, models: Path, token: HubToken) -> None:
        self.hub = hub
        self.token = token
        self.models = models
        self.finished = 0
        self._jobs = jobs
        self._entries: dict[str, _Entry] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def recover(self) -> None:
        """List what an earlier process left unfinished as paused; nothing is asked of the hub."""
        for plan in await asyncio.to_thread(unfinished, self.models):
            try:
                await self._recover(Place(self.models, plan))
            except AppError as error:  # the app starts all the same
                log.warning("The download of %s cannot go on: %s", plan.title, error.message)

    async def _recover(self, place: Place) -> None:
        if await asyncio.to_thread(place.is_over):
            with _alone(place):  # the process ended just before it would have done so itself
                await asyncio.to_thread(place.delete)
        elif place.plan.id not in self._entries:
            have = await asyncio.to_thread(place.have)
            self._entries[place.plan.id] = _Entry(place, have, what="Unfinished when the app ended.")

    async def close(self) -> None:
        """After the jobs have ended."""
        await self.hub.close()

    def list(self) -> list[DownloadState]:
        """All of them: first those under way, then paused and failed ones, then what is done; the newest first."""
        order = {"running": 0, "waiting": 1, "failed": 2, "paused": 2, "done": 3}
        return sorted((_state(entry) for entry in reversed(self._entries.values())), key=lambda state: order[state.status])

    async def look(self, repo: str) -> tuple[Card, Listing]:
        """A repository's card and its choices, asked now. Raises BadRequest, NotFound, HubFailed."""
        card = await read_card(self.hub, repo)
        return card, await read_listing(self.hub, card)

    async def start(self, repo: str, choice: str) -> str:
        """Ask for the list of files once more and fetch one choice of it; returns the download's id.

        Raises NotFound where there is no such choice, Conflict where it is under way or there already, AppError for a full disk.
        """
        card, listing = await self.look(repo)
        found = next((one for one in listing.choices if one.name == choice), None)
        if found is None:
            raise NotFound(f"{card.repo} has no {choice[:100]!r} now; look at its files again.", param="choice")
        return await self._begin(card, found)

    async def _begin(self, card: Card, choice: Choice) -> str:
        if choice.problem:
            raise Conflict(f"{choice.name} cannot be used: {choice.problem}")
        place = Place(self.models, make_plan(card.repo, card.revision, choice))
        known = self._entries.get(place.plan.id)
        if known is not None and known.status != "done":
            if known.place.plan.files != place.plan.files and known.status in ("paused", "failed"):
                raise Conflict(f"{place.plan.title} has changed on the hub since a part of it was fetched; cancel that download, "
                               "then start it again.")
            await self.resume(place.plan.id)
            return place.plan.id
        await asyncio.to_thread(place.check_room, self._still_needed())
        await asyncio.to_thread(place.save)
        have = await asyncio.to_thread(place.have)
        if self._entries.get(place.plan.id) is not known:
            raise Conflict(f"{place.plan.title} is under way.")  # another page was faster
        self._entries.pop(place.plan.id, None)
        self._entries[place.plan.id] = entry = _Entry(place, have)
        self._run(entry)
        self._forget()
        return place.plan.id

    async def resume(self, id: str) -> None:
        """Go on with one that is paused or failed. Raises NotFound, Conflict, AppError for a full disk."""
        entry = self._find(id)
        if entry.status not in ("paused", "failed"):
            raise Conflict(f"{entry.place.plan.title} is {'there already' if entry.status == 'done' else 'under way'}.")
        await asyncio.to_thread(entry.place.check_room, self._still_needed())
        await asyncio.to_thread(entry.place.save)
        if entry.status in ("paused", "failed"):  # still: another page may have been faster
            self._run(entry)

    async def pause(self, id: str) -> None:
        """Stop fetching and keep what is there; nothing where it is not under way."""
        entry = self._find(id)
        if entry.status in ("waiting", "running"):
            self._jobs.cancel(entry.job)
            await self._jobs.wait(entry.job)
            if entry.status == "waiting":  # its work had not begun, so nothing in it has heard of the end
                entry.status, entry.what = "paused", "Paused."

    async def cancel(self, id: str) -> None:
        """Stop and delete what was begun; one that is done or failed is only taken off the list, a model that is there stays."""
        await self.pause(id)
        entry = self._find(id)
        with _alone(entry.place):
            await asyncio.to_thread(entry.place.delete)
        self._entries.pop(id, None)
        self._jobs.changed()

    def _run(self, entry: _Entry) -> None:
        entry.status, entry.what, entry.came, entry.began, entry.told = "waiting", "Waits for other downloads.", 0, 0.0, 0.0

        async def work(report: Report) -> str:
            return await self._work(entry, report)

        entry.job = self._jobs.start(KIND, entry.place.plan.title, work, key=f"{KIND} {entry.place.plan.id}")

    async def _work(self, entry: _Entry, report: Report) -> str:
        try:
            async with self._slots:
                with _alone(entry.place):
                    entry.status, entry.what, entry.began = "running", "", time.monotonic()
                    await self._fetch_all(entry, report)
                    entry.what = "The files are checked."
                    report(what=entry.what)
                    await self._put(entry)
        except asyncio.CancelledError:
            entry.status, entry.what = "paused", "Paused."
            raise
        except Exception as error:
            entry.status = "failed"
            entry.what = error.message if isinstance(error, AppError) else f"It failed unexpectedly: {error!r}."
            entry.have = await asyncio.to_thread(entry.place.have)
            raise
        entry.status, entry.model = "done", entry.place.model_name
        entry.what = f"{entry.model} is in the model folder; load it in the Model tab."
        self.finished += 1
        return entry.what

    async def _fetch_all(self, entry: _Entry, report: Report) -> None:
        plan = entry.place.plan
        report(total=plan.size, unit="bytes", done=sum(entry.have.values()))
        for file in sorted(plan.files, key=lambda file: file.size):  # what is small tells of a refusal at once
            told = Told(lambda have, path=file.path: _count(entry, path, have, report),  # type: ignore[misc]
                        lambda text: _note(entry, text, report))
            entry.what = file.name
            await fetch(self.hub, plan.address(self.hub.url, file), file, entry.place.files, told)
        report(done=plan.size)

    async def _put(self, entry: _Entry) -> None:
        problem = await in_thread(entry.place.check_model)
        if problem:
            await in_thread(entry.place.delete)
            raise Damaged(f"It was refused and deleted, although it is what the hub has: {problem}")
        try:
            await in_thread(entry.place.put)
        except asyncio.CancelledError:
            if not await asyncio.to_thread(entry.place.is_over):
                raise  # else the model is there: the cancel came too late

    def _still_needed(self) -> int:
        """Bytes that the downloads under way will still write."""
        return sum(entry.place.plan.size - sum(entry.have.values()) for entry in self._entries.values()
                   if entry.status in ("waiting", "running"))

    def _find(self, id: str) -> _Entry:
        if id not in self._entries:
            raise NotFound("This download is no longer on the list.")
        return self._entries[id]

    def _forget(self) -> None:
        done = [id_ for id_, entry in self._entries.items() if entry.status == "done"]
        for id_ in done[:-MAX_ENDED]:
            del self._entries[id_]


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Keeps another Colloquy with the same model folder from writing the same parts. Raises Conflict where one does."""
    path = place.folder.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("ab")
    except OSError as error:
        raise AppError(f"{path} cannot be made ({error.strerror}); look at the folder's permissions.") from error
    with lock:
        if not try_lock(lock):
            raise Conflict("Another Colloquy with this model folder works at this download; let it end, or stop it there.")
        try:
            yield
        finally:
            with suppress(OSError):  # Windows deletes no open file; an empty one stays there
                path.unlink()
                path.parent.rmdir()  # unless there are other downloads


def _count(entry: _Entry, path: str, have: int, report: Report) -> None:
    entry.came += max(0, have - entry.have[path])
    entry.have[path] = have
    now = time.monotonic()
    if now - entry.told >= TOLD_SECONDS:
        entry.told = now
        report(done=sum(entry.have.values()))


def _note(entry: _Entry, text: str, report: Report) -> None:
    entry.notes = [*entry.notes[-4:], text]
    log.info("%s: %s", entry.place.plan.title, text)
    report(what=text)


def _state(entry: _Entry) -> DownloadState:
    plan = entry.place.plan
    files = tuple(FileState(file.name, entry.have[file.path], file.size) for file in plan.files)
    seconds = time.monotonic() - entry.began
    speed = entry.came / seconds if entry.status == "running" and seconds > 1 else 0.0
    return DownloadState(plan.id, plan.title, entry.status, sum(entry.have.values()), plan.size, files, entry.what, speed,
                         tuple(entry.notes), entry.model)
