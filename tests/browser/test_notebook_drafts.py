"""Words typed in the notebook and not saved yet: they never vanish, and never go over newer ones."""

from __future__ import annotations

from typing import Any

from tests.running_app import RunningApp, wait_until

from .test_whole_app import Open, app, open_app, open_tab

__all__ = ["app", "open_app"]  # fixtures

DRAFTS = "Object.keys(localStorage).filter((key) => key.startsWith('colloquy-notebook-draft')).length"
NEWER = "a newer text from another tab"


def open_notebook(page: Any) -> Any:
    """The text area of the notebook, once that is loaded."""
    open_tab(page, "Notebook")
    page.wait_for_function("window.notebookReady === true")
    return page.get_by_label("Notebook page")


def reload_notebook(page: Any) -> Any:
    page.reload()
    page.wait_for_function("window.viewReady === true")
    return open_notebook(page)


def new_page(page: Any, text: str) -> Any:
    """A new document that holds `text`, saved."""
    area = open_notebook(page)
    page.get_by_role("button", name="New page").click()
    wait_until(lambda: not area.input_value() and area.is_editable(), what="an empty page")
    area.fill(text)
    wait_until(lambda: shown(page)["text"] == text, what="the saved text")
    return area


def shown(page: Any) -> Any:
    """What the server shows to the page's session."""
    found = page.evaluate("""fetch("ui-api/notebook/shown", {headers: {"X-Session": sessionStorage.getItem("colloquy-session")}})
        .then((answer) => answer.json())""")["document"]
    return found or {"text": "", "id": ""}


def lose_saves(page: Any) -> None:
    """As a network that is gone does, until the page is loaded anew. A route would let through what a page sends as it goes."""
    page.evaluate("""() => { const real = window.fetch; window.fetch = (url, options) => String(url).includes("/notebook/save")
        ? Promise.reject(new TypeError("no network")) : real(url, options); }""")


def type_offline_while_another_tab_saves(page: Any, app: RunningApp, words: str) -> None:
    """`words` are typed on the shown version and cannot be saved; meanwhile another tab saves NEWER."""
    area = page.get_by_label("Notebook page")
    lose_saves(page)
    area.press("Control+End")
    area.type(words)
    document = shown(page)
    app.post("ui-api/notebook/save", {"document": document["id"], "text": NEWER, "base": document["version"]})


def test_a_page_reloaded_while_it_is_written_to_keeps_the_whole_text(open_app: Open, app: RunningApp) -> None:
    """The half that had come before the reload was kept as a draft, and put over the finished text at the next one."""
    app.load("demo", script="tick " * 150 + "tock", rate=60)
    try:
        page = open_app()
        area = new_page(page, "Once upon")
        area.press("Control+Enter")
        wait_until(lambda: len(area.input_value()) > 40, what="the text's beginning")
        area = reload_notebook(page)
        wait_until(lambda: area.input_value().endswith("tock"), what="the text's end")
        whole = area.input_value()
        page.get_by_role("button", name="Generate").wait_for()
        area = reload_notebook(page)
        assert area.input_value() == whole
        area.type("!")
        wait_until(lambda: shown(page)["text"] == area.input_value(), what="the next save")
        assert whole in shown(page)["text"]
        wait_until(lambda: page.evaluate(DRAFTS) == 0, what="a browser that keeps nothing which is saved")
    finally:
        app.load("demo")


def test_words_typed_offline_are_not_put_over_a_newer_save_but_offered(open_app: Open, app: RunningApp) -> None:
    """After a reload they stood there in place of what another tab had saved meanwhile, and were saved as its next version."""
    page = open_app()
    new_page(page, "Once upon")
    type_offline_while_another_tab_saves(page, app, " a time")
    area = reload_notebook(page)
    assert area.input_value() == NEWER
    offer = page.locator(".notebook .offers .notice")
    assert "Unsaved words from " in offer.inner_text()
    offer.get_by_role("button", name="Show").click()
    wait_until(lambda: area.input_value() == "Once upon a time", what="the words")
    offer.wait_for(state="detached")
    assert shown(page)["text"] == "Once upon a time" and page.evaluate(DRAFTS) == 0
    page.get_by_role("button", name="Undo").click()
    wait_until(lambda: area.input_value() == "Once upon", what="the version that they were typed on")


def test_offered_words_go_only_when_that_is_confirmed(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    new_page(page, "Once upon")
    type_offline_while_another_tab_saves(page, app, " a time")
    reload_notebook(page)
    offer = page.locator(".notebook .offers .notice")
    offer.get_by_role("button", name="Discard").click()
    page.locator("dialog").get_by_text("a time").wait_for()
    page.locator("dialog").get_by_role("button", name="Cancel").click()
    assert offer.count() == 1
    offer.get_by_role("button", name="Discard").click()
    page.locator("dialog").get_by_role("button", name="Discard").click()
    offer.wait_for(state="detached")
    assert page.evaluate(DRAFTS) == 0 and shown(page)["text"] == NEWER


def test_words_typed_offline_over_what_is_still_the_newest_go_on(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    new_page(page, "Once upon")
    lose_saves(page)
    page.get_by_label("Notebook page").press("Control+End")
    page.get_by_label("Notebook page").type(" a time")
    area = reload_notebook(page)
    assert area.input_value() == "Once upon a time" and page.locator(".notebook .offers .notice").count() == 0
    wait_until(lambda: shown(page)["text"] == "Once upon a time", what="the save")
    wait_until(lambda: page.evaluate(DRAFTS) == 0, what="no draft")


def test_words_for_a_page_that_was_deleted_for_good_get_one_of_their_own(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    area = new_page(page, "Once upon")
    gone = shown(page)["id"]
    lose_saves(page)
    area.press("Control+End")
    area.type(" a time")
    app.post("ui-api/notebook/trash", {"document": gone})
    app.post("ui-api/notebook/purge", {"document": gone})
    area = reload_notebook(page)
    page.locator(".notebook .offers").get_by_role("button", name="Show").click()
    wait_until(lambda: area.input_value() == "Once upon a time", what="the words")
    assert shown(page)["id"] not in ("", gone)
