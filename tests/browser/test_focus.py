"""The keyboard is never lost: whatever goes away or is drawn anew, what stands in its place has it.

It was lost to the page's body after nearly every action, and one had to begin again at the page's first control.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.fake_chats import FakeChats

from .conftest import SESSION, Server
from .test_chat_page import Open, live_run, send, wait_for_text

ACTIVE = """() => { const e = document.activeElement; const name = e.getAttribute("aria-label") ?? e.textContent.trim();
    return [e.closest("[data-node]")?.dataset.node ?? e.closest("li")?.querySelector(".title")?.textContent ?? "", name]; }"""


def active(page: Any) -> tuple[str, str]:
    """The message's id or the chat's title, "" for neither, and the name of what has the keyboard."""
    place, name = page.evaluate(ACTIVE)
    return place, name


def press(page: Any, place: str, name: str, key: str = "Enter") -> None:
    """Press a key on a button that the keyboard is moved to, as Tab would."""
    page.locator(f"{place} [aria-label='{name}']").first.focus()
    page.keyboard.press(key)


def end_reply(page: Any, server: Server, chats: FakeChats, text: str) -> None:
    run = live_run(chats)
    server.call(run.say, text)
    server.call(chats.finish, run)
    wait_for_text(page, ".message.last:not(.live) .md", text)


def test_leaving_the_editor_gives_the_keyboard_back(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 2, "text {n}")
    page = open_page()
    for key in ("Escape", "Tab Tab Tab Enter"):  # the third is Cancel
        press(page, "[data-node='1']", "Edit")
        page.wait_for_selector(".editor textarea:focus")
        for one in key.split():
            page.keyboard.press(one)
        page.wait_for_selector(".editor", state="detached")
        assert active(page) == ("1", "Edit")
    page.focus(".composer textarea")
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(".editor textarea:focus")
    page.keyboard.press("Escape")
    assert active(page) == ("", "Message"), "where the editor was opened from"


def test_a_refused_edit_leaves_the_keyboard_in_the_editor(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 2, "text {n}")
    page = open_page()
    press(page, "[data-node='1']", "Edit")
    page.wait_for_selector(".editor textarea:focus")
    page.evaluate("() => { window.real = window.fetch; window.fetch = () => Promise.reject(new TypeError('away')); }")
    page.keyboard.type("more")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".notice.error")
    assert active(page) == ("1", "Edit message")
    page.locator(".notice.error button").focus()
    page.keyboard.press("Enter")
    assert active(page) == ("", "Message"), "a line that was sent away leaves the keyboard to the box"


def test_an_edited_swiped_and_deleted_message_leaves_the_keyboard_to_its_heir(open_page: Open, server: Server,
                                                                              chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 4, "text {n}")
    page = open_page()
    press(page, "[data-node='3']", "Edit")
    page.wait_for_selector(".editor textarea:focus")
    page.keyboard.type(" and more")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".message.live")
    assert active(page) == ("5", "Edit"), "of the new version"
    end_reply(page, server, chats, "a reply")
    press(page, "[data-node='5']", "Earlier version")
    page.wait_for_selector("[data-node='3']")
    assert active(page) == ("3", "Later version"), "there is no earlier one"
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-node='5']")
    assert active(page) == ("5", "Earlier version")
    press(page, "[data-node='5']", "Delete")
    page.wait_for_selector("[data-node='3']")
    assert active(page) == ("3", "Delete"), "of the version that is shown instead"
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-node='3']", state="detached")
    assert active(page) == ("2", "Delete"), "of the last message"
    press(page, ".notice", "Dismiss")
    assert active(page) == ("", "Message")
    press(page, "[data-node='2']", "Delete")
    page.wait_for_selector("[data-node='2']", state="detached")
    press(page, "[data-node='1']", "Delete")
    page.wait_for_selector(".empty:visible")
    assert active(page) == ("", "Message"), "there is no message left"


def test_a_reply_that_is_written_again_leaves_the_keyboard_to_the_box(open_page: Open, server: Server, chats: FakeChats) -> None:
    """What is being written cannot be written again; Escape and the next message begin at the box."""
    server.call(chats.fill, SESSION, 2, "text {n}")
    page = open_page()
    press(page, "[data-node='2']", "Regenerate")
    page.wait_for_selector(".message.live")
    assert active(page) == ("", "Message")
    page.locator(".message.live [aria-label='Copy']").focus()
    end_reply(page, server, chats, "again")
    assert active(page) == ("3", "Copy"), "the buttons of a reply that ended are drawn anew"


def test_the_stop_button_leaves_the_keyboard_to_the_box(open_page: Open, server: Server, chats: FakeChats) -> None:
    page = open_page()
    send(page, "Go on")
    server.call(live_run(chats).say, "Once")
    page.focus(".composer .send")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant:not(.live)")
    assert active(page) == ("", "Message")


def test_a_branch_taken_back_leaves_the_keyboard_in_the_box(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 4)
    page = open_page()
    press(page, "[data-node='2']", "Branch from here")
    assert active(page) == ("", "Message")
    page.locator(".branching button").focus()
    page.keyboard.press("Enter")
    assert active(page) == ("", "Message")


@pytest.fixture
def listed(open_page: Open, server: Server, chats: FakeChats) -> Any:
    """A page with three chats in its list and two in the trash."""
    for title in ("Birds", "Ships", "Stars", "Old", "Older"):
        chat = server.call(chats.begin, title)
        chats.rows[chat].trashed = title.startswith("Old")
    page = open_page()
    page.click(".sidebar .toggle-button")
    return page


def test_a_renamed_chat_keeps_the_keyboard(listed: Any) -> None:
    for typed, key, title in (("Fish", "Enter", "Fish"), ("Whales", "Escape", "Fish")):
        listed.locator(".chats li:nth-child(2) [aria-label^=Rename]").focus()
        listed.keyboard.press("Enter")
        listed.wait_for_selector(".chats li input:focus")
        listed.keyboard.type(typed)
        with listed.expect_response(lambda answer: "/chats?" in answer.url):
            listed.keyboard.press(key)
        listed.wait_for_function("() => document.querySelectorAll('.chats li').length === 3")
        assert active(listed) == (title, f"Rename “{title}”")


def test_a_chat_that_goes_leaves_the_keyboard_to_the_next(listed: Any) -> None:
    titles = [row.inner_text() for row in listed.locator(".chats li .title").all()]
    for count, heir in ((2, titles[1]), (1, titles[2]), (0, "")):
        listed.locator(".chats li:first-child [aria-label^=Move]").focus()
        listed.keyboard.press("Enter")
        listed.wait_for_function("(n) => document.querySelectorAll('.chats li').length === n", arg=count)
        assert active(listed) == ((heir, f"Move “{heir}” to the trash") if heir else ("", "New chat"))


def test_a_dialog_gives_the_keyboard_back(listed: Any) -> None:
    listed.get_by_role("button", name="Trash", exact=True).click()
    listed.wait_for_selector("[aria-label='Delete “Old” for good']")
    for opener in ("Delete “Old” for good", "Empty the trash"):
        listed.get_by_role("button", name=opener).focus()
        listed.keyboard.press("Enter")
        listed.wait_for_selector("dialog[open]")
        listed.keyboard.press("Escape")
        listed.wait_for_selector("dialog", state="detached")
        assert active(listed)[1] == opener
    listed.get_by_role("button", name="Delete “Old” for good").focus()
    listed.keyboard.press("Enter")
    listed.locator("dialog").get_by_role("button", name="Delete").focus()
    listed.keyboard.press("Enter")
    listed.wait_for_function("() => document.querySelectorAll('.chats li').length === 1")
    assert active(listed) == ("Older", "Delete “Older” for good")
    listed.get_by_role("button", name="Restore “Older”").focus()
    listed.keyboard.press("Enter")
    listed.wait_for_function("() => document.querySelectorAll('.chats li').length === 0")
    assert active(listed) == ("", "Back to the chats")
