"""A server with the chat page and a Chromium for this folder's tests; a fresh browser profile and session for each test.

Both end with the folder: while Playwright's synchronous interface is open, its event loop counts as running in the main thread,
and pytest-asyncio could start no other there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from tests.fake_chats import FakeChats, FakeServices
from tests.running_app import RunningApp

T = TypeVar("T")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SESSION = "browser-test-session-0001"


def chromium_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next((path for path in map(shutil.which, names) if path), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
            if chromium_path() is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium on this machine; set CHROMIUM to its path"))


class Server:
    """The page over chats in memory, on a thread of its own; `call` runs a function on its event loop."""

    def __init__(self) -> None:
        self.services = FakeServices(FakeChats())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the server did not start"

    @property
    def chats(self) -> FakeChats:
        return self.services.chats

    async def _serve(self) -> None:
        import uvicorn

        self._loop = asyncio.get_running_loop()
        self._server = uvicorn.Server(uvicorn.Config(make_app(self.services), port=self.port, log_level="warning"))
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.02)
        self._ready.set()
        await serving

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        async def run() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def stop(self) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(10)


def make_app(services: FakeServices) -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr
    from fastapi import FastAPI

    from modules.ui.routes import ui_routes
    from modules.ui.scripted import chat_list_view, chat_view

    app = FastAPI()
    app.router.routes.extend(ui_routes(services))
    with gr.Blocks(fill_height=True, fill_width=True) as page:
        with gr.Sidebar(open=False):
            chat_list_view()
        chat_view()
    return gr.mount_gradio_app(app, page, path="/", footer_links=[], run_history=False)


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def chats(server: Server) -> FakeChats:
    """Fresh chats for one test."""
    fresh = FakeChats()
    old = server.chats
    for name in vars(fresh):  # the routes hold the object, so its contents are exchanged
        current = getattr(old, name)
        if isinstance(current, dict):
            current.clear()
        else:
            setattr(old, name, getattr(fresh, name))
    return old


@pytest.fixture
def open_page(server: Server, browser: Any, chats: FakeChats) -> Iterator[Callable[..., Any]]:
    """Opens pages of one browser profile; fails the test on a script error or a request to another host."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_one(session: str = SESSION, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1000, "height": 700}, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("request", lambda request: None if request.url.startswith((server.url, "data:", "blob:"))
                else problems.append(f"request to {request.url}"))
        page.add_init_script(f"window.colloquySession = () => {session!r}")
        page.goto(server.url)
        page.wait_for_function("window.viewReady === true")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def open_app(app: RunningApp, browser: Any) -> Iterator[Callable[..., Any]]:
    """As `open_page`, of the whole app that the module's fixture `app` runs, so many pixels wide."""
    contexts: list[Any] = []
    problems: list[str] = []

    def open_one(width: int, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on("request", lambda request: None if request.url.startswith((app.url, "data:", "blob:"))
                else problems.append(f"request to {request.url}"))
        page.goto(app.url)
        page.wait_for_function("window.pageFilled === true")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not problems
