"""Asks a server and reads its stream, in a thread for each run; every fault becomes an error of ours."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from modules.core.errors import AppError, BadRequest, Busy, Cancelled, ContextTooLong, LoadFailed, NotFound, Unauthorized

from .likely import Likely, likely
from .turns import Ask

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 10.0
MAX_LINE = 2**20  # bytes of one line of a stream
MAX_BODY = 2**22  # bytes of an answer that is no stream
SHOWN = 300  # characters of a server's words


@dataclass(frozen=True)
class Piece:
    """New text; reasoning apart from the reply. tokens: the server's own that spell it, where it says; () where they do not.
    has_logprobs: whether the server sent any with it."""

    text: str
    is_reasoning: bool = False
    tokens: tuple[Likely, ...] = ()
    has_logprobs: bool = False


@dataclass(frozen=True)
class End:
    """The stream's end: whether by length, and (prompt, completion) tokens as the server counted them, where it did."""

    is_length: bool
    counted: tuple[int, int] | None = None


Heard = Piece | End | AppError


class Client:
    """One server. `models` and `open` are called on the worker's thread; streams are read in threads of their own."""

    def __init__(self, name: str, base_url: str, api_key: str, *, timeout: float) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._name = name
        # A connection for each request: servers close idle ones just as the next request is on its way.
        self._http = httpx.Client(base_url=base_url + "/", headers=headers, follow_redirects=False,
                                  limits=httpx.Limits(max_keepalive_connections=0),
                                  timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS))

    def models(self) -> list[dict[str, Any]] | None:
        """What /models lists; None where the server has no such list, or fails to make it. Raises AppError."""
        import httpx

        try:
            with self._http.stream("GET", "models") as response:
                body = _bounded(response)
                if response.status_code == 404 or response.status_code >= 500:
                    return None
                if response.status_code != 200:
                    raise self._refusal(response, body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        try:
            entries = json.loads(body)["data"]
            return [entry for entry in entries if isinstance(entry, dict)]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LoadFailed(f"{self._name} does not answer as an OpenAI-compatible server: GET /models gave "
                             f"{body[:SHOWN].decode('utf-8', 'replace')!r}. Is base_url right? It mostly ends in /v1.") from error

    def open(self, run: str, ask: Ask, heard: SimpleQueue[tuple[str, Heard]]) -> Stream:
        """Begin to ask; what is heard comes into the queue with the run's id, an End or an AppError last."""
        return Stream(self, run, ask, heard)

    def close(self) -> None:
        self._http.close()

    def read(self, ask: Ask, stream: Stream | None = None) -> Iterator[Heard]:
        """What the server says to one request, an End last; raises AppError. `stream` hears when the connection is there."""
        import httpx

        try:
            with self._http.stream("POST", ask.path.lstrip("/"), json=ask.body) as response:
                if stream is not None:
                    stream.opened(response)
                if response.status_code != 200:
                    raise self._refusal(response, _bounded(response))
                yield from self._events(response)
        except httpx.HTTPError as error:
            if stream is not None and stream.is_closed:
                return
            raise self._unreachable(error) from error

    def _events(self, response: httpx.Response) -> Iterator[Heard]:
        finish, counted = "", None
        for body in _data(response):
            fault = body.get("error")
            if fault:
                raise AppError(f"{self._name} failed in mid-reply: {_words(fault)}")
            usage = body.get("usage")
            if isinstance(usage, dict):
                counted = _counts(usage) or counted
            choices = body.get("choices")
            if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
                continue
            choice = choices[0]
            yield from _pieces(choice)
            finish = choice.get("finish_reason") or finish
        if not finish:
            raise AppError(f"{self._name} closed the connection in mid-reply. What came before is kept; press Continue to go on.")
        yield End(finish == "length", counted)

    def _refusal(self, response: httpx.Response, body: bytes) -> AppError:
        """The error for an answer that is no success, by its status, with the server's own words."""
        try:
            said = _words(json.loads(body))
        except (ValueError, RecursionError):
            said = body[:SHOWN].decode("utf-8", "replace").strip()
        status, name = response.status_code, self._name
        said = f" It says: {said.rstrip('.')}." if said else ""
        if status in (401, 403):
            return Unauthorized(f"{name} refused the key (HTTP {status}). Set api_key or api_key_env in the servers file.{said}")
        if status == 404:
            return NotFound(f"{name} has no such model or address (HTTP 404). Look at model and base_url in its entry.{said}")
        if status == 429:
            wait = response.headers.get("retry-after", "")
            after = f" in {wait} seconds" if wait.isdigit() else " later"
            return Busy(f"{name} refuses more requests for now (HTTP 429); try again{after}.{said}")
        if status == 400 and "context" in said.lower():
            return ContextTooLong(f"The prompt is too long for {name}. Write its real context into the servers file, so that the "
                                  f"prompt is cut to it.{said}")
        if 300 <= status < 400:
            return AppError(f"{name} sends requests on to another address (HTTP {status}); write that one as base_url.")
        if status < 500:
            return BadRequest(f"{name} refused the request (HTTP {status}).{said}")
        return AppError(f"{name} failed (HTTP {status}); try again, or look at its own log.{said}")

    def _unreachable(self, error: httpx.HTTPError) -> AppError:
        import httpx

        if isinstance(error, httpx.ReadTimeout):
            return AppError(f"{self._name} was silent for too long. Is it overloaded? The loader's option timeout sets how long.")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return AppError(f"{self._name} cannot be reached: {error or type(error).__name__}. Is it running? Is base_url right?")
        return AppError(f"The connection to {self._name} broke: {type(error).__name__}: {error}. Try again.")


class Stream:
    """One request under way. `close` may be called from another thread than the one that reads."""

    def __init__(self, client: Client, run: str, ask: Ask, heard: SimpleQueue[tuple[str, Heard]]) -> None:
        self.is_closed = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, args=(client, run, ask, heard), name=f"read {run}", daemon=True)
        self._thread.start()

    def opened(self, response: httpx.Response) -> None:
        """The connection is there; where `close` came first, it ends now."""
        network = response.extensions.get("network_stream")
        with self._lock:
            self._socket = network.get_extra_info("socket") if network is not None else None
        if self.is_closed:
            self.close()

    def close(self) -> None:
        """Let go of the request: the server hears of it by the end of the connection, and stops writing."""
        self.is_closed = True
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it is over already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self, client: Client, run: str, ask: Ask, heard: SimpleQueue[tuple[str, Heard]]) -> None:
        try:
            for item in client.read(ask, self):
                if self.is_closed:
                    return
                heard.put((run, item))
        except AppError as error:
            heard.put((run, error))
        except Exception as error:  # noqa: BLE001 - a run without an end would be waited for for ever
            heard.put((run, AppError(f"Reading the reply failed: {type(error).__name__}: {str(error)[:SHOWN]}")))
        finally:
            with self._lock:
                self._socket = None
            if self.is_closed:
                heard.put((run, Cancelled("Stopped.")))


