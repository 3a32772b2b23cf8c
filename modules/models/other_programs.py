"""Models that other programs have left on this machine: Hugging Face's cache, LM Studio, Ollama, text-generation-webui."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from .naming import plain_name
from .scan import Candidate, scan, stamp

MAX_MANIFESTS = 1000
MAX_MANIFEST_BYTES = 1 << 20
MAX_REF_BYTES = 100
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_REPOSITORY = re.compile(r"models--(.+)")
OLLAMA_MODEL = "application/vnd.ollama.image.model"
OLLAMA_DEFAULTS = ("registry.ollama.ai", "library")  # the host and the name space that nobody writes


@dataclass(frozen=True)
class Place:
    """A folder of another program. layout: its models lie in plain folders, in a hub cache's snapshots, or in Ollama's blobs."""

    program: str
    folder: Path
    layout: Literal["folders", "hub", "ollama"]


def usual_places(environ: Mapping[str, str], home: Path) -> list[Place]:
    """Where these programs keep models, the folders that exist."""
    def from_environment(name: str, below: str = "") -> list[Path]:
        return [Path(environ[name]).expanduser() / below] if environ.get(name) else []

    hub = (from_environment("HF_HUB_CACHE") or from_environment("HUGGINGFACE_HUB_CACHE") or from_environment("HF_HOME", "hub")
           or from_environment("XDG_CACHE_HOME", "huggingface/hub") or [home / ".cache" / "huggingface" / "hub"])
    ollama = from_environment("OLLAMA_MODELS") or [home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]
    webui = home / "text-generation-webui"
    found = [Place("Hugging Face's cache", folder, "hub") for folder in hub]
    found += [Place("LM Studio", home / below, "folders") for below in (".lmstudio/models", ".cache/lm-studio/models")]
    found += [Place("Ollama", folder, "ollama") for folder in ollama]
    found += [Place("text-generation-webui", webui / below, "folders") for below in ("user_data/models", "models")]
    return [place for place in found if _is_readable(place.folder)]


def candidates(place: Place) -> list[Candidate]:
    """What may be a model there, named as that program's users know it. What cannot be read is left out."""
    if place.layout == "ollama":
        found = list(_ollama(place.folder))
    elif place.layout == "hub":
        found = list(_hub(place.folder))
    else:
        found = scan([place.folder])
    return [replace(item, source=place.program) for item in found]


def _hub(folder: Path) -> Iterator[Candidate]:
    """The main snapshot of each repository; a repository without one that is named main shows its newest."""
    snapshots: dict[str, str] = {}
    for item in scan([folder]):
        parts = item.path.relative_to(folder).parts
        if len(parts) < 3 or parts[1] != "snapshots" or (repository := _REPOSITORY.fullmatch(parts[0])) is None:
            continue
        if parts[0] not in snapshots:
            snapshots[parts[0]] = _main_snapshot(folder / parts[0])
        if parts[2] != snapshots[parts[0]]:
            continue
        name = repository[1].replace("--", "/", 1)
        below = PurePosixPath(*parts[3:])
        yield replace(item, label=f"{name}/{plain_name(below, is_file=item.is_file)}" if parts[3:] else name)


def _main_snapshot(repository: Path) -> str:
    """The revision that refs/main names, else the newest; "" where there is none."""
    try:
        found = {entry.name: entry.stat().st_mtime for entry in os.scandir(repository / "snapshots") if entry.is_dir()}
    except OSError:
        return ""
    try:
        with (repository / "refs" / "main").open("rb") as file:
            named = file.read(MAX_REF_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        named = ""
    return named if named in found else max(found, key=lambda name: found[name], default="")


def _ollama(folder: Path) -> Iterator[Candidate]:
    """The model of each manifest: a file without a suffix, named by its digest."""
    for manifest in _files(folder / "manifests"):
        parts = manifest.relative_to(folder / "manifests").parts
        if len(parts) != 4:
            continue
        *where, model, tag = parts
        blob = _model_blob(manifest)
        path = folder / "blobs" / f"sha256-{blob}"
        if not blob or not path.is_file():
            continue
        shown = [part for part, usual in zip(where, OLLAMA_DEFAULTS, strict=True) if part != usual]
        name = "/".join([*shown, model]) + ("" if tag == "latest" else f":{tag}")
        yield Candidate(path, folder, True, (stamp(path),), label=name)


def _files(folder: Path) -> list[Path]:
    """At most MAX_MANIFESTS files four levels below the folder, in order."""
    found: list[Path] = []
    for base, folders, names in os.walk(folder):
        folders.sort()
        if len(Path(base).relative_to(folder).parts) >= 4:
            folders.clear()
        found += [Path(base) / name for name in sorted(names) if not name.startswith(".")]
        if len(found) >= MAX_MANIFESTS:
            break
    return found[:MAX_MANIFESTS]


def _model_blob(manifest: Path) -> str:
    """The digest in hexadecimal digits, or "" where the manifest is none that is understood."""
    try:
        with manifest.open("rb") as file:
            body: Any = json.loads(file.read(MAX_MANIFEST_BYTES))
        digests = [layer["digest"] for layer in body["layers"] if layer["mediaType"] == OLLAMA_MODEL]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ""
    found = _DIGEST.fullmatch(str(digests[0])) if len(digests) == 1 else None
    return found[1] if found else ""


def _is_readable(folder: Path) -> bool:
    try:
        return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
    except OSError:
        return False
