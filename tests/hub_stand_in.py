"""A stand-in for the Hugging Face hub and its CDN: two real HTTP servers on 127.0.0.1, with the faults that networks have."""

from __future__ import annotations

import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.test_headers import CONFIG, safetensors, write_gguf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Act = Callable[["Handler", bytes, int], bool]
"""A fault, given the file and where to start in it: answers the request itself and returns True, or does nothing: False."""


@dataclass
class Repo:
    """One repository. info: what /api/models/{id} says beside the usual."""

    files: dict[str, bytes] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    readme: str = "---\nlicense: apache-2.0\n---\n# A model\n\nIt was made for tests."
    is_gated: bool = False
    tree: list[dict[str, Any]] | None = None  # instead of the one made from the files


@dataclass(frozen=True)
class Seen:
    """One request: which server, path, and headers with small names."""

    server: str
    path: str
    headers: dict[str, str]


class StandIn:
    """Both servers, up within `with`. faults: for a file's path, or "api", what happens at the next requests, in order."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: dict[str, list[Act]] = {}
        self.seen: list[Seen] = []
        self.etags: dict[str, str] = {}
        self.token = "hf_" + "secretsecret" * 2
        self.may_go_on = threading.Event()  # what `hold` waits for
        self.is_held = threading.Event()
        self._servers = [self._server("hub"), self._server("cdn")]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.may_go_on.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fetched(self, path: str) -> list[str]:
        """The Range header of each request that the CDN got for a file, "" without one."""
        asked = [seen for seen in self.seen if seen.server == "cdn" and urlsplit(seen.path).path.endswith("/" + path)]
        return [seen.headers.get("range", "") for seen in asked]

    def fault(self, path: str, *acts: Act) -> None:
        self.faults.setdefault(path, []).extend(acts)

    def _server(self, name: str) -> ThreadingHTTPServer:
        handler = type("Bound", (Handler,), {"stand_in": self, "server_name": name})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]  # clients that leave are no news
        return server


class Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    server_name = ""
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.stand_in.seen.append(Seen(self.server_name, unquote(self.path), headers))
        try:
            if self.server_name == "cdn":
                _, _, repo, path = unquote(urlsplit(self.path).path).split("/", 3)
                self._file(self.stand_in.repos[repo.replace("--", "/")], path)
            else:
                self._hub()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    # The hub

    def _hub(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if path.startswith("/api/") and self._is_faulty("api"):
            return
        if path == "/api/models":
            return self.json([self._about(name, repo) for name, repo in self.stand_in.repos.items()
                              if query.get("search", [""])[0].lower() in name.lower()
                              and ("filter" not in query or query["filter"][0] in self._tags(repo))])
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/tree/[^/]+)?|/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        name = (found[1] or found[3]) if found else ""
        if not found or name not in self.stand_in.repos:
            return self.plain(404, {"X-Error-Code": "RepoNotFound"})
        repo = self.stand_in.repos[name]
        if found[1]:
            return self.json(self._tree(repo) if found[2] else self._about(name, repo))
        file = found[4]
        if repo.is_gated and self.headers.get("Authorization") != f"Bearer {self.stand_in.token}" and file != "README.md":
            has_token = "Authorization" in self.headers
            return self.plain(403 if has_token else 401, {"X-Error-Code": "GatedRepo"})
        if file == "README.md":
            return self.send(200, repo.readme.encode(), {})
        if file not in repo.files:
            return self.plain(404, {"X-Error-Code": "EntryNotFound"})
        content = repo.files[file]
        if not is_large(file):
            return self._file(repo, file)
        linked = self.stand_in.etags.get(file, hashlib.sha256(content).hexdigest())
        self.plain(302, {"Location": f"{self.stand_in.cdn}/cdn/{name.replace('/', '--')}/{file}?signature=for-us",
                         "X-Linked-Etag": f'"{linked}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": COMMIT})

    def _about(self, name: str, repo: Repo) -> dict[str, Any]:
        return {"id": name, "sha": COMMIT, "downloads": 1234, "likes": 56, "lastModified": "2026-05-04T03:02:01.000Z",
                "gated": "auto" if repo.is_gated else False, "tags": [*self._tags(repo), "license:apache-2.0"],
                "cardData": {"license": "apache-2.0", "base_model": "maker/base"}, **repo.info}

    def _tags(self, repo: Repo) -> set[str]:
        return {kind for kind in ("gguf", "safetensors") if any(path.endswith("." + kind) for path in repo.files)}

    def _tree(self, repo: Repo) -> list[dict[str, Any]]:
        return tree(repo.files) if repo.tree is None else repo.tree

    # Files, from either server

    def _file(self, repo: Repo, path: str) -> None:
        content = repo.files[path]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        condition = self.headers.get("If-Range")
        if condition is not None and condition != self.etag(path, content):
            start = 0
        if start >= len(content) > 0:
            return self.plain(416, {"Content-Range": f"bytes */{len(content)}"})
        if not self._is_faulty(path, content, start):
            self.piece(path, content, start)

    def etag(self, path: str, content: bytes) -> str:
        return f'"{hashlib.md5(content + path.encode()).hexdigest()}"'

    def piece(self, path: str, content: bytes, start: int) -> None:
        self.send(206 if start else 200, content[start:], self.about_piece(path, content, start))

    def about_piece(self, path: str, content: bytes, start: int) -> dict[str, str]:
        headers = {"ETag": self.etag(path, content), "Accept-Ranges": "bytes"}
        return {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else headers

    def _is_faulty(self, path: str, content: bytes = b"", start: int = 0) -> bool:
        acts = self.stand_in.faults.get(path, [])
        return acts.pop(0)(self, content, start) if acts else False

    def head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.head(status, len(body), headers)
        self.wfile.write(body)

    def plain(self, status: int, headers: dict[str, str]) -> None:
        self.send(status, b"", headers)

    def json(self, value: Any) -> None:
        self.send(200, json.dumps(value, default=list).encode(), {"Content-Type": "application/json"})


# Faults


def drop_after(n: int) -> Act:
    """Send n bytes of what is asked for, then break the connection."""
    def act(handler: Handler, content: bytes, start: int) -> bool:
        handler.head(206 if start else 200, len(content) - start, handler.about_piece(_path(handler), content, start))
        handler.wfile.write(content[start:start + n])
        handler.close_connection = True
        return True
    return act


def status(number: int, **headers: str) -> Act:
    """Answer with this status; `Retry_After="1"` is a header."""
    def act(handler: Handler, content: bytes, start: int) -> bool:
        handler.plain(number, {name.replace("_", "-"): value for name, value in headers.items()})
        return True
    return act


def other_content(change: Callable[[bytes], bytes], *, is_same_etag: bool = True) -> Act:
    """Send something else from now on, in one answer: a flipped byte, a wrong length."""
    def act(handler: Handler, content: bytes, start: int) -> bool:
        changed = change(content)
        etag = handler.etag(_path(handler), content if is_same_etag else changed)
        start = start if is_same_etag else 0
        headers = {**handler.about_piece(_path(handler), changed, start), "ETag": etag}
        handler.send(206 if start else 200, changed[start:], headers)
        return True
    return act


def hold_after(n: int) -> Act:
    """Send n bytes, then nothing until the test says so (or the client is gone), then the rest."""
    def act(handler: Handler, content: bytes, start: int) -> bool:
        handler.head(206 if start else 200, len(content) - start, handler.about_piece(_path(handler), content, start))
        handler.wfile.write(content[start:start + n])
        handler.wfile.flush()
        handler.stand_in.is_held.set()
        handler.stand_in.may_go_on.wait(120)
        handler.wfile.write(content[start + n:])
        return True
    return act


def trickle(n: int, seconds: float, first: int = 0) -> Act:
    """Send `first` bytes, then n at a time with pauses between, for as long as the client stays."""
    def act(handler: Handler, content: bytes, start: int) -> bool:
        handler.head(206 if start else 200, len(content) - start, handler.about_piece(_path(handler), content, start))
        handler.wfile.write(content[start:start + first])
        for place in range(start + first, len(content), n):
            handler.wfile.write(content[place:place + n])
            handler.wfile.flush()
            time.sleep(seconds)
        return True
    return act


def from_the_beginning() -> Act:
    """Ignore the range, as servers that know none do."""
    def act(handler: Handler, content: bytes, start: int) -> bool:
        handler.send(200, content, handler.about_piece(_path(handler), content, 0))
        return True
    return act


def body(raw: bytes) -> Act:
    """Answer with this instead of the API's JSON."""
    def act(handler: Handler, content: bytes, start: int) -> bool:
        handler.send(200, raw, {"Content-Type": "application/json"})
        return True
    return act


