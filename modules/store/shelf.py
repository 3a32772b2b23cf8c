"""Named YAML files of one kind in two folders: the shipped ones, which are only read, and the person's own, which win."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import BadRequest, NotFound
from .files import safe_path, set_aside
from .yamlfile import read_yaml, write_yaml

MAX_FILES = 10_000
SUFFIX = ".yaml"


@dataclass(frozen=True)
class Shelf:
    """kind is what one file is called in messages: `preset`, `character`. Deleted files go to `trash` in the own folder."""

    kind: str
    shipped: Path
    own: Path

    def names(self) -> list[str]:
        """All names, sorted without regard to case. Files whose name could not be asked for are left out."""
        found: set[str] = set()
        for folder in (self.shipped, self.own):
            for count, path in enumerate(folder.glob(f"*{SUFFIX}")):
                if count >= MAX_FILES:
                    raise BadRequest(f"{folder} holds more than {MAX_FILES:,} files; move some away.")
                found.update([path.stem] if self._is_reachable(folder, path) else [])
        return sorted(found, key=str.casefold)

    def _is_reachable(self, folder: Path, path: Path) -> bool:
        try:
            return safe_path(folder, path.stem, SUFFIX).is_file()
        except BadRequest:
            return False

    def path(self, name: str) -> Path:
        """The file of that name, the person's own where both folders have one; raises NotFound or BadRequest."""
        for folder in (self.own, self.shipped):
            path = safe_path(folder, name, SUFFIX)
            if path.is_file():
                return path
        raise NotFound(f"There is no {self.kind} named {name!r}; choose one from the list.", param="name")

    def is_shipped(self, name: str) -> bool:
        """Whether what `path` gives is a shipped file."""
        return self.path(name).parent == self.shipped

    def read(self, name: str) -> dict[str, Any]:
        return read_yaml(self.path(name))

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Save as the person's own; a shipped one of that name stays below it."""
        write_yaml(safe_path(self.own, name, SUFFIX), values)

    def delete(self, name: str) -> None:
        """Move the person's own file to the trash; raises BadRequest for a shipped one."""
        path = self.path(name)
        if path.parent == self.shipped:
            raise BadRequest(f"The {self.kind} {name!r} comes with Colloquy and cannot be deleted; save your own under that name "
                             "to replace it.", param="name")
        set_aside(path, self.trash)

    @property
    def trash(self) -> Path:
        return self.own / ".trash"

    def empty_trash(self) -> int:
        """Delete what was deleted for good; returns how many files."""
        gone = list(self.trash.glob("*")) if self.trash.is_dir() else []
        for path in gone:
            path.unlink()
        return len(gone)
