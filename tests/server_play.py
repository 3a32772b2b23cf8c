"""A stand-in for an OpenAI-compatible server, scripted by the test: what it answers, and what it was asked."""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODELS = {"data": [{"id": "big", "max_model_len": 4096}, {"id": "small"}]}


@dataclass
class Asked:
    """One request as it came."""

    path: str
    key: str
    body: dict[str, Any]


@dataclass
class Play:
    """The server under test control. `status` other than 200 answers with `said`; `lines` are the stream, sent one by one.

    `until` is called between the lines; `left` is set when the client went away in mid-stream.
    """

    url: str = ""
    models: Any = field(default_factory=lambda: MODELS)
    models_status: int = 200
    status: int = 200
    said: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    lines: Sequence[bytes] = ()
    until: Callable[[], None] = lambda: None
    asked: list[Asked] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    is_endless: bool = False


def chat_lines(*texts: str, reasoning: Sequence[str] = (), finish: str = "stop", usage: tuple[int, int] | None = None,
               end: bool = True) -> list[bytes]:
    """The stream of a chat's reply; with end=False it breaks off."""
    deltas = [{"role": "assistant"}, *({"reasoning_content": text} for text in reasoning), *({"content": text} for text in texts)]
    bodies: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if not end:
        return [b"data: " + json.dumps(body).encode() for body in bodies]
    bodies.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage:
        bodies.append({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    return [b": keep-alive", *(b"data: " + json.dumps(body).encode() for body in bodies), b"data: [DONE]"]


@contextmanager
def playing() -> Iterator[Play]:
    """A server on a free port for the time of the block."""
    play = Play()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            play.asked.append(Asked(self.path, self.headers.get("Authorization", ""), {}))
            self._answer(play.models_status, json.dumps(play.models).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            play.asked.append(Asked(self.path, self.headers.get("Authorization", ""), body))
            if play.status != 200:
                self._answer(play.status, play.said)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for line in play.lines:
                self.wfile.write(line + b"\n\n")
                self.wfile.flush()
                play.until()
            while play.is_endless:
                # The client's end of the connection becomes readable when it goes away.
                if select.select([self.connection], [], [], 0.01)[0] and not self.connection.recv(1):
                    play.left.set()
                    return

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in play.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    play.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield play
    finally:
        play.is_endless = False
        server.shutdown()
        server.server_close()
        thread.join()


def servers_file(folder: Path, *entries: dict[str, Any]) -> Path:
    """A servers.yaml with these entries; JSON is YAML."""
    path = folder / "servers.yaml"
    path.write_text(json.dumps({"servers": list(entries)}), "utf-8")
    return path
