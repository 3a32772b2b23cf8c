"""The API key: which requests carry it, the page that asks for it once, and how often an address may guess."""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive

from modules.core.errors import AppError, TooLarge

LOGIN_PATH = "/ui-login"  # not /login, which is Gradio's
COOKIE_SECONDS = 180 * 24 * 3600
FORM_LIMIT = 4096
FAILURES_ALLOWED = 10
FAILURES_SECONDS = 60.0
ADDRESSES_KEPT = 10_000
# The page loads nothing, so it may load nothing.
PAGE_POLICY = ("default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")


class TooManyAttempts(AppError):
    status = 429
    code = "rate_limited"


class Attempts:
    """How often each address failed of late; an IPv6 network of 64 bits counts as one address. Event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def check(self, address: str) -> None:
        """Raises TooManyAttempts, before anything is compared, when the address has used up its guesses."""
        times = self._failures.get(_network(address))
        while times and times[0] <= self._clock() - FAILURES_SECONDS:
            times.popleft()
        if times and len(times) >= FAILURES_ALLOWED:
            raise TooManyAttempts(f"Too many wrong keys from this address. Try again in {self.wait_seconds(address)} seconds.")

    def failed(self, address: str) -> None:
        """Count one wrong key; the address that failed longest ago is forgotten when there are too many."""
        times = self._failures.pop(_network(address), deque(maxlen=FAILURES_ALLOWED))
        times.append(self._clock())
        self._failures[_network(address)] = times
        if len(self._failures) > ADDRESSES_KEPT:
            del self._failures[next(iter(self._failures))]

    def wait_seconds(self, address: str) -> int:
        """Whole seconds until the address may guess again."""
        times = self._failures.get(_network(address))
        return max(1, round(times[0] + FAILURES_SECONDS - self._clock())) if times else 1


class Login:
    """One key for everybody, in any of three forms: a Bearer token, an x-api-key header, or the cookie the page sets.

    The cookie holds an HMAC made with the key and not the key, so a stolen cookie is no key; another key voids it. Its
    name depends on the key too, because browsers share cookies between the ports of a host.
    """

    def __init__(self, key: str, *, root_path: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key.encode()
        self._root_path = root_path
        self._cookie_name = "colloquy_" + self._mac(b"cookie name")[:8]
        self._cookie_value = self._mac(b"cookie value")
        self._attempts = Attempts(clock)

    def has_cookie(self, call: HTTPConnection) -> bool:
        """Whether the browser has logged in. A cookie is 256 bits long, so guesses at it are not counted."""
        return hmac.compare_digest(call.cookies.get(self._cookie_name, "").encode(), self._cookie_value.encode())

    def has_key(self, call: HTTPConnection) -> bool:
        """Whether a header bears the key; False when none bears any. Raises TooManyAttempts; counts a wrong key."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        given = [token.strip() if scheme.lower() == "bearer" else "", call.headers.get("x-api-key", "").strip()]
        # Header bytes arrive decoded as Latin-1.
        return any([self._is_key(text.encode("latin-1"), _address(call)) for text in given if text])

    async def answer(self, call: HTTPConnection, receive: Receive) -> Response:
        """The login page's own answer: the form, or what the form was sent with."""
        if self.has_cookie(call):
            return bounce(_local_url(call.query_params.get("next", ""), self._root_path))
        if call.scope["method"] in ("GET", "HEAD"):
            return self._page(call.query_params.get("next", ""), "")
        if call.scope["method"] != "POST":
            return Response(status_code=405, headers={"allow": "GET, POST"})
        form = parse_qs((await _read_form(receive)).decode("utf-8", "replace"))
        wanted = form.get("next", [""])[0]
        try:
            is_right = self._is_key(form.get("key", [""])[0].strip().encode(), _address(call))
        except TooManyAttempts as error:
            page = self._page(wanted, error.message, status=error.status)
            page.headers["retry-after"] = str(self.retry_after(call))
            return page
        if not is_right:
            return self._page(wanted, "That is not the key.", status=401)
        return self._logged_in(call, _local_url(wanted, self._root_path), status=303)

    def answer_link(self, call: HTTPConnection, path: str) -> Response:
        """The answer to a page's address with `?key=`: the cookie, and on to the same address without the key."""
        pairs = parse_qsl(call.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(name, value) for name, value in pairs if name != "key"])
        url = _local_url(self._root_path + quote(path) + ("?" + rest if rest else ""), self._root_path)
        given = next(value for name, value in pairs if name == "key")
        if self.has_cookie(call):
            return bounce(url)
        if not self._is_key(given.encode(), _address(call)):
            return self._page(url, "The link's key is not the one this server has now.", status=401)
        return self._logged_in(call, url, status=200)

    def wall(self, call: HTTPConnection, path: str) -> Response:
        """What a page answers without the key: on to the login page, and back afterwards."""
        query = call.scope.get("query_string", b"").decode("latin-1")
        wanted = self._root_path + quote(path) + ("?" + query if query else "")
        return bounce(f"{self._root_path}{LOGIN_PATH}?{urlencode({'next': wanted})}", status=401)

    def retry_after(self, call: HTTPConnection) -> int:
        """Whole seconds for the Retry-After header."""
        return self._attempts.wait_seconds(_address(call))

    def _is_key(self, given: bytes, address: str) -> bool:
        """The one place where a key is compared. Digests of equal length, so the time tells nothing, not even a length."""
        self._attempts.check(address)
        is_right = hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(self._key).digest())
        if not is_right:
            self._attempts.failed(address)
        return is_right

    def _mac(self, label: bytes) -> str:
        return hmac.new(self._key, b"colloquy login: " + label, hashlib.sha256).hexdigest()

    def _logged_in(self, call: HTTPConnection, url: str, *, status: int) -> Response:
        response = bounce(url) if status == 200 else Response(status_code=status, headers={"location": url})
        response.set_cookie(self._cookie_name, self._cookie_value, max_age=COOKIE_SECONDS, path=self._root_path or "/",
                            httponly=True, samesite="strict", secure=call.scope.get("scheme") == "https")
        response.headers["cache-control"] = "no-store"
        return response

    def _page(self, wanted: str, message: str, *, status: int = 200) -> Response:
        alert = f'<p role="alert">{html.escape(message)}</p>' if message else ""
        url = _local_url(wanted, self._root_path)
        form = (f'<form method="post" action="{html.escape(self._root_path)}{LOGIN_PATH}">'
                f'<input type="hidden" name="next" value="{html.escape(url)}">'
                '<label for="key">API key</label>'
                '<input id="key" name="key" type="password" required autofocus autocomplete="current-password">'
                "<button>Open</button></form>"
                "<p>The key, and a link that holds it, were printed where Colloquy was started.</p>")
        return _html(f"<main><h1>Colloquy</h1>{alert}{form}</main>", status=status)


