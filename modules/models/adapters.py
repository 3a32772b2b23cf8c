"""The LoRA adapters in the adapter folders and in the model folders, by name."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..core.adapters import AdapterFile
from ..core.errors import NotFound
from ..core.loader import ModelFile
from ..store.adapters import read_adapter_file
from ..store.headers import read_model
from .naming import plain_name
from .scan import Candidate, scan


class AdapterCatalog:
    """What is in the folders. Methods read the disk: call them in threads, any number at once.

    `dirs` are the adapter folders: whatever lies there and looks like weights is an adapter, or has a problem that says why not.
    `model_dirs` are the model folders, of which only what is an adapter counts. No request can name another place. A scan looks
    at names, sizes and times only; headers are read when these change.
    """

    def __init__(self, dirs: Sequence[str | Path], model_dirs: Sequence[str | Path] = ()) -> None:
        self.dirs = tuple(Path(os.path.abspath(folder)) for folder in dirs)
        self._model_dirs = tuple(Path(os.path.abspath(folder)) for folder in model_dirs)
        self._read: dict[Path, tuple[Candidate, AdapterFile | None]] = {}
        self._lock = threading.Lock()

    def list(self) -> list[AdapterFile]:
        """Every adapter, by name; broken ones among them, with their problem. Folders that are not there are empty."""
        with self._lock:
            found = {item.path: item for item in (*scan(self.dirs), *scan(self._model_dirs))}
            self._read = {path: (item, self._file(item)) for path, item in found.items()}
            named: dict[str, AdapterFile] = {}
            # A file has its suffix to tell it apart.
            for path, (item, file) in sorted(self._read.items(), key=lambda one: one[1][0].is_file):
                if file is not None:
                    name = _free_name(item, named)
                    named[name.lower()] = AdapterFile(**{**vars(file), "name": name, "path": str(path)})
            return sorted(named.values(), key=lambda file: file.name.lower())

    def find(self, name: str) -> AdapterFile:
        """The adapter of that name; raises NotFound, naming the closest ones."""
        files = self.list()
        for file in files:
            if file.name == name:
                return file
        if not files:
            raise NotFound(f"There is no adapter {name[:200]!r}: the folders hold none. Put a GGUF adapter or a PEFT folder into "
                           f"{self.dirs[0] if self.dirs else 'a model folder'}.", param="adapters")
        names = [file.name for file in files]
        close = difflib.get_close_matches(name[:200], names, n=3, cutoff=0.4) or names[:5]
        raise NotFound(f"There is no adapter {name[:200]!r}; there are {', '.join(close)}.", param="adapters")

    def _file(self, item: Candidate) -> AdapterFile | None:
        """The adapter there, or None where it is something else that is none of ours."""
        known = self._read.get(item.path)
        if known is not None and known[0] == item:
            return known[1]
        is_own = any(item.root == folder for folder in self.dirs)
        if item.problem:
            return AdapterFile(item.path.name, str(item.path), "safetensors", problem=item.problem) if is_own else None
        try:
            model = read_model(item.path)
        except NotFound:  # gone since the scan
            return None
        if model.format == "adapter":
            return read_adapter_file(Path(model.path), item.path.name)
        return _no_adapter(item, model) if is_own else None


def _no_adapter(item: Candidate, model: ModelFile) -> AdapterFile:
    """What lies in an adapter folder and is no adapter."""
    if item.path.suffix.lower() == ".safetensors":
        problem = ("An adapter is a folder with adapter_config.json and adapter_model.safetensors; put this file into one, with "
                   "its adapter_config.json.")
    elif model.format in ("safetensors", "gptq", "awq") or (model.format == "gguf" and not model.problem):
        problem = "This is a model, not an adapter; put it into a model folder."
    else:
        problem = model.problem or "This is no adapter."
    return AdapterFile(item.path.name, str(item.path), "gguf" if model.format == "gguf" else "safetensors", model.size_bytes,
                       problem=problem)


def _free_name(item: Candidate, taken: dict[str, AdapterFile]) -> str:
    """The plainest name that is still free: without suffix, with it, numbered."""
    relative = PurePosixPath(item.path.relative_to(item.root).as_posix())
    relative = relative if relative.name else PurePosixPath(item.path.name)
    names = [plain_name(relative, is_file=item.is_file), str(relative)]
    numbered = (f"{names[0]} ({n})" for n in range(2, len(taken) + 3))
    return next(name for name in (*names, *numbered) if name.lower() not in taken)
