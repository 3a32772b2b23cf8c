"""What a page shows before there is a model: it says so, and follows by itself when one comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until, write_script


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("first-page")
    write_script(folder / "models", "demo", "The end.")
    with RunningApp(folder / "data", folder / "models", "--model", "none") as running:
        yield running


def wait_until_the_composer_ends_the_window(page: Any) -> None:
    """It lay partly below the window's edge where a line had come above the chat after the page was laid out."""
    page.wait_for_function("""() => {
      const { bottom } = document.querySelector('.composer').getBoundingClientRect();
      return scrollY === 0 && bottom <= innerHeight && bottom > innerHeight - 40;
    }""")


def test_lines_that_come_and_go_above_the_chat_leave_the_composer_in_the_window(app: RunningApp, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(app.url)
    page.wait_for_function("window.viewReady === true")
    wait_until_the_composer_ends_the_window(page)
    for change in ("chat.before(line)", "line.remove()", "chat.parentElement.parentElement.before(line)", "line.remove()"):
        page.evaluate(f"""() => {{
          const chat = document.querySelector('#chat-view');
          const line = document.querySelector('#test-line') ?? Object.assign(document.createElement('p'), {{ id: 'test-line' }});
          line.style.flex = "none";
          line.style.height = "41px";
          {change};
        }}""")
        wait_until_the_composer_ends_the_window(page)
    context.close()


def test_a_page_opened_while_a_model_loads_follows_by_itself(app: RunningApp, browser: Any) -> None:
    """It showed until a reload that no model was loaded, and greyed none of the parameters that the loader ignores."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(app.url)
    page.get_by_text("No model is loaded. Choose one in the Model tab.").wait_for()
    loading = threading.Thread(target=app.load, args=("demo",), kwargs={"load_seconds": 5})
    loading.start()
    try:
        wait_until(lambda: "still loading" in app.client.post("v1/completions", json={"prompt": "x"}).text, what="the load")
        page.reload()
        page.get_by_text("The model is still being loaded.").wait_for()
        page.get_by_role("tab", name="Model").click()
        status = page.locator("#model-status textarea")
        wait_until(lambda: "demo is being loaded." in status.input_value(), what="the status")
        wait_until(lambda: "demo ·" in status.input_value(), what="the model")
        page.get_by_role("tab", name="Chat", exact=True).click()
        wait_until(lambda: not page.locator("#model-line").is_visible(), what="the line's end")
        page.get_by_role("button", name="Character and parameters").click()
        page.locator("#param-temperature").get_by_text("Not honoured by the Echo").wait_for()
    finally:
        loading.join()
        context.close()
