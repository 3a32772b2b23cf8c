"""The browser's half of chat_stream: the app over Echo in Chromium, and what is seen compared with what was said.

Each text's moment is the engine's event; the page notes at each frame what can be read there; both clocks are the machine's. The
reference is a plain page in the same browser and run: it appends to a text what comes over a WebSocket 15 times a second, at the
rate at which our page has just shown the same text. Our page is given text as often, so the ratio of the two is what Markdown,
the length of the chat and the model's speed cost; it is near 1, and decides where seconds cannot be trusted.

The app has a process of its own (chat_stream_app). While text is not drawn yet the app reads no more from the model's process, so
a fast model is held up by our drawing; how long after its making text is seen, that wait included, is printed beside.
"""

from __future__ import annotations

import bisect
import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chat_stream import Bar
from .chat_stream_app import SESSION, App, Said

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# In the page: at each frame the number of the last whole word wN seen in the last two blocks, and every long task.
WATCH = """() => {
  window.seen = []; window.longest = 0; let last = "", body = null;
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
  }).observe({ type: "longtask" });
  const look = () => {
    if (!body?.isConnected || !body.closest(".message.last")) body = document.querySelector(".message.last .md");
    const newest = body?.lastElementChild;
    const blocks = [newest?.previousElementSibling, newest].filter((block) => block?.matches(".b"));
    const found = [...blocks.map((block) => block.textContent).join(" ").matchAll(/w(\\d{5})/g)];
    const word = found.length ? Number(found.at(-1)[1]) : -1;
    const state = `${word} ${blocks.map((block) => block.textContent.length)}`;
    if (state !== last) { last = state; window.seen.push([performance.timeOrigin + performance.now(), word]); }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


def chromium_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next((path for path in map(shutil.which, names) if path), None)


def script(n_words: int) -> str:
    """Numbered words in paragraphs, lists and code, so that a word seen on the screen can be found in the events."""
    parts: list[str] = []
    for first in range(0, n_words, 60):
        numbered = [f"w{n:05}" for n in range(first, min(first + 60, n_words))]
        lines = [" ".join(numbered[n:n + 10]) + " \n" for n in range(0, len(numbered), 10)]
        match first // 60 % 4:
            case 1:
                parts.append("".join(f"- {line}" for line in lines) + "\n")
            case 3:
                parts.append("```python\n" + "".join(lines) + "```\n\n")
            case _:
                parts.append(" ".join(numbered) + ". **Strong** `end`.\n\n")
    return "".join(parts) + f"w{n_words:05} end.\n"


@dataclass(frozen=True)
class Measured:
    """Of one reply. late_ms: how long after its event a word is seen; after_made_ms: how long after the model's process sent it;
    95th percentiles."""

    tokens_per_second: float
    characters_per_second: float
    late_ms: float
    after_made_ms: float
    paints_per_second: float
    longest_task_ms: float


def measure(app: App, page: Any, n_messages: int, text: str, rate: float) -> Measured:
    """Send a message in a chat of that many, watch the reply, and compare with the events."""
    app.load(text, rate)
    app.fill(n_messages)
    page.goto(app.url)
    page.wait_for_function("window.viewReady === true", timeout=60_000)
    while page.locator(".message").count() < n_messages:
        shown = page.locator(".message").count()
        page.evaluate("document.querySelector('.messages').scrollTop = 0")
        page.wait_for_function("n => document.querySelectorAll('.message').length > n", arg=shown)
    page.evaluate("document.querySelector('.messages').scrollTop = 1e9")
    page.wait_for_timeout(500)  # what was just loaded is laid out
    app.said()
    page.evaluate(WATCH)
    page.fill(".composer textarea", "Go")
    page.press(".composer textarea", "Enter")
    page.wait_for_selector(".message.assistant.last:not(.live) .stats:not(:empty)", timeout=600_000)
    return watched(app, page)


def measure_plain(app: App, page: Any, text: str, characters_per_second: float) -> Measured:
    """The same text on the plain page."""
    app.prepare_plain(text, characters_per_second)
    page.goto(app.plain_url)
    app.said()
    page.evaluate(WATCH)
    page.evaluate("begin()")
    page.wait_for_selector("body.over", timeout=60_000)
    return watched(app, page)


def watched(app: App, page: Any) -> Measured:
    page.wait_for_timeout(300)  # until its last frame
    return compare(page.evaluate("window.seen"), page.evaluate("window.longest"), app.said())


def compare(seen: list[tuple[float, int]], longest: float, said: Sequence[Said]) -> Measured:
    """seen: (milliseconds since the epoch, newest word that can be read), one for each frame that changed."""
    ends, total = [], 0
    for piece in said:
        total += len(piece.text)
        ends.append(total)
    whole = "".join(piece.text for piece in said)
    pieces = {int(match.group(1)): said[bisect.bisect_left(ends, match.end())] for match in re.finditer(r"w(\d{5})", whole)}
    late: list[float] = []
    after_made: list[float] = []
    word = -1
    for at, newest in seen:
        late += [at - 1000 * pieces[n].at for n in range(word + 1, newest + 1)]
        after_made += [at - 1000 * pieces[n].made for n in range(word + 1, newest + 1)]
        word = max(word, newest)
    assert word == max(pieces), f"word {word} of {max(pieces)} was seen: the reply was cut"
    painted = [at / 1000 for at, newest in seen if newest >= 0]
    first, last = painted[0], next(at / 1000 for at, newest in seen if newest == word)
    paints = sum(first <= at <= last for at in painted) / max(last - first, 0.001)
    seconds = last - said[0].at
    return Measured(sum(piece.n_tokens for piece in said) / seconds, total / seconds, statistics.quantiles(late, n=20)[18],
                    statistics.quantiles(after_made, n=20)[18], paints, longest)


def browser_bars(*, short: bool) -> Iterator[Bar]:
    from playwright.sync_api import sync_playwright

    n_fast, n_slow, repeats = (12_000, 100, 3) if short else (20_000, 1000, 5)
    fast, none, plain = [], [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, sync_playwright() as playwright:
        app = App(Path(folder))
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        page.add_init_script(f"sessionStorage.setItem('colloquy-session', {SESSION!r})")
        measure(app, page, 0, script(500), 0)  # what is done once is not measured
        for _ in range(repeats):
            none.append(measure(app, page, 0, script(n_fast), 0))
            fast.append(measure(app, page, 400, script(n_fast), 0))
            plain.append(measure_plain(app, page, script(n_fast), fast[-1].characters_per_second))
        slow = measure(app, page, 400, script(n_slow), 60)
        browser.close()
        app.stop()

    def middle(field: str, of: Sequence[Measured], beside: Sequence[Measured] = ()) -> float:
        """The median; with `beside` of the ratios of the two, pair by pair."""
        values = [getattr(one, field) for one in of]
        if beside:
            values = [value / getattr(other, field) for value, other in zip(values, beside, strict=True)]
        return statistics.median(values)

    print(f"  visible at full speed in an empty chat: {middle('tokens_per_second', none):,.0f} tokens/s")
    print(f"  plain page: seen after its event, 95 %: {middle('late_ms', plain):.0f} ms; "
          f"paints a second: {middle('paints_per_second', plain):.1f}")
    print(f"  seen after the model's process made it, 95 %: full speed {middle('after_made_ms', fast):.0f} ms, "
          f"60 tokens/s {slow.after_made_ms:.0f} ms")
    yield Bar("visible rate, 400 messages ÷ none", middle("tokens_per_second", fast, none), 0.9, "", at_least=True)
    yield Bar("visible rate with 400 messages", middle("tokens_per_second", fast), 1000, "tokens/s", at_least=True)
    for name, measured in (("full speed", fast), ("60 tokens/s", [slow] * repeats)):
        yield Bar(f"{name}: seen after its event, 95 %", middle("late_ms", measured), 200, "ms")
        yield Bar(f"{name}: the same ÷ plain page", middle("late_ms", measured, plain), 2.5, "")
        yield Bar(f"{name}: paints a second", middle("paints_per_second", measured), 10, "/s", at_least=True)
        yield Bar(f"{name}: longest task in the page", middle("longest_task_ms", measured), 100, "ms")
    yield Bar("full speed: paints ÷ plain page", middle("paints_per_second", fast, plain), 0.7, "", at_least=True)
