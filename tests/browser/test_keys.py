"""Escape stops a reply, and only where nothing else has a use for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_chats import FakeChats
from tests.running_app import RunningApp

from .conftest import SESSION, Server
from .test_chat_page import Open, send
from .test_whole_app import app, new_chat, open_app, open_panel, open_tab, say

__all__ = ["app", "open_app"]  # fixtures


COUNT_STOPS = """() => { const real = window.fetch; window.stops = 0;
    window.fetch = (url, options) => { window.stops += String(url).endsWith("/stop"); return real(url, options); }; }"""


def stops_by_escape(page: Any) -> bool:
    """Press Escape; whether the page asked for a stop, which it does before the key is dealt with."""
    before = page.evaluate("window.stops")
    page.keyboard.press("Escape")
    return bool(page.evaluate("window.stops") > before)


@pytest.fixture
def streaming(open_page: Open, server: Server, chats: FakeChats) -> Any:
    """A page with messages, a list of chats and trash, and a reply that is being written."""
    server.call(chats.fill, SESSION, 4)
    thrown = server.call(chats.begin, "Thrown away")
    chats.rows[thrown].trashed = True
    page = open_page()
    page.evaluate(COUNT_STOPS)
    page.click(".sidebar .toggle-button")
    send(page, "Go on")
    return page


def test_escape_in_a_dialog_closes_the_dialog_alone(streaming: Any) -> None:
    """It also stopped the reply behind the dialog."""
    streaming.get_by_role("button", name="Trash", exact=True).click()
    streaming.get_by_role("button", name="Empty the trash").click()
    streaming.wait_for_selector("dialog[open]")
    assert not stops_by_escape(streaming)
    streaming.wait_for_selector("dialog", state="detached")
    assert stops_by_escape(streaming)


def test_escape_in_the_search_for_chats_is_the_searchs(streaming: Any) -> None:
    streaming.fill(".chats input[type=search]", "one")
    assert not stops_by_escape(streaming)
    streaming.focus(".composer textarea")
    assert stops_by_escape(streaming), "in the chat's own box it stops the reply"


def test_escape_while_a_chat_is_renamed_only_ends_the_renaming(streaming: Any) -> None:
    streaming.locator(".chats li [aria-label^=Rename]").first.click()
    assert not stops_by_escape(streaming)
    streaming.wait_for_selector(".chats li input", state="detached")


@pytest.mark.parametrize("place", [".editor textarea", ".editor >> text=Save only"])
def test_escape_anywhere_in_the_editor_ends_the_editing_alone(streaming: Any, place: str) -> None:
    """On the editor's buttons it stopped the reply and left the editor open."""
    streaming.click("[data-node='1'] [aria-label=Edit]")
    streaming.fill(".editor textarea", "changed")
    streaming.focus(place)
    assert not stops_by_escape(streaming)
    assert streaming.locator(".editor").count() == 0


def test_escape_during_the_choice_of_a_word_is_the_input_methods(streaming: Any) -> None:
    streaming.locator(".composer textarea").evaluate(
        "e => e.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', isComposing: true, bubbles: true }))")
    assert streaming.evaluate("window.stops") == 0


def test_escape_takes_back_a_branch_that_was_to_begin(open_page: Open, server: Server, chats: FakeChats) -> None:
    """Only the button did."""
    server.call(chats.fill, SESSION, 4)
    page = open_page()
    page.click("[data-node='2'] [aria-label='Branch from here']")
    page.wait_for_selector(".branching:visible")
    page.keyboard.press("Escape")
    page.wait_for_selector(".branching", state="hidden")
    assert page.locator(".branch-point").count() == 0


def test_escape_in_a_list_of_choices_or_on_another_tab_leaves_the_reply(open_app: Open, app: RunningApp) -> None:
    app.load("demo", script="tick " * 3000, rate=30)
    try:
        page = open_app()
        page.evaluate(COUNT_STOPS)
        new_chat(page)
        open_panel(page)
        say(page, "Go on for long")
        page.wait_for_selector(".message.live")
        page.locator("#preset input").click()
        page.get_by_role("option").first.wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("option").first.wait_for(state="hidden")
        open_tab(page, "Notebook")
        page.get_by_label("Notebook page").click()
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="Notebook").focus()
        page.keyboard.press("Escape")
        assert page.evaluate("window.stops") == 0
        open_tab(page, "Chat")
        page.get_by_role("textbox", name="Message", exact=True).focus()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Continue").first.wait_for()
    finally:
        app.load("demo")
