"""Every open page follows what becomes of the models, whoever asked for it, and keeps what a person is typing meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running_app import RunningApp, wait_until, write_script

from .test_whole_app import Open, app, choose, open_app, open_panel, open_tab

__all__ = ["app", "open_app"]  # fixtures


@contextmanager
def loading(app: RunningApp, seconds: float) -> Iterator[None]:
    """A load that an API client asked for, under way."""
    thread = threading.Thread(target=app.client.post, args=("v1/internal/model/load",),
                              kwargs={"json": {"model_name": "demo", "options": {"load_seconds": seconds, "load_steps": 40}}})
    thread.start()
    try:
        wait_until(lambda: app.get("v1/internal/model/info")["loading"], what="the load")
        yield
    finally:
        thread.join()


def open_filled(open_app: Open) -> Any:
    page = open_app()
    page.wait_for_function("window.pageFilled === true")
    return page


def test_a_text_typed_while_a_model_loads_is_still_there_when_it_has(open_app: Open, app: RunningApp) -> None:
    """The end of the load put the saved texts back into all boxes."""
    app.post("v1/internal/model/unload")
    with loading(app, 4):
        page = open_filled(open_app)
        page.get_by_text("The model is still being loaded.").wait_for()
        open_panel(page)
        box = page.locator("#system-prompt textarea")
        box.click()
        page.keyboard.type("Half a thought")
    wait_until(lambda: not page.locator("#model-line").is_visible(), what="the line's end")
    page.locator("#param-temperature").get_by_text("Not honoured by the Echo").wait_for()
    assert box.input_value() == "Half a thought"


def test_a_page_opened_while_a_model_loads_shows_how_far_it_is_and_can_cancel_it(open_app: Open, app: RunningApp) -> None:
    with loading(app, 60):
        page = open_filled(open_app)
        open_tab(page, "Model")
        page.locator("#model-progress").wait_for()
        before = page.locator("#model-progress input[type=number]").input_value()
        wait_until(lambda: page.locator("#model-progress input[type=number]").input_value() != before, what="progress")
        page.locator("#model-cancel").click()
        page.locator("#model-progress").wait_for(state="hidden")
    app.load("demo")


def test_a_load_refused_because_of_another_leaves_no_page_stuck(open_app: Open, app: RunningApp) -> None:
    """Its bar stayed and Load was greyed until a reload; another open page never heard of it at all."""
    pages = [open_filled(open_app), open_filled(open_app)]
    for page in pages:
        open_tab(page, "Model")
    choose(pages[0], "other")
    with loading(app, 5):
        pages[0].evaluate("""() => {
          const load = document.querySelector('#model-load');
          load.disabled = false;
          load.click();
        }""")
        for page in pages:
            page.bring_to_front()
            page.locator("#model-progress").wait_for()
            wait_until(page.locator("#model-cancel").is_enabled, what="Cancel")
    for page in pages:
        page.bring_to_front()
        page.locator("#model-progress").wait_for(state="hidden")
        wait_until(page.locator("#model-load").is_enabled, what="Load")
        wait_until(page.locator("#model-cancel").is_disabled, what="no Cancel")
        wait_until(lambda page=page: "demo ·" in page.locator("#model-status textarea").input_value(), what="the model")
    app.post("v1/internal/model/unload")
    for page in pages:
        wait_until(lambda page=page: "No model" in page.locator("#model-status textarea").input_value(), what="no model")
    app.load("demo")


def test_a_model_that_is_not_there_at_the_start_is_told_of(tmp_path: Path, browser: Any) -> None:
    """Only `No model is loaded.` was shown."""
    write_script(tmp_path / "models", "demo", "The end.")
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "bad") as app:
        context = browser.new_context()
        page = context.new_page()
        page.goto(app.url)
        page.get_by_text("The Model tab says why.").wait_for()
        open_tab(page, "Model")
        reason = page.get_by_label("Why it failed")
        wait_until(lambda: "bad" in reason.input_value(), what="the reason")
        context.close()
