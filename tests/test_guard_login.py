"""The API key: every way in is checked by one function, the cookie is no key, and guesses are counted."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from modules.guard import Guard, local_hosts
from modules.guard.login import ADDRESSES_KEPT, FAILURES_ALLOWED, Attempts, _local_url

HERE = "http://127.0.0.1:7860"
KEY = "kéy with spaces & signs"
GOOD = {"authorization": "Bearer " + KEY}


async def reached(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_text("reached")
        await socket.close()
    else:
        await PlainTextResponse("reached " + str(Request(scope).url.query))(scope, receive, send)


class Clock:
    """Time that stands still until a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def client_of(key: str = KEY, *, address: str = "10.0.0.9", base_url: str = HERE, **options: Any) -> TestClient:
    guard = Guard(reached, **{"allowed_hosts": local_hosts(False), "api_key": key, "clock": Clock(), **options})
    return TestClient(guard, base_url=base_url, follow_redirects=False, client=(address, 5))


def encoded(headers: dict[str, str]) -> Any:
    return {name: value.encode() for name, value in headers.items()}


def log_in(client: TestClient, key: str = KEY, **fields: str) -> Any:
    return client.post("/ui-login", data={"key": key, **fields}, headers={"origin": HERE})


def next_step(answer: Any) -> str:
    """The address that a page of the guard goes on to."""
    found = re.search(r'content="0;url=([^"]*)"', answer.text)
    assert found is not None, answer.text
    return found[1].replace("&amp;", "&")


API_CALLS = [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/ui-api/chats"), ("POST", "/gradio_api/upload"),
             ("GET", "/gradio_api/info"), ("POST", "/anything"), ("GET", "/metrics"), ("GET", "/api/tags"),
             ("GET", "/health/"), ("GET", "/v1/%2e%2e/health"), ("GET", "/HEALTH")]


@pytest.mark.parametrize(("method", "path"), API_CALLS)
def test_without_the_key_nothing_of_the_api_is_reached(method: str, path: str) -> None:
    answer = client_of().request(method, path)
    assert answer.status_code == 401 and "reached" not in answer.text
    if path.startswith("/v1/"):
        error = answer.json()["error"]
        assert error["code"] == "invalid_api_key" and error["type"] == "invalid_request_error"


