"""The list of models: filtered and sorted as one types, and chosen from by a click."""

from __future__ import annotations

from typing import Any

from tests.running_app import RunningApp, wait_until

from .test_whole_app import Open, app, open_app, open_tab

__all__ = ["app", "open_app"]  # fixtures


def shows(page: Any, name: str) -> bool:
    """Whether a row of the table has this name; Gradio keeps a second table out of sight to measure with."""
    return bool(page.locator("#model-table").get_by_text(name, exact=True).locator("visible=true").count())


def test_a_filter_finds_by_word_and_says_when_nothing_matches(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    page.wait_for_function("window.pageFilled === true")
    open_tab(page, "Model")
    wait_until(lambda: shows(page, "demo") and shows(page, "other"), what="the list")
    field = page.locator("#model-filter textarea, #model-filter input").first
    field.fill("oth")
    wait_until(lambda: shows(page, "other") and not shows(page, "demo"), what="the one that matches")
    field.fill("no such model")
    page.locator("#model-nothing textarea").wait_for()
    assert "empty the filter" in page.locator("#model-nothing textarea").input_value()
    field.fill("")
    wait_until(lambda: shows(page, "demo") and shows(page, "other"), what="the whole list again")
    page.locator("#model-table").get_by_text("other", exact=True).locator("visible=true").first.click()
    wait_until(lambda: page.locator("#model-choice input").input_value() == "other", what="the clicked model")


def test_without_adapters_the_page_says_where_to_put_them(open_app: Open) -> None:
    page = open_app()
    page.wait_for_function("window.pageFilled === true")
    open_tab(page, "Model")
    page.get_by_role("button", name="Adapters (LoRA)").click()
    page.locator("#adapters-state textarea").wait_for()
    assert "Put a GGUF adapter" in page.locator("#adapters-nothing textarea").input_value()
    assert "takes no adapters" in page.locator("#adapters-state textarea").input_value()
