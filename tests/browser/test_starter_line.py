"""The line above the chat that says what the starter model is, and leads to the Model tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.running_app import RunningApp, write_script


def test_the_line_above_the_chat_says_what_the_starter_is_and_leads_to_the_model_tab(tmp_path: Path, browser: Any) -> None:
    write_script(tmp_path / "models", "starter", "Hello to you.")
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "starter") as app:
        app.wait_for_model()
        context = browser.new_context()
        page = context.new_page()
        page.goto(app.url)
        page.wait_for_function("window.viewReady === true")
        line = page.locator("#model-line")
        line.get_by_text("starter model: tiny").wait_for()
        line.get_by_role("link", name="Model tab").click()
        page.get_by_role("tab", name="Model", selected=True).wait_for()
        page.locator("#model-table").wait_for(state="visible")
        context.close()