def _path(handler: Handler) -> str:
    return unquote(urlsplit(handler.path).path).split("/", 3)[3]


# Repositories


def is_large(path: str) -> bool:
    """Kept in LFS and sent by the CDN."""
    return path.endswith((".gguf", ".safetensors", ".bin"))


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as the hub's tree lists it."""
    git_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found: dict[str, Any] = {"type": "file", "oid": git_id, "size": len(content), "path": path}
    if is_large(path):
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return found


def tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [entry(path, content) for path, content in files.items()]


def gguf_bytes(folder: Path, size: int = 0, seed: int = 1, **keys: int) -> bytes:
    """A small GGUF model, lengthened with noise to `size` bytes."""
    raw = write_gguf(folder / f"made-{seed}.gguf", **keys).read_bytes()
    return raw + random.Random(seed).randbytes(max(0, size - len(raw)))


def folder_files(n_shards: int = 2) -> dict[str, bytes]:
    """A sharded safetensors repository with what people put beside it, pickles among it."""
    shards = {f"model-{n:05d}-of-{n_shards:05d}.safetensors": safetensors({f"w{n}": ("F16", [64, 64], 8192)})
              for n in range(1, n_shards + 1)}
    index = {"weight_map": {f"w{n}": name for n, name in enumerate(shards, 1)}}
    return {**shards, "model.safetensors.index.json": json.dumps(index).encode(), "config.json": json.dumps(CONFIG).encode(),
            "tokenizer.json": b"{}", "tokenizer_config.json": b'{"chat_template": "{{ messages }}"}', "LICENSE": b"Apache-2.0",
            "pytorch_model.bin": bytes(5000), "modeling_x.py": b"import os", "README.md": b"read me", ".gitattributes": b"*"}
