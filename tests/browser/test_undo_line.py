"""The line that offers to undo goes by itself, but never while somebody is at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fake_chats import FakeChats

from .conftest import SESSION


def offered(open_page: Callable[..., Any], chats: FakeChats) -> tuple[Any, Any]:
    """A page whose clock the test moves, and its line after a message was deleted."""
    chats.fill(SESSION, 4)
    page = open_page()
    page.clock.install(time=0)
    page.clock.pause_at(600)  # seconds; from here it moves where the test says so
    page.locator(".message").last.hover()
    page.locator(".message").last.get_by_role("button", name="Delete").click()
    line = page.locator(".notice").filter(has_text="Message deleted.")
    line.wait_for()
    page.mouse.move(0, 0)
    return page, line


def test_it_goes_after_its_time(open_page: Callable[..., Any], chats: FakeChats) -> None:
    page, line = offered(open_page, chats)
    page.clock.run_for(11_000)
    assert line.is_visible()
    page.clock.run_for(2_000)
    assert line.count() == 0


@pytest.mark.parametrize("how", ["pointer", "keyboard"])
def test_it_waits_while_somebody_is_at_it_and_then_has_its_whole_time_again(
        open_page: Callable[..., Any], chats: FakeChats, how: str) -> None:
    """It went away under the pointer, just before the click."""
    page, line = offered(open_page, chats)
    page.clock.run_for(8_000)
    if how == "pointer":
        line.hover()
    else:
        line.get_by_role("button", name="Undo").focus()
        page.clock.run_for(20_000)
        line.get_by_role("button", name="Dismiss").focus()
    page.clock.run_for(60_000)
    assert line.is_visible()
    if how == "pointer":
        page.mouse.move(0, 0)
    else:
        page.get_by_role("textbox", name="Message", exact=True).focus()
    page.clock.run_for(11_000)
    assert line.is_visible()
    page.clock.run_for(2_000)
    assert line.count() == 0
