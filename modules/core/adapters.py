"""LoRA adapters: small trained differences that are added to a loaded model's weights, each with a weight of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from .errors import BadRequest
from .knobs import Knob

AdapterFormat = Literal["gguf", "safetensors"]
MAX_ADAPTERS = 16  # on one model at once
WEIGHT = Knob("float", 1.0, "Weight", "How strongly the adapter acts: 0 not at all, 1 as it was trained.", minimum=0.0,
              maximum=2.0, step=0.01, name="weight")


@dataclass(frozen=True)
class AdapterFile:
    """An adapter on disk, read from its headers only. path: a GGUF file, or a folder with adapter_config.json.

    rank: the largest of its layers'; alpha: its scale is alpha / rank, or alpha / sqrt(rank) with rsLoRA. base: the model that it
    was made for, as its maker wrote it, or "". layers: how many matrices it changes.
    problem: why it cannot be attached to any model, with the way out; empty where nothing speaks against it.
    """

    name: str
    path: str
    format: AdapterFormat
    size_bytes: int = 0
    rank: int = 0
    alpha: float = 0.0
    base: str = ""
    layers: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Attached:
    """An adapter on a loaded model."""

    name: str
    path: str
    weight: float


@runtime_checkable
class TakesAdapters(Protocol):
    """What a loader with the feature "adapters" has beside core.loader.Loader's methods."""

    def set_adapters(self, adapters: Sequence[tuple[str, float]]) -> None:
        """Attach exactly these (path, weight in 0..2), each path once, in place of those attached before; () detaches all.

        The caller promises that no run is active. What is not attached leaves no trace: the logits are the base model's to the
        bit, and so they are where every weight is 0. KV that was computed with other adapters or weights is never used again.
        Raises BadRequest where one does not fit the model, saying why: then all stays as it was.
        """


def check(adapters: Iterable[tuple[str, Any]]) -> list[tuple[str, float]]:
    """(name or path, weight) pairs with weights parsed; raises BadRequest for too many, one named twice, or a bad weight."""
    found = [(name, float(WEIGHT.parse(weight))) for name, weight in adapters]
    if len(found) > MAX_ADAPTERS:
        raise BadRequest(f"{len(found)} adapters are too many; at most {MAX_ADAPTERS} can be attached at once.", param="adapters")
    names = [name for name, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadRequest(f"The adapter {twice!r} is named twice; give it once, with the weights added.", param="adapters")
    return found


def misfit(path: str | Path, reason: str, made_for: str) -> BadRequest:
    """The error for an adapter that does not fit the model. made_for: the model named by its maker, or ""."""
    base = f" It was made for {made_for}." if made_for else ""
    return BadRequest(f"The adapter {Path(path).name} does not fit this model: {reason}.{base} Load the model that it was made "
                      "for, or choose another adapter.", param="adapters")


Stamp = tuple[str, tuple[tuple[int, int], ...]]
"""An adapter's identity: its path, and of each of its files the bytes and the time of its last change in nanoseconds."""


def stamp(path: str, *names: str) -> Stamp:
    """Of the file at `path`, or of these files in that folder; raises BadRequest where one cannot be read."""
    try:
        found = [file.stat() for file in ([Path(path) / name for name in names] or [Path(path)])]
    except OSError as error:
        raise BadRequest(f"The adapter {path} cannot be read: {error.strerror or error}.", param="adapters") from error
    return path, tuple((about.st_size, about.st_mtime_ns) for about in found)


def signature(adapters: Iterable[tuple[Stamp, float]]) -> str:
    """What acts on the model, to put before cache keys: "" where nothing does, else a digest of adapters and weights."""
    acting = sorted((stamp, weight) for stamp, weight in adapters if weight)
    return hashlib.sha256(repr(acting).encode("utf-8", "surrogateescape")).hexdigest()[:32] + "|" if acting else ""
