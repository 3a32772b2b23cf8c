"""Pictures of every tab with the starter model, at desk and phone width, light and dark; the README's are made by this test.

`PICTURES=docs/images python -m pytest tests/browser/test_pictures.py` writes them there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running_app import ROOT, RunningApp, wait_until

STARTER = ROOT / "models" / "starter"
SIZES = {"desk": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    if not STARTER.is_dir():
        pytest.skip("needs models/starter")
    folder = tmp_path_factory.mktemp("pictures")
    with RunningApp(folder / "data", None) as running:
        running.wait_for_model()
        yield running


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = ROOT / os.environ["PICTURES"] if "PICTURES" in os.environ else tmp_path_factory.mktemp("shown")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_fits_its_screen(app: RunningApp, browser: Any, pictures: Path, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone")
    page = context.new_page()
    page.goto(app.url)
    page.wait_for_function("window.viewReady === true")
    play_maren(page)
    for name in ("Chat", "Notebook", "Model"):
        page.get_by_role("tab", name=name).click()
        if name == "Notebook":
            write_a_page(page)
        if name == "Model":
            page.locator("#model-table").get_by_text("starter", exact=False).locator("visible=true").first.wait_for()
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        page.screenshot(path=pictures / f"{name.lower()}-{size}-{scheme}.png")
        assert overflow <= 0, f"{name} is {overflow} pixels too wide at {width}"
    context.close()


def play_maren(page: Any) -> None:
    """Choose the lighthouse keeper, say two things and wait for her answers."""
    page.locator("#parameters .toggle-button").click()
    page.locator("#param-seed input").fill("7")
    page.locator("#param-seed input").press("Tab")
    if page.locator("#character input").input_value() == "Maren":  # a new tab begins as a copy of the latest
        page.evaluate("window.colloquyChat.begin()")
    else:
        page.locator("#character input").click()
        page.get_by_role("option", name="Maren").click()
    page.locator("#parameters .toggle-button").click()
    page.get_by_text("Maren hangs your coat").wait_for()
    wait_until(lambda: page.locator(".message").count() == 1, what="a new chat")
    for said, messages in (("Hello Maren, my name is Ada.", 3), ("What is your cat called?", 5)):
        page.get_by_role("textbox", name="Message", exact=True).fill(said)
        page.get_by_role("button", name="Send").click()  # on a phone Enter begins a new line
        wait_until(lambda count=messages: page.locator(".message").count() == count  # type: ignore[misc]
                   and page.locator(".message.live").count() == 0 and page.locator(".message .stats").count() >= count // 2,
                   what="the reply's end")


def write_a_page(page: Any) -> None:
    page.wait_for_function("window.notebookReady === true")
    area = page.get_by_label("Notebook page")
    area.fill("Once upon a time there was a fox called Tom. One day")
    area.press("Control+Enter")
    wait_until(lambda: "a second" in page.locator(".notebook .state").inner_text(), what="the page's continuation")
    page.get_by_role("button", name="Generate").wait_for()
