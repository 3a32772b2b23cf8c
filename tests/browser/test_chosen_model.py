"""With several models loaded, a tab's chat stays with the model that was chosen in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.running_app import RunningApp, wait_until, write_script

from .test_whole_app import choose, new_chat, open_tab, say


def test_a_call_of_another_model_does_not_change_who_answers_the_chat(tmp_path: Path, browser: Any) -> None:
    """The model used last by anybody answered, so an API client changed it under the person's hands."""
    write_script(tmp_path / "models", "first", "The first model speaks.")
    write_script(tmp_path / "models", "second", "The second model speaks.")
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "first", "--max-models", "2") as app:
        app.wait_for_model()
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.goto(app.url)
        page.wait_for_function("window.pageFilled === true && window.viewReady === true")
        open_tab(page, "Model")
        choose(page, "second")
        page.locator("#model-load").click()
        status = page.locator("#model-status textarea")
        wait_until(lambda: "second ·" in status.input_value(), what="the second model")
        open_tab(page, "Chat")
        page.locator("#model-line").get_by_text("second answers here.").wait_for()
        for _ in range(2):
            app.post("v1/completions", {"model": "first", "prompt": "x", "max_tokens": 1})
            new_chat(page)
            say(page, "Who are you?")
            page.get_by_text("The second model speaks.").wait_for()
            page.reload()
            page.wait_for_function("window.pageFilled === true && window.viewReady === true")
        open_tab(page, "Model")
        choose(page, "first")
        open_tab(page, "Chat")
        page.locator("#model-line").get_by_text("first answers here.").wait_for()
        new_chat(page)
        say(page, "And now?")
        page.get_by_text("The first model speaks.").wait_for()
        app.post("v1/internal/model/unload", {"model_name": "first"})
        page.locator("#model-line").get_by_text("second answers: first, which was chosen here, is not loaded.").wait_for()
        context.close()
