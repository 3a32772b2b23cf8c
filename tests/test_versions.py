"""Versions of a message while one of them is being written: none is lost, and none is waited for that nobody sees."""

from __future__ import annotations

from pathlib import Path

from modules.core.conversation import Conversation, Node
from modules.core.messages import message

from .test_chat import TAB, Desk, desk
from .test_engine import until

LONG = "tick " * 3000


async def begun(d: Desk, text: str = "first wording") -> tuple[Node, Node]:
    """A message and its reply, of which some is written and more is to come."""
    view = await d.chat.view(TAB)
    turn = await d.chat.send(TAB, text, conversation=view.conversation, under=view.head)
    assert turn.user is not None and turn.reply is not None
    await until(lambda: len(d.engine.run(turn.run).text()) > 20)
    return turn.user, turn.reply


async def test_an_edit_that_is_sent_stops_the_reply_to_the_old_wording(tmp_path: Path) -> None:
    """It wrote on unseen, the new reply waited for it, and Stop did not reach it."""
    async with desk(tmp_path, script=LONG, rate=200, slots=1) as d:
        user, old = await begun(d)
        turn = await d.chat.edit(TAB, user.id, "second wording", resend=True)
        stopped = await d.saved(old)
        assert stopped.status == "stopped" and stopped.message.text.startswith("tick tick"), "what was written is kept"
        await until(lambda: len(d.engine.run(turn.run).text()) > 20)
        view = await d.chat.view(TAB)
        assert [node.message.text for node in view.path][:1] == ["second wording"]
        assert not view.elsewhere
        await d.chat.stop(turn.run)


async def test_an_earlier_reply_written_again_stops_what_is_written_below_it(tmp_path: Path) -> None:
    async with desk(tmp_path, script=LONG, rate=200, slots=1) as d:
        _, first = await begun(d)
        await d.chat.stop(first.run)
        await d.saved(first)
        _, second = await begun(d, "and then?")
        turn = await d.chat.regenerate(TAB, first.id)
        assert (await d.saved(second)).status == "stopped"
        await until(lambda: len(d.engine.run(turn.run).text()) > 20)
        going_on = await d.chat.continue_reply(TAB, first.id)
        assert not d.engine.run(turn.run).done, "a version beside is not below"
        assert [node.run for node in (await d.chat.view(TAB)).elsewhere] == [turn.run]
        for run in (turn.run, going_on.run):
            await d.chat.stop(run)


async def test_a_view_tells_of_versions_that_are_written_out_of_sight(tmp_path: Path) -> None:
    async with desk(tmp_path, script=LONG, rate=200) as d:
        user, reply = await begun(d)
        await d.chat.edit(TAB, user.id, "second wording", resend=False)
        assert [node.id for node in (await d.chat.view(TAB)).elsewhere] == [reply.id], "saved without sending: nothing is stopped"
        await d.chat.choose(TAB, user.id)
        assert not (await d.chat.view(TAB)).elsewhere, "it is in sight"
        await d.chat.edit(TAB, user.id, "third wording", resend=False)
        await d.chat.stop(reply.run)
        assert not (await d.chat.view(TAB)).elsewhere, "it has ended"


def test_below_a_message_is_all_that_follows_in_every_version() -> None:
    def node(id: int, parent: int | None) -> Node:
        return Node(id, "c", parent, message("user", "x"))

    tree = Conversation("c", [node(1, None), node(2, 1), node(3, 1), node(4, 3), node(5, 3), node(6, None)])
    assert (tree.below(3), tree.below(1), tree.below(6)) == ({3, 4, 5}, {1, 2, 3, 4, 5}, {6})
