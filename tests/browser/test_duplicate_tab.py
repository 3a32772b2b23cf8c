"""A duplicated browser tab has a session of its own: what is done in one changes nothing in the other."""

from __future__ import annotations

from typing import Any

from tests.running_app import RunningApp, wait_until

from .test_whole_app import Open, app, new_chat, open_app, say

__all__ = ["app", "open_app"]  # fixtures


def duplicate(page: Any) -> Any:
    """As a browser's Duplicate does, a window opened by a script begins with a copy of the tab's storage."""
    with page.expect_popup() as opened:
        page.evaluate("window.open(location.href)")
    copy = opened.value
    copy.wait_for_function("window.viewReady === true")
    return copy


def test_another_chat_in_a_duplicated_tab_leaves_the_first_tab_its_own(open_app: Open, app: RunningApp) -> None:
    """Regenerate, Edit and Copy failed in the first tab, and a reload showed the other chat."""
    page = open_app()
    new_chat(page)
    say(page, "This is the first chat")
    page.get_by_text("The end.").wait_for()
    other = open_app()  # of another profile: by now its session is the latest
    new_chat(other)
    say(other, "This is somebody else's")
    copy = duplicate(page)
    copy.get_by_text("This is the first chat").first.wait_for()
    ids = [one.evaluate("[window.colloquySession(), sessionStorage.getItem('colloquy-session')]") for one in (page, copy)]
    assert ids[0][0] == ids[0][1] != ids[1][0] == ids[1][1]
    new_chat(copy)
    say(copy, "This is the second chat")
    copy.get_by_text("The end.").wait_for()
    page.bring_to_front()
    page.locator(".message.assistant").last.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2/2").wait_for()
    page.locator(".message.user").last.get_by_role("button", name="Edit").click()
    page.locator(".editor").wait_for()
    assert page.locator(".notice.error").count() == 0
    for one, text in ((page, "This is the first chat"), (copy, "This is the second chat")):
        one.bring_to_front()
        one.reload()
        one.wait_for_function("window.viewReady === true")
        assert one.locator(".message.user").last.inner_text().endswith(text)
    assert [one.evaluate("window.colloquySession()") for one in (page, copy)] == [ids[0][0], ids[1][0]], "a reload keeps the id"


def test_a_duplicated_tab_has_parameters_of_its_own_from_then_on(open_app: Open) -> None:
    page = open_app()
    copy = duplicate(page)
    sent: list[str] = []
    copy.on("request", lambda request: sent.append(request.post_data or "") if "queue/join" in request.url else None)
    copy.locator("#parameters .toggle-button").click()
    copy.locator("#param-seed input").fill("4242")
    copy.locator("#param-seed input").press("Tab")
    mine = copy.evaluate("window.colloquySession()")
    wait_until(lambda: any(mine in data for data in sent), what="a change under the copy's session")
    page.reload()
    page.wait_for_function("window.viewReady === true")
    page.locator("#parameters .toggle-button").click()
    page.locator("#param-seed input").wait_for()
    assert page.locator("#param-seed input").input_value() != "4242"


def test_many_reloads_in_a_row_keep_the_session(open_app: Open) -> None:
    """The page before a reload may still hold the id for a moment."""
    page = open_app()
    first = page.evaluate("window.colloquySession()")
    for _ in range(10):
        page.reload()
        page.wait_for_function("window.viewReady === true")
        assert page.evaluate("window.colloquySession()") == first
