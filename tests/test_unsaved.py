"""A reply that is not on disk, while it streams and after its end: the page is told why, and when it is."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from modules.store.chats import Chats

from .test_chat import TAB, desk
from .test_chat_faults import FAULTS, failing, streaming
from .test_engine import until


@pytest.mark.parametrize("fault", FAULTS, ids=lambda e: type(e).__name__)
async def test_a_reply_that_cannot_be_saved_is_shown_with_the_reason_and_saved_later(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """Its row streamed for ever: the page showed an empty message until the next start. Then only a reload told of it."""
    monkeypatch.setattr("modules.saving.RETRY_SECONDS", 0.2)
    async with desk(tmp_path, script="Good day.") as d:
        monkeypatch.setattr(Chats, "finish", failing(2, fault, Chats.finish))
        turn = await d.chat.send(TAB, "Hello", conversation="", under=None)
        assert turn.reply is not None
        await d.engine.run(turn.run).wait()
        await d.replies.settle()
        shown = (await d.chat.view(TAB)).path[-1]
        assert (shown.message.text, shown.status) == ("Good day.", "complete")
        assert "not saved yet" in shown.stats["unsaved"] and str(fault.args[-1]) in shown.stats["unsaved"]
        assert await d.chat.unsaved(shown.id) == shown.stats["unsaved"]
        assert list((tmp_path / "data" / "journal").glob("*.journal")), "the text is in the journal meanwhile"
        await until(lambda: d.store.chats.node(shown.id).status == "complete")
        await until(lambda: not list((tmp_path / "data" / "journal").glob("*.journal")))
        shown = (await d.chat.view(TAB)).path[-1]
        assert (shown.message.text, shown.status, shown.stats.get("unsaved")) == ("Good day.", "complete", None)
        assert await d.chat.unsaved(shown.id) == ""


async def test_whether_a_reply_is_saved_is_answered_once_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page asks at once when a run has ended: its row is being written then."""
    may_go = threading.Event()

    def slow(*args: Any, **named: Any) -> Any:
        may_go.wait(20)
        raise FAULTS[0]

    async with desk(tmp_path, script="ok") as d:
        with monkeypatch.context() as patched:
            patched.setattr(Chats, "finish", slow)
            turn = await d.chat.send(TAB, "Hello", conversation="", under=None)
            assert turn.reply is not None
            await d.engine.run(turn.run).wait()
            asking = asyncio.create_task(d.chat.unsaved(turn.reply.id))
            await asyncio.sleep(0.05)
            assert not asking.done()
            patched.setattr("modules.replies.SLOW_SECONDS", 0.05)
            assert "slow" in await d.chat.unsaved(turn.reply.id), "nobody waits for ever"
            may_go.set()
            assert "disk is full" in await asking


async def test_a_journal_that_fails_while_a_reply_streams_is_told_and_taken_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(tmp_path, script="tick " * 2000, rate=100) as d:
        _, run = await streaming(d)
        assert d.chat.at_risk(run) == ""
        with monkeypatch.context() as patched:
            patched.setattr("modules.store.journal.os.write", failing(10**6, FAULTS[2], os.write))
            await until(lambda: "No space left" in d.chat.at_risk(run))
        await until(lambda: d.chat.at_risk(run) == "")
        await d.chat.stop(run)
        await d.replies.settle()
        assert d.chat.at_risk(run) == d.chat.at_risk("no such run") == ""
