"""Idle models are unloaded, and come back as they were with the next message or request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from modules import registry
from modules.core.errors import NoModel, NotFound
from modules.core.events import Finished, Loading
from modules.core.settings import Settings
from modules.engine import Engine
from modules.models.adapters import AdapterCatalog
from modules.models.catalog import Catalog

from .echo_models import EchoCatalog, echo_engine, say
from .test_chat import TAB, desk
from .test_engine import read, until
from .tiny_adapters import gguf_adapter, peft_adapter
from .tiny_models import tiny_gguf, tiny_hf

SOON = 0.2 / 60  # minutes


async def test_an_idle_model_ends_its_process_and_comes_back_with_its_options(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, idle_unload=SOON, script="Once more.", context=777) as engine:
        pid = engine.held().worker.pid
        await until(lambda: not engine.models)
        await until(lambda: not psutil.pid_exists(pid))
        assert engine.resting == ["echo"]
        with pytest.raises(NoModel, match="echo was idle and is unloaded; a message"):
            engine.held()
        held = await engine.awake()
        assert (held.name, held.facts.context, engine.resting) == ("echo", 777, [])
        assert isinstance((await read(engine.start(say("Hi"))))[-1], Finished)
        await until(lambda: engine.resting == ["echo"])
        assert len(await engine.tokenize("one two")) > 0 and engine.models


async def test_a_model_that_writes_stays_however_long_it_takes(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, idle_unload=SOON, script="word " * 60, rate=60) as engine:
        run = engine.start(say("Go", max_tokens=60))
        events = await read(run)
        assert isinstance(events[-1], Finished) and events[-1].usage.completion_tokens == 60  # a second, five times as long
        await until(lambda: engine.resting == ["echo"])


async def test_without_the_setting_models_stay(tmp_path: Path) -> None:
    async with echo_engine(tmp_path):
        assert "idle models" not in {task.get_name() for task in asyncio.all_tasks()}
    assert Settings().idle_unload == 0


async def test_two_requests_at_once_wake_it_once(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, idle_unload=SOON, script="Yes.") as engine:
        await until(lambda: engine.resting == ["echo"])
        held = await asyncio.gather(*(engine.ready(name) for name in ("", "echo", "")))
        assert len({id(one) for one in held}) == 1
        with pytest.raises(NotFound):
            await engine.ready("other")


async def test_what_was_unloaded_by_hand_or_replaced_does_not_come_back(tmp_path: Path) -> None:
    async with echo_engine(tmp_path, idle_unload=SOON) as engine:
        await until(lambda: engine.resting == ["echo"])
        await engine.unload("echo")
        with pytest.raises(NoModel, match="No model is loaded"):
            await engine.awake()
        await engine.load("echo", options={})
        await until(lambda: engine.resting == ["echo"])
        await engine.load("other", options={})
        assert engine.resting == [] and engine.held().name == "other"


async def test_a_message_wakes_the_model_and_the_page_of_a_notebook_too(tmp_path: Path) -> None:
    async with desk(tmp_path, idle_unload=SOON, script="Here I am.") as it:
        await until(lambda: it.engine.resting == ["echo"])
        reply = await it.say("Are you there?")
        assert reply.status == "complete" and reply.model == "echo"
        await until(lambda: it.engine.resting == ["echo"])
        page = await it.notebook.create(TAB)
        going = await it.notebook.generate(TAB, page.id, "Once", base=page.version)
        await read(it.engine.run(going.run))
        assert it.engine.models


async def test_adapters_come_back_with_the_model_that_rested(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("peft")
    model = tiny_gguf(tmp_path / "models" / "tiny.gguf")
    (tmp_path / "loras").mkdir()
    gguf_adapter(peft_adapter(tiny_hf(tmp_path / "hf"), tmp_path / "peft"), tmp_path / "loras" / "tint.gguf")
    engine = Engine(Catalog([model.parent]), registry.find_loaders(), log_dir=tmp_path, idle_unload=SOON,
                    adapters=AdapterCatalog([tmp_path / "loras"]))
    try:
        await engine.load("tiny", options={"context": 512, "threads": 1})
        await engine.set_adapters([("tint", 0.5)])
        await until(lambda: engine.resting == ["tiny"])
        assert [(one.name, one.weight) for one in (await engine.awake()).adapters] == [("tint", 0.5)]
    finally:
        await engine.close()


async def test_a_reply_is_there_while_its_model_comes_back_and_can_be_stopped_then(tmp_path: Path) -> None:
    async with desk(tmp_path, idle_unload=SOON, script="Here I am.", load_seconds=0.5, load_steps=10) as it:
        await until(lambda: it.engine.resting == ["echo"])
        view = await it.chat.view(TAB)
        turn = await it.chat.send(TAB, "Are you there?", conversation=view.conversation, under=view.head)
        assert turn.reply is not None and it.engine.resting == ["echo"]
        run = it.engine.run(turn.run)
        await until(lambda: any(isinstance(event, Loading) and event.fraction > 0 for event in run.events))
        run.cancel()
        stopped = await it.saved(turn.reply)
        assert (stopped.status, stopped.message.text) == ("stopped", "")
        await until(lambda: bool(it.engine.models))
        assert not it.engine.held().runs and run.request.messages == ()
        await until(lambda: it.engine.resting == ["echo"])
        reply = await it.say("And now?")
        assert it.engine.run(reply.run).request.messages == (), "an ended run keeps no chat"
        assert (reply.status, reply.message.text, reply.model) == ("complete", "Here I am.", "echo")


async def test_a_model_that_cannot_come_back_fails_the_reply_with_the_reason(tmp_path: Path) -> None:
    async with desk(tmp_path, idle_unload=SOON) as it:
        await until(lambda: it.engine.resting == ["echo"])
        it.engine.catalog = EchoCatalog("other")  # type: ignore[assignment]
        reply = await it.say("Are you there?")
        assert reply.status == "failed" and "echo" in reply.stats["error"]
        assert (await it.chat.view(TAB)).path[0].message.text == "Are you there?"
