"""The notebook when the server is out of reach, asks for its key, or takes no more: that is said, and no word goes."""

from __future__ import annotations

from typing import Any

from tests.running_app import RunningApp, wait_until

from .test_notebook_drafts import DRAFTS, lose_saves, new_page, open_notebook, shown
from .test_whole_app import Open, app, open_app

__all__ = ["app", "open_app"]  # fixtures


def close_sockets(page: Any, codes: list[int]) -> None:
    """Each socket that follows a run is closed with the next of these codes; once there are none it is let through."""
    def answer(socket: Any) -> None:
        if codes:
            socket.close(code=codes[0] if len(codes) == 1 else codes.pop(0))
        else:
            socket.connect_to_server()

    page.route_web_socket("**/ui-api/notebook/runs/**", answer)


def test_a_lost_connection_is_said_while_the_page_is_written_to(open_app: Open) -> None:
    page = open_app()
    codes = [1011]
    close_sockets(page, codes)
    area = new_page(page, "Once")
    area.press("Control+Enter")
    state = page.locator(".notebook .state")
    wait_until(lambda: "Connection lost" in state.inner_text(), what="the line")
    codes.clear()
    wait_until(lambda: area.input_value().endswith("The end."), what="the whole text")
    wait_until(lambda: "Connection lost" not in state.inner_text(), what="the line's end")


def test_a_server_that_asks_for_its_key_is_asked_by_a_new_load(open_app: Open) -> None:
    """The page tried for ever, and the person was never asked for the key."""
    page = open_app()
    codes = [4401]
    close_sockets(page, codes)
    area = new_page(page, "Once")
    page.evaluate("window.isOldLoad = true")
    area.press("Control+Enter")
    page.wait_for_function("window.isOldLoad === undefined")
    codes.clear()
    page.wait_for_function("window.viewReady === true")
    area = open_notebook(page)
    wait_until(lambda: area.input_value().endswith("The end."), what="the text")


def test_words_that_cannot_be_saved_for_the_connection_are_saved_by_themselves_later(open_app: Open) -> None:
    """They stayed unsaved until the next key, under an error line."""
    page = open_app()
    area = new_page(page, "Once")
    page.evaluate("() => { window.realFetch = window.fetch; }")
    lose_saves(page)
    area.press("Control+End")
    area.type(" upon")
    state = page.locator(".notebook .state")
    wait_until(lambda: "Connection lost; what you type is kept" in state.inner_text(), what="the line")
    page.evaluate("() => { window.fetch = window.realFetch; }")
    wait_until(lambda: shown(page)["text"] == "Once upon", what="the save")
    wait_until(lambda: "Connection lost" not in state.inner_text(), what="the line's end")
    wait_until(lambda: page.evaluate(DRAFTS) == 0, what="no draft")


def test_a_page_too_long_to_be_saved_says_so_and_keeps_every_word(open_app: Open) -> None:
    """A paste was cut at four million characters without a word, and 1.6 million Chinese ones got "send a shorter message"."""
    page = open_app()
    new_page(page, "Once")

    def paste(letter: str, n: int) -> None:
        """As the browser does it, in lines."""
        page.evaluate("""([letter, n]) => { const area = document.querySelector("textarea.page");
            area.setRangeText((letter.repeat(99) + "\\n").repeat(n / 100), 0, area.value.length, "end");
            area.dispatchEvent(new InputEvent("input", { inputType: "insertFromPaste" })); }""", [letter, n])

    def length() -> Any:
        return page.evaluate("document.querySelector('textarea.page').value.length")

    paste("字", 1_600_000)
    problem = page.locator(".notebook .notice.error")
    wait_until(lambda: problem.count() and "too long to be saved" in problem.inner_text(), what="the reason")
    assert length() == 1_600_000 and shown(page)["text"] == "Once"
    paste("a", 4_600_000)
    state = page.locator(".notebook .state")
    wait_until(lambda: problem.is_visible() and "4,646," in problem.inner_text(), what="the reason")
    assert length() == 4_600_000
    # By script: Playwright's fill looks at the field's layout first, which takes a slow machine minutes at this length.
    page.evaluate("""() => { const area = document.querySelector("textarea.page");
        area.value = "Twice";
        area.dispatchEvent(new InputEvent("input", { inputType: "insertText" })); }""")
    wait_until(lambda: shown(page)["text"] == "Twice", what="the next save")
    wait_until(lambda: "no room" not in state.inner_text() and problem.is_hidden(), what="lines that are no longer true to go")


def test_another_page_takes_no_words_of_a_run_that_writes_to_the_first(open_app: Open, app: RunningApp) -> None:
    """They were shown on the page opened meanwhile, which could not be written on until the run had ended."""
    app.load("demo", script="tick " * 200 + "tock", rate=60)
    try:
        page = open_app()
        area = new_page(page, "The first page")
        area.press("Control+Enter")
        wait_until(lambda: len(area.input_value()) > 40, what="the text's beginning")
        page.get_by_role("button", name="New page").click()
        wait_until(lambda: not area.input_value() and area.is_editable(), what="an empty page")
        area.fill("Mine")
        wait_until(lambda: shown(page)["text"] == "Mine", what="the save")
        page.locator(".notebook button.pages").click()
        page.locator("dialog li").filter(has_text="The first page").first.locator("button.chat").click()
        wait_until(lambda: area.input_value().endswith("tock"), what="the first page's text")
        assert area.input_value().startswith("The first page") and "Mine" not in area.input_value()
    finally:
        app.load("demo")
