"""Speaks through the app's own path: its catalog, loader process, chat template and prompt building."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules import registry
from modules.core.events import Request
from modules.core.messages import message
from modules.core.params import GenerationParams
from modules.engine import Engine
from modules.models.catalog import Catalog

from .speaker import Reply

TOGETHER = 8  # replies at a time; each batch of chats waits for its slowest


class AppSpeaker:
    """A loaded model of the app; `close` ends its process. Calls come one at a time, from one thread.

    options are the loader's own, as the Model tab names them: quantization="4bit" for nf4, dtype, threads.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._logs = tempfile.TemporaryDirectory()
        self._engine = Engine(Catalog([], allowed=[path]), registry.find_loaders(), log_dir=Path(self._logs.name))
        self._loop.run_until_complete(self._engine.load(str(path.resolve()), options={"slots": TOGETHER, **options}))

    def reply(self, chats: Sequence[list[dict[str, str]]], *, max_tokens: int = 200, temperature: float = 0.0,
              seed: int = 0) -> list[Reply]:
        """One reply to each chat, as Speaker says."""
        params = GenerationParams(temperature=temperature, seed=seed, max_tokens=max_tokens)
        return self._loop.run_until_complete(self._all(chats, params))

    async def _all(self, chats: Sequence[list[dict[str, str]]], params: GenerationParams) -> list[Reply]:
        free = asyncio.Semaphore(TOGETHER)

        async def one(chat: list[dict[str, str]]) -> Reply:
            messages = tuple(message(turn["role"], turn["content"]) for turn in chat)  # type: ignore[arg-type]
            async with free:
                run = self._engine.start(Request(params, messages=messages))
                end = await run.wait()
            return Reply(run.text(), end.reason == "stop")

        return list(await asyncio.gather(*map(one, chats)))

    def close(self) -> None:
        """End the model's process."""
        self._loop.run_until_complete(self._engine.close())
        self._loop.close()
        self._logs.cleanup()
