"""Looks through the model folders for what may be a model, by names, sizes and times, without opening a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..store.headers import split_parts

MAX_DEPTH = 6
MAX_ENTRIES = 50_000  # files and folders looked at in one scan
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
MIN_PICKLE_BYTES = 1_000_000  # smaller ones are optimizer states, tokenizers, voices
UNFINISHED = {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "generation_config.json",
              "model.safetensors.index.json"}  # what stands beside a model's config.json and nowhere else
LINK_PROBLEM = "This is a link to a place outside the model folders; start the app with --models-dir for that place."

Stamp = tuple[str, int, int]  # name, bytes, time of the last change in nanoseconds


@dataclass(frozen=True)
class Candidate:
    """Perhaps a model: a file (a split's first part) or a folder within `root`. Equal candidates are unchanged files.

    label: its name where the path does not tell it; source: the other program it belongs to.
    """

    path: Path
    root: Path
    is_file: bool
    stamps: tuple[Stamp, ...] = ()
    problem: str = ""
    label: str = ""
    source: str = ""


def inside(path: Path, roots: Sequence[Path]) -> bool:
    """Whether `path`, with every link followed, lies within one of `roots`."""
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, os.path.realpath(root)]) == os.path.realpath(root) for root in roots
               if os.path.splitdrive(real)[0] == os.path.splitdrive(os.path.realpath(root))[0])


def scan(roots: Sequence[Path], allowed: Sequence[Path] = ()) -> list[Candidate]:
    """What is in `roots`, in order, and `allowed` paths themselves; each real place once."""
    walk = _Walk(roots)
    for root in roots:
        walk.folder(root, root, depth=0)
    for path in allowed:
        if path.is_dir():
            walk.folder(path, path, depth=MAX_DEPTH - 1)
        elif path.is_file():
            walk.file(path, path.parent)
    return list(walk.found.values())


class _Walk:
    """One scan. `left` bounds how many entries are looked at."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self.left = MAX_ENTRIES
        self.seen: set[str] = set()
        self.found: dict[Path, Candidate] = {}

    def folder(self, path: Path, root: Path, depth: int) -> None:
        real = os.path.realpath(path)
        if depth > MAX_DEPTH or real in self.seen or self.left <= 0:
            return
        self.seen.add(real)
        try:
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))[:self.left]
        except OSError:
            return  # not there, or not ours to read: an empty folder
        self.left -= len(names)
        files = [name for name in names if os.path.isfile(path / name)]
        weights = any(name.endswith(".safetensors") for name in files)
        pickled = any(name.endswith(PICKLE_SUFFIXES) for name in files)
        described = "config.json" in files or "adapter_config.json" in files
        # A model's folder that holds all but its weights is a download that was cut short: it is listed, and says so.
        is_cut_short = bool(UNFINISHED.intersection(files)) and not any(name.endswith(".gguf") for name in files)
        if (weights or pickled or is_cut_short) if described else (weights and path != root):
            astray = any(os.path.islink(path / name) and not inside(path / name, self.roots) for name in files)
            stamps = tuple(stamp(path / name) for name in files)
            self.add(Candidate(path, root, False, stamps, LINK_PROBLEM if astray and root in self.roots else ""))
            files = [name for name in files if name.lower().endswith((".gguf", ".echo"))]
        for name in files:
            self.file(path / name, root)
        for name in sorted(set(names) - set(files)):
            if os.path.isdir(path / name):
                self.link_or(path / name, root, depth)

    def link_or(self, path: Path, root: Path, depth: int) -> None:
        if path.is_symlink() and not inside(path, self.roots):
            self.add(Candidate(path, root, False, problem=LINK_PROBLEM))
        else:
            self.folder(path, root, depth + 1)

    def file(self, path: Path, root: Path) -> None:
        suffix = path.suffix.lower()
        if suffix not in (".gguf", ".echo", ".safetensors", *PICKLE_SUFFIXES):
            return
        if path.is_symlink() and root in self.roots and not inside(path, self.roots):
            self.add(Candidate(path, root, True, problem=LINK_PROBLEM))
            return
        if suffix in PICKLE_SUFFIXES and stamp(path)[1] < MIN_PICKLE_BYTES:
            return
        parts = split_parts(path) if suffix == ".gguf" else [path]
        if parts[0] not in self.found:
            self.add(Candidate(parts[0], root, True, tuple(stamp(part) for part in parts)))

    def add(self, candidate: Candidate) -> None:
        self.found.setdefault(candidate.path, candidate)


def stamp(path: Path) -> Stamp:
    """Name, size and time of a file; a size of -1 where it is gone."""
    try:
        about = path.stat()
    except OSError:
        return path.name, -1, 0
    return path.name, about.st_size, about.st_mtime_ns
