"""What a person set for a model is kept, used when it is loaded without options, and less what this version does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules import registry
from modules.engine import Engine
from modules.models.catalog import Catalog
from modules.saved_options import Saved, SavedOptions
from modules.store.database import Store
from tests.running_app import write_script

pytestmark = pytest.mark.asyncio


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def saved(store: Store) -> SavedOptions:
    return SavedOptions(store.keyvalue, registry.find_loaders())


async def test_they_come_back_and_are_forgotten(saved: SavedOptions) -> None:
    assert await saved.get("m") is None
    await saved.save("m", "echo", {"context": 512, "slots": 2})
    assert await saved.get("m") == Saved("echo", {"context": 512, "slots": 2})
    assert await saved.get("n") is None
    await saved.forget("m")
    assert await saved.get("m") is None


async def test_what_is_no_option_any_more_is_told_and_the_rest_is_used(saved: SavedOptions, store: Store) -> None:
    store.keyvalue.set("model_options:m", {"loader": "echo", "options": {"context": 512, "slots": "many", "gone": 1}})
    found = await saved.get("m")
    assert found is not None and found.options == {"context": 512}
    assert len(found.dropped) == 2 and "slots" in found.dropped[0] and "gone" in found.dropped[1]


@pytest.mark.parametrize("kept", ["text", {"loader": "absent", "options": {}}, {"options": {}}, {"loader": ["echo"]}])
async def test_what_nobody_understands_is_as_if_nothing_were_saved(saved: SavedOptions, store: Store, kept: object) -> None:
    store.keyvalue.set("model_options:m", kept)
    assert await saved.get("m") is None


async def test_adapters_are_kept_with_their_weights_and_odd_ones_are_none(saved: SavedOptions, store: Store) -> None:
    assert await saved.adapters("m") == []
    await saved.save_adapters("m", [("pirate", 0.5), ("poet", 2.0)])
    await saved.save("m", "echo", {"slots": 2})
    await saved.forget("m")
    assert await saved.adapters("m") == [("pirate", 0.5), ("poet", 2.0)], "the options are one thing and these another"
    await saved.save_adapters("m", [])
    assert await saved.adapters("m") == []
    for odd in ("text", 7, [["pirate"]], [["pirate", 9]], {"pirate": 1}, [["a", 1], ["a", 1]]):
        store.keyvalue.set("model_adapters:m", odd)
        assert await saved.adapters("m") == []


async def test_a_load_without_options_takes_the_saved_ones_and_one_with_options_does_not(
        saved: SavedOptions, tmp_path: Path) -> None:
    write_script(tmp_path / "models", "play", "Hello.")
    engine = Engine(Catalog([tmp_path / "models"]), registry.find_loaders(), log_dir=tmp_path)
    engine.saved_options = saved
    await saved.save("play", "echo", {"context": 512})
    try:
        assert (await engine.load("play")).facts.context == 512
        assert (await engine.load("play", options={})).facts.context != 512
        assert (await engine.load("play", options={"context": 1024})).facts.context == 1024
        assert (await engine.load("play", loader="echo")).facts.context == 512
    finally:
        await engine.close()
