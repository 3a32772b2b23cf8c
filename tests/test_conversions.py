"""Conversions as the page sees them: planned, followed, cancelled, one after the other, and in the list of models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modules.conversions import Conversions, ConversionState
from modules.core.errors import BadRequest, Conflict, NotFound
from modules.jobs import Jobs
from modules.models.arrange import arranged
from modules.models.catalog import Catalog
from modules.models.making import WORK
from tests.tiny_models import tiny_hf

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("tiny") / "model")


class Play:
    """Conversions over a folder with the model maker/small, as a start of the app makes them."""

    def __init__(self, models: Path, source: Path) -> None:
        self.models = models
        folder = models / "maker" / "small"
        folder.mkdir(parents=True)
        for path in source.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        self.changes = 0
        self.jobs = Jobs(self._changed)
        self.catalog = Catalog([models])
        self.conversions = Conversions(self.jobs, self.catalog, models)

    def _changed(self) -> None:
        self.changes += 1

    async def until(self, id: str, condition: Callable[[ConversionState], bool]) -> ConversionState:
        async with asyncio.timeout(60):
            while not condition(self.state(id)):
                await asyncio.sleep(0.005)
        return self.state(id)

    def state(self, id: str) -> ConversionState:
        return next(state for state in self.conversions.list() if state.id == id)

    def left(self) -> list[str]:
        return sorted(path.relative_to(self.models).as_posix() for path in self.models.rglob("*.gguf"))


@pytest.fixture
async def play(tmp_path: Path, made_once: Path) -> AsyncIterator[Play]:
    play = Play(tmp_path / "models", made_once)
    yield play
    await play.jobs.close()


async def test_a_conversion_ends_in_the_list_beside_its_source(play: Play) -> None:
    assert [file.name for file in await play.conversions.sources()] == ["maker/small"]
    choices = await play.conversions.choices("maker/small")
    assert choices[0][1] == "Q4_K_M" and choices[0][0] == "Q4_K_M: 4-bit, medium K-quant, small loss"
    plan = await play.conversions.plan("maker/small", "Q4_K_M")
    assert plan.name == "small-Q4_K_M" and plan.size > 0 and plan.scratch > plan.size and plan.free > 0 and not plan.problem
    id_ = await play.conversions.start("maker/small", "Q4_K_M")
    state = await play.conversions.wait(id_)
    assert (state.status, state.fraction) == ("done", 1.0) and "small-Q4_K_M.gguf" in state.what
    assert play.conversions.finished == 1 and play.changes > 5 and state.log
    listed = arranged(play.catalog.list())
    assert [one.file.name for one in listed] == ["maker/small", "maker/small-Q4_K_M"]
    assert len({one.group for one in listed}) == 1 and "2 variants" in listed[0].group
    assert "already" in (await play.conversions.plan("maker/small", "Q4_K_M")).problem
    await play.conversions.cancel(id_)
    assert play.conversions.list() == [] and play.left() == ["maker/small-Q4_K_M.gguf"]


async def test_one_waits_for_the_other_and_a_cancel_leaves_nothing(play: Play) -> None:
    first = await play.conversions.start("maker/small", "Q2_K")
    second = await play.conversions.start("maker/small", "Q3_K_M")
    with pytest.raises(Conflict):
        await play.conversions.start("maker/small", "Q2_K")
    await play.until(first, lambda state: state.status == "running" and state.what != "Begins")
    assert play.state(second).status == "waiting"
    await play.conversions.cancel(second)
    assert play.state(second).status == "cancelled"
    await play.conversions.cancel(first)
    assert play.state(first).status == "cancelled" and play.state(first).what.startswith("Cancelled")
    assert play.left() == [] and not (play.models / WORK).exists()
    again = await play.conversions.start("maker/small", "Q2_K")
    assert (await play.conversions.wait(again)).status == "done"


async def test_names_and_types_are_checked_first(play: Play) -> None:
    for name in ("../out", "a/b", "con", "x" * 200):
        assert (await play.conversions.plan("maker/small", "Q2_K", name)).problem
        with pytest.raises(BadRequest):
            await play.conversions.start("maker/small", "Q2_K", name)
    with pytest.raises(NotFound):
        await play.conversions.start("nothing", "Q2_K")
    with pytest.raises(BadRequest):
        await play.conversions.start("maker/small", "Q9")
    id_ = await play.conversions.start("maker/small", "Q8_0", "mine.gguf")
    assert (await play.conversions.wait(id_)).status == "done" and play.left() == ["maker/mine.gguf"]


async def test_a_broken_source_fails_in_words_and_the_app_goes_on(play: Play) -> None:
    (play.models / "maker" / "small" / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    state = await play.conversions.wait(await play.conversions.start("maker/small", "Q2_K"))
    assert state.status == "failed" and "WordPiece" in state.what and play.left() == []


async def test_a_close_of_the_app_ends_the_child(play: Play) -> None:
    id_ = await play.conversions.start("maker/small", "Q2_K")
    await play.until(id_, lambda state: state.status == "running" and state.what != "Begins")
    making = play.conversions._entries[id_].making
    await play.jobs.close()
    assert making._process is not None and making._process.poll() is not None
    assert play.left() == [] and not (play.models / WORK).exists()


async def test_what_a_killed_app_left_goes_at_the_next_start(play: Play) -> None:
    (play.models / WORK / "abc").mkdir(parents=True)
    (play.models / WORK / "abc" / "result.gguf").write_bytes(b"half")
    await play.conversions.recover()
    assert not (play.models / WORK).exists()
