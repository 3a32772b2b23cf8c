"""How a person had a model loaded, kept for the next time: its loader, what was set by hand, and its adapters."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .core.adapters import check
from .core.errors import AppError, BadRequest
from .core.knobs import parse_values
from .core.loader import LoaderSpec
from .store.keyvalue import KeyValue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """options: those set by hand, by name, parsed. dropped: a sentence for each saved thing that this version cannot use."""

    loader: str
    options: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


class SavedOptions:
    """By model name. On the event loop; the database works in threads."""

    def __init__(self, keyvalue: KeyValue, loaders: Mapping[str, LoaderSpec]) -> None:
        self._keyvalue = keyvalue
        self._loaders = loaders

    async def get(self, name: str) -> Saved | None:
        """What is saved for the model, less what no longer is an option; None where nothing is, or its loader is not there."""
        kept = await asyncio.to_thread(self._keyvalue.get, _key(name))
        if not isinstance(kept, dict):
            return None
        spec = self._loaders.get(str(kept.get("loader")))
        if spec is None:
            log.warning("The options saved for %s are for the loader %r, which is not there; they are not used.", name,
                        kept.get("loader"))
            return None
        options: dict[str, Any] = {}
        dropped = []
        given = kept.get("options")
        for option, value in given.items() if isinstance(given, dict) else ():
            try:
                parsed, unknown = parse_values(spec.options, {option: value})
            except BadRequest as error:
                dropped.append(f"The saved {option} is not used: {error.message}")
                continue
            options |= parsed
            dropped += [f"The saved {one} is not used: {spec.title} has no such option any more." for one in unknown]
        for words in dropped:
            log.warning("%s: %s", name, words)
        return Saved(spec.name, options, tuple(dropped))

    async def save(self, name: str, loader: str, options: Mapping[str, Any]) -> None:
        """Keep them. That they cannot be kept is told in the log: the model is loaded all the same."""
        try:
            await asyncio.to_thread(self._keyvalue.set, _key(name),
                                    {"loader": loader, "options": json.loads(json.dumps(dict(options)))})
        except AppError as error:
            log.warning("The options of %s were not saved: %s", name, error.message)

    async def adapters(self, name: str) -> list[tuple[str, float]]:
        """Names and weights of the adapters that a person attached to the model; what nobody understands is as if there were
        none."""
        kept = await asyncio.to_thread(self._keyvalue.get, _adapters_key(name))
        try:
            return check((str(one), weight) for one, weight in kept or ())
        except (AppError, TypeError, ValueError) as error:
            log.warning("The adapters saved for %s are not used: %s", name, error)
            return []

    async def save_adapters(self, name: str, adapters: Sequence[tuple[str, float]]) -> None:
        """Keep them, or forget them where there are none. That they cannot be kept is told in the log."""
        try:
            await asyncio.to_thread(self._keyvalue.set, _adapters_key(name), [list(pair) for pair in adapters] or None)
        except AppError as error:
            log.warning("The adapters of %s were not saved: %s", name, error.message)

    async def forget(self, name: str) -> None:
        await asyncio.to_thread(self._keyvalue.set, _key(name), None)


def _adapters_key(name: str) -> str:
    return f"model_adapters:{name}"


def _key(name: str) -> str:
    return f"model_options:{name}"
