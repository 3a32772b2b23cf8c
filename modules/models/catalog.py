"""The models in the model folders, by name."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..core.errors import NotFound
from ..core.loader import ModelFile
from ..store.headers import read_model
from ..store.servers import SEPARATOR, read_servers
from .naming import plain_name
from .other_programs import Place, candidates
from .scan import Candidate, inside, scan

ECHO = ModelFile("echo", "", "echo")  # the loader without a model; found by name, not listed


class Catalog:
    """What is in the model folders, but for adapters, which are no models. Methods read the disk: call them in threads, any
    number at once.

    `allowed` are paths outside the folders that the person named at start-up; no request can name another one. `others` are the
    folders of other programs, whose models are listed after those of the folders. `servers` is the file that names models on
    servers. A scan looks at names, sizes and times only; a
    model's headers are read when these change.
    """

    def __init__(self, dirs: Sequence[str | Path], *, allowed: Sequence[str | Path] = (), others: Sequence[Place] = (),
                 servers: Path | None = None) -> None:
        self.dirs = tuple(Path(os.path.abspath(folder)) for folder in dirs)
        self._allowed = tuple(Path(os.path.abspath(path)) for path in allowed)
        self._others = tuple(others)
        self._servers = servers
        self._read: dict[Path, tuple[Candidate, ModelFile]] = {}
        self._lock = threading.Lock()

    def list(self) -> list[ModelFile]:
        """Every model, by name; broken ones among them, with their problem. Folders that are not there are empty."""
        with self._lock:
            others = (item for place in self._others for item in candidates(place))
            found = _with_others(scan(self.dirs, self._allowed), others)
            self._read = {item.path: (item, self._file(item)) for item in found}
            named: dict[str, ModelFile] = {}
            # A file has its suffix to tell it apart, and what is the person's own goes before what is not.
            for item in sorted(found, key=lambda candidate: (bool(candidate.source), candidate.is_file)):
                if self._read[item.path][1].format == "adapter":
                    continue  # see models.adapters
                name = _free_name(item, named)
                named[name.lower()] = replace(self._read[item.path][1], name=name, source=item.source)
            for file in self._remote():
                name = _first_free([file.name, f"{file.name} (server)"], named)
                named[name.lower()] = replace(file, name=name)
            return sorted(named.values(), key=lambda file: file.name.lower())

    def find(self, name: str) -> ModelFile:
        """The model of that name (its file's name and other case will do where only one fits), or at that path where it lies in
        a model folder or was named at start-up. Raises NotFound, naming the closest ones."""
        files = self.list()
        wanted = name.strip().strip("/").lower()
        keys: tuple[Callable[[ModelFile], str], ...] = (
            lambda file: file.name, lambda file: file.name.lower(), lambda file: Path(file.path).name.lower(),
            lambda file: PurePosixPath(file.name).name.lower())
        for key in keys:
            matches = [file for file in files if key(file) in (name, wanted)]
            if len(matches) == 1:
                return matches[0]
        if wanted == ECHO.name:
            return ECHO
        at_path = self._at_path(name, files)
        if at_path is None:
            raise NotFound(_refusal(name, files), param="model")
        return at_path

    def _remote(self) -> Sequence[ModelFile]:
        """The models on servers; their file is read each time, so that what a person adds is there at the next look."""
        if self._servers is None:
            return []
        return [ModelFile(server.name, f"{self._servers}{SEPARATOR}{server.name}", "server", trained_context=server.context,
                          problem=server.problem, source=server.host) for server in read_servers(self._servers)]

    def _file(self, item: Candidate) -> ModelFile:
        known = self._read.get(item.path)
        if known is not None and known[0] == item:
            return known[1]
        if item.problem:
            return ModelFile(item.path.name, str(item.path), "unknown", problem=item.problem)
        try:
            return read_model(item.path)
        except NotFound:  # gone since the scan
            return ModelFile(item.path.name, str(item.path), "unknown", problem="The file is gone; refresh the list.")

    def _at_path(self, name: str, files: Sequence[ModelFile]) -> ModelFile | None:
        if "\0" in name or len(name) > 4096:
            return None
        path = Path(os.path.abspath(name))
        for file in files:
            if Path(file.path) == path:
                return file
        try:
            if path.exists() and inside(path, self.dirs):
                file = read_model(path)
                return next((listed for listed in files if listed.path == file.path), file)
        except OSError:
            return None
        return None


def _with_others(own: Sequence[Candidate], others: Iterable[Candidate]) -> list[Candidate]:
    """All of them, but of one real place only the first that is another program's: a model folder may be its folder too."""
    seen = {os.path.realpath(item.path) for item in own}
    kept = list(own)
    for item in others:
        real = os.path.realpath(item.path)
        if real not in seen:
            seen.add(real)
            kept.append(item)
    return kept


def _free_name(item: Candidate, taken: dict[str, ModelFile]) -> str:
    """The plainest name that is still free: without suffix, with it, numbered."""
    relative = PurePosixPath(item.path.relative_to(item.root).as_posix())
    relative = relative if relative.name else PurePosixPath(item.path.name)
    names = [item.label] if item.label else [plain_name(relative, is_file=item.is_file), str(relative)]
    return _first_free(names, taken)


def _first_free(names: Sequence[str], taken: dict[str, ModelFile]) -> str:
    """The first of the names that is free; where none is, the first of them with a number."""
    numbered = (f"{names[0]} ({n})" for n in range(2, len(taken) + 3))
    return next(name for name in (*names, *numbered) if name.lower() not in taken)


def _refusal(name: str, files: Sequence[ModelFile]) -> str:
    shown = name if len(name) <= 200 else name[:197] + "..."
    if not files:
        return f"There is no model {shown!r}: the model folders are empty. Put a GGUF file or a model's folder into them."
    by_key = {key.lower(): file.name for file in files for key in (file.name, PurePosixPath(file.name).name)}
    close = list(dict.fromkeys(by_key[key] for key in difflib.get_close_matches(name[:200].lower(), by_key, n=5, cutoff=0.4)))
    return f"There is no model {shown!r}. " + (f"Did you mean {', '.join(close)}?" if close else
                                               f"Choose one of the {len(files)} that there are, such as {files[0].name}.")
