"""What stands under a reply beside its buttons: what was left out of the prompt, and whether the reply is on disk."""

from __future__ import annotations

from dataclasses import replace

from modules.core.events import Started
from tests.fake_chats import FakeChats

from .conftest import Server
from .test_chat_page import Open, live_run, send, wait_for_text


def test_what_the_context_left_out_and_the_loader_ignored_is_said_under_the_reply(
        open_page: Open, server: Server, chats: FakeChats) -> None:
    page = open_page()
    send(page, "Hello")
    run = live_run(chats)
    server.call(run.publish, Started(run.id, "m", "echo", 90, 0, 4096, 1, dropped=3, ignored=("top_k",)))
    server.call(run.say, "Well")
    state = page.locator(".message.assistant .state")
    told = "The context is full: 3 earlier messages left out.", "This model's loader does not know: top_k."
    wait_for_text(page, ".message.live .state", told[0])
    server.call(chats.finish, run)
    page.wait_for_selector(".message.assistant:not(.live)")
    assert all(line in state.inner_text() for line in told), "it stays after the end"
    page.reload()
    wait_for_text(page, ".message.assistant .state", told[0])
    assert told[1] in state.inner_text()


def test_a_reply_that_is_not_on_disk_says_so_live_and_until_it_is(open_page: Open, server: Server, chats: FakeChats) -> None:
    """The person learnt of it only by a reload."""
    page = open_page()
    send(page, "Hello")
    run = live_run(chats)
    server.call(run.say, "Well")
    wait_for_text(page, ".message.live", "Well")
    warning = page.locator(".message.assistant .warning")
    assert warning.count() == 0
    chats.risk = "Not safe on disk yet, because the disk is full."
    warning.wait_for()
    assert warning.inner_text() == chats.risk
    chats.risk = ""
    warning.wait_for(state="detached")
    chats.reason = "This reply is not saved yet: the disk is full."
    server.call(chats.finish, run)
    warning.wait_for()
    assert warning.inner_text() == chats.reason == page.locator("[role=status].unseen").inner_text()
    assert page.locator(".message.assistant [aria-label=Regenerate]").count() == 1, "the reply itself is well"
    node = next(node for node in chats.nodes.values() if node.run == run.id)
    chats.nodes[node.id] = replace(node, stats={**node.stats, "unsaved": chats.reason})
    page.reload()
    warning.wait_for()
    chats.reason = ""
    warning.wait_for(state="detached")
