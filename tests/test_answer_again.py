"""A reply written again by another model: what is told before, who answers after, and that nothing is lost where it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modules.answer_again import Asked
from modules.core.conversation import Node
from modules.core.errors import BadRequest, Cancelled, NotFound
from modules.core.loader import ModelFile
from modules.ui.services import Asked as AskedOfThePage

from .test_chat import OTHER_TAB, TAB, Desk, desk
from .test_engine import until


async def again(d: Desk, node: Node, model: str, *, quantization: str = "") -> None:
    await d.chat.again.start(TAB, node.id, conversation=node.conversation, model=model, quantization=quantization)


async def over(d: Desk, node: Node) -> list[Asked]:
    """What is told of this chat once no load is under way."""
    await until(lambda: all(asked.has_failed for asked in d.chat.again.of(node.conversation)))
    return d.chat.again.of(node.conversation)


async def newest(d: Desk) -> Node:
    """The last message shown, as saved."""
    return await d.saved((await d.chat.view(TAB)).path[-1])


async def chosen(d: Desk, tab: str = TAB) -> str:
    return (await d.sessions.get(tab)).model


async def test_a_loaded_model_writes_at_once_what_was_told_before(tmp_path: Path) -> None:
    async with desk(tmp_path, max_models=2, context=256) as d:
        for n in range(12):
            first = await d.say(f"Message number {n} of a chat that grows longer than the smaller context")
        await d.engine.load("other", options={"context": 64})
        told = await d.chat.again.forecast(TAB, first.id, conversation=first.conversation, model="other")
        assert (told.is_loaded, told.context) == (True, 64)
        assert told.dropped > first.stats["dropped"]
        await again(d, first, "other")
        second = await newest(d)
        assert (second.model, second.loader, second.parent) == ("other", "echo", first.parent)
        assert (second.stats["prompt_tokens"], second.stats["context"]) == (told.prompt_tokens, told.context)
        assert second.stats["dropped"] == told.dropped
        view = await d.chat.view(TAB)
        assert list(view.siblings[second.id]) == [first.id, second.id]


@pytest.mark.parametrize("chosen_before", ["", "echo"])
async def test_who_answers_the_next_message_stays_the_same_while_that_model_is_loaded(tmp_path: Path, chosen_before: str) -> None:
    async with desk(tmp_path, max_models=2) as d:
        first = await d.say("Hello there")
        await d.engine.load("other", options={"script": "The other one."})
        await d.sessions.update(TAB, model=chosen_before)
        await d.say("The model used last answers where none was chosen" if not chosen_before else "echo was chosen")
        before = (await newest(d)).model
        await again(d, first, "third" if before == "other" else "other")
        assert not await over(d, first)
        await d.replies.settle()
        assert (await d.say("And now?")).model == before


async def test_the_models_are_exchanged_where_only_one_may_be_loaded(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.say("Hello there")
        await d.sessions.update(TAB, model="echo")
        told = await d.chat.again.forecast(TAB, first.id, conversation=first.conversation, model="other")
        assert (told.is_loaded, told.makes_room) == (False, "echo")
        await again(d, first, "other")
        assert [asked.status for asked in d.chat.again.of(first.conversation)] == ["loading"]
        assert (await d.chat.view(TAB)).head == first.id, "the old one is shown until the new one begins"
        assert not await over(d, first)
        second = await newest(d)
        assert (second.model, second.parent) == ("other", first.parent)
        assert second.message.text.endswith("Hello there")
        assert await chosen(d) == "other", "echo had to make room"
        assert (await d.say("And now?")).model == "other"
        assert [held.name for held in d.engine.models] == ["other"]


async def test_a_person_who_went_on_meanwhile_stays_where_they_are(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.say("Hello there")
        await again(d, first, "other")
        await d.chat.new_chat(TAB, character="")
        assert not await over(d, first)
        assert (await d.chat.view(TAB)).conversation == ""
        await d.chat.open_chat(TAB, first.conversation)
        assert (await newest(d)).model == "other"


async def test_a_load_that_fails_leaves_the_reply_and_says_why(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        files = d.engine.catalog.list()
        files.append(ModelFile("bad", "", "echo", problem="The file is cut off."))
        first = await d.say("Hello there")
        bad = next(choice for choice in await d.chat.again.choices() if choice.name == "bad")
        assert (bad.problem, bad.is_loaded) == ("The file is cut off.", False)
        await again(d, first, "bad")
        [asked] = await over(d, first)
        assert (asked.status, asked.under) == ("failed", first.parent)
        assert "The file is cut off." in asked.message
        view = await d.chat.view(TAB)
        assert (view.head, list(view.siblings[first.id]), list(view.again)) == (first.id, [first.id], [asked])
        d.chat.again.dismiss(asked.id)
        assert not (await d.chat.view(TAB)).again
        assert (await d.say("Still there?")).model == "echo"


async def test_another_load_under_way_is_told_and_not_disturbed(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.say("Hello there")
        load = asyncio.create_task(d.engine.load("third", options={"load_seconds": 3600, "load_steps": 10_000}))
        await until(lambda: d.engine.watch.state.fraction > 0)
        await again(d, first, "other")
        d.chat.again.cancel(d.chat.again.of(first.conversation)[0].id)
        [asked] = await over(d, first)
        assert asked.has_failed
        await again(d, first, "other")
        [asked] = await over(d, first)
        assert asked.status == "failed" and "third is being loaded" in asked.message
        assert not load.done(), "a cancel of ours is none of theirs"
        assert d.engine.cancel_load()
        with pytest.raises(Cancelled):
            await load
        assert (await d.chat.view(TAB)).head == first.id


async def test_a_load_waits_for_others_replies_and_cancelling_it_gives_the_model_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chat's own reply, which is written anew, is not waited for: it is stopped and kept."""
    monkeypatch.setattr("modules.engine.loading._fits", lambda plan: False)
    async with desk(tmp_path, script="slow " * 4000, rate=100) as d:
        other = await d.chat.send(OTHER_TAB, "Another chat", conversation="", under=None)
        own = await d.chat.send(TAB, "This chat", conversation="", under=None)
        assert own.reply and other.reply
        await until(lambda: all(run.text() for run in d.engine.live_runs) and len(d.engine.live_runs) == 2)
        await again(d, own.reply, "other")
        await until(lambda: d.engine.watch.state.what == "Waiting for replies of echo")
        stopped = await d.saved(own.reply)
        assert stopped.status == "stopped" and stopped.message.text
        assert [run.id for run in d.engine.live_runs] == [other.run]
        d.chat.again.cancel(d.chat.again.of(own.reply.conversation)[0].id)
        [asked] = await over(d, own.reply)
        assert (asked.status, asked.message) == ("cancelled", "Loading other was cancelled.")
        assert [held.name for held in d.engine.models] == ["echo"]
        assert [run.id for run in d.engine.live_runs] == [other.run], "and its reply goes on"
        assert (await d.chat.view(TAB)).head == own.reply.id


async def test_the_load_is_followed_to_its_end(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.say("Hello there")
        await again(d, first, "other")
        [asked] = d.chat.again.of(first.conversation)
        steps: list[Mapping[str, Any]] = [step async for step in d.chat.again.follow(asked.id)]
        assert steps[0]["status"] == "loading" and steps[-1]["status"] == "writing"
        with pytest.raises(NotFound):
            await anext(d.chat.again.follow(asked.id))


async def test_what_cannot_be_written_again_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.say("Hello there")
        for node, model, quantization, error in ((first.id, "nowhere", "", NotFound), (999, "other", "", NotFound),
                                                 (first.id, "other", "4bit", BadRequest)):
            with pytest.raises(error):
                await d.chat.again.start(TAB, node, conversation=first.conversation, model=model, quantization=quantization)
        assert not d.chat.again.of(first.conversation)
        assert [held.name for held in d.engine.models] == ["echo"]


def test_the_page_is_given_what_it_asks_for() -> None:
    asked: AskedOfThePage = Asked("id", "chat", 2, 1, "model")
    assert not asked.message
