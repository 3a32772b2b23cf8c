"""The notebook as a person uses it: what is typed and written stays, and what was not taken as given is said."""

from __future__ import annotations

import re
from typing import Any

from tests.running_app import RunningApp, wait_until

from .test_whole_app import Open, app, open_app, open_panel, open_tab

__all__ = ["app", "open_app"]  # fixtures


def test_the_notebook_continues_undoes_and_survives_a_reload(open_app: Open) -> None:
    page = open_app()
    open_tab(page, "Notebook")
    page.wait_for_function("window.notebookReady === true")
    area = page.get_by_label("Notebook page")
    area.fill("Once upon a time")
    area.press("Control+Enter")
    wait_until(lambda: area.input_value().endswith("The end."), what="the continuation")
    undo = page.get_by_role("button", name="Undo")
    wait_until(undo.is_enabled, what="Undo")
    undo.click()
    wait_until(lambda: area.input_value() == "Once upon a time", what="the undone text")
    page.get_by_role("button", name="Redo").click()
    wait_until(lambda: area.input_value().endswith("The end."), what="the redone text")
    area.press("Control+End")
    area.type(" And more.")
    page.reload()
    page.wait_for_function("window.viewReady === true")
    open_tab(page, "Notebook")
    page.wait_for_function("window.notebookReady === true")
    assert page.get_by_label("Notebook page").input_value().endswith("The end. And more."), "not a typed word is lost"


def test_words_typed_while_a_new_notebook_page_is_on_its_way_stay(open_app: Open) -> None:
    """The answer put its empty page over what had been typed meanwhile."""
    page = open_app()
    open_tab(page, "Notebook")
    page.wait_for_function("window.notebookReady === true")
    page.evaluate("""() => { const real = window.fetch; window.fetch = async (url, options) => {
        const answer = await real(url, options);
        if (String(url).includes("/notebook/new")) await new Promise((go) => setTimeout(go, 300));
        return answer; }; }""")
    page.get_by_role("button", name="New page").click()
    area = page.get_by_label("Notebook page")
    area.fill("Once")
    area.press("Control+Enter")
    wait_until(lambda: area.input_value().endswith("The end."), what="the continuation")
    assert area.input_value().startswith("Once")


def test_the_notebook_says_that_its_text_is_not_saved_until_it_is(open_app: Open) -> None:
    reason = "What was written is not saved yet: the disk is full."

    def full_disk(route: Any) -> None:
        answer = route.fetch()
        body = answer.json()
        body["document"]["unsaved"] = reason
        route.fulfill(response=answer, json=body)

    page = open_app()
    open_tab(page, "Notebook")
    page.wait_for_function("window.notebookReady === true")
    page.route("**/ui-api/notebook/shown", full_disk)
    page.get_by_role("button", name="New page").click()
    page.get_by_label("Notebook page").fill("Once")
    page.get_by_label("Notebook page").press("Control+Enter")
    warning = page.locator(".notebook .disk")
    wait_until(lambda: warning.inner_text() == reason, what="the warning")
    wait_until(lambda: warning.inner_text() == "", what="its end")


def test_the_notebook_says_what_it_left_out_and_what_the_loader_ignores(open_app: Open, app: RunningApp) -> None:
    """A text longer than the context was cut without a word."""
    app.load("demo", context=512)
    try:
        page = open_app()
        open_panel(page)
        page.locator("#preset input").click()
        page.get_by_role("option", name="Creative").click()
        page.get_by_label("Ignored by the loaded model's loader").wait_for()
        page.locator("#parameters .toggle-button").click()
        open_tab(page, "Notebook")
        page.wait_for_function("window.notebookReady === true")
        area = page.get_by_label("Notebook page")
        page.get_by_role("button", name="New page").click()
        area.fill("word " * 400)
        area.press("Control+Enter")
        wait_until(lambda: area.input_value().endswith("The end."), what="the continuation")
        state = page.locator(".notebook .state")
        wait_until(lambda: "a second" in state.inner_text(), what="the run's end")
        assert re.search(r"The text is longer than the context: its first [\d,]+ tokens were left out\.", state.inner_text())
        assert "loader does not know: " in state.inner_text() and "temperature" in state.inner_text()
        page.get_by_role("button", name="New page").click()
        wait_until(lambda: not state.inner_text(), what="an empty line for another page")
    finally:
        app.load("demo")
