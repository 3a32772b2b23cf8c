"""Jobs: progress, the three ends, one job a key, and nothing left running when the app stops."""

from __future__ import annotations

import asyncio

import pytest

from modules.core.errors import Conflict, LoadFailed, NotFound
from modules.jobs import KEPT_ENDED, Jobs, Report

pytestmark = pytest.mark.asyncio


async def test_progress_and_the_end_are_told() -> None:
    told: list[tuple[str, int]] = []
    jobs = Jobs()
    jobs.changed = lambda: told.append((jobs.list()[0].status, jobs.list()[0].done))
    step = asyncio.Event()

    async def work(report: Report) -> str:
        report(total=2, unit="bytes", what="reading")
        report(done=1)
        await step.wait()
        return "Two bytes were read."

    id_ = jobs.start("read", "a file", work)
    while jobs.get(id_).done != 1:
        await asyncio.sleep(0)
    assert jobs.get(id_).fraction == 0.5 and jobs.get(id_).what == "reading" and jobs.get(id_).unit == "bytes"
    step.set()
    ended = await jobs.wait(id_)
    assert (ended.status, ended.what, ended.fraction) == ("done", "Two bytes were read.", 1.0)
    assert told[0] == ("running", 0) and told[-1] == ("done", 1)
    assert jobs.get(id_).seconds == ended.seconds, "an ended job's time stands still"


async def test_failures_are_the_jobs_end() -> None:
    jobs = Jobs()

    async def known(report: Report) -> str:
        raise LoadFailed("The disk is full; free some space.")

    async def unknown(report: Report) -> str:
        raise ZeroDivisionError("by zero")

    assert (await jobs.wait(jobs.start("x", "one", known))).what == "The disk is full; free some space."
    assert "ZeroDivisionError('by zero')" in (await jobs.wait(jobs.start("x", "two", unknown))).what
    assert [job.status for job in jobs.list()] == ["failed", "failed"]


async def test_a_cancel_ends_it_and_so_does_the_app() -> None:
    jobs = Jobs()
    cleaned: list[str] = []

    async def work(report: Report) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")
        return ""

    first, second = jobs.start("x", "first", work, key="same"), jobs.start("x", "second", work, key="other")
    with pytest.raises(Conflict, match="third"):
        jobs.start("x", "third", work, key="same")
    await asyncio.sleep(0)
    assert jobs.cancel(first) and (await jobs.wait(first)).status == "cancelled"
    assert not jobs.cancel(first)
    jobs.start("x", "third", work, key="same")
    await asyncio.sleep(0)
    await jobs.close()
    assert cleaned == ["up"] * 3 and jobs.get(second).status == "cancelled"


async def test_a_job_that_is_cancelled_before_it_began_has_its_end_too() -> None:
    """It was shown as running for ever, and its key was never free again."""
    jobs = Jobs()

    async def work(report: Report) -> str:
        return "done"

    id_ = jobs.start("x", "one", work, key="same")
    assert jobs.cancel(id_)
    assert (await jobs.wait(id_)).status == "cancelled"
    assert (await jobs.wait(jobs.start("x", "one", work, key="same"))).status == "done"


async def test_ended_jobs_are_forgotten_in_time_and_kinds_kept_apart() -> None:
    jobs = Jobs()

    async def work(report: Report) -> str:
        return "done"

    first = jobs.start("x", "first", work)
    for number in range(KEPT_ENDED + 1):
        await jobs.wait(jobs.start("y", str(number), work))
    jobs.start("z", "last", work)
    with pytest.raises(NotFound, match=first):
        jobs.get(first)
    assert {job.kind for job in jobs.list()} == {"y", "z"} and [job.kind for job in jobs.list("z")] == ["z"]
    await jobs.close()
