"""Adapters through engine, worker and HTTP: set between replies, told with each reply, refused in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from modules import registry
from modules.core.errors import BadRequest, Busy, LoadFailed, NotFound
from modules.core.events import Request, Started
from modules.core.params import GenerationParams
from modules.engine import Engine, Run
from modules.models.adapters import AdapterCatalog
from modules.models.catalog import Catalog
from modules.saved_options import SavedOptions
from modules.store.database import Store

from .echo_models import echo_engine, say
from .test_api_openai import serving
from .test_engine import until
from .tiny_adapters import gguf_adapter, peft_adapter
from .tiny_models import tiny_hf

QUESTION = Request(GenerationParams(temperature=0, max_tokens=20, ban_eos=True), text="Once upon a time there was")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    hf = tiny_hf(root / "models" / "base")
    peft_adapter(hf, root / "loras" / "pirate", seed=1)
    peft_adapter(hf, root / "loras" / "poet", seed=2)
    gguf_adapter(root / "loras" / "pirate", root / "loras" / "sea.gguf")
    other = Path(peft_adapter(hf, root / "loras" / "foreign"))
    config = (other / "adapter_model.safetensors").read_bytes().replace(b"layers.2", b"layers.9")
    (other / "adapter_model.safetensors").write_bytes(config)
    return root


@pytest_asyncio.fixture
async def engine(folder: Path, tmp_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(Catalog([folder / "models"]), registry.find_loaders(), log_dir=tmp_path,
                    adapters=AdapterCatalog([folder / "loras"], [folder / "models"]))
    try:
        await engine.load("base", options={"threads": 1, "dtype": "float32"})
        yield engine
    finally:
        await engine.close()


async def ended(run: Run) -> tuple[str, Started]:
    await run.wait()
    started, = [event for event in run.events if isinstance(event, Started)]
    return run.text(), started


async def test_replies_follow_the_adapters_and_say_so(engine: Engine) -> None:
    base, started = await ended(engine.start(QUESTION))
    assert started.adapters == ()
    pid = engine.held().worker.pid
    held = await engine.set_adapters([("pirate", 1), ("poet", "0.25")])
    assert [(one.name, one.weight) for one in held.adapters] == [("pirate", 1.0), ("poet", 0.25)]
    adapted, started = await ended(engine.start(QUESTION))
    assert adapted != base and started.adapters == (("pirate", 1.0), ("poet", 0.25))
    await engine.set_adapters([("pirate", 0.0)])
    assert held.adapters and (await ended(engine.start(QUESTION)))[0] == base
    await engine.set_adapters([])
    again, started = await ended(engine.start(QUESTION))
    assert again == base and started.adapters == () and held.adapters == ()
    assert engine.held().worker.pid == pid, "the model was not loaded again"


async def test_a_refused_adapter_changes_nothing(engine: Engine) -> None:
    await engine.set_adapters([("pirate", 0.5)])
    adapted, _ = await ended(engine.start(QUESTION))
    for wanted, error, words in (
            ([("foreign", 1)], BadRequest, "does not fit this model"), ([("absent", 1)], NotFound, "absent"),
            ([("sea", 1)], BadRequest, "GGUF"), ([("pirate", 2.5)], BadRequest, "from 0 to 2"),
            ([("pirate", -1)], BadRequest, "from 0 to 2"), ([("pirate", "much")], BadRequest, "weight"),
            ([("pirate", 1), ("pirate", 1)], BadRequest, "twice"), ([("pirate", 1)] * 17, BadRequest, "at most 16")):
        with pytest.raises(error, match=words):
            await engine.set_adapters(wanted)  # type: ignore[arg-type]  # people send anything
    assert [(one.name, one.weight) for one in engine.held().adapters] == [("pirate", 0.5)]
    assert (await ended(engine.start(QUESTION)))[0] == adapted


async def test_while_a_reply_is_written_adapters_are_refused_and_a_reply_waits_while_they_are_put_on(engine: Engine) -> None:
    long = engine.start(replace(QUESTION, params=replace(QUESTION.params, max_tokens=4000)))
    with pytest.raises(Busy, match="1 replies"):
        await engine.set_adapters([("pirate", 1)])
    with pytest.raises(Busy):  # the worker's own word, should somebody ask it past the engine
        await until(lambda: any(isinstance(event, Started) for event in long.events))
        await engine.held().worker.set_adapters([])
    long.cancel()
    await long.wait()
    await until(lambda: not engine.held().runs)
    putting_on = asyncio.create_task(engine.set_adapters([("pirate", 1)]))
    await until(lambda: engine.held().is_attaching)
    with pytest.raises(Busy, match="Other adapters"):
        await engine.set_adapters([])
    run = engine.start(QUESTION)
    assert (await ended(run))[1].adapters == (("pirate", 1.0),)
    await putting_on


async def test_whoever_asked_may_leave_and_the_engine_still_knows_what_is_attached(engine: Engine) -> None:
    asking = asyncio.create_task(engine.set_adapters([("pirate", 1)]))
    await until(lambda: engine.held().is_attaching)
    asking.cancel()
    assert (await ended(engine.start(QUESTION)))[1].adapters == (("pirate", 1.0),)


async def test_saved_adapters_come_back_with_the_model_and_those_that_are_gone_are_told(engine: Engine, tmp_path: Path) -> None:
    engine.saved_options = saved = SavedOptions(Store(tmp_path / "data").keyvalue, engine.loaders)
    await saved.save_adapters("base", [("pirate", 0.5)])
    held = await engine.load("base", options={"threads": 1})
    assert held.adapters == ()
    held = await engine.load("base", options={"threads": 1}, with_adapters=True)
    assert [(one.name, one.weight) for one in held.adapters] == [("pirate", 0.5)] and not held.adapters_problem
    loading = asyncio.create_task(engine.load("base"))
    await until(lambda: held not in engine.models and bool(engine.models))
    assert (await ended(engine.start(QUESTION)))[1].adapters == (("pirate", 0.5),), "nobody gets the model before its adapters"
    await loading
    await saved.save_adapters("base", [("pirate", 0.5), ("gone", 1.0)])
    held = await engine.load("base")
    assert held.adapters == () and "'gone'" in held.adapters_problem
    await engine.set_adapters([("poet", 1.0)])
    assert held.adapters and not held.adapters_problem


async def test_a_model_that_is_brought_back_has_its_adapters_again(engine: Engine, folder: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.set_adapters([("pirate", 0.5)])
    monkeypatch.setattr("modules.engine.loading._fits", lambda plan: False)
    with pytest.raises(BadRequest):
        await engine.load("base", options={"threads": "many"})
    with pytest.raises(LoadFailed):
        await engine.load("base", options={"threads": 1, "quantization": "8bit", "device": "cuda"})
    assert (await ended(engine.start(QUESTION)))[1].adapters == (("pirate", 0.5),)


async def test_a_loader_without_adapters_says_so(tmp_path: Path, folder: Path) -> None:
    async with echo_engine(tmp_path) as engine:
        engine.adapters = AdapterCatalog([folder / "loras"])
        with pytest.raises(BadRequest, match="takes no adapters"):
            await engine.set_adapters([("pirate", 1)])
        with pytest.raises(BadRequest, match="takes no adapters"):
            await engine.held().worker.set_adapters([("pirate", 1)])
        await engine.set_adapters([])  # nothing is asked of it
        await ended(engine.start(say("Hello")))


async def test_http_lists_and_sets_them(engine: Engine) -> None:
    async with serving(engine) as url, httpx.AsyncClient(base_url=url + "/v1/internal", timeout=60) as client:
        listed = (await client.get("/adapter/list")).json()["adapters"]
        assert [one["name"] for one in listed] == ["foreign", "pirate", "poet", "sea"]
        assert (listed[1]["format"], listed[1]["rank"], listed[1]["problem"]) == ("safetensors", 4, "")
        done = await client.post("/model/adapters", json={"adapters": [{"name": "pirate", "weight": 0.8}, {"name": "poet"}]})
        expected = [{"name": "pirate", "weight": 0.8}, {"name": "poet", "weight": 1.0}]
        assert done.status_code == 200 and done.json()["adapters"] == expected
        assert (await client.get("/model/info")).json()["adapters"] == expected
        bad: list[tuple[Any, int]] = [({}, 400), ({"adapters": ["pirate"]}, 400), ({"adapters": [{"name": "absent"}]}, 404),
                                      ({"adapters": [{"name": "pirate", "weight": 3}]}, 400), ({"adapters": "pirate"}, 400),
                                      ({"adapters": [{"name": "pirate", "wait": 1}]}, 400),
                                      ({"adapters": [], "model_name": "absent"}, 404)]
        for body, status in bad:
            assert (await client.post("/model/adapters", json=body)).status_code == status, body
        assert (await client.get("/model/info")).json()["adapters"] == expected
        assert (await client.post("/model/adapters", json={"adapters": []})).json()["adapters"] == []
