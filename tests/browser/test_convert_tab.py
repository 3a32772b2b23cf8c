"""A smaller model from one of the list, as a person makes it, on a wide screen and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until, write_script
from tests.tiny_models import tiny_hf

from .test_axe import grave_problems
from .test_download_tab import option_texts, text_of, to_tab

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("convert-tab")
    write_script(folder / "models", "demo", "The end.")
    for width in (1280, 390):
        tiny_hf(folder / "models" / f"small{width}")
    with RunningApp(folder / "data", folder / "models", "--model", "none") as running:
        yield running


def choose(page: Any, selector: str, text: str) -> None:
    page.locator(f"{selector} input").click()
    page.locator(f"{selector} [role=option]").get_by_text(text).first.click()


def name_of(page: Any) -> str:
    return str(page.locator("#convert-name").get_by_role("textbox").input_value())


@pytest.mark.parametrize("width", [1280, 390])
def test_choose_start_and_find_the_result_in_the_model_tab(open_app: Any, app: RunningApp, width: int) -> None:
    page = open_app(width)
    to_tab(page, "Model")
    page.locator("#model-choice").wait_for()
    to_tab(page, "Convert")
    choose(page, "#convert-source", f"small{width}")
    wait_until(lambda: name_of(page) == f"small{width}-Q4_K_M", what="the usual name")
    assert "4-bit, medium K-quant, small loss" in page.locator("#convert-target input").input_value()
    assert "are free in" in text_of(page, "#convert-plan")
    choose(page, "#convert-target", "Q2_K: 2-bit")
    wait_until(lambda: name_of(page) == f"small{width}-Q2_K", what="the other name")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    page.locator("#convert-start").click()
    slot = page.locator("#conversion-0 textarea")
    wait_until(lambda: slot.is_visible() and slot.input_value().startswith("Done"), what="the end")
    assert f"small{width}-Q2_K.gguf is in the list" in slot.input_value()
    to_tab(page, "Model")
    wait_until(lambda: f"small{width}-Q2_K" in option_texts(page, "#model-choice"), what="the model in the Model tab")
    to_tab(page, "Convert")
    page.get_by_role("button", name="Log of the latest").click()
    wait_until(lambda: "blk." in text_of(page, "#convert-log"), what="the log")
    page.locator("#conversion-cancel-0").click()
    wait_until(lambda: not slot.is_visible(), what="an empty list")


def test_a_reload_in_the_middle_shows_what_runs_and_a_cancel_leaves_nothing(open_app: Any, app: RunningApp) -> None:
    """bitsandbytes takes seconds to come up, so that there is a middle."""
    pytest.importorskip("bitsandbytes")
    page = open_app(1280)
    to_tab(page, "Convert")
    choose(page, "#convert-source", "small1280")
    choose(page, "#convert-target", "NF4")
    wait_until(lambda: name_of(page) == "small1280-bnb-4bit", what="the name")
    page.locator("#convert-start").click()
    slot = page.locator("#conversion-0 textarea")
    wait_until(lambda: slot.is_visible() and slot.input_value().startswith("Running"), what="the start")
    page.reload()
    page.wait_for_function("window.pageFilled === true")
    to_tab(page, "Convert")
    wait_until(lambda: slot.is_visible(), what="the conversion after the reload")
    assert slot.input_value().startswith("Running")
    page.locator("#conversion-cancel-0").click()
    wait_until(lambda: slot.input_value().startswith("Cancelled"), what="the cancel")
    models = app.data_dir.parent / "models"
    assert not (models / "small1280-bnb-4bit").exists() and not (models / ".converting").exists()


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_an_app_that_ends_in_the_middle_leaves_no_process_and_no_half_model(tmp_path: Path, browser: Any, way: str) -> None:
    pytest.importorskip("bitsandbytes")
    models = tmp_path / "models"
    tiny_hf(models / "small")
    with RunningApp(tmp_path / "data", models, "--model", "none") as running:
        page = browser.new_page()
        page.goto(running.url)
        page.wait_for_function("window.pageFilled === true")
        to_tab(page, "Convert")
        choose(page, "#convert-source", "small")
        choose(page, "#convert-target", "NF4")
        wait_until(lambda: name_of(page) == "small-bnb-4bit", what="the name")
        page.locator("#convert-start").click()
        wait_until(lambda: text_of(page, "#conversion-0").startswith("Running"), what="the start")
        assert any("modules.models.make_child" in process.cmdline() for process in running.family())
        page.close()
        running.kill() if way == "kill" else running.stop()
        wait_until(lambda: not running.family(), what="the end of its processes")
    assert not list(models.glob("small-*")) and not list((models / ".converting").glob("*"))
    with RunningApp(tmp_path / "data", models, "--model", "none"):
        assert [path.name for path in models.iterdir()] == ["small"]


def test_a_name_that_is_taken_is_told_and_cannot_be_started(open_app: Any, app: RunningApp) -> None:
    page = open_app(1280)
    to_tab(page, "Convert")
    choose(page, "#convert-source", "small390")
    wait_until(lambda: name_of(page) == "small390-Q4_K_M", what="the usual name, which would take the typed one's place")
    taken: Path = app.data_dir.parent / "models" / "taken.gguf"
    taken.write_bytes(b"something")
    page.locator("#convert-name").get_by_role("textbox").fill("taken")
    page.locator("#convert-name").get_by_role("textbox").press("Enter")
    wait_until(lambda: "There is a taken.gguf already" in text_of(page, "#convert-plan"), what="the reason")
    assert page.locator("#convert-start").is_disabled()
    page.locator("#convert-name").get_by_role("textbox").fill("../out")
    page.locator("#convert-name").get_by_role("textbox").press("Enter")
    wait_until(lambda: "cannot be a name" in text_of(page, "#convert-plan"), what="the refusal")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_nothing_grave(open_app: Any, width: int, scheme: str) -> None:
    page = open_app(width, color_scheme=scheme, reduced_motion="reduce")
    to_tab(page, "Convert")
    page.locator("#convert-plan").wait_for()
    page.get_by_role("button", name="Log of the latest").click()
    assert grave_problems(page) == []


def test_where_nothing_can_be_converted_it_says_so(tmp_path: Path, browser: Any) -> None:
    write_script(tmp_path / "models", "demo", "The end.")
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "none") as running:
        page = browser.new_page()
        page.goto(running.url)
        page.wait_for_function("window.pageFilled === true")
        to_tab(page, "Convert")
        wait_until(lambda: "no model here that could be converted" in text_of(page, "#convert-empty"), what="the empty state")
        assert page.locator("#convert-start").is_disabled()
        page.close()
    shutil.rmtree(tmp_path / "models")