def test_health_needs_no_key_but_keeps_the_host_rule() -> None:
    assert client_of().get("/health").text.startswith("reached")
    assert client_of().get("/health", headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("headers", [GOOD, {"authorization": "bearer  " + KEY}, {"x-api-key": KEY},
                                     {"x-api-key": KEY, "authorization": "Basic eA=="}])
def test_every_header_form_of_the_key_opens(headers: dict[str, str]) -> None:
    assert client_of().post("/v1/completions", headers=encoded(headers)).text.startswith("reached")


@pytest.mark.parametrize("headers", [
    {"authorization": "Bearer " + KEY[:-1]}, {"authorization": "Bearer " + KEY + "x"}, {"authorization": "Bearer"},
    {"authorization": KEY}, {"authorization": "Basic " + KEY}, {"x-api-key": ""}, {"x-api-key": KEY.upper()},
    {"cookie": "colloquy=" + KEY}, {"x-key": KEY}])
def test_no_other_form_opens(headers: dict[str, str]) -> None:
    """open-webui: a route check was passed by another header form; here one function compares them all."""
    client = client_of()
    assert client.post("/v1/completions", headers=encoded(headers)).status_code == 401
    sent = encoded(headers | {"host": "localhost"})
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ui-api/run", headers=sent) as socket:
        socket.receive_text()


def test_the_key_in_the_address_opens_pages_and_never_the_api() -> None:
    assert client_of().get("/v1/models", params={"key": KEY}).status_code == 401
    assert client_of().post("/v1/completions", params={"key": KEY}).status_code == 401
    answer = client_of().post("/anything", params={"key": KEY})
    assert answer.status_code == 401 and "set-cookie" not in answer.headers


def test_a_page_without_the_key_goes_on_to_the_login_page_and_back() -> None:
    client = client_of()
    wall = client.get("/?__theme=dark&x=1")
    assert wall.status_code == 401 and "reached" not in wall.text and wall.headers["cache-control"] == "no-store"
    step = next_step(wall)
    assert step.startswith("/ui-login?next=")
    form = client.get(step)
    assert form.status_code == 200 and 'type="password"' in form.text
    wanted = re.search(r'name="next" value="([^"]*)"', form.text)
    assert wanted is not None
    answer = log_in(client, next=wanted[1].replace("&amp;", "&"))
    assert answer.status_code == 303 and answer.headers["location"] == "/?__theme=dark&x=1"
    assert client.get("/").text.startswith("reached")
    assert next_step(client.get(step)) == "/?__theme=dark&x=1", "who is logged in is not asked again"


def test_the_cookie_is_httponly_strict_and_not_the_key() -> None:
    cookie = log_in(client_of(key="plainkey"), "plainkey").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert "plainkey" not in cookie
    secure = client_of(base_url="https://localhost").post("/ui-login", data={"key": KEY})
    assert "Secure" in secure.headers["set-cookie"]


def test_the_cookie_opens_the_api_and_the_websocket_until_the_key_changes() -> None:
    client = client_of()
    log_in(client)
    assert client.post("/ui-api/send", headers={"origin": HERE}).text.startswith("reached")
    jar = dict(client.cookies)
    sent = {"host": "127.0.0.1", "cookie": "; ".join("=".join(pair) for pair in jar.items())}
    with client.websocket_connect("/ui-api/run", headers=sent) as socket:
        assert socket.receive_text() == "reached"
    other = client_of(key="another")
    other.cookies.update(jar)
    assert other.post("/ui-api/send").status_code == 401


def test_two_servers_on_one_host_keep_their_cookies_apart() -> None:
    """Browsers share cookies between the ports of a host."""
    (one, its_value), = log_in(client_of(key="one"), "one").cookies.items()
    (two, other_value), = log_in(client_of(key="two"), "two").cookies.items()
    assert one != two and its_value != other_value


def test_the_printed_link_sets_the_cookie_and_goes_on_without_the_key() -> None:
    client = client_of()
    answer = client.get("/", params={"key": KEY, "__theme": "dark"})
    assert answer.headers["set-cookie"] and next_step(answer) == "/?__theme=dark"
    assert "k%C3%A9y" not in answer.text and answer.headers["referrer-policy"] == "same-origin"
    assert client.get("/").text == "reached "
    assert next_step(client.get("/", params={"key": "an old one"})) == "/", "a bookmark with an old key still opens"


def test_a_link_with_a_wrong_key_asks_for_the_right_one() -> None:
    answer = client_of().get("/?key=wrong&x=1")
    assert answer.status_code == 401 and 'type="password"' in answer.text and "set-cookie" not in answer.headers


def test_a_websocket_without_the_key_is_told_so_by_its_close_code() -> None:
    with client_of().websocket_connect("/ui-api/run", headers={"host": "localhost"}) as socket:
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
        assert caught.value.code == 4401


@pytest.mark.parametrize("way", ["form", "bearer", "x-api-key", "link"])
def test_an_address_has_ten_guesses_a_minute_by_whichever_way(way: str) -> None:
    clock = Clock()
    client = client_of(clock=clock)

    def guess(key: str) -> int:
        if way == "form":
            return int(log_in(client, key).status_code)
        if way == "link":
            return client.get("/", params={"key": key}).status_code
        headers = {"authorization": "Bearer " + key} if way == "bearer" else {"x-api-key": key}
        return client.post("/v1/completions", headers=encoded(headers)).status_code

    assert [guess(f"wrong {n}") for n in range(FAILURES_ALLOWED)] == [401] * FAILURES_ALLOWED
    assert guess(KEY) == 429, "the right key must not be told apart while guesses are used up"
    assert log_in(client).headers["retry-after"] == "60"
    clock.now += 59
    assert guess(KEY) == 429
    clock.now += 2
    assert guess(KEY) in (200, 303)


def test_guesses_of_one_address_neither_stop_another_nor_who_is_logged_in() -> None:
    clock = Clock()
    guard = Guard(reached, allowed_hosts=local_hosts(False), api_key=KEY, clock=clock)
    inside, guesser, other = (TestClient(guard, base_url=HERE, follow_redirects=False, client=(address, 5))
                              for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2"))
    log_in(inside)
    for n in range(20):
        log_in(guesser, f"wrong {n}")
    assert inside.post("/ui-api/send", headers={"origin": HERE}).status_code == 200
    assert log_in(guesser).status_code == 429
    assert log_in(other).status_code == 303


def test_an_ipv6_network_is_one_guesser_and_memory_is_bounded() -> None:
    attempts = Attempts(Clock())
    for n in range(FAILURES_ALLOWED):
        attempts.failed(f"2001:db8::{n:x}")
        attempts.failed(f"::ffff:10.0.0.{n}")
    with pytest.raises(Exception, match="Too many"):
        attempts.check("2001:db8::ffff")
    attempts.check("2001:db8:0:1::1")
    attempts.check("::ffff:10.0.0.1")
    for n in range(ADDRESSES_KEPT + 10):
        attempts.failed(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(attempts._failures) == ADDRESSES_KEPT


def test_another_site_cannot_log_a_person_in_or_guess_through_them() -> None:
    answer = client_of().post("/ui-login", data={"key": KEY}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


@pytest.mark.parametrize("url", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "",
                                 "/\t/evil.example", "/a\\b", "/\nx", "/ui-login", "/ui-login?next=/"])
def test_login_leads_to_no_other_site_and_in_no_circle(url: str) -> None:
    assert log_in(client_of(), next=url).headers["location"] == "/"


@given(st.text(max_size=30))
def test_every_address_that_login_leads_to_is_a_path(text: str) -> None:
    url = _local_url(text, "")
    assert url.startswith("/") and not url.startswith(("//", "/\\")) and "\n" not in url


def test_what_a_person_types_or_a_link_holds_is_escaped_in_the_page() -> None:
    client = client_of()
    page = client.get("/ui-login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script" not in page.text
    log_in(client)
    assert "<script" not in client.get("/ui-login", params={"next": '/"><script>alert(1)</script>'}).text
    wall = client_of().get('/"><script>alert(1)</script>')
    assert "<script" not in wall.text
    policy = page.headers["content-security-policy"]
    assert "script-src" not in policy and "default-src 'none'" in policy


def test_the_form_is_bounded_and_other_methods_are_refused() -> None:
    assert client_of().post("/ui-login", content=b"key=" + b"x" * 5000).status_code == 413
    assert client_of().put("/ui-login").status_code == 405
    assert client_of().post("/ui-login", content=b"\xff\xfe=&&%zz").status_code == 401


def test_behind_a_proxy_the_login_page_stays_below_its_prefix() -> None:
    client = client_of(root_path="/colloquy")
    for path in ("/colloquy/", "/"):
        assert next_step(client.get(path)) == "/colloquy/ui-login?next=%2Fcolloquy%2F"
    answer = client.post("/colloquy/ui-login", data={"key": KEY, "next": "/elsewhere"})
    assert answer.headers["location"] == "/colloquy/" and "Path=/colloquy" in answer.headers["set-cookie"]
    assert client.get("/colloquy/health").text.startswith("reached")
    assert client_of(root_path="/colloquy").get("/colloquy/v1/models").status_code == 401


def test_no_key_asks_for_none_and_leaves_the_login_path_to_the_application() -> None:
    client = client_of(key="")
    assert client.get("/").text.startswith("reached") and client.get("/ui-login").text.startswith("reached")
    assert client.get("/?key=x").text == "reached key=x"


def test_a_preflight_bears_no_key_and_the_401_after_it_can_be_read() -> None:
    page = "https://page.example"
    client = client_of(cors_origins=[page])
    asks = {"origin": page, "access-control-request-method": "POST"}
    assert client.options("/v1/completions", headers=asks).status_code == 204
    answer = client.post("/v1/completions", headers={"origin": page})
    assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == page
