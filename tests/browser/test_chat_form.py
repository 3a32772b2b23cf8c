"""The form of character and prompts follows the open chat, and never writes one chat's texts into another."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any

from tests.running_app import RunningApp, wait_until

from .test_whole_app import Open, app, new_chat, open_app, open_panel, say

__all__ = ["app", "open_app"]  # fixtures


def prompts(app: RunningApp) -> dict[str, str]:
    """The system prompt of every chat, by its title."""
    with closing(sqlite3.connect(f"file:{app.data_dir / 'colloquy.db'}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT title, system_prompt FROM conversations").fetchall())


def open_form(open_app: Open) -> Any:
    page = open_app()
    page.wait_for_function("window.pageFilled === true")
    open_panel(page)
    return page


def begin_with(page: Any, app: RunningApp, *, prompt: str, title: str) -> None:
    new_chat(page)
    page.wait_for_function("!document.querySelector('#chat-form').inert")
    box = page.locator("#system-prompt textarea")
    box.fill(prompt)
    box.blur()
    page.wait_for_load_state("networkidle")
    say(page, title)
    wait_until(lambda: prompts(app).get(title) == prompt, what=f"the prompt of {title}")
    page.get_by_text("The end.").last.wait_for()


def open_chat(page: Any, title: str) -> None:
    page.locator("nav.chats li .chat").filter(has_text=title).first.click()
    page.locator(".message.user").get_by_text(title).wait_for()


def test_opening_another_chat_shows_its_prompt_and_leaving_the_box_changes_neither(open_app: Open, app: RunningApp) -> None:
    """The form kept the other chat's text, and a click into it and out wrote that over this chat's."""
    page = open_form(open_app)
    box = page.locator("#system-prompt textarea")
    begin_with(page, app, prompt="AAA", title="Chat of the letter A")
    begin_with(page, app, prompt="BBB", title="Chat of the letter B")
    open_chat(page, "Chat of the letter A")
    wait_until(lambda: box.input_value() == "AAA", what="A's prompt in the form")
    box.click()
    box.blur()
    open_chat(page, "Chat of the letter B")
    wait_until(lambda: box.input_value() == "BBB", what="B's prompt in the form")
    page.wait_for_load_state("networkidle")
    assert prompts(app)["Chat of the letter A"] == "AAA"
    assert prompts(app)["Chat of the letter B"] == "BBB"


def test_a_prompt_still_being_kept_when_another_chat_is_opened_stays_with_its_own_chat(open_app: Open, app: RunningApp) -> None:
    page = open_form(open_app)
    begin_with(page, app, prompt="CCC", title="Chat of the letter C")
    begin_with(page, app, prompt="DDD", title="Chat of the letter D")
    box = page.locator("#system-prompt textarea")
    mine = page.evaluate("window.colloquyChat.facts.conversation")
    box.fill("DDD and more")
    open_elsewhere(page, app, "Chat of the letter C")
    box.blur()
    wait_until(lambda: prompts(app)["Chat of the letter D"] == "DDD and more", what="the text with its own chat")
    assert prompts(app)["Chat of the letter C"] == "CCC"
    assert page.evaluate("window.colloquyChat.facts.conversation") == mine, "the page itself has not moved yet"
    page.evaluate("window.colloquyChat.load()")
    wait_until(lambda: box.input_value() == "CCC", what="the form of the chat that is open now")


def open_elsewhere(page: Any, app: RunningApp, title: str) -> None:
    """Open a chat in this tab's session without the page, as a second window of one session does."""
    session = page.evaluate("window.colloquySession()")
    found = next(chat for chat in app.get("ui-api/chats", session=session)["chats"] if chat["title"] == title)
    app.post("ui-api/open", {"conversation": found["id"]}, session=session)


def test_the_character_in_the_form_is_the_open_chats(open_app: Open) -> None:
    """It named Maren in a chat without a character."""
    page = open_form(open_app)
    new_chat(page)
    say(page, "Nobody in particular answers")
    page.get_by_text("The end.").wait_for()
    character = page.locator("#character input")
    page.evaluate("window.colloquyChat.begin('Maren')")
    wait_until(lambda: character.input_value() == "Maren", what="the character")
    open_chat(page, "Nobody in particular answers")
    wait_until(lambda: character.input_value() == "No character", what="no character")


def test_undoing_the_trash_brings_the_form_back_too(open_app: Open, app: RunningApp) -> None:
    page = open_form(open_app)
    begin_with(page, app, prompt="EEE", title="Chat of the letter E")
    begin_with(page, app, prompt="FFF", title="Chat of the letter F")
    box = page.locator("#system-prompt textarea")
    open_chat(page, "Chat of the letter E")
    wait_until(lambda: box.input_value() == "EEE", what="E's prompt")
    row = page.locator("nav.chats li").filter(has_text="Chat of the letter E").first
    row.hover()
    row.get_by_role("button", name="trash").click()
    page.get_by_text("Say something to begin").wait_for()
    open_chat(page, "Chat of the letter F")
    wait_until(lambda: box.input_value() == "FFF", what="F's prompt")
    page.get_by_role("button", name="Undo").click()
    wait_until(lambda: box.input_value() == "EEE", what="E's prompt after the undo")


def test_a_form_that_is_filled_twice_takes_no_words_between(open_app: Open, app: RunningApp) -> None:
    """On a slow machine the first filling gave the form free, and the second wiped the prompt that was typed between them."""
    page = open_form(open_app)
    new_chat(page)
    page.wait_for_load_state("networkidle")
    asked: list[float] = []

    def slowly(route: Any) -> None:
        asked.append(time.monotonic())
        page.wait_for_timeout(700)
        route.continue_()

    page.route("**/queue/join*", slowly)
    page.evaluate("window.colloquyChat.dispatchEvent(new Event('opened'))")
    wait_until(lambda: page.wait_for_timeout(20) or asked, what="the first filling to be asked for")
    page.evaluate("window.colloquyChat.dispatchEvent(new Event('opened'))")
    page.wait_for_function("!document.querySelector('#chat-form').inert")
    assert len(asked) == 2
    box = page.locator("#system-prompt textarea")
    box.fill("GGG")
    page.unroute("**/queue/join*")
    page.wait_for_timeout(500)
    assert box.input_value() == "GGG"
