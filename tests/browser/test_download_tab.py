"""A model from the search to the Model tab, as a person fetches it, on a wide screen and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_stand_in import Repo, StandIn, folder_files, gguf_bytes, hold_after
from tests.running_app import RunningApp, wait_until, write_script

from .test_axe import grave_problems

SIZE = 3_000_000
HOSTILE = "<img src=x onerror=window.hacked=1>${window.hacked=2}{{window.hacked=3}}"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    folder = tmp_path_factory.mktemp("hub")
    with StandIn() as stand_in:
        for width in (1280, 390):
            file = f"wide{width}-Q4_K_M.gguf"
            stand_in.repos[f"maker/wide{width}-GGUF"] = Repo({file: gguf_bytes(folder, SIZE, seed=width)},
                                                             info={"gguf": {"total": 7_000_000_000}}, readme=HOSTILE)
            stand_in.fault(file, hold_after(SIZE // 2))
        stand_in.repos["maker/hostile"] = Repo({f"{HOSTILE}.gguf": b"x", "ok.gguf": b"y", **folder_files()}, readme=HOSTILE,
                                               info={"cardData": {"license": HOSTILE, "base_model": [HOSTILE]}})
        yield stand_in


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, stand_in: StandIn) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("download-tab")
    write_script(folder / "models", "demo", "The end.")
    with RunningApp(folder / "data", folder / "models", "--model", "none", "--hub-url", stand_in.url,
                    environment={"HF_TOKEN": ""}) as running:
        yield running


def to_tab(page: Any, name: str) -> None:
    """On a phone the last tabs are behind a menu."""
    tab = page.locator(f"#tab-{name.lower()}-button")
    if tab.is_visible():
        tab.click()
    else:
        page.locator("#tabs .overflow-menu > button").click()
        page.locator("#tabs .overflow-dropdown button").get_by_text(name, exact=True).click()


def text_of(page: Any, selector: str) -> str:
    return str(page.locator(f"{selector} textarea").input_value())


def option_texts(page: Any, selector: str) -> list[str]:
    page.locator(f"{selector} input").click()
    found = page.locator(f"{selector} [role=option]").all_inner_texts()
    page.keyboard.press("Escape")
    return [text.strip().removeprefix("✓").strip() for text in found]


@pytest.mark.parametrize("width", [1280, 390])
def test_search_choose_download_pause_resume_and_find_it_in_the_model_tab(open_app: Any, app: RunningApp, stand_in: StandIn,
                                                                          width: int) -> None:
    page = open_app(width)
    to_tab(page, "Model")
    page.locator("#model-choice").wait_for()
    to_tab(page, "Download")
    page.locator("#hub-query").get_by_role("textbox").fill(f"wide{width}")
    page.locator("#hub-query").get_by_role("textbox").press("Enter")
    page.locator("#hub-hits").get_by_text(f"maker/wide{width}-GGUF").locator("visible=true").first.click()
    page.locator("#hub-choice").get_by_text("4-bit, medium K-quant").wait_for()
    assert "Licence: apache-2.0" in text_of(page, "#hub-facts")
    page.locator("#hub-choice label").first.click()
    page.locator("#hub-download").click()

    slot = page.locator("#download-0 textarea")
    wait_until(lambda: slot.is_visible() and "of 3.0 MB" in slot.input_value(), what="the download's line")
    wait_until(lambda: page.locator("#download-bar-0 progress").get_attribute("value") not in (None, "0"), what="progress")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    page.locator("#download-pause-0").click()
    wait_until(lambda: "Paused at" in slot.input_value(), what="the pause")
    page.locator("#download-resume-0").click()
    name = f"maker/wide{width}-GGUF/wide{width}-Q4_K_M"
    wait_until(lambda: f"{name} is in the model folder" in slot.input_value(), what="the end")
    assert stand_in.fetched(f"wide{width}-Q4_K_M.gguf")[-1].startswith("bytes=1")
    page.locator("#download-to-models").click()
    page.locator("#model-choice").wait_for()
    wait_until(lambda: name in option_texts(page, "#model-choice"), what="the model in the Model tab")
    to_tab(page, "Download")
    page.locator("#download-cancel-0").click()
    wait_until(lambda: not slot.is_visible(), what="an empty list")


def test_a_hostile_card_is_text_and_its_files_are_left_out(open_app: Any) -> None:
    page = open_app(1280)
    to_tab(page, "Download")
    page.locator("#hub-query").get_by_role("textbox").fill("maker/hostile")
    page.locator("#hub-search").click()
    page.locator("#hub-hits").get_by_text("maker/hostile").locator("visible=true").first.click()
    page.locator("#hub-choice label").first.wait_for()
    assert HOSTILE[:100] in text_of(page, "#hub-facts")
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("#hub-choice label").count() == 2  # the folder and ok.gguf


def test_a_token_is_kept_and_leaves_the_page(open_app: Any, app: RunningApp) -> None:
    page = open_app(1280)
    to_tab(page, "Download")
    page.get_by_role("button", name="Token for gated models").click()
    assert "None is set" in text_of(page, "#hub-token-state")
    page.locator("#hub-token input").fill("hf_asecretofthistest")
    page.locator("#hub-token-save").click()
    wait_until(lambda: "One is set" in text_of(page, "#hub-token-state"), what="the token")
    assert page.locator("#hub-token input").input_value() == ""
    kept: Path = app.data_dir / "hub_token"
    assert kept.read_text().strip() == "hf_asecretofthistest"
    page.reload()
    page.wait_for_function("window.pageFilled === true")
    assert "hf_asecretofthistest" not in page.content()
    to_tab(page, "Download")
    page.get_by_role("button", name="Token for gated models").click()
    page.locator("#hub-token-forget").click()
    wait_until(lambda: not kept.exists(), what="the token's end")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_nothing_grave(open_app: Any, width: int, scheme: str) -> None:
    page = open_app(width, color_scheme=scheme, reduced_motion="reduce")
    to_tab(page, "Download")
    page.locator("#hub-query").get_by_role("textbox").fill("hostile")
    page.locator("#hub-search").click()
    page.locator("#hub-hits").get_by_text("maker/hostile").locator("visible=true").first.click()
    page.locator("#hub-choice label").first.wait_for()
    page.get_by_role("button", name="Token for gated models").click()
    page.locator("#hub-token-save").wait_for()
    assert grave_problems(page) == []


def test_nothing_found_and_no_such_repository_say_so(open_app: Any) -> None:
    page = open_app(1280)
    to_tab(page, "Download")
    page.locator("#hub-query").get_by_role("textbox").fill("nobody has this")
    page.locator("#hub-search").click()
    wait_until(lambda: "Nothing was found" in text_of(page, "#hub-told"), what="the empty state")
    page.locator("#hub-query").get_by_role("textbox").fill("nobody/has-this")
    page.locator("#hub-search").click()
    wait_until(lambda: page.locator("#hub-repo input").input_value() == "nobody/has-this", what="the name as it stands")
    page.locator("#hub-open").click()
    wait_until(lambda: "look for it by the search" in text_of(page, "#hub-told"), what="the refusal")


