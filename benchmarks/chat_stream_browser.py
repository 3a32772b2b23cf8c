"""The browser's half of chat_stream: the app over Echo in Chromium, and what is seen compared with what was said."""

from __future__ import annotations

import asyncio
import bisect
import os
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modules.core.events import Delta, Event

from .chat_stream import Bar

ROOT = Path(__file__).resolve().parent.parent
SESSION = "benchmark-chat-stream-1"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# In the page: at each frame the number of the last whole word wN seen in the last two blocks, and every long task.
WATCH = """() => {
  window.seen = []; window.longest = 0; let last = "";
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
  }).observe({ type: "longtask" });
  const look = () => {
    const blocks = [...document.querySelectorAll(".message.last .md > .b")].slice(-2);
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


class App:
    """The app on a thread of its own, with chats of 0 and 400 messages; notes when each event of a reply happens."""

    def __init__(self, folder: Path) -> None:
        from modules.assembly import make_services
        from modules.core.settings import Settings
        from modules.instance import listening_socket

        (folder / "models").mkdir()
        settings = Settings(data_dir=str(folder / "data"), models_dir=(str(folder / "models"),), model="none", no_browser=True)
        self.services = make_services(settings, ROOT)
        self.noted: list[tuple[float, str, int]] = []  # seconds since the epoch, text, tokens
        self._socket = listening_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the app did not start"

    async def _serve(self) -> None:
        import uvicorn

        from app import make_app

        self._loop = asyncio.get_running_loop()
        self._note_events()
        app = make_app(self.services, started=self._ready.set)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio"))
        await self._server.serve(sockets=[self._socket])

    def _note_events(self) -> None:
        engine: Any = self.services.engine
        start = engine.start

        def noting_start(request: Any, *, listener: Any = None, run_id: str = "") -> Any:
            def note(run: Any, events: Sequence[Event]) -> None:
                now = time.time()
                self.noted += [(now, event.text, len(event.tokens)) for event in events if isinstance(event, Delta)]
                if listener is not None:
                    listener(run, events)

            return start(replace(request, params=replace(request.params, max_tokens=0)), listener=note, run_id=run_id)

        engine.start = noting_start

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def load(self, text: str, rate: float) -> None:
        self.call(self.services.engine.load("echo", loader="echo", options={"script": text, "rate": rate, "context": 262_144}))

    def fill(self, n_messages: int) -> None:
        """Open a new chat of that many messages in the benchmark's session."""
        from modules.core.messages import message

        chats, head = self.services.store.chats, None
        chat = chats.create(title=f"{n_messages} messages")
        for n in range(n_messages):
            text = f"Message {n} with **some** text, `code` and a list:\n\n- one\n- two\n\n" + "and words " * 40
            head = chats.add(chat.id, head, message("assistant" if n % 2 else "user", text)).id
        self.call(self.services.chat.open_chat(SESSION, chat.id))

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)


@dataclass(frozen=True)
class Measured:
    tokens_per_second: float
    late_ms: float  # the 95th percentile of how long after its event a word is seen
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
    app.noted.clear()
    page.evaluate(WATCH)
    page.fill(".composer textarea", "Go")
    page.press(".composer textarea", "Enter")
    page.wait_for_selector(".message.assistant.last:not(.live) .stats:not(:empty)", timeout=600_000)
    page.wait_for_timeout(300)
    return compare(page.evaluate("window.seen"), page.evaluate("window.longest"), app.noted)


def compare(seen: list[tuple[float, int]], longest: float, noted: list[tuple[float, str, int]]) -> Measured:
    said = "".join(text for _, text, _ in noted)
    ends, total = [], 0
    for _, text, _ in noted:
        total += len(text)
        ends.append(total)
    happened = {int(match.group(1)): noted[bisect.bisect_left(ends, match.end())][0]
                for match in re.finditer(r"w(\d{5})", said)}
    late, word = [], -1
    for at, newest in seen:
        late += [1000 * (at / 1000 - happened[n]) for n in range(word + 1, newest + 1)]
        word = max(word, newest)
    assert word == max(happened), f"word {word} of {max(happened)} was seen: the reply was cut"
    painted = [at / 1000 for at, newest in seen if newest >= 0]
    first, last = painted[0], next(at / 1000 for at, newest in seen if newest == word)
    began = noted[0][0]
    tokens = sum(n for _, _, n in noted)
    paints = sum(first <= at <= last for at in painted) / max(last - first, 0.001)
    return Measured(tokens / (last - began), statistics.quantiles(late, n=20)[18], paints, longest)


def browser_bars(*, short: bool) -> Iterator[Bar]:
    from playwright.sync_api import sync_playwright

    n_fast, n_slow, repeats = (5000, 250, 3) if short else (20_000, 1000, 5)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, sync_playwright() as playwright:
        app = App(Path(folder))
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
        page.add_init_script(f"sessionStorage.setItem('colloquy-session', {SESSION!r})")
        ratios, fast, none = [], [], []
        measure(app, page, 0, script(500), 0)  # what is done once is not measured
        for _ in range(repeats):
            empty, full = (measure(app, page, n, script(n_fast), 0) for n in (0, 400))
            ratios.append(full.tokens_per_second / empty.tokens_per_second)
            fast.append(full)
            none.append(empty)
        slow = measure(app, page, 400, script(n_slow), 60)
        browser.close()
        app.stop()
    def middle(field: str, of: Sequence[Measured]) -> float:
        return statistics.median(getattr(one, field) for one in of)

    print(f"  visible at full speed in an empty chat: {middle('tokens_per_second', none):,.0f} tokens/s")
    yield Bar("visible rate, 400 messages ÷ none", statistics.median(ratios), 0.9, "", at_least=True)
    yield Bar("visible rate with 400 messages", middle("tokens_per_second", fast), 1000, "tokens/s", at_least=True)
    for name, measured in (("full speed", fast), ("60 tokens/s", [slow])):
        yield Bar(f"{name}: seen after its event, 95 %", middle("late_ms", measured), 200, "ms")
        yield Bar(f"{name}: paints a second", middle("paints_per_second", measured), 10, "", at_least=True)
        yield Bar(f"{name}: longest task in the page", middle("longest_task_ms", measured), 100, "ms")
