"""The whole app as a person uses it: a real server, worker and database behind a real browser."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until, write_script

REPLY = "# A heading\n\nSome **bold** words, then code:\n\n```python\nprint(1)\n```\n\nThe end."
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("whole-app")
    write_script(folder / "models", "demo", REPLY)
    write_script(folder / "models", "other", "The other model speaks.")
    (folder / "models" / "broken.gguf").write_bytes(b"GGUF but no more")
    with RunningApp(folder / "data", folder / "models", "--model", "demo") as running:
        running.wait_for_model()
        yield running


@pytest.fixture
def open_app(app: RunningApp, browser: Any) -> Iterator[Open]:
    """Opens the app in a fresh profile; fails the test on a script error or a request to another host."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_one(width: int = 1280, height: int = 800, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("request", lambda request: None if request.url.startswith((app.url, "data:", "blob:"))
                else problems.append(f"request to {request.url}"))
        page.goto(app.url)
        page.wait_for_function("window.viewReady === true")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not problems


def say(page: Any, text: str) -> None:
    page.get_by_role("textbox", name="Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def new_chat(page: Any) -> None:
    """An empty chat with nobody; the button would keep the character of an earlier test."""
    page.evaluate("window.colloquyChat.begin('')")
    page.get_by_text("Say something to begin").wait_for()


def open_tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def open_panel(page: Any) -> None:
    page.locator("#parameters .toggle-button").click()
    page.locator("#param-temperature").wait_for()


def test_a_person_chats_and_finds_the_chat_again_after_a_reload(open_app: Open) -> None:
    page = open_app()
    new_chat(page)
    say(page, "Tell me about lighthouses")
    page.get_by_text("The end.").wait_for()
    assert page.locator(".message.assistant h1, .message.assistant h2").first.inner_text() == "A heading"
    page.locator(".stats").last.wait_for()
    assert re.search(r"tokens", page.locator(".stats").last.inner_text())
    page.reload()
    page.wait_for_function("window.viewReady === true")
    page.get_by_text("Tell me about lighthouses").first.wait_for()
    page.get_by_text("The end.").wait_for()
    page.get_by_placeholder("Search chats").fill("lighthouses")
    page.locator("nav.chats li").filter(has_text="lighthouses").first.wait_for()


def test_a_reply_streams_on_through_a_reload_and_stops_by_escape(open_app: Open, app: RunningApp) -> None:
    app.load("demo", script="tick " * 3000, rate=60)
    try:
        page = open_app()
        new_chat(page)
        say(page, "Go on for long")
        page.wait_for_function("document.querySelector('.message.live')?.innerText.length > 60")
        page.reload()
        page.wait_for_function("window.viewReady === true")
        before = page.locator(".message.live").inner_text()
        page.wait_for_function("(n) => document.querySelector('.message.live')?.innerText.length > n + 20", arg=len(before))
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Continue").first.wait_for()
        assert "tick tick" in page.locator(".message.assistant").last.inner_text()
    finally:
        app.load("demo")


def n_chats(app: RunningApp) -> int:
    """Those that nobody has written in are not listed, so the database is asked."""
    with closing(sqlite3.connect(f"file:{app.data_dir / 'colloquy.db'}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM conversations").fetchone()[0])


def test_a_character_greets_and_answers_by_name(open_app: Open, app: RunningApp) -> None:
    """A choice came twice and began two chats; what was typed in the first was out of sight in the second."""
    page = open_app()
    new_chat(page)
    before = n_chats(app)
    open_panel(page)
    page.locator("#character input").click()
    page.get_by_role("option", name="Maren").click()
    page.get_by_text("Maren hangs your coat").wait_for()
    say(page, "Thank you for the tea")
    page.get_by_text("The end.").wait_for()
    assert page.locator(".message.assistant header .name").last.inner_text() == "Maren"
    assert n_chats(app) == before + 1


def test_a_greeting_is_listed_once_there_are_words_of_ones_own_sent_or_not(open_app: Open) -> None:
    page = open_app()
    page.evaluate("window.colloquyChat.begin('Maren')")
    page.get_by_text("Maren hangs your coat").wait_for()
    page.reload()
    page.wait_for_function("window.viewReady === true")
    page.get_by_text("Maren hangs your coat").wait_for()
    mine = page.evaluate("window.colloquyChat.facts.conversation")
    row = page.locator(f"nav.chats li[data-chat='{mine}']")
    assert row.count() == 0
    page.get_by_role("textbox", name="Message", exact=True).fill("half a thought")
    new_chat(page)
    row.wait_for()
    row.locator(".chat").click()
    box = page.get_by_role("textbox", name="Message", exact=True)
    wait_until(lambda: box.input_value() == "half a thought", what="the draft")
    box.press("Enter")
    page.get_by_text("The end.").wait_for()
    row.get_by_text("half a thought").wait_for()


def test_parameters_that_the_loader_ignores_are_greyed_with_the_reason_and_presets_are_kept(open_app: Open) -> None:
    page = open_app()
    open_panel(page)
    temperature = page.locator("#param-temperature")
    wait_until(temperature.locator("input").first.is_disabled, what="the loader's say")
    assert "Not honoured by the Echo" in temperature.inner_text()
    seed = page.locator("#param-seed input")
    assert not seed.is_disabled(), "what every run honours is never greyed"
    seed.fill("42")
    seed.press("Tab")
    page.locator("#preset input").click()
    page.get_by_role("option", name="Creative").click()
    page.get_by_label("Ignored by the loaded model's loader").wait_for()
    wait_until(lambda: page.locator("#preset input").input_value() == "Creative", what="the preset's name")
    page.reload()
    page.wait_for_function("window.viewReady === true")
    open_panel(page)
    wait_until(lambda: page.locator("#preset input").input_value() == "Creative", what="the preset after a reload")
    assert page.locator("#param-seed input").input_value() == "42"
    page.locator("#neutral").click()
    wait_until(lambda: page.locator("#preset input").input_value() != "Creative", what="neutral parameters")


def test_the_model_tab_lists_loads_refuses_and_unloads(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    open_tab(page, "Model")
    table = page.locator("#model-table")
    table.get_by_text("broken", exact=True).locator("visible=true").first.wait_for()
    status = page.locator("#model-status textarea")
    try:
        choose(page, "broken")
        about = page.get_by_label("About this choice")
        wait_until(lambda: "header" in about.input_value(), what="what is wrong with it")
        page.locator("#model-load").click()
        page.get_by_label("Why it failed").wait_for()
        assert "demo" in status.input_value(), "a model that cannot be loaded takes nothing away"
        choose(page, "other")
        wait_until(lambda: "plays a text" in about.input_value(), what="what it is")
        page.locator("#model-load").click()
        wait_until(lambda: "other ·" in status.input_value(), what="the other model")
        page.locator("#model-unload").click()
        wait_until(lambda: "No model is loaded" in status.input_value(), what="an empty engine")
    finally:
        app.load("demo")


def choose(page: Any, name: str) -> None:
    box = page.locator("#model-choice input")
    box.click()
    page.get_by_role("option", name=name, exact=True).click()
    wait_until(lambda: box.input_value() == name, what=f"the choice of {name}")


def test_eight_tabs_stream_at_once(open_app: Open, app: RunningApp) -> None:
    """A browser opens six HTTP/1.1 connections to a host; a WebSocket each must leave them free."""
    app.load("demo", script="beat " * 4000, rate=40, slots=8)
    try:
        first = open_app()
        pages = [first]
        for _ in range(7):
            page = first.context.new_page()
            page.goto(app.url)
            page.wait_for_function("window.viewReady === true")
            pages.append(page)
        for page in pages:
            page.bring_to_front()
            new_chat(page)
            say(page, "Go")
        for page in pages:
            page.bring_to_front()
            page.wait_for_function("document.querySelector('.message.live')?.innerText.length > 40")
            page.keyboard.press("Escape")
    finally:
        app.load("demo")
