"""The notebook when things go wrong or at once: no word of a document is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import AppError
from modules.store.documents import Documents

from .test_chat import OTHER_TAB, TAB, desk
from .test_chat_faults import FAULTS
from .test_engine import until


async def test_two_tabs_that_generate_at_once_are_one_run_and_one_refusal(tmp_path: Path) -> None:
    """Both passed the check before either was noted; each wrote over the other's place."""
    async with desk(tmp_path, script=" and so on") as d:
        document = await d.notebook.create(TAB, "Once")
        asked = [d.notebook.generate(tab, document.id, "Once upon", base=document.version) for tab in (TAB, OTHER_TAB)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, AppError) for result in results) == 1
        await until(lambda: not d.notebook.live_run(document.id))
        assert d.store.documents.get(document.id).text == "Once upon and so on"


async def test_a_document_trashed_while_it_is_written_to_has_the_text_when_it_comes_back(tmp_path: Path) -> None:
    """The text came when nothing could be saved any more; the next start took the document out of the trash again."""
    async with desk(tmp_path, script=" on and on" * 2000, rate=300) as d:
        await d.sessions.update(TAB, params={"max_tokens": 0})
        for _ in range(5):
            document = await d.notebook.create(TAB, "Once")
            going = await d.notebook.generate(TAB, document.id, "Once upon", base=document.version)
            run = d.engine.run(going.run)
            await until(lambda run=run: bool(run.text()))  # type: ignore[misc]
            await d.notebook.trash(document.id)
            await d.notebook.settle()
            assert d.store.documents.get(document.id).text.startswith("Once upon on")
            assert not list((tmp_path / "data" / "journal").glob("*.journal"))


async def test_a_document_in_the_trash_is_shown_to_nobody(tmp_path: Path) -> None:
    """After a reload, and in every new tab, it stood there again, and took no word."""
    async with desk(tmp_path) as d:
        document = await d.notebook.create(TAB, "Once")
        await d.notebook.trash(document.id)
        assert await d.notebook.shown(TAB) is None
        await d.notebook.restore(document.id)
        await d.notebook.open(TAB, document.id)
        assert await d.notebook.shown(TAB) is not None


async def test_only_what_is_in_the_trash_is_deleted_for_good(tmp_path: Path) -> None:
    """There was no way to it: what was in the trash could be neither read nor removed."""
    async with desk(tmp_path) as d:
        kept, first, second, third = [(await d.notebook.create(TAB, str(n))).id for n in range(4)]
        for document in (first, second, third):
            await d.notebook.trash(document)
        assert await d.notebook.purge(kept) == 0
        assert await d.notebook.purge(first) == 1
        assert {found.id for found in (await d.notebook.listing(trashed=True))[0]} == {second, third}
        assert await d.notebook.purge(None) == 2
        assert [found.id for found in (await d.notebook.listing())[0]] == [kept]
        assert (await d.notebook.listing(trashed=True))[1] == 0


async def test_no_version_is_brought_back_under_a_text_that_is_being_written(tmp_path: Path) -> None:
    async with desk(tmp_path, script=" on and on" * 2000, rate=300) as d:
        await d.sessions.update(TAB, params={"max_tokens": 0})
        document = await d.notebook.create(TAB, "Once")
        going = await d.notebook.generate(TAB, document.id, "Once upon", base=document.version)
        with pytest.raises(AppError, match="being written to"):
            await d.notebook.bring_back(document.id, document.version)
        d.engine.run(going.run).cancel()
        await until(lambda: not d.notebook.live_run(document.id))
        written = d.store.documents.get(document.id).text
        assert (await d.notebook.bring_back(document.id, document.version)).text == "Once"
        assert written in [d.store.documents.version(document.id, v.id) for v in await d.notebook.versions(document.id)]


async def test_the_text_is_saved_also_where_no_model_can_continue_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        document = await d.notebook.create(TAB, "Once")
        await d.engine.unload("echo")
        with pytest.raises(AppError, match="Model tab"):
            await d.notebook.generate(TAB, document.id, "Once upon a long text", base=document.version)
        assert d.store.documents.get(document.id).text == "Once upon a long text"
        assert not d.notebook.live_run(document.id)
        await d.engine.load("echo", options={"script": "!"})
        await d.notebook.generate(TAB, document.id, "Once upon a long text", base=document.version)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_continuation_that_cannot_be_saved_is_shown_and_saved_later(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool) -> None:
    """The new words went from the page when the run had ended, until the next start."""
    monkeypatch.setattr("modules.saving.RETRY_SECONDS", 0.3)
    async with desk(tmp_path, script=" a time.") as d:
        document = await d.notebook.create(TAB, "Once")
        saved = await d.notebook.save(document.id, "Once upon", base=document.version)
        monkeypatch.setattr(Documents, "save", failing_run_saves(2))
        await d.notebook.generate(TAB, document.id, "Once upon", base=saved.version)
        await until(lambda: not d.notebook.live_run(document.id))
        shown = await d.notebook.shown(TAB)
        assert shown is not None and shown.text == "Once upon a time."
        assert "not saved yet" in d.notebook.unsaved(document.id)
        if goes_on:
            newer = await d.notebook.save(document.id, "Once upon a time. I add this.", base=shown.version)
            assert newer.text == "Once upon a time. I add this."
        await until(lambda: not list((tmp_path / "data" / "journal").glob("*.journal")))
        final = d.store.documents.get(document.id).text
        assert d.notebook.unsaved(document.id) == ""
        assert final == ("Once upon a time. I add this." if goes_on else "Once upon a time.")


def failing_run_saves(times: int) -> Callable[..., Any]:
    """Documents.save that fails for results of runs, so often."""
    save = Documents.save
    left = [times]

    def method(self: Documents, *args: Any, run: str = "", **named: Any) -> Any:
        if run and left[0]:
            left[0] -= 1
            raise FAULTS[0]
        return save(self, *args, run=run, **named)

    return method


async def test_the_notebook_writes_with_the_sessions_model(tmp_path: Path) -> None:
    """The session's model was looked up and then not asked for."""
    async with desk(tmp_path, max_models=2, script=" first") as d:
        await d.engine.load("other", options={"script": " second"})
        await d.sessions.update(TAB, model="echo")
        document = await d.notebook.create(TAB, "Once")
        await d.notebook.generate(TAB, document.id, "Once", base=document.version)
        await until(lambda: not d.notebook.live_run(document.id))
        assert d.store.documents.get(document.id).text == "Once first"
