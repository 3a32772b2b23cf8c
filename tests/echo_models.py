"""Small things that tests of engine, chat and API share: a catalog of Echo models, and an engine that has one loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from modules import registry
from modules.core.errors import NotFound
from modules.core.events import Request
from modules.core.loader import ModelFile
from modules.core.messages import message
from modules.core.params import GenerationParams
from modules.engine import Engine


class EchoCatalog:
    """Models that exist by name alone, as the echo loader takes them."""

    def __init__(self, *names: str) -> None:
        self._files = [ModelFile(name, "", "echo") for name in names]

    def list(self) -> list[ModelFile]:
        return self._files

    def find(self, name: str) -> ModelFile:
        for file in self._files:
            if file.name == name:
                return file
        raise NotFound(f"There is no model {name!r}.", param="model")


@asynccontextmanager
async def echo_engine(tmp_path: Path, *, max_models: int = 1, max_queue: int = 64, autoload: bool = False,
                      idle_unload: float = 0.0, **options: Any) -> AsyncIterator[Engine]:
    """An engine with the model `echo` loaded with these options; `other` and `third` may be loaded too."""
    engine = Engine(EchoCatalog("echo", "other", "third"), registry.find_loaders(), log_dir=tmp_path, max_models=max_models,
                    max_queue=max_queue, autoload=autoload, idle_unload=idle_unload)
    try:
        await engine.load("echo", options=options)
        yield engine
    finally:
        await engine.close()


def say(text: str, **values: Any) -> Request:
    """A request of one user message."""
    return Request(GenerationParams(**values), (message("user", text),))
