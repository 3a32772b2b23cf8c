"""The chat page in Chromium: what a person does, sees and must not lose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fake_chats import FakeChats
from tests.probes import PROBES

from .conftest import SESSION, Server

Open = Callable[..., Any]


def send(page: Any, text: str) -> None:
    page.fill(".composer textarea", text)
    page.press(".composer textarea", "Enter")
    page.wait_for_selector(".message.live")


def live_run(chats: FakeChats) -> Any:
    return next(run for run in reversed(chats.runs.values()) if not run.done)


def wait_for_text(page: Any, selector: str, text: str) -> None:
    found = "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)"
    page.wait_for_function(found, arg=[selector, text], timeout=10_000)


def test_a_message_is_sent_and_its_reply_streams_in(open_page: Open, server: Server, chats: FakeChats) -> None:
    page = open_page()
    send(page, "Hello there")
    run = live_run(chats)
    server.call(run.say, "A **bo")
    wait_for_text(page, ".message.live", "A **bo")
    server.call(run.say, "ld** word\n\n```python\nx = 1\n```\n")
    page.wait_for_selector(".message.live strong")
    server.call(chats.finish, run)
    page.wait_for_selector(".message.assistant:not(.live)")
    assert page.locator(".message.user .md").inner_text() == "Hello there"
    assert "4 tokens/s" in page.locator(".message.assistant .stats").inner_text()
    assert page.locator(".code .copy-code").count() == 1
    assert page.input_value(".composer textarea") == ""
    assert page.locator("[role=status].unseen").inner_text() == "Reply finished."


def test_escape_stops_a_reply_and_continue_is_offered(open_page: Open, server: Server, chats: FakeChats) -> None:
    page = open_page()
    send(page, "Go on")
    server.call(live_run(chats).say, "Once upon")
    wait_for_text(page, ".message.live", "Once upon")
    assert page.locator(".composer .send").get_attribute("aria-label") == "Stop"
    page.keyboard.press("Escape")
    page.wait_for_selector(".message.assistant:not(.live) .state")
    assert "Stopped." in page.locator(".message.assistant .state").inner_text()
    assert page.locator(".composer .send").get_attribute("aria-label") == "Send"
    page.click(".message.assistant .state >> text=Continue")
    page.wait_for_selector(".message.live")


def test_a_reload_attaches_to_the_running_reply(open_page: Open, server: Server, chats: FakeChats) -> None:
    page = open_page()
    send(page, "Go on")
    server.call(live_run(chats).say, "before ")
    wait_for_text(page, ".message.live", "before")
    page.reload()
    wait_for_text(page, ".message.live", "before")
    server.call(live_run(chats).say, "after")
    wait_for_text(page, ".message.live", "before after")


def test_a_reload_loses_no_typed_word(open_page: Open, chats: FakeChats) -> None:
    page = open_page()
    page.locator(".composer textarea").press_sequentially("half a sentence")
    page.reload()
    page.wait_for_function("window.viewReady === true")
    assert page.input_value(".composer textarea") == "half a sentence"


def test_a_refused_message_stays_in_the_box_and_says_why(open_page: Open, chats: FakeChats) -> None:
    page = open_page()
    chats.refuse = "The disk is full; free some space."
    page.fill(".composer textarea", "precious words")
    page.press(".composer textarea", "Enter")
    page.wait_for_selector(".notice.error")
    assert "The disk is full" in page.locator(".notice.error").inner_text()
    assert page.input_value(".composer textarea") == "precious words"
    page.click(".notice.error button")
    assert page.locator(".notice.error").count() == 0


def test_a_lost_connection_is_shown_and_mended(open_page: Open, server: Server, chats: FakeChats) -> None:
    page = open_page()
    page.evaluate("""() => { const Real = window.WebSocket; window.sockets = [];
        window.WebSocket = class extends Real { constructor(...a) { super(...a); window.sockets.push(this); } }; }""")
    send(page, "Go on")
    server.call(live_run(chats).say, "one ")
    wait_for_text(page, ".message.live", "one")
    page.evaluate("""() => { window.blocked = window.WebSocket; window.WebSocket = class { constructor() { setTimeout(() =>
        this.onclose?.({ code: 1006 }), 1); } close() {} }; window.sockets.at(-1).close(); }""")
    page.wait_for_selector(".message.live.offline")
    assert "reconnecting" in page.locator(".message.live .state").inner_text()
    server.call(live_run(chats).say, "two")
    page.evaluate("() => { window.WebSocket = window.blocked; }")
    wait_for_text(page, ".message.live:not(.offline)", "one two")


def test_a_reader_who_scrolled_up_is_left_alone(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 30)
    page = open_page()
    send(page, "More")
    box = page.locator(".messages")
    at_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight < 5"
    assert box.evaluate(at_end)
    box.hover()
    page.mouse.wheel(0, -900)
    page.wait_for_selector(".jump:not([hidden])")
    page.wait_for_timeout(200)  # the wheel's own smooth scrolling
    before = box.evaluate("e => e.scrollTop")
    server.call(live_run(chats).say, "line\n\n" * 60)
    wait_for_text(page, ".message.live", "line")
    assert box.evaluate("e => e.scrollTop") == before
    page.click(".jump")
    assert box.evaluate(at_end)
    server.call(live_run(chats).say, "the end\n\n" * 30)
    wait_for_text(page, ".message.live", "the end")
    assert box.evaluate(at_end)


def test_older_messages_come_on_scrolling_up_without_a_jump(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 130)
    page = open_page()
    assert page.locator(".message").count() == 50
    page.locator(".messages").evaluate("e => { e.scrollTop = 300; }")
    page.wait_for_function("document.querySelectorAll('.message').length === 100")
    page.wait_for_function("document.querySelectorAll('.message.measured').length === 100")
    first = page.locator("[data-node='81']")
    top = first.evaluate("e => e.getBoundingClientRect().top - document.querySelector('.messages').getBoundingClientRect().top")
    assert -310 < top < -250, "what was 300 pixels above the window's top still is, but for the line that said there is more"
    page.locator(".messages").evaluate("e => { e.scrollTop = 0; }")
    page.wait_for_function("document.querySelectorAll('.message').length === 130")


def test_swipes_edits_branches_and_undo(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 4, "text {n}")
    page = open_page()
    last = page.locator(".message.last")
    last.locator("[aria-label=Regenerate]").click()
    page.wait_for_selector(".message.live")
    assert page.locator(".message.live .swipe").inner_text() == "2/2"
    server.call(live_run(chats).say, "second")
    server.call(chats.finish, live_run(chats))
    page.wait_for_selector(".message.last:not(.live)")
    page.click(".message.last [aria-label='Earlier version']")
    wait_for_text(page, ".message.last .md", "text 3")
    page.click("[data-node='1'] [aria-label=Edit]")
    page.fill(".editor textarea", "changed")
    page.click(".editor >> text=Save only")
    wait_for_text(page, ".message.last .md", "changed")
    assert page.locator(".message").count() == 1
    page.click(".message.last [aria-label=Delete]")
    page.wait_for_selector("text=Message deleted.")
    assert page.locator(".message").count() == 4, "the other version and what followed it are shown"
    page.click(".notice >> text=Undo")
    wait_for_text(page, ".message.last .md", "changed")
    page.click(".message.last [aria-label='Earlier version']")
    page.wait_for_function("document.querySelectorAll('.message').length === 4")
    page.click("[data-node='2'] [aria-label='Branch from here']")
    send(page, "another way")
    assert page.locator(".message").count() == 4
    assert page.locator(".message.user.last, .message.user").last.locator(".swipe").inner_text() == "2/2"


def test_copy_gives_the_text_as_it_was_written(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 2, "*raw* {n}")
    page = open_page()
    page.click(".message.last [aria-label=Copy]")
    page.wait_for_selector(".message.copied")
    assert page.evaluate("navigator.clipboard.readText()") == "*raw* 1"


def test_the_list_opens_renames_and_trashes_with_undo(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.begin, "First chat")
    server.call(chats.begin, "Second chat")
    page = open_page()
    page.click(".sidebar .toggle-button")
    page.click(".chats li:has-text('First chat') .chat")
    page.wait_for_selector(".chats li.open:has-text('First chat')")
    page.click(".chats li:has-text('First chat') [aria-label^=Rename]")
    page.fill(".chats li input", "Birds")
    page.press(".chats li input", "Enter")
    page.wait_for_selector(".chats li:has-text('Birds')")
    page.click(".chats li:has-text('Birds') [aria-label^=Move]")
    page.wait_for_selector(".notice:has-text('in the trash')")
    assert page.locator(".chats li").count() == 1
    page.click(".notice >> text=Undo")
    page.wait_for_selector(".chats li:has-text('Birds')")
    page.fill(".chats input[type=search]", "second")
    page.wait_for_function("document.querySelectorAll('.chats li').length === 1")


def test_two_pages_show_the_same_reply(open_page: Open, server: Server, chats: FakeChats) -> None:
    one = open_page()
    send(one, "Hello")
    two = open_page()
    server.call(live_run(chats).say, "for both 😀 of *you*")
    for page in (one, two):
        page.bring_to_front()
        wait_for_text(page, ".message.live", "for both 😀 of you")
    server.call(chats.finish, live_run(chats))
    html = []
    for page in (one, two):
        page.bring_to_front()
        page.wait_for_selector(".message.assistant:not(.live)")
        html.append(page.locator(".message.assistant .md").inner_html())
    assert html[0] == html[1]


def test_hostile_messages_do_nothing_saved_or_streamed(open_page: Open, server: Server, chats: FakeChats) -> None:
    """Saved ones are in the page's history; each also streams in, letter after letter would be slow, so in three pieces."""
    chat = server.call(chats.fill, SESSION, 0)
    head = None
    for probe in PROBES:
        head = server.call(chats.add, chat, head, "assistant", probe).id
    chats.sessions[SESSION] = chat, head
    page = open_page()
    for probe in PROBES[::3]:
        send(page, "next")
        run = live_run(chats)
        third = len(probe) // 3
        for piece in (probe[:third], probe[third:2 * third], probe[2 * third:]):
            server.call(run.say, piece or " ")
            page.wait_for_timeout(30)
        server.call(chats.finish, run)
        page.wait_for_selector(".message.last:not(.live)")
    for link in page.locator(".md a[href]").all():
        assert link.get_attribute("href").startswith(("http://", "https://", "mailto:", "#fn-"))
    page.locator(".messages").evaluate("e => { e.scrollTop = 0; }")
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None
    forbidden = ".md :is(script, iframe, img, svg, form, input, style, [style], [id], [onclick]):not([data-mark] *)"
    assert page.locator(forbidden).count() == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_targets_are_large_enough(open_page: Open, server: Server, chats: FakeChats, width: int,
                                                        scheme: str) -> None:
    wide = "| a | b |\n|---|---|\n| " + "long cell " * 20 + "| 2 |\n\n```python\nx = 1  # " + "y" * 300 + "\n```\n\n" + "w" * 300
    text = "# Title {n}\n\n" + wide
    server.call(chats.fill, SESSION, 2, text)
    page = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator(".composer").bounding_box()
    assert box["y"] + box["height"] <= 844, "the box to write in is on the screen"
    for button in page.locator(".colloquy button:visible").all():
        size = button.bounding_box()
        assert size["width"] >= 24 and size["height"] >= 24
    assert page.evaluate("parseFloat(getComputedStyle(document.querySelector('.composer textarea')).fontSize)") >= 16
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")


