"""The app of chat_stream in a process of its own, with a plain page beside it that shows text in the simplest way.

The browser's driver and the comparing stay in the benchmark's process, so that the app shares its interpreter with nothing that
it would not share it with in use. What is added to it is a list of when each event happened, which is fetched afterwards.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from modules.core.events import Delta, Event

ROOT = Path(__file__).resolve().parent.parent
SESSION = "benchmark-chat-stream-1"
START_SECONDS = 60
PLAIN_SECONDS = 1 / 15  # between two messages to the plain page: what our page is given is drawn as often
PLAIN_STEP = 0.005  # seconds between two pieces of its text: as often a worker of full speed sends
PLAIN_PAGE = """<!doctype html><title>Plain</title><style>
.messages { height: 90vh; overflow: auto; font: 16px sans-serif } .b { white-space: pre-wrap }</style>
<div class="messages"><article class="message last"><div class="md"></div></article></div><script>
const view = document.querySelector(".messages"), body = document.querySelector(".md");
function begin() {
  const socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onmessage = (message) => {
    const block = document.createElement("div");
    block.className = "b";
    block.textContent = message.data;
    body.append(block);
    view.scrollTop = view.scrollHeight;
  };
  socket.onclose = () => document.body.classList.add("over");
}
</script>"""


@dataclass(frozen=True)
class Said:
    """A piece of a reply. at: when its event happened; made: when the model's process sent it. Seconds since the epoch."""

    at: float
    text: str
    n_tokens: int
    made: float


class App:
    """The benchmark's hold on the child process; every method waits until it is done."""

    def __init__(self, folder: Path) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(theirs, str(folder)), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.poll(START_SECONDS), "the app did not start"
        self.url, self.plain_url = self._pipe.recv()

    def load(self, text: str, rate: float) -> None:
        """Load Echo with this script, at so many tokens a second; 0 is full speed."""
        self._ask("load", text, rate)

    def fill(self, n_messages: int) -> None:
        """Open a new chat of that many messages in the benchmark's session."""
        self._ask("fill", n_messages)

    def prepare_plain(self, text: str, rate: float) -> None:
        """Have the plain page show the text at so many characters a second."""
        self._ask("prepare_plain", text, rate)

    def said(self) -> list[Said]:
        """What was said since the last time."""
        said: list[Said] = self._ask("said")
        return said

    def stop(self) -> None:
        self._pipe.send(("stop", ()))
        self._process.join(30)

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, arguments))
        return self._pipe.recv()


def serve(pipe: Connection, folder: str) -> None:
    """The child process, until it is told to stop or its parent is gone."""
    asyncio.run(_Served(Path(folder)).run(pipe))


class _Served:
    """App and plain page on one loop. Methods without an underscore are what the other process may ask."""

    def __init__(self, folder: Path) -> None:
        from modules.assembly import make_services
        from modules.core.settings import Settings

        (folder / "models").mkdir()
        settings = Settings(data_dir=str(folder / "data"), models_dir=(str(folder / "models"),), model="none", no_browser=True)
        self._services = make_services(settings, ROOT)
        self._said: list[Said] = []
        self._made = 0.0
        self._plain = ("", 0.0)
        self._note_events()

    async def run(self, pipe: Connection) -> None:
        import uvicorn

        from app import make_app
        from modules.instance import listening_socket

        started = asyncio.Event()
        sockets = [listening_socket("127.0.0.1", 0) for _ in range(2)]
        servers = [uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio"))
                   for app in (make_app(self._services, started=started.set), self._plain_app())]
        serving = [asyncio.create_task(server.serve(sockets=[socket])) for server, socket in zip(servers, sockets, strict=True)]
        await started.wait()
        pipe.send([f"http://127.0.0.1:{socket.getsockname()[1]}/" for socket in sockets])
        while True:
            try:
                name, arguments = await asyncio.to_thread(pipe.recv)
            except EOFError:  # the benchmark is gone
                break
            if name == "stop":
                break
            pipe.send(await getattr(self, name)(*arguments))
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving)

    async def load(self, text: str, rate: float) -> None:
        options = {"script": text, "rate": rate, "context": 262_144}
        await self._services.engine.load("echo", loader="echo", options=options)

    async def fill(self, n_messages: int) -> None:
        from modules.core.messages import message

        chats, head = self._services.store.chats, None
        chat = chats.create(title=f"{n_messages} messages")
        for n in range(n_messages):
            text = f"Message {n} with **some** text, `code` and a list:\n\n- one\n- two\n\n" + "and words " * 40
            head = chats.add(chat.id, head, message("assistant" if n % 2 else "user", text)).id
        await self._services.chat.open_chat(SESSION, chat.id)

    async def prepare_plain(self, text: str, rate: float) -> None:
        self._plain = (text, rate)

    async def said(self) -> list[Said]:
        said, self._said = self._said, []
        return said

    def _note_events(self) -> None:
        from modules.engine.generation import Generation

        engine: Any = self._services.engine
        start, receive = engine.start, Generation.receive

        def noting_receive(generation: Generation, batch: Any, at: float) -> None:
            self._made = time.time() - time.monotonic() + at  # one clock for all processes of a machine
            receive(generation, batch, at)

        def noting_start(request: Any, *, listener: Any = None, run_id: str = "") -> Any:
            def note(run: Any, events: Sequence[Event]) -> None:
                now = time.time()
                deltas = (event for event in events if isinstance(event, Delta))
                self._said += [Said(now, delta.text, len(delta.tokens), self._made) for delta in deltas]
                if listener is not None:
                    listener(run, events)

            return start(replace(request, params=replace(request.params, max_tokens=0)), listener=note, run_id=run_id)

        engine.start = noting_start
        Generation.receive = noting_receive  # type: ignore[method-assign]

    def _plain_app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import HTMLResponse
        from starlette.routing import Route, WebSocketRoute

        async def page(_: Request) -> HTMLResponse:
            return HTMLResponse(PLAIN_PAGE)

        return Starlette(routes=[Route("/", page), WebSocketRoute("/ws", self._send_plain)])

    async def _send_plain(self, socket: Any) -> None:
        """Text comes every PLAIN_STEP seconds and is sent every PLAIN_SECONDS, as it is."""
        await socket.accept()
        text, rate = self._plain
        began = sent_at = time.monotonic()
        n_come = n_sent = 0
        while n_sent < len(text):
            await asyncio.sleep(PLAIN_STEP)
            now = time.monotonic()
            due = int((now - began) * rate)
            due = text.rfind(" ", 0, due) + 1 if due < len(text) else len(text)
            if due > n_come:
                self._said.append(Said(time.time(), text[n_come:due], due - n_come, time.time()))
                n_come = due
            if now - sent_at >= PLAIN_SECONDS and n_come > n_sent:
                await socket.send_text(text[n_sent:n_come])
                n_sent, sent_at = n_come, now
        await socket.close()
