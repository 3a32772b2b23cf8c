"""A loader's option that a person sets is asked for as it stands; one left alone is fitted to the machine."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from tests.running_app import RunningApp, wait_until

from .test_whole_app import Open, app, choose, open_app, open_tab

__all__ = ["app", "open_app"]  # fixtures


def test_an_option_set_to_its_default_is_asked_for_and_one_left_alone_is_not(open_app: Open, app: RunningApp) -> None:
    """An option whose value was its default was left out, and then fitted: all layers on the GPU could not be asked for."""
    page = open_app()
    page.wait_for_function("window.pageFilled === true")
    open_tab(page, "Model")
    choose(page, "other")
    page.get_by_role("button", name="Loader options").click()
    context = page.locator("#option-echo-context input").first
    default = context.input_value()
    context.fill("1024")
    by_hand = page.locator("#by-hand")
    by_hand.get_by_text("echo: context").wait_for()
    context.fill(default)
    page.locator("#model-load").click()
    status = page.locator("#model-status textarea")
    wait_until(lambda: "other ·" in status.input_value(), what="the model")
    saved = wait_until(lambda: remembered(app).get("name") == "other" and remembered(app), what="how it was loaded")
    assert {name: str(value) for name, value in saved["options"].items()} == {"context": default}
    context.fill("1024")
    by_hand.locator(".token-remove").first.click()
    wait_until(lambda: context.input_value() == default, what="the default of an option left to the machine again")
    app.load("demo")


def remembered(app: RunningApp) -> Any:
    """What is kept for the next start: the model with the options that were asked for."""
    with closing(sqlite3.connect(f"file:{app.data_dir / 'colloquy.db'}?mode=ro", uri=True)) as database:
        row = database.execute("SELECT value FROM keyvalue WHERE key = 'last_model'").fetchone()
    return json.loads(row[0]) if row else {}


def test_what_was_set_for_a_model_comes_back_with_it_until_it_is_forgotten(open_app: Open, app: RunningApp) -> None:
    page = open_app()
    page.wait_for_function("window.pageFilled === true")
    open_tab(page, "Model")
    choose(page, "other")
    page.get_by_role("button", name="Loader options").click()
    context, by_hand = page.locator("#option-echo-context input").first, page.locator("#by-hand")
    context.fill("768")
    by_hand.get_by_text("echo: context").wait_for()
    page.locator("#model-load").click()
    kept = page.locator("#options-kept textarea")
    wait_until(lambda: kept.count() and "context 768" in kept.input_value(), what="the line of what is saved")
    choose(page, "demo")
    wait_until(lambda: context.input_value() != "768", what="the other model's own options")
    assert by_hand.get_by_text("echo: context").count() == 0 and kept.count() == 0
    page.reload()
    page.wait_for_function("window.pageFilled === true")
    open_tab(page, "Model")
    choose(page, "demo")
    choose(page, "other")
    page.get_by_role("button", name="Loader options").click()
    wait_until(lambda: context.input_value() == "768", what="what was set for this model")
    page.locator("#options-forget").click()
    wait_until(lambda: context.input_value() != "768" and by_hand.get_by_text("echo: context").count() == 0, what="the defaults")
    app.load("demo")
