"""The OpenAI-compatible servers that a person named in a YAML file: an address, a model and perhaps a key each."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core.errors import AppError, NotFound
from .yamlfile import read_yaml

MAX_SERVERS = 256
SEPARATOR = "#"  # between the file and the server's name in a model's path
FIELDS = {"name", "base_url", "model", "api_key", "api_key_env", "context"}
_NAME = re.compile(r"[^\x00-\x1f\x7f#]{1,200}")


@dataclass(frozen=True)
class Server:
    """One entry. base_url ends without a slash; api_key never appears in a representation; context 0 asks the server.

    problem: why the entry cannot be used, with the way out; empty where nothing speaks against it.
    """

    name: str
    base_url: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    context: int = 0
    problem: str = ""

    @property
    def host(self) -> str:
        """Host and port, as shown to people."""
        return urlsplit(self.base_url).netloc.rpartition("@")[2]


def read_servers(path: Path, environ: Mapping[str, str] = os.environ) -> list[Server]:
    """The entries in the file's order, broken ones with their problem; none where there is no such file.

    A file that cannot be read at all is one entry, named as the file, with that problem.
    """
    if not path.is_file():
        return []
    try:
        body = read_yaml(path)
    except AppError as error:
        return [Server(path.name, problem=error.message)]
    entries = body.get("servers", [])
    if set(body) - {"servers"} or not isinstance(entries, list) or len(entries) > MAX_SERVERS:
        return [Server(path.name, problem=f"{path.name} must hold `servers:` and under it a list of at most {MAX_SERVERS} "
                                          "entries, each with name, base_url and model.")]
    found: dict[str, Server] = {}
    for number, entry in enumerate(entries, 1):
        made = _server(entry, number, environ)
        if made.name in found:
            made = Server(f"{made.name} ({number})", problem="An earlier entry has this name; give another.")
        found[made.name] = made
    return list(found.values())


def find_server(path: str, environ: Mapping[str, str] = os.environ) -> Server:
    """The entry at `FILE#NAME`; raises NotFound where there is none, and AppError with its problem where it is broken."""
    file, _, name = path.rpartition(SEPARATOR)
    for server in read_servers(Path(file), environ):
        if server.name == name:
            if server.problem:
                raise AppError(f"{name}: {server.problem}")
            return server
    raise NotFound(f"There is no server {name!r} in {file}; press Refresh, or write it there.", param="model")


def _server(entry: Any, number: int, environ: Mapping[str, str]) -> Server:
    if not isinstance(entry, dict):
        return Server(f"server {number}", problem=f"Entry {number} must have name, base_url and model; it is {entry!r:.100}.")
    name = str(entry.get("name") or entry.get("model") or "")
    if not _NAME.fullmatch(name):
        return Server(f"server {number}", problem=f"Entry {number} needs a name of 1 to 200 characters without #.")
    unknown = sorted(set(map(str, entry)) - FIELDS)
    if unknown:
        return Server(name, problem=f"It has no field {', '.join(unknown)[:200]}; there are {', '.join(sorted(FIELDS))}.")
    url = str(entry.get("base_url") or "").rstrip("/")
    parts = urlsplit(url) if url.isascii() else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        return Server(name, problem=f"base_url must be an address such as http://127.0.0.1:8000/v1; got {url[:100]!r}.")
    if parts.username or parts.password:
        return Server(name, problem="base_url must not hold a password; give it as api_key or api_key_env.")
    model = entry.get("model")
    if not isinstance(model, str) or not model:
        return Server(name, problem=f"model must be the name that the server calls the model by; got {model!r:.100}.")
    context = entry.get("context") or 0
    if not isinstance(context, int) or isinstance(context, bool) or not 0 <= context <= 2**24:
        return Server(name, problem=f"context must be a whole number of tokens from 0 to {2**24}; got {context!r:.100}.")
    key = entry.get("api_key") or ""
    variable = entry.get("api_key_env") or ""
    if variable:
        key = environ.get(str(variable), "")
        if not key:
            return Server(name, problem=f"The environment variable {variable!r:.100} for its key is not set.")
    key = str(key)
    if not key.isascii() or not key.isprintable() or len(key) > 4096:
        return Server(name, problem="api_key must be one line of printable ASCII characters.")
    return Server(name, url, model, key, context)
