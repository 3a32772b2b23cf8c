"""Adapters in the Model tab: found, chosen with weights, attached, told under the reply; what is refused is said in words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until
from tests.tiny_adapters import gguf_adapter, peft_adapter
from tests.tiny_models import tiny_hf

from .test_whole_app import Open, new_chat, open_app, open_tab, say

__all__ = ["open_app"]  # a fixture
HOSTILE = "<img src=x onerror=window.hit=1>"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("adapters")
    hf = tiny_hf(folder / "models" / "base")
    peft_adapter(hf, folder / "loras" / "pirate", seed=1)
    poet = peft_adapter(hf, folder / "loras" / "poet", seed=2)
    shutil.copytree(poet, folder / "loras" / HOSTILE)
    gguf_adapter(folder / "loras" / "pirate", folder / "loras" / "sea.gguf")
    with RunningApp(folder / "data", folder / "models", "--model", "base", "--loras-dir", str(folder / "loras")) as running:
        running.wait_for_model()
        running.load("base", context=256)  # a reply of random weights seldom ends by itself
        yield running


def open_part(page: Any, name: str = "Model") -> None:
    page.wait_for_function("window.pageFilled === true")
    open_tab(page, name)
    page.get_by_role("button", name="Adapters (LoRA)").click()
    page.locator("#adapters-state textarea").wait_for()


def add(page: Any, name: str) -> None:
    page.locator("#adapters-choice input").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def weight(page: Any, n: int) -> Any:
    return page.locator(f"#adapter-weight-{n} input[type=number]")


def test_adapters_are_attached_with_their_weights_and_told_under_the_reply(open_app: Open, app: RunningApp) -> None:
    page = open_app(390, 844)
    open_part(page)
    state, problem = page.locator("#adapters-state textarea"), page.locator("#adapters-problem textarea")
    assert state.input_value() == "base: none."
    assert page.locator("#adapters-table").get_by_text("pirate", exact=True).locator("visible=true").count()
    add(page, "pirate")
    weight(page, 0).wait_for()
    assert page.locator("#adapter-weight-0").get_by_text("Weight of pirate").is_visible()
    weight(page, 0).fill("0.45")
    weight(page, 0).press("Tab")
    add(page, "poet")
    weight(page, 1).wait_for()
    assert weight(page, 0).input_value() == "0.45", "a weight stays with its adapter"
    page.locator("#adapters-apply").click()
    wait_until(lambda: state.input_value() == "base: pirate × 0.45, poet × 1.00.", what="both attached")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out on a phone"
    page.locator("#adapters-choice .token-remove").first.click()
    wait_until(lambda: not weight(page, 1).is_visible(), what="one field less")
    assert page.locator("#adapter-weight-0").get_by_text("Weight of poet").is_visible() and weight(page, 0).input_value() == "1"
    add(page, "sea")
    page.locator("#adapters-apply").click()
    problem.wait_for()
    assert "sea is a GGUF file" in problem.input_value() and state.input_value() == "base: pirate × 0.45, poet × 1.00."
    page.locator("#adapters-choice .token").filter(has_text="sea").locator(".token-remove").click()
    page.locator("#adapters-apply").click()
    wait_until(lambda: state.input_value() == "base: poet × 1.00.", what="only one left")
    assert not problem.count() or not problem.is_visible()
    assert app.get("v1/internal/model/info")["adapters"] == [{"name": "poet", "weight": 1.0}]
    open_tab(page, "Chat")
    new_chat(page)
    say(page, "Hello")
    page.get_by_text("base · Transformers · F32 · poet × 1 ·").first.wait_for()
    page.locator(".stats").last.wait_for()
    page.reload()
    page.wait_for_function("window.viewReady === true")
    page.get_by_text("base · Transformers · F32 · poet × 1 ·").first.wait_for()
    open_part(page)
    assert weight(page, 0).input_value() == "1", "the page shows what is attached"


def test_a_name_is_text_wherever_it_stands(open_app: Open) -> None:
    page = open_app()
    open_part(page)
    add(page, HOSTILE)
    page.locator("#adapters").get_by_text(f"Weight of {HOSTILE}").wait_for()
    page.locator("#adapters-apply").click()
    wait_until(lambda: f"{HOSTILE} × 1.00" in page.locator("#adapters-state textarea").input_value(), what="the state line")
    open_tab(page, "Chat")
    new_chat(page)
    say(page, "Hello")
    page.get_by_text(f"{HOSTILE} × 1 ·").first.wait_for()
    assert page.evaluate("window.hit") is None