def test_keyboard_alone_is_enough(open_page: Open, server: Server, chats: FakeChats) -> None:
    """Shift+Enter breaks the line, Enter sends, arrow up in the empty box edits the last message, Escape leaves the editor."""
    page = open_page()
    page.focus(".composer textarea")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.live")
    server.call(chats.finish, live_run(chats))
    page.wait_for_selector(".message.assistant:not(.live)")
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(".editor textarea")
    assert page.input_value(".editor textarea") == "one\ntwo"
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('.editor')")


def test_an_answer_that_comes_late_shows_nothing_old(open_page: Open, server: Server, chats: FakeChats) -> None:
    """A view that was asked for before a new chat was begun, and answered after it, used to bring the old chat back."""
    server.call(chats.fill, SESSION, 6)
    page = open_page()
    page.evaluate("""() => { const real = window.fetch; window.held = [];
        window.fetch = (url, options) => String(url).includes("/view") && !window.held.length
            ? new Promise((go) => window.held.push(async () => go(await answer))) : real(url, options);
        const answer = real("ui-api/view", { headers: { "X-Session": window.colloquySession() } });
        window.late = window.colloquyChat.load(); }""")
    page.evaluate("window.colloquyChat.begin()")
    page.wait_for_selector(".empty:visible")
    page.evaluate("async () => { await window.held[0](); await window.late; }")
    assert page.locator(".message").count() == 0
