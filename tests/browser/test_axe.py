"""Every part of the page by axe-core: no problem of impact critical or serious, at desk and phone width, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.running_app import RunningApp, wait_until, write_script

SIZES = {"desk": (1280, 800), "phone": (390, 844)}
GRAVE = {"critical", "serious"}
REPLY = """<think>
Let me *think*.
</think>

# A heading

Some **bold** words, `code`, a [link](https://example.org), ![a picture](https://example.org/a.png) and $x^2$[^1]:

```python
# A comment
def half(number: int) -> str:
    return "half of it: " + str(number * 0.5)
```

| left | right |
|------|------:|
| 1    | 2     |

> A quotation.

- [ ] to do
- [x] done

$$\\frac{1}{2}$$

The end.

[^1]: A footnote."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("axe")
    write_script(folder / "models", "demo", REPLY)
    (folder / "models" / "broken.gguf").write_bytes(b"GGUF but no more")
    with RunningApp(folder / "data", folder / "models", "--model", "demo") as running:
        running.wait_for_model()
        yield running


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def page(request: pytest.FixtureRequest, app: RunningApp, browser: Any) -> Iterator[Any]:
    """The app in an empty chat. Without movement: a part that still slides in is half covered, and measured so."""
    size, scheme = request.param
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone",
                                  reduced_motion="reduce")
    page = context.new_page()
    page.goto(app.url)
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.wait_for_function("window.viewReady === true")
    page.evaluate("window.colloquyChat.begin('')")
    page.get_by_text("Say something to begin").wait_for()
    yield page
    context.close()


def grave_problems(page: Any) -> list[str]:
    """What axe-core finds grave, as lines: rule, what is wrong, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response
    assert found["passes"], "axe-core has looked at something"
    return [f"{problem['id']}: {(node['any'] or node['all'] or node['none'])[0]['message']} {node['target']} {node['html'][:200]}"
            for problem in found["violations"] if problem["impact"] in GRAVE for node in problem["nodes"]]


def test_axe_finds_nothing_grave_in_a_chat(page: Any) -> None:
    assert grave_problems(page) == [], "the empty chat"
    for number in (1, 2):
        page.get_by_role("textbox", name="Message", exact=True).fill("Go on")
        page.get_by_role("button", name="Send").click()
        wait_until(lambda n=number: page.locator(".message .stats").count() == 2 * n  # type: ignore[misc]
                   and page.locator(".message.live").count() == 0, what="the reply")
    page.locator(".reasoning summary").last.click()
    page.locator(".message.user [aria-label=Edit]").last.click()
    page.locator(".editor").wait_for()
    assert grave_problems(page) == [], "messages, code, thoughts, an editor"
    page.locator(".message.assistant [aria-label=Delete]").last.click()
    page.get_by_text("Message deleted.").wait_for()
    assert grave_problems(page) == [], "a notice"


def test_axe_finds_nothing_grave_in_the_list_of_chats_and_a_dialog(page: Any, app: RunningApp) -> None:
    app.post("ui-api/new", {"character": ""})
    app.ended(app.send("For the trash")[1]["id"])
    app.post("ui-api/trash", {"conversation": app.view()["conversation"]})
    app.post("ui-api/new", {"character": ""})
    app.ended(app.send("For the list")[1]["id"])
    toggle = page.locator("#chats .toggle-button")
    if page.viewport_size["width"] < 768:
        toggle.click()
    page.get_by_label("Search chats").fill("the list")
    page.locator("nav.chats .snippet").first.wait_for()
    assert grave_problems(page) == [], "a search"
    page.get_by_label("Search chats").fill("")
    page.locator("nav.chats").get_by_role("button", name="Trash", exact=True).click()
    page.get_by_role("button", name="Empty the trash").click()
    page.locator("dialog").wait_for()
    assert grave_problems(page) == [], "the trash and a question"
    page.locator("dialog").get_by_role("button", name="Cancel").click()


def test_axe_finds_nothing_grave_in_the_parameters(page: Any) -> None:
    page.locator("#parameters .toggle-button").click()
    page.locator("#param-temperature").wait_for()
    assert grave_problems(page) == []


def test_axe_finds_nothing_grave_in_the_notebook(page: Any) -> None:
    page.get_by_role("tab", name="Notebook").click()
    page.wait_for_function("window.notebookReady === true")
    area = page.get_by_label("Notebook page")
    area.fill("Once")
    area.press("Control+Enter")
    wait_until(lambda: "tokens" in page.locator(".notebook .state").inner_text(), what="the continuation")
    page.get_by_role("button", name="Generate").wait_for()
    assert grave_problems(page) == []
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("is in the trash.").wait_for()
    assert grave_problems(page) == [], "a notice"


def test_axe_finds_nothing_grave_in_the_model_tab(page: Any) -> None:
    page.get_by_role("tab", name="Model").click()
    page.locator("#model-table").get_by_text("broken", exact=True).locator("visible=true").first.wait_for()
    page.get_by_role("button", name="Loader options").click()
    assert grave_problems(page) == []
