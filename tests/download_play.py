"""Downloads from the stand-in of the hub into a folder, as a start of the app makes them, and the fixtures of their tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from modules.downloads import Downloads, DownloadState
from modules.jobs import Jobs
from modules.models.catalog import Catalog
from modules.models.hub import Hub
from modules.models.hub_token import HubToken
from tests.hub_stand_in import Repo, StandIn, folder_files, gguf_bytes

REPO, FILE, CHOICE = "maker/small-GGUF", "small-Q4_K_M.gguf", "small-Q4_K_M"
SIZE = 3_000_000
HALF = SIZE // 2


class Play:
    """Downloads into a folder, with waits that take no time; as a start of the app makes them."""

    def __init__(self, url: str, models: Path, token: str = "") -> None:
        self.waits: list[float] = []
        self.models = models
        self.jobs = Jobs()
        self.downloads = Downloads(Hub(url, lambda: token, pause=self._pause), self.jobs, models, HubToken(models / "no-token"))

    async def _pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def fetch(self, repo: str = REPO, choice: str = CHOICE) -> DownloadState:
        """Start a download and wait for its end."""
        return await self.ended(await self.downloads.start(repo, choice))

    async def resume(self, id: str) -> DownloadState:
        await self.downloads.resume(id)
        return await self.ended(id)

    async def ended(self, id: str) -> DownloadState:
        await self.jobs.wait(self.downloads._entries[id].job)
        return self.state(id)

    def state(self, id: str) -> DownloadState:
        return next(state for state in self.downloads.list() if state.id == id)

    async def until(self, id: str, condition: Callable[[DownloadState], bool]) -> DownloadState:
        async with asyncio.timeout(60):
            while not condition(self.state(id)):
                await asyncio.sleep(0.01)
        return self.state(id)

    async def close(self) -> None:
        await self.jobs.close()
        await self.downloads.close()

    def names(self) -> list[str]:
        """What the list of models shows."""
        return [file.name for file in Catalog([self.models]).list()]

    def left(self) -> list[str]:
        """Every file below the model folder."""
        return sorted(path.relative_to(self.models).as_posix() for path in self.models.rglob("*") if path.is_file())


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn() as stand_in:
        stand_in.repos[REPO] = Repo({FILE: gguf_bytes(tmp_path, SIZE)})
        stand_in.repos["maker/folder"] = Repo(folder_files(3))
        yield stand_in


@pytest.fixture
async def play(stand_in: StandIn, tmp_path: Path) -> AsyncIterator[Play]:
    play = Play(stand_in.url, tmp_path / "models")
    yield play
    await play.close()
