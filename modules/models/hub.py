"""Asks a Hugging Face hub over HTTP: bounded answers, the token for its own host only, every failure a sentence."""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.errors import AppError, BadRequest, NotFound

if TYPE_CHECKING:
    import httpx

HUGGING_FACE = "https://huggingface.co"
MAX_ANSWER = 8 << 20      # bytes of one answer that is read whole
ANSWER_SECONDS = 30.0     # for such an answer, from the request to its last byte
SILENCE_SECONDS = 30.0    # without a byte, and the connection counts as lost
MAX_REDIRECTS = 5
TRIES = 3                 # for answers that are read whole
LONGEST_WAIT = 300.0      # seconds that a server may ask for with Retry-After
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)

Pause = Callable[[float], Awaitable[None]]


class HubFailed(AppError):
    """The hub, or the way to it, failed. wait_seconds: try again no sooner than then; None where another try is of no use."""

    status = 502
    code = "hub_failed"

    def __init__(self, message: str, *, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Answer:
    """A streamed answer with status 200, 206 or 416. identity: the hub's own ETag of the file, "" where it says none."""

    response: httpx.Response
    identity: str = ""

    @property
    def status(self) -> int:
        return self.response.status_code

    def header(self, name: str) -> str:
        return str(self.response.headers.get(name, ""))


class Hub:
    """One hub, used on one event loop; `close` is last.

    token is asked anew for each request, in a thread. It goes to the address's own scheme, host and port alone, and there only
    over https or within this machine. is_offline: nothing is asked, and every call says so. pause waits between tries.
    """

    def __init__(self, url: str = HUGGING_FACE, token: Callable[[], str] = lambda: "", *, is_offline: bool = False,
                 pause: Pause = asyncio.sleep) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise BadRequest(f"hub_url must be an address such as {HUGGING_FACE}; got {url[:200].rpartition('@')[2]!r}.",
                             param="hub_url")
        self.url = url.rstrip("/")
        self.host = parts.netloc
        self.is_offline = is_offline
        self.pause = pause
        self.may_carry_token = parts.scheme == "https" or parts.hostname in LOOPBACK
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def json(self, path: str, query: Mapping[str, Any] | None = None) -> tuple[Any, str]:
        """The JSON value at `path`, and the address of the next page, "" at the last. Raises HubFailed, NotFound."""
        raw, headers = await self._whole(self._address(path), query)
        try:
            value = await asyncio.to_thread(json.loads, raw)
        except (ValueError, RecursionError) as error:
            raise HubFailed(f"{self.host} answered with what is no JSON; if a mirror is set (--hub-url), check it.") from error
        return value, self._next_page(headers)

    async def text(self, path: str, limit: int) -> str:
        """The beginning of a text file, at most `limit` bytes of it."""
        raw, _ = await self._whole(self._address(path), None, limit=limit, is_cut=True)
        return raw.decode("utf-8", "replace")

    @asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str] | None = None,
                   query: Mapping[str, Any] | None = None) -> AsyncIterator[Answer]:
        """An answer to read from, redirects followed, closed at the end. Raises HubFailed, also where reading it fails."""
        import httpx

        try:
            answer = await self._follow(url, headers or {}, query)
            try:
                yield answer
            finally:
                await answer.response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its text is left out: it may hold an address that is signed for us.
            what = {"ConnectTimeout": "no connection in time", "ReadTimeout": "it fell silent",
                    "ConnectError": "no connection"}.get(type(error).__name__, "the connection broke")
            raise HubFailed(f"{self.host} cannot be reached ({what}). Look at the network; --hub-url names a mirror, and models "
                            "can also be copied into the model folder by hand.", wait_seconds=0) from error

    async def _whole(self, url: str, query: Mapping[str, Any] | None, *, limit: int = MAX_ANSWER,
                     is_cut: bool = False) -> tuple[bytes, Mapping[str, str]]:
        for attempt in range(TRIES):
            try:
                async with asyncio.timeout(ANSWER_SECONDS), self.open(url, query=query) as answer:
                    return await _read(answer, self.host, limit, is_cut=is_cut), answer.response.headers
            except TimeoutError as error:
                raise HubFailed(f"{self.host} did not answer within {ANSWER_SECONDS:.0f} seconds; try again.") from error
            except HubFailed as error:
                if error.wait_seconds is None or attempt == TRIES - 1 or error.wait_seconds > ANSWER_SECONDS:
                    raise
                await self.pause(max(error.wait_seconds, 2.0 ** attempt))
        raise AssertionError("the last try returns or raises")

    async def _follow(self, url: str, headers: Mapping[str, str], query: Mapping[str, Any] | None) -> Answer:
        import httpx

        if self.is_offline:
            raise HubFailed("Offline is set, so the hub is not asked; start the app without --offline and without HF_HUB_OFFLINE "
                            "to download, or copy models into the model folder by hand.")
        if self._client is None:
            limits = httpx.Timeout(SILENCE_SECONDS, connect=15.0)
            client = await asyncio.to_thread(httpx.AsyncClient, timeout=limits, follow_redirects=False)
            if self._client is None:  # else another request has made one meanwhile
                self._client = client
        token = await asyncio.to_thread(self._token) if self.may_carry_token else ""
        identity = ""
        target = httpx.URL(url, params=query) if query else httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            own = {"Authorization": f"Bearer {token}"} if token and self._is_own(target) else {}
            request = self._client.build_request("GET", target, headers={"User-Agent": "Colloquy", **headers, **own})
            response = await self._client.send(request, stream=True)
            self._client.cookies.clear()
            if self._is_own(target):
                identity = _plain_etag(response.headers.get("x-linked-etag", "")) or identity
            if not response.has_redirect_location:
                if response.status_code in (200, 206, 416):
                    return Answer(response, identity)
                await response.aclose()
                raise self._refusal(response, target, has_token=bool(token))
            await response.aclose()
            following = target.join(response.headers["location"])
            if following.scheme not in ("http", "https") or (target.scheme, following.scheme) == ("https", "http"):
                raise HubFailed(f"{self.host} sent the download on to an address that is not https; nothing was fetched from it.")
            target = following
        raise HubFailed(f"{self.host} sent the request on more than {MAX_REDIRECTS} times; try again later.")

    def _is_own(self, url: httpx.URL) -> bool:
        import httpx

        own = httpx.URL(self.url)
        ports = [one.port or {"http": 80, "https": 443}.get(one.scheme) for one in (own, url)]
        return (own.scheme, own.host) == (url.scheme, url.host) and ports[0] == ports[1]

    def _refusal(self, response: httpx.Response, url: httpx.URL, *, has_token: bool) -> AppError:
        """Why there is no answer, from its status alone: the words of a stranger's server are not shown."""
        status, code = response.status_code, response.headers.get("x-error-code", "")
        if not self._is_own(url):  # what the hub signed for us may have run out: asking the hub again gives a new address
            return HubFailed(f"The server that {self.host} sent the download on to answered {status}; try again.", wait_seconds=0)
        if code == "GatedRepo" or status == 403:
            return HubFailed("The makers of this model ask for their terms to be accepted first. Open its page on the hub in a "
                             "browser, accept them there, and save a token of that account below." if not has_token else
                             "The account of the token may not fetch this model: open its page on the hub in a browser and "
                             "accept the terms with that account, or save another token.")
        if status == 401:
            return HubFailed("The hub refuses the token; save a new one from its settings page." if has_token else
                             "There is no such repository, or it is private: check its name, or save a token that may read it.")
        if status in (404, 410):
            return NotFound(f"{self.host} has no {url.path[:200]!r}; look for it by the search.")
        if status == 429 or status >= 500:
            wait = _retry_after(response.headers.get("retry-after", ""))
            what = "asks for fewer requests" if status == 429 else "has a trouble of its own"
            return HubFailed(f"{self.host} {what} (status {status}); try again in a minute.", wait_seconds=wait)
        return HubFailed(f"{self.host} answered with status {status}; try again later.")

    def _address(self, path: str) -> str:
        return path if path.startswith(("http://", "https://")) else f"{self.url}{path}"

    def _next_page(self, headers: Mapping[str, str]) -> str:
        """The next page's address, which has to be the hub's own."""
        import httpx

        found = re.search(r'<([^<>]{1,4000})>\s*;\s*rel="?next"?', headers.get("link", "")[:20_000])
        if not found:
            return ""
        try:
            url = httpx.URL(self.url).join(found[1])
        except httpx.InvalidURL:
            return ""
        return str(url) if self._is_own(url) else ""


