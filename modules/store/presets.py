"""Presets: flat YAML files of the parameters that differ from neutral."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.errors import BadRequest
from ..core.params import GenerationParams
from .shelf import Shelf


@dataclass(frozen=True)
class Preset:
    """params: all parameters, neutral where the file names none. unknown: the file's keys that no parameter has, kept as they
    are, to be shown to the person."""

    name: str
    params: GenerationParams
    unknown: dict[str, Any] = field(default_factory=dict)
    shipped: bool = False


@dataclass(frozen=True)
class Presets:
    """The presets on a shelf."""

    shelf: Shelf

    def names(self) -> list[str]:
        return self.shelf.names()

    def load(self, name: str) -> Preset:
        """Raises NotFound, or BadRequest naming the file, the parameter and its range."""
        values = self.shelf.read(name)
        try:
            params, unknown = GenerationParams().with_values(values)
        except BadRequest as error:
            raise BadRequest(f"Preset {name}: {error.message}", param=error.param) from error
        return Preset(name, params, {key: values[key] for key in unknown}, self.shelf.is_shipped(name))

    def save(self, name: str, params: GenerationParams, *, unknown: dict[str, Any] | None = None) -> Preset:
        """Write what differs from neutral, with the unknown keys of the preset that it was made from."""
        self.shelf.write(name, {**params.changed(), **(unknown or {})})
        return self.load(name)

    def delete(self, name: str) -> None:
        self.shelf.delete(name)
