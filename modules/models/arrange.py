"""The list of models as a person reads it: variants of one model together, filtered and sorted."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.loader import ModelFile
from .explain import ALIKE
from .naming import family

ORDERS: dict[str, Callable[[list[ModelFile]], object]] = {
    "Name": lambda group: family(group[0].name),
    "Largest first": lambda group: -max(file.size_bytes for file in group),
    "Smallest first": lambda group: min(file.size_bytes for file in group),
    "Most parameters": lambda group: -max(file.n_params for file in group),
    "Newest": lambda group: -max(map(_changed, group))}


@dataclass(frozen=True)
class Listed:
    """A model and what it has in common with its variants, in words; "" for one that has none."""

    file: ModelFile
    group: str


def arranged(files: Sequence[ModelFile], text: str = "", format: str = "", order: str = "Name") -> list[Listed]:
    """The models whose name, architecture, quantization or source has every word of `text`, of that format where one is given.

    Variants stand together, the largest first; groups go by `order`, one of ORDERS, and what cannot be loaded comes last. Reads
    the disk for "Newest".
    """
    words = text.lower().split()
    kept = [file for file in files if format in ("", file.format) and all(word in _searched(file) for word in words)]
    groups = sorted(_groups([file for file in kept if _is_model(file)]), key=lambda group: family(group[0].name))
    groups.sort(key=ORDERS[order])  # type: ignore[arg-type]
    found = [Listed(file, _words(group)) for group in groups for file in group]
    return found + [Listed(file, "") for file in sorted(kept, key=lambda file: file.name.lower()) if not _is_model(file)]


def _is_model(file: ModelFile) -> bool:
    return not file.problem and file.format != "adapter"


def _searched(file: ModelFile) -> str:
    return f"{file.name} {file.architecture} {file.quantization} {file.format} {file.source}".lower()


def _groups(files: Sequence[ModelFile]) -> list[list[ModelFile]]:
    """By family and about equal numbers of parameters, the largest first; what has no weights stands for itself."""
    by_family: dict[str, list[ModelFile]] = defaultdict(list)
    groups = []
    for file in files:
        if file.has_weights:
            by_family[family(file.name)].append(file)
        else:
            groups.append([file])
    for alike in by_family.values():
        alike.sort(key=lambda file: file.n_params)
        first = 0
        for place in range(1, len(alike) + 1):
            if place == len(alike) or alike[place].n_params > alike[first].n_params * (1 + ALIKE):
                groups.append(sorted(alike[first:place], key=lambda file: (-file.size_bytes, file.name)))
                first = place
    return groups


def _words(group: list[ModelFile]) -> str:
    """`starter, 5.2 M, 3 variants`; "" for what has none."""
    if len(group) == 1:
        return ""
    parts = [family(group[0].name), count_words(max(file.n_params for file in group)), f"{len(group)} variants"]
    return ", ".join(part for part in parts if part)


def count_words(n_params: int) -> str:
    """`7.2 B`, `5.2 M`; "" where the number is unknown."""
    if not n_params:
        return ""
    return f"{n_params / 1e9:.1f} B" if n_params >= 1e9 else f"{n_params / 1e6:.1f} M"


def _changed(file: ModelFile) -> float:
    try:
        return os.stat(file.path).st_mtime
    except (OSError, ValueError):
        return 0.0  # gone, or on a server