def check_repository(name: str) -> str:
    """The name as owner/name, also out of an address of its page; raises BadRequest for anything else."""
    given = name.strip()
    short = given
    if given.startswith(("http://", "https://")):  # what follows owner and name there is a page of the repository
        short = "/".join(urlsplit(given).path.strip("/").split("/")[:2])
    if not _REPOSITORY.fullmatch(short) or ".." in short or "--" in short or short.endswith((".git", ".", "-")):
        raise BadRequest(f"{given[:100]!r} is no repository's name; it is written owner/name, as in Qwen/Qwen3-4B-GGUF.",
                         param="repo")
    return short


async def _read(answer: Answer, host: str, limit: int, *, is_cut: bool) -> bytes:
    """The whole answer; past the limit its beginning with is_cut, else HubFailed. What is counted is decoded."""
    body = bytearray()
    async for piece in answer.response.aiter_bytes(1 << 16):
        body += piece
        if len(body) > limit:
            if is_cut:
                return bytes(body[:limit])
            raise HubFailed(f"{host} answered with more than {limit >> 20} MB; this is no list that can be shown.")
    return bytes(body)


def _plain_etag(value: str) -> str:
    """An ETag without its quotes; "" for what is none."""
    plain = value.removeprefix("W/").strip('"')
    return plain if re.fullmatch(r"[!#-~]{1,256}", plain) else ""


def _retry_after(value: str) -> float:
    """Seconds from a Retry-After header, which holds seconds or a date; 0 where it holds neither."""
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, TypeError):
        return 0.0
    return min(max(0.0, moment - time.time()), LONGEST_WAIT)
