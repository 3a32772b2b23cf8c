"""Whatever way a person changes a parameter, what the panel shows is what is used."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until

from .test_whole_app import Open, app, new_chat, open_app, open_panel, open_tab, say

__all__ = ["app", "open_app"]  # fixtures


@pytest.fixture
def page(open_app: Open, app: RunningApp) -> Iterator[Any]:
    """The panel open over neutral parameters. Without a model no field is greyed."""
    app.post("v1/internal/model/unload")
    page = open_app(permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_function("window.pageFilled === true")
    new_chat(page)
    open_panel(page)
    page.locator("#neutral").click()
    wait_until(lambda: kept(app, page) == {}, what="neutral parameters")
    page.reload()  # nothing that answers the click is still on its way
    page.wait_for_function("window.pageFilled === true")
    open_panel(page)
    yield page
    app.load("demo")


def saved(app: RunningApp, page: Any) -> tuple[dict[str, Any], str]:
    """The tab's parameters and preset in the database."""
    with closing(sqlite3.connect(f"file:{app.data_dir / 'colloquy.db'}?mode=ro", uri=True)) as database:
        session = page.evaluate("window.colloquySession()")
        row = database.execute("SELECT params, preset FROM sessions WHERE id = ?", (session,)).fetchone()
    return (json.loads(row[0]), str(row[1])) if row else ({"no": "session"}, "")


def kept(app: RunningApp, page: Any) -> dict[str, Any]:
    return saved(app, page)[0]


def open_group(page: Any, name: str) -> None:
    page.locator("#parameters").get_by_role("button", name=name).click()


def test_a_text_pasted_deleted_and_composed_is_used_as_it_stands(page: Any, app: RunningApp) -> None:
    """Gradio tells of typed letters only: a pasted grammar was shown and not used, a deleted one used and not shown."""
    box = page.locator("#param-stop textarea")
    page.evaluate("navigator.clipboard.writeText('PASTED')")
    box.click()
    page.keyboard.press("Control+v")
    wait_until(lambda: kept(app, page) == {"stop": ["PASTED"]}, what="the pasted text")
    page.keyboard.press("Backspace")
    wait_until(lambda: kept(app, page) == {"stop": ["PASTE"]}, what="the text without its last letter")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    wait_until(lambda: kept(app, page) == {}, what="no stop string")
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "おわ", "selectionStart": 2, "selectionEnd": 2})
    keyboard.send("Input.insertText", {"text": "おわり"})
    wait_until(lambda: kept(app, page) == {"stop": ["おわり"]}, what="the composed text")


def test_a_slider_is_reset_and_set_right_in_the_session_too(page: Any, app: RunningApp) -> None:
    """The reset button told nobody, and 9 for a temperature of at most 5 was shown as 5 and not used."""
    number = page.locator("#param-temperature input[type=number]")
    number.fill("0.5")
    wait_until(lambda: kept(app, page) == {"temperature": 0.5}, what="the temperature")
    page.locator("#param-temperature button").click()
    wait_until(lambda: kept(app, page) == {}, what="the neutral temperature")
    number.fill("9")
    number.press("Tab")
    wait_until(lambda: number.input_value() == "5", what="the highest temperature in the field")
    wait_until(lambda: kept(app, page) == {"temperature": 5}, what="the highest temperature in the session")
    assert page.locator(".toast-body").count() == 0


def test_what_cannot_be_read_is_said_when_the_field_is_left_and_not_at_each_key(page: Any, app: RunningApp) -> None:
    open_group(page, "Control")
    box = page.locator("#param-logit_bias textarea")
    box.click()
    page.keyboard.type("5: 1")
    wait_until(lambda: kept(app, page) == {"logit_bias": {"5": 1.0}}, what="the bias")
    assert page.locator(".toast-body").count() == 0
    page.keyboard.type("x")
    page.keyboard.press("Tab")
    page.locator(".toast-body").first.wait_for()
    assert kept(app, page) == {"logit_bias": {"5": 1.0}}


def test_the_notebook_runs_with_what_was_pasted(page: Any, app: RunningApp) -> None:
    app.load("demo")
    page.evaluate("navigator.clipboard.writeText('bold')")
    page.locator("#param-stop textarea").click()
    page.keyboard.press("Control+v")
    wait_until(lambda: kept(app, page) == {"stop": ["bold"]}, what="the pasted text")
    open_tab(page, "Notebook")
    page.wait_for_function("window.notebookReady === true")
    page.get_by_role("button", name="New page").click()
    area = page.get_by_label("Notebook page")
    area.fill("Once")
    area.press("Control+Enter")
    wait_until(lambda: "Some **" in area.input_value(), what="the text up to the stop string")
    wait_until(lambda: "a second" in page.locator(".notebook .state").inner_text(), what="the run's end")
    assert "bold" not in area.input_value()


def test_values_changed_by_hand_are_no_presets_any_more(page: Any, app: RunningApp) -> None:
    """A reply was recorded as written with Balanced while it was written with other values."""
    page.locator("#preset input").click()
    page.get_by_role("option", name="Balanced").click()
    wait_until(lambda: saved(app, page)[1] == "Balanced", what="the preset")
    shown = page.locator("#param-temperature input[type=number]")
    wait_until(lambda: float(shown.input_value()) == kept(app, page)["temperature"], what="the preset's values in the panel")
    page.locator("#param-seed input").fill("42")
    wait_until(lambda: kept(app, page).get("seed") == 42, what="the seed")
    assert saved(app, page)[1] == "Balanced", "a seed is no matter of taste"
    page.locator("#param-temperature input[type=number]").fill("1.7")
    wait_until(lambda: saved(app, page)[1] == "", what="no preset")
    wait_until(lambda: page.locator("#preset input").input_value() == "", what="no preset in the panel")
    say(page, "Who wrote this?")
    page.locator(".message.assistant").wait_for()
    with closing(sqlite3.connect(f"file:{app.data_dir / 'colloquy.db'}?mode=ro", uri=True)) as database:
        assert database.execute("SELECT preset FROM nodes ORDER BY id DESC LIMIT 1").fetchone() == ("",)


def test_what_the_server_fills_in_is_not_taken_for_a_persons_change(page: Any, app: RunningApp) -> None:
    events: list[str] = []
    page.locator("#param-seed input").fill("42")
    wait_until(lambda: kept(app, page) == {"seed": 42}, what="the seed")
    page.on("request", lambda request: events.append(request.url) if "queue/join" in request.url else None)
    page.reload()
    page.wait_for_function("window.pageFilled === true")
    page.wait_for_function("window.viewReady === true")
    assert len(events) <= 3, "one that fills the page, and no more that answer it"
    assert kept(app, page) == {"seed": 42}