def bounce(url: str, *, status: int = 200) -> Response:
    """A page that goes on to `url` at once.

    Not a redirect: after a click on another site's link browsers send no SameSite=Strict cookie along a chain of
    redirects, so a person who is logged in would be asked again. The step from this page is the server's own.
    """
    address = html.escape(url)
    response = _html(f'<main><p><a href="{address}">Continue to Colloquy</a></p></main>', status=status,
                     head=f'<meta http-equiv="refresh" content="0;url={address}">')
    response.headers["cache-control"] = "no-store"
    return response


def _html(body: str, *, status: int, head: str = "") -> Response:
    style = ("body{font:16px/1.5 system-ui,sans-serif;color-scheme:light dark}"
             "main{max-width:22rem;margin:15vh auto;padding:0 1rem}[role=alert]{font-weight:700}"
             "input,button{font:inherit;box-sizing:border-box;width:100%;padding:.6rem;margin:.3rem 0}")
    page = ('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Colloquy</title>'
            f'<meta name="viewport" content="width=device-width,initial-scale=1">{head}<style>{style}</style></head>'
            f"<body>{body}</body></html>")
    return HTMLResponse(page, status_code=status, headers={"content-security-policy": PAGE_POLICY})


def _local_url(wanted: str, root_path: str) -> str:
    """`wanted` if it is a path on this server, else the start page: never another site, however it is spelled."""
    is_path = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable() and "\\" not in wanted
    is_below = not root_path or wanted == root_path or wanted.startswith((root_path + "/", root_path + "?"))
    is_login = wanted.startswith(root_path + LOGIN_PATH)
    return wanted if is_path and is_below and not is_login else root_path + "/"


async def _read_form(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > FORM_LIMIT:
            raise TooLarge(f"The login form is larger than {FORM_LIMIT} bytes.")
        if not message.get("more_body", False):
            return bytes(body)


def _address(call: HTTPConnection) -> str:
    return call.client.host if call.client else ""


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 64), strict=False))
    return address