def _data(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to [DONE] or the end."""
    for line in _lines(response):
        if not line.startswith(b"data:"):
            continue  # comments that keep the connection open, names of events
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise AppError(f"The server sent what is no JSON: {data[:SHOWN].decode('utf-8', 'replace')!r}.") from error
        if isinstance(body, dict):
            yield body


def _lines(response: httpx.Response) -> Iterator[bytes]:
    rest = bytearray()
    for block in response.iter_bytes():
        rest += block
        if b"\n" in block:
            *lines, last = rest.split(b"\n")
            yield from (bytes(line).rstrip(b"\r") for line in lines)
            rest = bytearray(last)
        if len(rest) > MAX_LINE:
            raise AppError(f"The server sent a line of more than {MAX_LINE:,} bytes; that is no stream of a reply.")
    if rest:
        yield bytes(rest)


def _bounded(response: httpx.Response) -> bytes:
    """The body, of which no more than MAX_BODY is read."""
    body = bytearray()
    for block in response.iter_bytes():
        body += block
        if len(body) > MAX_BODY:
            break
    return bytes(body[:MAX_BODY])


def _pieces(choice: dict[str, Any]) -> Iterator[Piece]:
    """A chat's delta, with reasoning under either of its usual names, or a completion's text."""
    delta = choice.get("delta")
    if isinstance(delta, dict):
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            yield Piece(thought, is_reasoning=True)
        content = delta.get("content")
    else:
        content = choice.get("text")
    if isinstance(content, str) and content:
        tokens = likely(choice.get("logprobs"))
        is_whole = b"".join(token.raw for token in tokens) == content.encode("utf-8", "replace")
        yield Piece(content, tokens=tokens if is_whole else (), has_logprobs=bool(tokens))


def _counts(usage: dict[str, Any]) -> tuple[int, int] | None:
    found = usage.get("prompt_tokens"), usage.get("completion_tokens")
    whole = [count for count in found if isinstance(count, int) and 0 <= count < 2**31]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def _words(body: Any) -> str:
    """A server's words about an error, from the usual places."""
    while isinstance(body, dict):
        inner = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
        if inner is None:
            break
        body = inner
    return str(body)[:SHOWN]
