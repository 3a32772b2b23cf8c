"""A reply that is written out of sight: the page says so, shows it, stops it."""

from __future__ import annotations

from tests.fake_chats import FakeChats
from tests.running_app import RunningApp

from .conftest import SESSION, Server
from .test_chat_page import Open, live_run, wait_for_text
from .test_whole_app import app, new_chat, open_app, say

__all__ = ["app", "open_app"]  # fixtures


def test_a_version_swiped_away_while_it_is_written_is_told_of_shown_and_stopped(open_page: Open, server: Server,
                                                                               chats: FakeChats) -> None:
    """It was found again only by swiping back, and nothing else could stop it."""
    server.call(chats.fill, SESSION, 2, "text {n}")
    page = open_page()
    page.click("[data-node='2'] [aria-label=Regenerate]")
    page.wait_for_selector(".message.live")
    run = live_run(chats)
    server.call(run.say, "a second version")
    assert page.locator(".elsewhere").is_hidden()
    page.click(".message.live [aria-label='Earlier version']")
    page.wait_for_selector(".elsewhere:visible")
    wait_for_text(page, ".elsewhere", "Another version is being written.")
    assert page.locator(".composer .send").get_attribute("aria-label") == "Send"
    page.click(".elsewhere >> text=Show it")
    wait_for_text(page, ".message.live", "a second version")
    assert page.locator(".elsewhere").is_hidden()
    page.click(".message.live [aria-label='Earlier version']")
    page.wait_for_selector(".elsewhere:visible")
    page.reload()
    page.wait_for_selector(".elsewhere:visible")
    page.locator(".elsewhere >> text=Stop it").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".elsewhere", state="hidden")
    assert run.done
    assert page.evaluate("document.activeElement.matches('.composer textarea')")


def test_several_versions_out_of_sight_are_counted_and_go_as_they_end(open_page: Open, server: Server, chats: FakeChats) -> None:
    server.call(chats.fill, SESSION, 2, "text {n}")
    page = open_page()
    for _ in range(2):
        page.click("[data-node='2'] [aria-label=Regenerate]")
        page.wait_for_selector(".message.live")
        page.evaluate("window.colloquyChat.turn('choose', { node: 2 })")
        page.wait_for_selector("[data-node='2']")
    wait_for_text(page, ".elsewhere", "2 other versions are being written.")
    server.call(chats.finish, live_run(chats))
    wait_for_text(page, ".elsewhere", "Another version is being written.")
    page.click(".elsewhere >> text=Show it")
    page.wait_for_selector("[data-node='3'].live")


def test_an_edit_sent_while_a_reply_streams_gets_its_reply_at_once(open_app: Open, app: RunningApp) -> None:
    """With one slot it waited in line behind a reply that nobody saw, and Stop did not reach that."""
    app.load("demo", script="tick " * 3000, rate=30, slots=1)
    try:
        page = open_app()
        new_chat(page)
        say(page, "The first wording")
        page.wait_for_function("document.querySelector('.message.live')?.innerText.length > 60")
        page.locator(".message.user [aria-label=Edit]").click()
        page.locator(".editor textarea").fill("The second wording")
        page.keyboard.press("Control+Enter")
        page.locator(".message.user").get_by_text("The second wording").wait_for()
        page.wait_for_function("document.querySelector('.message.live')?.innerText.length > 60")
        page.locator(".message.user [aria-label='Earlier version']").click()
        page.locator(".message.user").get_by_text("The first wording").wait_for()  # the chat's title is that too
        page.locator(".message.assistant .state").get_by_text("Stopped.").wait_for()
        assert "tick tick" in page.locator(".message.assistant").inner_text(), "what was written is kept"
        page.locator(".elsewhere").get_by_role("button", name="Stop it").click()
        page.locator(".elsewhere").wait_for(state="hidden")
    finally:
        app.load("demo")
