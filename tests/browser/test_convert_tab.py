"""A model quantized in the browser, as a person does it: choose, read what it takes, start, see it in the list; and cancel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until
from tests.tiny_models import tiny_hf

from .test_axe import grave_problems
from .test_download_tab import option_texts, text_of, to_tab

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert-tab") / "models"
    for name in ("small", "other"):
        tiny_hf(folder / name)
    return folder


@pytest.fixture(scope="module")
def app(models: Path) -> Iterator[RunningApp]:
    with RunningApp(models.parent / "data", models, "--model", "none", "--own-models-only") as running:
        yield running


@pytest.fixture
def open_page(app: RunningApp, browser: Any) -> Iterator[Any]:
    contexts: list[Any] = []

    def open_one(width: int) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.goto(app.url)
        page.wait_for_function("window.pageFilled === true")
        to_tab(page, "Convert")
        return page

    yield open_one
    for context in contexts:
        context.close()


def choose(page: Any, selector: str, text: str) -> None:
    page.locator(f"{selector} input").click()
    page.locator("ul[role=listbox] li, [role=option]").get_by_text(text).first.click()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_model_is_quantized_and_stands_in_the_list(open_page: Any, width: int) -> None:
    page = open_page(width)
    choose(page, "#convert-model", "small")
    wait_until(lambda: text_of_input(page, "#convert-name") == "small-Q4_K_M", what="the name that is proposed")
    choose(page, "#convert-kind", "Q6_K: 6-bit, K-quant, hardly any loss")
    wait_until(lambda: text_of_input(page, "#convert-name") == "small-Q6_K", what="the name for the other type")
    assert "It goes to" in text_of(page, "#convert-about")
    page.locator("#convert-name input, #convert-name textarea").fill(f"small-{width}-Q6_K")
    page.locator("#convert-start").click()
    wait_until(lambda: "bytes." in text_of(page, "#conversion-0"), what="the end of the conversion")
    assert not grave_problems(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    to_tab(page, "Model")
    wait_until(lambda: f"small-{width}-Q6_K" in option_texts(page, "#model-choice"), what="the new model in the list")


def text_of_input(page: Any, selector: str) -> str:
    return str(page.locator(f"{selector} input, {selector} textarea").first.input_value())


def test_a_name_that_is_taken_is_said_and_what_was_typed_stays(open_page: Any, models: Path) -> None:
    page = open_page(1280)
    (models / "taken.gguf").write_bytes(b"")
    choose(page, "#convert-model", "other")
    page.locator("#convert-name input, #convert-name textarea").fill("taken")
    page.locator("#convert-start").click()
    page.get_by_text("taken.gguf is there already; choose another name").wait_for()
    assert text_of_input(page, "#convert-name") == "taken"
    (models / "taken.gguf").unlink()


def test_without_a_model_to_convert_the_tab_says_what_it_takes(open_page: Any, models: Path) -> None:
    for name in ("small", "other"):
        shutil.move(models / name, models.parent / name)
    try:
        page = open_page(1280)
        page.locator("#convert-none").wait_for()
        assert "Qwen3" in text_of(page, "#convert-none")
        assert page.locator("#convert-start").is_disabled()
    finally:
        for name in ("small", "other"):
            shutil.move(models.parent / name, models / name)
