"""Work that takes minutes beside the chat: downloads, conversions, measurements; each with progress, cancel and an end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from .core.errors import AppError, Conflict, NotFound

log = logging.getLogger(__name__)
KEPT_ENDED = 20  # jobs that have ended, for whoever comes back to look

JobStatus = Literal["running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class JobState:
    """One moment of a job. done of total are in `unit` ("bytes", "tensors"); total 0 where it is not known.

    what: what is being done now; in the end what came of it, or why it failed. seconds: how long it runs, or ran.
    """

    id: str
    kind: str
    title: str
    status: JobStatus = "running"
    done: int = 0
    total: int = 0
    unit: str = ""
    what: str = ""
    seconds: float = 0.0

    @property
    def fraction(self) -> float:
        """0 to 1."""
        return 1.0 if self.status == "done" else min(1.0, self.done / self.total) if self.total else 0.0


Report = Callable[..., None]
"""report(done=..., total=..., unit=..., what=...): any of them, on the event loop."""

Work = Callable[[Report], Awaitable[str]]
"""Does the work and returns a sentence of what came of it; a cancel arrives as CancelledError; an AppError is why it failed."""


@dataclass
class _Job:
    state: JobState
    key: str
    began: float
    task: asyncio.Task[None] | None = None


@dataclass
class Jobs:
    """Everything here happens on the event loop. `changed` is called after every change, with progress as often as it is told."""

    changed: Callable[[], None] = lambda: None
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def start(self, kind: str, title: str, work: Work, *, key: str = "") -> str:
        """Begin a job and return its id. key: what it works on, such as a file's path; two jobs never work on the same.

        Raises Conflict where a job with that key is running.
        """
        if key and any(job.key == key and job.state.status == "running" for job in self._jobs.values()):
            raise Conflict(f"{title} is being worked on already; wait for it or cancel it first.")
        id_ = f"{kind}-{next(self._numbers)}"
        job = self._jobs[id_] = _Job(JobState(id_, kind, title), key, time.monotonic())
        job.task = asyncio.create_task(self._run(job, work), name=f"{kind} {title}")
        job.task.add_done_callback(lambda _: self._end_unbegun(job))
        self._forget()
        self.changed()
        return id_

    def list(self, kind: str = "") -> list[JobState]:
        """The jobs of a kind, or all; the newest first."""
        return [self._now(job) for job in reversed(self._jobs.values()) if kind in ("", job.state.kind)]

    def get(self, id: str) -> JobState:
        """Raises NotFound for a job that never was or ended long ago."""
        return self._now(self._find(id))

    def cancel(self, id: str) -> bool:
        """Ask a job to end; False where it has ended. What it leaves behind is the work's own affair."""
        job = self._find(id)
        if job.state.status != "running" or job.task is None:
            return False
        job.task.cancel()
        return True

    async def wait(self, id: str) -> JobState:
        """The job's end; a caller who leaves does not cancel it."""
        job = self._find(id)
        if job.task is not None:
            await asyncio.wait({job.task})
        return self._now(job)

    async def close(self) -> None:
        """Cancel what runs and wait for its end."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None and not job.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, job: _Job, work: Work) -> None:
        def report(**changes: object) -> None:
            job.state = replace(job.state, **changes)  # type: ignore[arg-type]
            self.changed()

        try:
            what = await work(report)
            status: JobStatus = "done"
        except asyncio.CancelledError:
            status, what = "cancelled", "Cancelled."
        except AppError as error:
            status, what = "failed", error.message
        except Exception as error:  # whatever it is, a job without an end would be shown as running for ever
            log.exception("The job %s failed unexpectedly", job.state.title)
            status, what = "failed", f"It failed unexpectedly: {error!r}. Please report this with the app's log."
        job.state = replace(job.state, status=status, what=what, seconds=time.monotonic() - job.began)
        self.changed()

    def _end_unbegun(self, job: _Job) -> None:
        """A task that is cancelled before its first step runs nothing at all, not even what would tell of the cancel."""
        if job.state.status == "running":
            job.state = replace(job.state, status="cancelled", what="Cancelled.", seconds=time.monotonic() - job.began)
            self.changed()

    def _now(self, job: _Job) -> JobState:
        return replace(job.state, seconds=time.monotonic() - job.began) if job.state.status == "running" else job.state

    def _find(self, id: str) -> _Job:
        if id not in self._jobs:
            raise NotFound(f"There is no job {id!r}, or it ended long ago.")
        return self._jobs[id]

    def _forget(self) -> None:
        ended = [id_ for id_, job in self._jobs.items() if job.state.status != "running"]
        for id_ in ended[:-KEPT_ENDED]:
            del self._jobs[id_]
