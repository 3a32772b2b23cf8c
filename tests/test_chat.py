"""Turns with a real engine, store and journal: what is saved, when, and that nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modules.chat import ChatService
from modules.core.conversation import Node
from modules.core.errors import BadRequest, NotFound
from modules.core.events import Request
from modules.engine import Engine, Run
from modules.notebook import Notebook
from modules.replies import Replies
from modules.sessions import Sessions
from modules.store.database import Store

from .echo_models import echo_engine
from .test_engine import until

TAB = "tab-0123456789abcdef"
OTHER_TAB = "tab-fedcba9876543210"


class Desk:
    """The services of one app over one data folder."""

    def __init__(self, engine: Engine, data_dir: Path) -> None:
        self.engine = engine
        self.store = Store(data_dir)
        self.sessions = Sessions(self.store.sessions)
        self.replies = Replies(engine, self.store, "this-one")
        self.chat = ChatService(engine, self.store, self.sessions, self.store.cards, self.replies)
        self.notebook = Notebook(engine, self.store, self.sessions, "this-one")

    async def say(self, text: str, *, tab: str = TAB) -> Node:
        """Send at the head and wait until the reply is saved."""
        view = await self.chat.view(tab)
        turn = await self.chat.send(tab, text, conversation=view.conversation, under=view.head)
        assert turn.reply is not None
        return await self.saved(turn.reply)

    async def saved(self, reply: Node) -> Node:
        while True:
            await self.replies.settle()
            node = await asyncio.to_thread(self.store.chats.node, reply.id)
            if node.status != "streaming":
                return node
            await asyncio.sleep(0.01)


def asked_of(engine: Engine) -> list[Request]:
    """What is asked of the engine from now on: a run that has ended does not know it any more."""
    asked: list[Request] = []
    start = engine.start

    def noting(request: Request, **rest: Any) -> Run:
        asked.append(request)
        return start(request, **rest)

    engine.start = noting  # type: ignore[method-assign]
    return asked


@asynccontextmanager
async def desk(tmp_path: Path, **options: Any) -> AsyncIterator[Desk]:
    async with echo_engine(tmp_path, **options) as engine:
        made = Desk(engine, tmp_path / "data")
        try:
            yield made
        finally:
            await engine.close()
            await made.replies.close()
            await made.notebook.close()
            made.store.close()


async def test_a_turn_is_saved_with_what_wrote_it(tmp_path: Path) -> None:
    async with desk(tmp_path, script="Good day to you.") as d:
        reply = await d.say("Hello there")
        assert (reply.message.text, reply.status, reply.finish) == ("Good day to you.", "complete", "stop")
        assert (reply.model, reply.loader) == ("echo", "echo")
        assert reply.sampled_ids
        assert reply.seed is not None
        assert reply.stats["completion_tokens"] >= 4
        assert reply.stats["context"] == 16_384
        view = await d.chat.view(TAB)
        assert [n.message.text for n in view.path] == ["Hello there", "Good day to you."]
        assert view.title == "Hello there"
        assert not list((tmp_path / "data" / "journal").glob("*")), "the journal is gone once the row holds the text"


async def test_the_second_turn_evaluates_no_more_than_what_is_new(tmp_path: Path) -> None:
    async with desk(tmp_path, script="A reply with several words in it.") as d:
        first = await d.say("The first message of this chat")
        second = await d.say("More")
        new = second.stats["prompt_tokens"] - first.stats["prompt_tokens"] - first.stats["completion_tokens"]
        assert second.stats["prompt_tokens"] - second.stats["cached_tokens"] <= new + 1


async def test_regenerate_keeps_the_old_reply_beside_the_new(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.say("Again, please")
        turn = await d.chat.regenerate(TAB, first.id)
        assert turn.reply is not None
        second = await d.saved(turn.reply)
        view = await d.chat.view(TAB)
        assert view.head == second.id
        assert list(view.siblings[second.id]) == [first.id, second.id]
        await d.chat.choose(TAB, first.id)
        assert (await d.chat.view(TAB)).head == first.id


async def test_edit_makes_a_branch_and_the_old_one_stays(tmp_path: Path) -> None:
    async with desk(tmp_path, script="ok") as d:
        await d.say("first wording")
        view = await d.chat.view(TAB)
        old_user, old_reply = view.path
        turn = await d.chat.edit(TAB, old_user.id, "second wording", resend=True)
        assert turn.reply is not None
        await d.saved(turn.reply)
        view = await d.chat.view(TAB)
        assert [n.message.text for n in view.path] == ["second wording", "ok"]
        await d.chat.choose(TAB, old_user.id)
        assert (await d.chat.view(TAB)).head == old_reply.id


async def test_stop_keeps_the_text_and_continue_goes_on_from_it(tmp_path: Path) -> None:
    script = "word " * 60
    async with desk(tmp_path, script=script, rate=300) as d:
        turn = await d.chat.send(TAB, "Go", conversation="", under=None)
        assert turn.reply is not None
        run = d.engine.run(turn.run)
        await until(lambda: len(run.text()) > 40)
        await d.chat.stop(turn.run)
        stopped = await d.saved(turn.reply)
        assert stopped.status == "stopped"
        assert script.startswith(stopped.message.text)
        more = await d.chat.continue_reply(TAB, stopped.id)
        assert more.reply is not None
        assert more.reply.message.text == stopped.message.text, "the page draws the old text at once"
        whole = await d.saved(more.reply)
        assert whole.message.text == script
        assert (await d.chat.view(TAB)).head == whole.id


async def test_a_run_outlives_the_tab_and_a_second_tab_shows_the_same(tmp_path: Path) -> None:
    async with desk(tmp_path, script="slow " * 30, rate=400) as d:
        turn = await d.chat.send(TAB, "Go", conversation="", under=None)
        other = await d.chat.view(OTHER_TAB)
        assert [n.id for n in other.path][:1] == [turn.user.id if turn.user else 0], "a new tab copies the latest session"
        assert turn.reply is not None
        assert (await d.saved(turn.reply)).message.text == "slow " * 30


async def test_without_a_model_the_message_is_kept_and_the_reply_says_why(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.engine.unload("echo")
        turn = await d.chat.send(TAB, "Precious words", conversation="", under=None)
        assert turn.reply is not None
        assert turn.reply.status == "failed"
        view = await d.chat.view(TAB)
        assert view.path[0].message.text == "Precious words"
        assert "Model tab" in view.path[1].stats["error"]
        await d.engine.load("echo", options={"script": "now"})
        again = await d.chat.regenerate(TAB, view.path[1].id)
        assert again.reply is not None
        assert (await d.saved(again.reply)).message.text == "now"


@pytest.mark.skipif(os.name == "nt", reason="signals")
async def test_a_killed_worker_keeps_the_partial_reply_and_the_reason(tmp_path: Path) -> None:
    async with desk(tmp_path, script="abc " * 5000, rate=300, ) as d:
        await d.sessions.update(TAB, params={"max_tokens": 0})
        turn = await d.chat.send(TAB, "Go", conversation="", under=None)
        run = d.engine.run(turn.run)
        await until(lambda: len(run.text()) > 20)
        os.kill(d.engine.held().worker.pid, signal.SIGKILL)
        assert turn.reply is not None
        node = await d.saved(turn.reply)
        assert node.status == "failed"
        assert node.message.text.startswith("abc abc")
        assert "SIGKILL" in node.stats["error"]


async def test_a_character_speaks_first_and_its_card_leads_the_prompt(tmp_path: Path) -> None:
    async with desk(tmp_path, script="Aye.") as d:
        name = d.store.cards.names()[0]
        await d.chat.new_chat(TAB, character=name)
        view = await d.chat.view(TAB)
        assert len(view.path) == 1
        assert view.path[0].message.role == "assistant"
        assert view.names["assistant"] == d.store.cards.load(name).name
        asked = asked_of(d.engine)
        reply = await d.say("Who are you?")
        assert (await d.chat.view(TAB)).title == "Who are you?", "a list of chats that all bear one name finds none"
        assert reply.message.name == d.store.cards.load(name).name
        assert asked[0].messages[0].role == "system"
        assert d.store.cards.load(name).name in asked[0].messages[0].text


async def test_a_greeting_nobody_answered_is_open_after_a_reload_but_not_listed(tmp_path: Path) -> None:
    """Every character that was looked at stayed in the list of chats."""
    async with desk(tmp_path, script="Aye.") as d:
        async def listed() -> list[str]:
            return [chat.id for chat in await d.chat.listing("", offset=0, limit=10, trashed=False)]

        name = d.store.cards.names()[0]
        await d.chat.new_chat(TAB, character=name)
        seen = await d.chat.view(TAB)
        await d.chat.new_chat(TAB, character=name)
        assert await listed() == []
        restarted = Desk(d.engine, tmp_path / "data")
        shown = await restarted.chat.view(TAB)
        restarted.store.close()
        assert shown.conversation and shown.path[0].message.text == seen.path[0].message.text
        await d.say("Who are you?")
        assert await listed() == [shown.conversation]
        await d.chat.open_chat(TAB, seen.conversation)
        await d.chat.edit(TAB, seen.path[0].id, "Changed by hand", resend=False)
        assert await listed() == [seen.conversation, shown.conversation]


async def test_delete_hides_and_undo_brings_back(tmp_path: Path) -> None:
    async with desk(tmp_path, script="ok") as d:
        await d.say("one")
        second = await d.say("two")
        view = await d.chat.view(TAB)
        hidden = await d.chat.delete(TAB, view.path[2].id)
        assert set(hidden) == {view.path[2].id, second.id}
        assert len((await d.chat.view(TAB)).path) == 2
        await d.chat.undelete(TAB, hidden, head=second.id)
        assert (await d.chat.view(TAB)).head == second.id


async def test_a_stale_tab_writes_a_branch(tmp_path: Path) -> None:
    async with desk(tmp_path, script="ok") as d:
        await d.say("one")
        stale = await d.chat.view(TAB)
        await d.say("two")
        turn = await d.chat.send(OTHER_TAB, "also two", conversation=stale.conversation, under=stale.head)
        assert turn.reply is not None
        await d.saved(turn.reply)
        tree = d.store.chats.conversation(stale.conversation)
        assert sorted(tree.nodes[i].message.text for i in tree.children[stale.head]) == ["also two", "two"]


async def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    async with desk(tmp_path, script="ok") as d:
        with pytest.raises(BadRequest):
            await d.chat.send(TAB, "   ", conversation="", under=None)
        with pytest.raises(NotFound):
            await d.chat.send(TAB, "hello", conversation="0" * 32, under=None)
        reply = await d.say("hello")
        with pytest.raises(NotFound):
            await d.chat.send(TAB, "hello", conversation=(await d.chat.view(TAB)).conversation, under=10**6)
        with pytest.raises(BadRequest):
            await d.chat.continue_reply(TAB, (await d.chat.view(TAB)).path[0].id)
        assert (await d.chat.view(TAB)).head == reply.id
        assert len(await d.chat.listing("", offset=0, limit=10, trashed=False)) == 1


async def test_the_notebook_continues_and_saves_versions(tmp_path: Path) -> None:
    async with desk(tmp_path, script=" and so it went on.") as d:
        document = await d.notebook.create(TAB, "Once")
        going = await d.notebook.generate(TAB, document.id, "Once upon a time", base=document.version)
        await until(lambda: not d.notebook.live_run(document.id))
        shown = await d.notebook.shown(TAB)
        assert shown is not None
        assert shown.text == "Once upon a time and so it went on."
        assert (await d.notebook.undo(document.id)).text == "Once upon a time"
        assert (await d.notebook.redo(document.id)).text == shown.text
        assert going.run
