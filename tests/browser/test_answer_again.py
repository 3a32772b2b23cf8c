"""Another version of a reply by another model: chosen in a dialog, and loaded first where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running_app import RunningApp, write_script

from .test_whole_app import say


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, tmp_path: Path, browser: Any) -> Iterator[Any]:
    """A chat with the first of three models, of which one is held at a time; the third cannot be loaded."""
    write_script(tmp_path / "models", "first", "The first model speaks.")
    write_script(tmp_path / "models", "second", "The second model speaks.")
    (tmp_path / "models" / "broken.gguf").write_bytes(b"GGUF\x03")
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "first") as app:
        app.wait_for_model()
        width, height = request.param
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.goto(app.url)
        page.wait_for_function("window.pageFilled === true && window.viewReady === true")
        say(page, "Who are you?")
        page.get_by_text("The first model speaks.").wait_for()
        page.locator(".message.assistant.last:not(.live)").wait_for()
        yield page
        context.close()


def ask_again(page: Any) -> Any:
    page.locator(".message.assistant").last.get_by_role("button", name="Answer again with another model").click()
    dialog = page.locator("dialog.colloquy-dialog")
    dialog.get_by_role("heading", name="Answer again with …").wait_for()
    return dialog


def test_a_model_that_is_not_loaded_is_loaded_and_its_version_stands_beside(page: Any) -> None:
    dialog = ask_again(page)
    assert "This version is by first (echo" in dialog.inner_text()
    rows = dialog.locator(".answerer")
    names = rows.locator(".name").all_inner_texts()
    assert names[0] == "first" and "second" in names and "broken" not in names, "loaded ones first, broken ones not at all"
    assert "Loaded. Reads" in rows.nth(0).inner_text() and "nothing left out" in rows.nth(0).inner_text()
    assert dialog.evaluate("d => d.scrollWidth <= d.clientWidth + 1"), "nothing sticks out on a phone"
    rows.filter(has_text="second").click()
    page.get_by_text("The second model speaks.").wait_for()
    dialog.wait_for(state="detached")
    reply = page.locator(".message.assistant.last:not(.live)")
    reply.get_by_text("2/2").wait_for()
    assert "second" in reply.locator(".stats").inner_text()
    reply.get_by_role("button", name="Earlier version").click()
    page.get_by_text("The first model speaks.").wait_for()
    assert "first" in page.locator(".message.assistant .stats").inner_text()


def test_a_loaded_model_answers_at_once_and_the_keyboard_suffices(page: Any) -> None:
    dialog = ask_again(page)
    dialog.get_by_role("button", name="Close").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".message.assistant.last:not(.live)").get_by_text("2/2").wait_for()
    assert dialog.count() == 0


def test_escape_leaves_everything_as_it_was(page: Any) -> None:
    ask_again(page)
    page.keyboard.press("Escape")
    page.locator("dialog.colloquy-dialog").wait_for(state="detached")
    assert page.locator(".message.assistant .swipe").count() == 0
    assert page.locator(".notice.error").count() == 0
