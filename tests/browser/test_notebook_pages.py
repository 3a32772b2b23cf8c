"""The notebook's pages and their versions: every one can be found, named, thrown away and brought back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until

from .test_notebook_drafts import DRAFTS, lose_saves, new_page, open_notebook, reload_notebook, shown
from .test_whole_app import Open, app, open_app

__all__ = ["app", "open_app"]  # fixtures

PHONE = {"width": 390, "height": 800, "has_touch": True, "is_mobile": True}


def open_pages(page: Any) -> Any:
    page.locator(".notebook button.pages").click()
    return page.locator("dialog")


def row(dialog: Any, title: str) -> Any:
    return dialog.locator("li").filter(has_text=title)


def titles(app: RunningApp, *, trashed: bool) -> list[str]:
    return [found["title"] for found in app.get("ui-api/notebook/documents", trashed=int(trashed))["documents"]]


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_every_page_can_be_reached(open_app: Open, app: RunningApp, options: dict[str, Any]) -> None:
    """Those beyond the first forty could not be opened."""
    app.post("ui-api/notebook/new", {"text": f"The oldest page {len(options)}"})
    for number in range(85):
        app.post("ui-api/notebook/new", {"text": f"page {number}"})
    page = open_app(**options)
    area = open_notebook(page)
    dialog = open_pages(page)
    oldest = row(dialog, f"The oldest page {len(options)}")
    more = dialog.get_by_role("button", name="More")
    row(dialog, "page 84").first.wait_for()
    while not oldest.count():
        n_rows = dialog.locator("li").count()
        more.click()
        wait_until(lambda n_rows=n_rows: dialog.locator("li").count() > n_rows, what="more pages")
    box = dialog.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"], "the list is in the window"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "and the page no wider than it"
    oldest.locator("button.chat").click()
    wait_until(lambda: area.input_value() == f"The oldest page {len(options)}", what="its text")
    assert dialog.count() == 0 and f"The oldest page {len(options)}" in page.locator(".notebook button.pages").inner_text()


def test_a_deleted_page_is_restored_or_deleted_for_good_from_the_trash(open_app: Open, app: RunningApp) -> None:
    """Once the line with Undo had gone there was no way to either."""
    app.client.post("ui-api/notebook/purge", json={"all": True})
    page = open_app()
    for title in ("A kept page", "A gone page", "Another gone page"):
        new_page(page, title)
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("is in the trash.").wait_for()
        wait_until(lambda title=title: title in titles(app, trashed=True), what="the page in the trash")
    area = reload_notebook(page)
    dialog = open_pages(page)
    dialog.get_by_role("button", name="Trash", exact=True).click()
    dialog.get_by_role("button", name="Restore “A kept page”").click()
    wait_until(lambda: "A kept page" in titles(app, trashed=False), what="the restored page")
    dialog.get_by_role("button", name="Delete “A gone page” for good").click()
    page.locator("dialog").last.get_by_role("button", name="Cancel").click()
    assert "A gone page" in titles(app, trashed=True)
    dialog.get_by_role("button", name="Delete “A gone page” for good").click()
    page.locator("dialog").last.get_by_role("button", name="Delete").click()
    wait_until(lambda: "A gone page" not in titles(app, trashed=True), what="its end")
    dialog.get_by_role("button", name="Empty the trash").click()
    page.locator("dialog").last.get_by_role("button", name="Delete").click()
    dialog.get_by_text("The trash is empty.").wait_for()
    assert titles(app, trashed=True) == []
    dialog.get_by_role("button", name="Back to the pages").click()
    row(dialog, "A kept page").locator("button.chat").click()
    wait_until(lambda: area.input_value() == "A kept page", what="its text")


def test_unsaved_words_of_a_page_go_with_it_when_it_is_deleted_for_good(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    area = new_page(page, "A secret")
    document = shown(page)
    lose_saves(page)
    area.press("Control+End")
    area.type(" that is told")
    app.post("ui-api/notebook/trash", {"document": document["id"]})
    reload_notebook(page)
    assert page.evaluate(DRAFTS) == 1
    dialog = open_pages(page)
    dialog.get_by_role("button", name="Trash", exact=True).click()
    dialog.get_by_role("button", name="Delete “A secret” for good").click()
    page.locator("dialog").last.get_by_role("button", name="Delete").click()
    wait_until(lambda: page.evaluate(DRAFTS) == 0, what="a browser that keeps none of it")
    assert page.locator(".notebook .offers .notice").count() == 0


def test_a_page_is_renamed_in_the_list(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    new_page(page, "First line as title")
    dialog = open_pages(page)
    dialog.get_by_role("button", name="Rename “First line as title”").click()
    name = dialog.get_by_label("New title")
    name.fill("Not this")
    name.press("Escape")
    row(dialog, "First line as title").wait_for()
    dialog.get_by_role("button", name="Rename “First line as title”").click()
    dialog.get_by_label("New title").fill("My own title")
    dialog.get_by_label("New title").press("Enter")
    row(dialog, "My own title").wait_for()
    wait_until(lambda: "My own title" in titles(app, trashed=False), what="the saved title")
    dialog.get_by_role("button", name="Close").click()
    assert "My own title" in page.locator(".notebook button.pages").inner_text()


def test_a_text_saved_beside_the_shown_one_comes_back_from_the_versions(open_app: Open, app: RunningApp) -> None:
    """Of two tabs that saved from one version the first one's text was reached by neither Undo nor Redo."""
    page = open_app()
    area = new_page(page, "Once upon")
    document = shown(page)
    for text in ("the first tab's words", "the second tab's words"):
        app.post("ui-api/notebook/save", {"document": document["id"], "text": text, "base": document["version"]})
    area = reload_notebook(page)
    assert area.input_value() == "the second tab's words"
    page.get_by_role("button", name="Versions").click()
    dialog = page.locator("dialog")
    assert "shown" in row(dialog, "the second tab's words").inner_text()
    assert "21 characters" in row(dialog, "the first tab's words").inner_text()
    row(dialog, "the first tab's words").locator("button").click()
    wait_until(lambda: area.input_value() == "the first tab's words", what="the first tab's words")
    page.get_by_role("button", name="Undo").click()
    wait_until(lambda: area.input_value() == "the second tab's words", what="the text that was shown before")
