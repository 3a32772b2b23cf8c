"""A reply answered again by another model, from the message's own buttons: what is told before, while it loads, and after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from modules import registry
from modules.core.loader import LoaderSpec
from tests.running_app import ROOT, RunningApp, wait_until, write_script

from .test_follow_models import loading
from .test_whole_app import Open, new_chat, open_app

__all__ = ["open_app"]  # a fixture

PHONE = {"width": 390, "height": 800, "has_touch": True, "is_mobile": True}
HOSTILE = "<img src=x onerror=window.hacked=1>"
ASK = "Answer again with another model"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("answer-again")
    write_script(folder / "models", "demo", "The first model speaks.")
    write_script(folder / "models", HOSTILE, "The second model speaks.")
    (folder / "models" / "broken.gguf").write_bytes(b"GGUF but no more")
    with RunningApp(folder / "data", folder / "models", "--models-dir", str(ROOT / "models"), "--model", "demo") as running:
        running.wait_for_model()
        yield running


def choose(page: Any, name: str, *, keyboard: bool = False) -> Any:
    """Open the dialog at the last reply and choose a model; the dialog, which then says what changes."""
    button = page.locator(".message.last").get_by_role("button", name=ASK)
    if keyboard:
        button.focus()
        page.keyboard.press("Enter")
    else:
        button.click()
    dialog = page.get_by_role("dialog")
    row = dialog.get_by_role("button").filter(has=page.locator(".title").get_by_text(name, exact=True))
    row.wait_for()
    if keyboard:
        row.focus()
        page.keyboard.press("Enter")
    else:
        row.click()
    dialog.get_by_text("Counting the tokens…").wait_for(state="detached")
    return dialog


def answered(page: Any, place: str) -> Any:
    """The last reply once it is that version and written."""
    page.locator(".message.last .swipe").get_by_text(place).wait_for(timeout=120_000)
    page.locator(".message.last:not(.live)").wait_for(timeout=120_000)
    return page.locator(".message.last")


def begin(open_app: Open, app: RunningApp, **options: Any) -> Any:
    """A page with a new chat whose one reply is the demo model's."""
    app.load("demo")
    page = open_app(**options)
    new_chat(page)
    page.get_by_role("textbox", name="Message", exact=True).fill("Who are you?")
    page.get_by_role("button", name="Send").click()  # on a phone Enter begins a new line
    page.locator(".message.last:not(.live)").get_by_text("The first model speaks.").wait_for()
    return page


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_another_model_writes_a_version_and_is_named_beside_it(open_app: Open, app: RunningApp, options: dict[str, Any]) -> None:
    page = begin(open_app, app, **options)
    dialog = choose(page, HOSTILE, keyboard=not options)
    box = dialog.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= page.viewport_size["width"]
    dialog.get_by_text("demo makes room for it").wait_for()
    if options:
        dialog.get_by_role("button", name="Answer again", exact=True).click()
    else:
        assert page.evaluate("document.activeElement.textContent") == "Answer again"
        page.keyboard.press("Enter")
    reply = answered(page, "2/2")
    assert "The second model speaks." in reply.inner_text()
    assert re.fullmatch(re.escape(HOSTILE) + r" · Echo \(no model\) · seed \d+", reply.locator(".writer").inner_text())
    assert page.evaluate("window.hacked === undefined")
    page.reload()
    page.locator(".message.last .swipe").get_by_text("2/2").wait_for()
    reply.get_by_role("button", name="Earlier version").click()
    page.locator(".message.last .writer").get_by_text("demo · Echo").wait_for()


def test_what_a_loaded_model_would_be_given_is_told(open_app: Open, app: RunningApp) -> None:
    page = begin(open_app, app)
    dialog = choose(page, "demo")
    told = dialog.get_by_text("tokens that the context holds").inner_text()
    dialog.get_by_text("No message has to be left out.").wait_for()
    dialog.get_by_role("button", name="Answer again", exact=True).click()
    reply = answered(page, "2/2")
    n_prompt = app.get("ui-api/view", session=page.evaluate("window.colloquySession()"))["messages"][-1]["stats"]["prompt_tokens"]
    assert told == f"The prompt: {n_prompt} of 16,384 tokens that the context holds."
    assert "demo" in reply.locator(".writer").inner_text()


def test_a_broken_model_cannot_be_chosen_and_says_why(open_app: Open, app: RunningApp) -> None:
    page = begin(open_app, app)
    page.locator(".message.last").get_by_role("button", name=ASK).click()
    row = page.get_by_role("dialog").get_by_role("button").filter(has_text="broken")
    row.get_by_text("cut off").wait_for()
    assert row.is_disabled()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == ASK


def needs(loader: str) -> None:
    spec: LoaderSpec = registry.find_loaders()[loader]
    if registry.missing(spec):
        pytest.skip(f"{loader} needs {', '.join(registry.missing(spec))}")


@pytest.mark.slow
def test_the_starter_answers_in_both_its_forms(open_app: Open, app: RunningApp) -> None:
    needs("llama_cpp")
    needs("transformers")
    page = begin(open_app, app)
    for place, name, line in (("2/2", "starter/starter-Q8_0", r"starter/starter-Q8_0 · llama\.cpp · Q8_0 · seed \d+"),
                              ("3/3", "starter", r"starter · Transformers · F16 · seed \d+")):
        choose(page, name).get_by_role("button", name="Answer again", exact=True).click()
        reply = answered(page, place)
        assert re.fullmatch(line, reply.locator(".writer").inner_text())
        assert reply.locator(".md").inner_text().strip()
    dialog = choose(page, "starter")
    dialog.get_by_label("Quantization while loading").select_option("4bit")
    dialog.get_by_text("starter is loaded anew for this.").wait_for()
    dialog.get_by_role("button", name="Answer again", exact=True).click()
    reply = answered(page, "4/4")
    assert re.fullmatch(r"starter · Transformers · 4bit · seed \d+", reply.locator(".writer").inner_text())


@pytest.mark.slow
def test_a_load_is_shown_at_the_reply_over_a_reload_and_can_be_cancelled(open_app: Open, app: RunningApp) -> None:
    needs("transformers")
    page = begin(open_app, app)
    choose(page, "starter").get_by_role("button", name="Answer again", exact=True).click()
    shown = page.locator(".message.last").get_by_text("Answering again with starter")
    shown.wait_for()
    page.reload()
    shown.wait_for()
    page.get_by_role("button", name="Cancel loading").click()
    page.locator(".message.last").get_by_text("Loading starter was cancelled.").wait_for()
    assert "The first model speaks." in page.locator(".message.last").inner_text()
    page.get_by_role("button", name="Dismiss").last.click()
    page.locator(".message.last").get_by_text("was cancelled").wait_for(state="detached")
    wait_until(lambda: app.get("health")["models"] == ["demo"], what="the model that was there")


def test_a_load_that_another_one_is_in_the_way_of_says_so_at_the_reply(open_app: Open, app: RunningApp) -> None:
    page = begin(open_app, app)
    with loading(app, 10):
        choose(page, HOSTILE).get_by_role("button", name="Answer again", exact=True).click()
        page.locator(".message.last .problem").get_by_text("is being loaded").wait_for()
        assert "The first model speaks." in page.locator(".message.last").inner_text()
