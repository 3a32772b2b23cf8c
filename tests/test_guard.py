"""The guard's rules on Host, Origin and headers: each row of the threat list that is about them, tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from modules.core.errors import AppError, BadRequest
from modules.guard import Guard, local_hosts
from modules.guard.hosts import HostRules, host_name, is_same_origin

from .guard_play import EVIL, HERE, call, client_of, gradio_like, nothing, nowhere

PAGE = "https://page.example"
HOST = {"host": "127.0.0.1:7860"}  # which the test client sets for requests only


@pytest.fixture
def client() -> Iterator[TestClient]:
    yield client_of(cors_origins=[PAGE], body_limit=1000, allowed_hosts=[*local_hosts(False), "mine.example"])


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example",
                                  "evil-localhost", "192.168.1.5:7860", "[::2]:7860", "2130706433", "127.1"])
def test_dns_rebinding_is_refused_because_the_host_is_not_ours(client: TestClient, host: str) -> None:
    """SillyTavern CVE-2025-59159: a hostile name that is made to resolve to 127.0.0.1 reaches the server as its Host."""
    assert client.get("/", headers={"host": host}).status_code == 421
    answer = client.post("/v1/chat/completions", headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 421
    error = answer.json()["error"]
    assert error["code"] == "wrong_host" and "--allowed-hosts" in error["message"]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:7860", "[::1]:7860", "mine.example",
                                  "mine.example.:80"])
def test_our_own_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).text == "read 0"


@pytest.mark.parametrize("host", ["", "a b", "mine.example/x", "mine.example\"'", "mine.example;img-src *", "[::1",
                                  "user@mine.example", "mine.example:x", "mine.example:123456"])
def test_a_malformed_host_is_refused_and_never_reaches_the_policy(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 400 and "connect-src 'self'; worker" in answer.headers["content-security-policy"]


async def test_no_host_and_two_hosts_are_refused() -> None:
    guard = Guard(gradio_like, allowed_hosts=["localhost"])
    for hosts in ([], [b"localhost", b"localhost"]):
        assert (await call(guard, [(b"host", host) for host in hosts]))[0] == 400


async def test_an_address_of_ours_is_answered_at_that_address_only() -> None:
    """A laptop that joins another network is reached at its new address; a name cannot be rebound to that."""
    guard = Guard(gradio_like, allowed_hosts=["localhost"])
    assert (await call(guard, [(b"host", b"10.1.2.3:7860")], server=("10.1.2.3", 7860)))[0] == 200
    assert (await call(guard, [(b"host", b"10.1.2.3:7860")], server=("127.0.0.1", 7860)))[0] == 421
    assert (await call(guard, [(b"host", b"evil.example")], server=("evil.example", 7860)))[0] == 421


def test_listen_adds_this_machines_addresses_and_names() -> None:
    import socket

    assert local_hosts(False) == {"127.0.0.1", "localhost", "::1"}
    hosts = local_hosts(True)
    assert hosts > local_hosts(False) and socket.gethostname().lower() in hosts
    assert all(host == host_name(host) for host in hosts), "entries are in the form that is compared"


def test_a_wildcard_allows_names_below_it_and_nothing_else() -> None:
    rules = HostRules(["*.tunnel.example"], has_key=False)
    assert rules.check(["a.b.tunnel.example:443"], "") == "a.b.tunnel.example:443"
    for host in ("tunnel.example", "eviltunnel.example"):
        with pytest.raises(AppError):
            rules.check([host], "")


@pytest.mark.parametrize("options", [{"allowed_hosts": ["*"]}, {"cors_origins": ["*"]}, {"cors_origins": ["null"]},
                                     {"allowed_hosts": ["http://x"]}, {"cors_origins": ["page.example"]}, {"root_path": "x/"}])
def test_a_setting_that_opens_everything_or_means_nothing_is_refused_at_start(options: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=next(iter(options))):
        client_of(**options)


UNSAFE = [{"origin": EVIL}, {"origin": "null"}, {"origin": "http://127.0.0.1:3000"}, {"origin": "http://127.0.0.1"},
          {"origin": "http://127.0.0.1:7860.evil.example"}, {"origin": "file://"}, {"origin": "chrome-extension://abc"},
          {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": HERE, "sec-fetch-site": "cross-site"},
          {"origin": EVIL, "sec-fetch-site": "same-origin"}]


@pytest.mark.parametrize("path", ["/gradio_api/component_server", "/gradio_api/upload", "/ui-api/send", "/v1/completions", "/x"])
@pytest.mark.parametrize("headers", UNSAFE)
def test_another_sites_page_cannot_post(client: TestClient, path: str, headers: dict[str, str]) -> None:
    """Gradio runs handlers for text/plain posts from any origin, which need no preflight; koboldcpp#539 likewise."""
    answer = client.post(path, headers={"content-type": "text/plain", **headers}, content="{}")
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert client.request(method, path, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", UNSAFE)
def test_another_sites_page_cannot_open_a_websocket(client: TestClient, headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/ui-api/run", headers=HOST | headers):
        pass
    assert caught.value.code == 1008


def test_a_websocket_of_a_wrong_host_is_refused(client: TestClient) -> None:
    headers = {"host": "evil.example", "origin": "http://evil.example"}
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/ui-api/run", headers=headers):
        pass
    assert caught.value.code == 1008


@pytest.mark.parametrize("headers", [{}, {"origin": HERE}, {"origin": HERE, "sec-fetch-site": "same-origin"},
                                     {"sec-fetch-site": "none"}, {"origin": "null", "sec-fetch-site": "same-origin"}])
def test_our_own_page_and_programs_that_are_no_browsers_pass(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/ui-api/send", headers=headers, content=b"x" * 10).text == "read 10"
    with client.websocket_connect("/ui-api/run", headers=HOST | headers) as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"


def test_a_link_from_another_site_opens_the_page_but_its_scripts_and_frames_cannot_read(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/gradio_api/info", headers=link).status_code == 403
    for kind in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}):
        assert client.get("/config", headers={**link, **kind}).status_code == 403
    assert client.get("/config", headers={"origin": EVIL}).status_code == 403


@pytest.mark.parametrize(("origin", "host"), [
    ("http://a.example", "a.example"), ("https://a.example", "a.example"), ("https://a.example", "a.example:443"),
    ("http://a.example:80", "a.example"), ("http://[::1]:7860", "[::1]:7860"), ("HTTP://A.example", "a.example")])
def test_same_origin_is_the_same_host_and_port_behind_a_tls_proxy_too(origin: str, host: str) -> None:
    assert is_same_origin(origin, host)


@pytest.mark.parametrize(("origin", "host"), [
    ("https://a.example:444", "a.example"), ("https://a.example", "a.example:80"), ("http://a.example:81", "a.example:8"),
    ("ftp://a.example", "a.example"), ("http://a.example/", "a.example"), ("http://x@a.example", "a.example"),
    ("null", "a.example"), ("", "a.example"), ("a.example", "a.example")])
def test_any_other_spelling_is_another_origin(origin: str, host: str) -> None:
    assert not is_same_origin(origin, host)


@given(st.text(max_size=60))
def test_host_name_never_fails_and_is_stable(text: str) -> None:
    name = host_name(text)
    assert name == "" or host_name(name) == name


def test_gradios_cors_headers_are_stripped_and_only_named_origins_read_the_api(client: TestClient) -> None:
    assert "access-control-allow-origin" not in client.get("/").headers
    answer = client.post("/v1/completions", headers={"origin": PAGE, "sec-fetch-site": "cross-site"})
    assert answer.headers["access-control-allow-origin"] == PAGE and "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    for path in ("/ui-api/send", "/v1evil", "/"):
        assert client.post(path, headers={"origin": PAGE}).status_code == 403, "the page's own routes stay its own"
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/v1/run", headers=HOST | {"origin": PAGE}):
        pass
    assert caught.value.code == 1008


def test_a_preflight_is_answered_for_named_origins_only(client: TestClient) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type",
            "access-control-request-private-network": "true"}
    answer = client.options("/v1/chat/completions", headers={"origin": PAGE, **asks})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert client.options("/v1/chat/completions", headers={"origin": EVIL, **asks}).status_code == 403
    assert client.options("/ui-api/send", headers={"origin": PAGE, **asks}).status_code == 403


def test_a_refused_request_of_a_named_origin_can_be_read_by_its_page() -> None:
    answer = client_of(cors_origins=[PAGE], body_limit=3).post("/v1/completions", headers={"origin": PAGE}, content=b"1234")
    assert answer.status_code == 413 and answer.headers["access-control-allow-origin"] == PAGE


def test_every_answer_carries_the_policy_that_keeps_pictures_and_connections_here(client: TestClient) -> None:
    for answer in (client.get("/"), client.get("/", headers={"host": "evil.example"}), client.post("/", content=b"x" * 1001)):
        policy = dict(rule.partition(" ")[::2] for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["img-src"] == "'self' data: blob:"
        assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == policy["default-src"] == "'self'"
        assert "*" not in answer.headers["content-security-policy"] and "https:" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
    assert "connect-src 'self' ws://127.0.0.1:7860 wss://127.0.0.1:7860;" in client.get("/").headers["content-security-policy"]


def test_an_application_may_set_a_stricter_policy_of_its_own() -> None:
    async def strict(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("", headers={"content-security-policy": "default-src 'none'"})(scope, receive, send)

    assert client_of(strict).get("/").headers["content-security-policy"] == "default-src 'none'"


def test_errors_are_openais_on_api_paths_and_plain_text_elsewhere(client: TestClient) -> None:
    wrong = {"host": "<script>.example"}
    assert set(client.get("/v1/models", headers=wrong).json()["error"]) == {"message", "type", "param", "code"}
    page = client.get("/", headers=wrong)
    assert page.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("prefix", ["", "/colloquy"])
def test_the_application_sees_the_path_that_was_judged(prefix: str) -> None:
    """Some proxies leave the prefix on the path and some take it off."""
    async def says_path(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"{scope['path']} {scope['raw_path'].decode()}")(scope, receive, send)

    client = client_of(says_path, root_path="/colloquy")
    for path in ("/v1/x", "/", "/colloquyx/y"):
        assert client.get(prefix + path).text == f"{path} {path}"
    assert client.get("/colloquy").text == "/ /"


@pytest.mark.parametrize("path", ["/colloquy/v1/completions", "/v1/completions"])
def test_behind_a_proxy_the_rules_are_the_same_with_and_without_the_prefix(path: str) -> None:
    client = client_of(root_path="/colloquy", cors_origins=[PAGE])
    assert client.post(path, headers={"origin": EVIL}).json()["error"]["code"] == "forbidden"
    assert client.post(path, headers={"origin": PAGE}).status_code == 200


async def test_lifespan_reaches_the_application() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await Guard(app, allowed_hosts=[])({"type": "lifespan"}, nothing, nowhere)
    assert seen == ["lifespan"]
