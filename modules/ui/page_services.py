"""What the tabs are given: the services below them, and the few calls that work in threads."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..chat import ChatService
from ..conversions import Conversions
from ..core.character import Character
from ..core.params import GenerationParams
from ..downloads import Downloads
from ..engine import Engine
from ..jobs import Jobs
from ..notebook import Notebook
from ..saved_options import SavedOptions
from ..sessions import Sessions
from ..store.cards import Cards
from ..store.presets import Preset, Presets
from .services import Chats, Runs

ROOT = Path(__file__).resolve().parents[2]
MAX_BUILD_REPORT = 100_000


@dataclass(frozen=True)
class PageServices:
    """Everything the page and its routes use; made once by app.py. build_report: start.py's account of the llama.cpp build."""

    engine: Engine
    chat: ChatService
    sessions: Sessions
    notebook: Notebook
    presets: Presets
    cards: Cards
    jobs: Jobs
    saved_options: SavedOptions
    downloads: Downloads
    conversions: Conversions
    build_report: Path = ROOT / ".venv" / "llama_cpp_build.json"

    @property
    def chats(self) -> Chats:
        return self.chat

    @property
    def runs(self) -> Runs:
        return self.engine

    async def preset_names(self) -> list[str]:
        return await asyncio.to_thread(self.presets.names)

    async def preset(self, name: str) -> Preset:
        return await asyncio.to_thread(self.presets.load, name)

    async def save_preset(self, name: str, params: GenerationParams) -> None:
        await asyncio.to_thread(self.presets.save, name, params)

    async def character_names(self) -> list[str]:
        return await asyncio.to_thread(self.cards.names)

    async def character(self, name: str) -> Character:
        return await asyncio.to_thread(self.cards.load, name)

    async def save_character(self, name: str, character: Character) -> None:
        await asyncio.to_thread(self.cards.save, name, character)

    async def failed_build(self) -> dict[str, Any] | None:
        """Why llama-cpp-python is not there, as start.py wrote it; None where it was built or nothing is known."""
        return await asyncio.to_thread(_read_report, self.build_report)


def _read_report(path: Path) -> dict[str, Any] | None:
    try:
        with path.open(encoding="utf-8") as file:
            report = json.loads(file.read(MAX_BUILD_REPORT))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and not report.get("ok", True) else None
