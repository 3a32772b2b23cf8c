"""A download as it stands on the disk: what is to be fetched, from where and to where, so that it outlives the app's process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

from ..core.errors import AppError, Conflict
from ..store.files import read_bounded, refusal, safe_path, sync_folder, write_atomic
from ..store.headers import read_model
from .hub import check_repository
from .hub_files import MAX_SIZE, Choice, HubFile
from .hub_parts import part_path

FOLDER = ".downloads"      # in the model folder; a scan passes over names that begin with a dot
PLAN_FILE = "download.json"
FILES = "files"
MAX_PLAN = 4 << 20
MAX_UNFINISHED = 200
SPARE_BYTES = 256 << 20    # left free on the disk
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Plan:
    """One download. target: the folder within the model folder that the files come to lie in.

    is_folder: `target` is made by it; else its one file is put in. Raised where the plan is read from a file: AppError.
    """

    repo: str
    revision: str
    choice: str
    format: Literal["gguf", "safetensors"]
    target: str
    is_folder: bool
    files: tuple[HubFile, ...]

    @property
    def id(self) -> str:
        """The same for the same choice of the same repository."""
        return hashlib.sha256(f"{self.repo}\n{self.choice}".encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        return self.repo if self.choice == "safetensors" else f"{self.repo} {self.choice}"

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def address(self, hub_url: str, file: HubFile) -> str:
        """Where the hub has the file."""
        return f"{hub_url}/{self.repo}/resolve/{self.revision}/{quote(file.path)}"


def make_plan(repo: str, revision: str, choice: Choice) -> Plan:
    return Plan(repo, revision, choice.name, choice.format, choice.folder, choice.is_folder, choice.files)


@dataclass(frozen=True)
class Place:
    """A download's folder within the model folder, and where its model goes. Methods block: call them in threads."""

    models: Path
    plan: Plan

    @property
    def folder(self) -> Path:
        return self.models / FOLDER / self.plan.id

    @property
    def files(self) -> Path:
        return self.folder / FILES

    @property
    def target(self) -> Path:
        """The folder or file that the model will be; every part of its name is checked."""
        path = self.models
        for part in PurePosixPath(self.plan.target).parts:
            path = safe_path(path, part, "")
        return path if self.plan.is_folder else safe_path(path, self.plan.files[0].name, "")

    @property
    def model_name(self) -> str:
        """What the list of models will call it, near enough: its path within the model folder."""
        path = self.target.relative_to(self.models)
        return str(path if self.plan.is_folder else path.with_suffix("")).replace(os.sep, "/")

    def have(self) -> dict[str, int]:
        """Bytes of each file that are on the disk, by the file's path in the repository."""
        found = {}
        for file in self.plan.files:
            whole, part = self.files / file.name, part_path(self.files, file)
            found[file.path] = file.size if whole.exists() else min(part.stat().st_size, file.size) if part.exists() else 0
        return found

    def is_over(self) -> bool:
        """Whether the model is in its place and nothing of it is left here."""
        return self.target.exists() and not any(self.have().values())

    def check_room(self, taken: int = 0) -> None:
        """Raises Conflict where something is in the way, AppError where the disk is too full. taken: bytes that others need."""
        if self.target.exists():
            raise Conflict(f"There is a {self.target.relative_to(self.models)} in the model folder already; rename or delete it "
                           "first, then download again.")
        needed = self.plan.size - sum(self.have().values())
        try:
            self.models.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.models).free
        except OSError as error:
            raise AppError(f"The model folder {self.models} cannot be used ({error.strerror}); give another --models-dir."
                           ) from error
        if needed + taken + SPARE_BYTES > free:
            others = f" beside {_gigabytes(taken)} for other downloads under way" if taken else ""
            raise AppError(f"The disk of {self.models} has {_gigabytes(free)} free, and {_gigabytes(needed)} are needed{others}. "
                           "Free some space, or choose a smaller file.")

    def save(self) -> None:
        """Write the plan, so that a start after a crash finds it."""
        try:
            self.files.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AppError(f"{self.files} cannot be made ({error.strerror}); look at the folder's permissions.") from error
        write_atomic(self.folder / PLAN_FILE, json.dumps(asdict(self.plan)).encode())

    def check_model(self) -> str:
        """Why the files, all of which are whole, are no model that can be loaded; "" where they are one."""
        return read_model(self.files if self.plan.format == "safetensors" else self.files / self.plan.files[0].name).problem

    def put(self) -> None:
        """Give the model its place, all at once. Raises Conflict where something has come to be there."""
        target = self.target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise Conflict(f"There is a {target.name} in the model folder now; rename or delete it, then resume.")
            source = self.files if self.plan.is_folder else self.files / self.plan.files[0].name
            sync_folder(self.files)
            source.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            raise AppError(f"{target} cannot be made ({error.strerror}); look at the folder's permissions, then resume."
                           ) from error
        self.delete()

    def delete(self) -> None:
        """Throw away what was begun. Raises AppError where the system refuses."""
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise AppError(f"{self.folder} cannot be deleted ({error.strerror}); delete it by hand.") from error


def unfinished(models: Path) -> list[Plan]:
    """The plans of downloads that have not come to their end, by title; what is not readable as one is left alone."""
    folder = models / FOLDER
    try:
        names = sorted(entry.name for entry in folder.iterdir() if _ID.fullmatch(entry.name))[:MAX_UNFINISHED]
    except OSError:
        return []  # not there, or not ours to read
    plans = [plan for name in names if (plan := _read_plan(folder / name / PLAN_FILE)) is not None and plan.id == name]
    return sorted(plans, key=lambda plan: plan.title)


def _read_plan(path: Path) -> Plan | None:
    """A plan whose every name is as safe as a new one's; None for anything else."""
    try:
        found = json.loads(read_bounded(path, MAX_PLAN))
        files = tuple(HubFile(str(file["path"]), int(file["size"]), str(file["sha256"]), str(file["git_id"]))
                      for file in found["files"])
        plan = Plan(check_repository(found["repo"]), str(found["revision"]), str(found["choice"]),
                    "safetensors" if found["format"] == "safetensors" else "gguf", str(found["target"]),
                    bool(found["is_folder"]), files)
    except (AppError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    parts: Sequence[Any] = [*plan.target.split("/"), *(file.name for file in files), plan.revision]
    is_sound = files and all(0 <= file.size <= MAX_SIZE for file in files) and len({file.name for file in files}) == len(files)
    return plan if is_sound and not any(refusal(part) for part in parts) else None


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB"
