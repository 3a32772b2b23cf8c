"""Makes the services in their order, opens them when the server starts, and closes them when it stops."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import registry
from .chat import ChatService
from .conversions import Conversions
from .core.errors import AppError
from .core.knobs import TRUE
from .core.settings import Settings
from .downloads import Downloads
from .engine import Engine, Held, LoadState
from .jobs import Jobs
from .models.adapters import AdapterCatalog
from .models.catalog import Catalog
from .models.hub import HUGGING_FACE, Hub
from .models.hub_token import TOKEN_FILE, HubToken
from .models.other_programs import usual_places
from .notebook import Notebook
from .replies import Replies
from .saved_options import SavedOptions
from .sessions import Sessions
from .store.database import Store

log = logging.getLogger("colloquy")
STARTERS = ("starter/starter-Q8_0", "starter")  # the second where llama.cpp is not there
LAST_MODEL = "last_model"
NONE = "none"
FIRST_PRESET = "Balanced"
BEAT_SECONDS = 10.0


@dataclass
class Services:
    """The running parts, made once. `open` and `close` are called on the event loop."""

    settings: Settings
    store: Store
    engine: Engine
    sessions: Sessions
    replies: Replies
    chat: ChatService
    notebook: Notebook
    jobs: Jobs
    saved_options: SavedOptions
    downloads: Downloads
    conversions: Conversions
    instance: str
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _stands_in: bool = False

    async def open(self) -> None:
        """Recover what a crash left, then load the model in the background while the page already answers."""
        recovered = await asyncio.to_thread(self.store.recover, lambda instance: instance == self.instance)
        if recovered.nodes or recovered.documents:
            log.info("Recovered %d interrupted replies and %d documents", len(recovered.nodes), len(recovered.documents))
        await self.downloads.recover()
        await self.conversions.recover()
        self._keep(asyncio.create_task(self._load_first(), name="first model"))
        self._keep(asyncio.create_task(self._beat(), name="beat"))

    async def close(self) -> None:
        """Stop the runs, save their text, end the processes, close the database."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.jobs.close()
        await self.downloads.close()
        await self.engine.close()
        await self.chat.again.close()
        await self.replies.close()
        await self.notebook.close()
        await asyncio.to_thread(self.store.close)

    async def _load_first(self) -> None:
        """The model asked for, else the one used last, else the starter model; the log says what failed.

        A starter model that stands in is not remembered: a disk that was not there today may be there tomorrow.
        """
        asked = self.settings.model
        if asked == NONE:
            return
        last = await asyncio.to_thread(self.store.keyvalue.get, LAST_MODEL, None)
        last = last if isinstance(last, dict) else {}
        names = [asked] if asked else [name for name in (str(last.get("name", "")), *STARTERS) if name]
        for name in names:
            saved = last if name == last.get("name") else {}
            self._stands_in = name != names[0]
            try:
                await self.engine.load(name, loader=self.settings.loader or str(saved.get("loader", "")),
                                       options=saved.get("options") if saved else None, with_adapters=True)
                return
            except AppError as error:
                log.warning("%s was not loaded: %s", name, error.message)
                if self.engine.watch.state.status == "idle":  # it was not found, so no load began that could tell of it
                    self.engine.watch.set(LoadState("failed", name, what=error.message, error=error))
            finally:
                self._stands_in = False

    def remember(self, held: Held) -> None:
        """Keep what was loaded, and how, for the next start."""
        if self._stands_in:
            return
        value = {"name": held.name, "loader": held.spec.name, "options": json.loads(json.dumps(held.asked))}
        self._keep(asyncio.create_task(asyncio.to_thread(self.store.keyvalue.set, LAST_MODEL, value), name="remember the model"))

    async def _beat(self) -> None:
        """Mark the rows of live replies as this process's, so that another process on one database leaves them alone."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self.engine.live_runs:
                try:
                    await asyncio.to_thread(self.store.chats.beat, self.instance)
                except AppError as error:
                    log.warning("The replies under way could not be marked as alive: %s", error.message)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold a task until it ends, and log why where it fails."""
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("The task %r failed", task.get_name(), exc_info=task.exception())


def _first_taste(store: Store) -> dict[str, Any]:
    """What the very first session samples with: neutral parameters are honest, but make a small model ramble."""
    try:
        return {"preset": FIRST_PRESET, "params": store.presets.load(FIRST_PRESET).params.changed()}
    except AppError as error:
        log.warning("New sessions begin with neutral parameters: %s", error.message)
        return {}


def _downloads(settings: Settings, data_dir: Path, folders: list[Path], jobs: Jobs) -> Downloads:
    """Into the first model folder. Raises BadRequest for an address that is none."""
    token = HubToken(data_dir / TOKEN_FILE, settings.hub_token)
    is_offline = settings.offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE
    hub = Hub(settings.hub_url or os.environ.get("HF_ENDPOINT") or HUGGING_FACE, token.get, is_offline=is_offline)
    folder = Path(os.path.abspath((folders or [data_dir / "models"])[0]))
    return Downloads(hub, jobs, folder, token)


def make_services(settings: Settings, root: Path) -> Services:
    """Everything below the page and the API. Opens the database: raises AppError where it cannot be used."""
    data_dir = Path(settings.data_dir).expanduser()
    store = Store(data_dir)
    folders = [path if path.is_absolute() else root / path for path in (Path(d).expanduser() for d in settings.models_dir)]
    log_dir = data_dir / "logs"
    log_dir.mkdir(parents=True, exist_ok=True)
    # A model named by path at the start may lie anywhere; a request may only name what is in the folders.
    others = [] if settings.own_models_only else usual_places(os.environ, Path.home())
    servers = Path(settings.servers).expanduser() if settings.servers else data_dir / "servers.yaml"
    catalog = Catalog(folders, allowed=[settings.model] if settings.model not in ("", NONE) else [], others=others,
                      servers=Path(os.path.abspath(servers)))
    loras = [path if path.is_absolute() else root / path for path in (Path(d).expanduser() for d in settings.loras_dir)]
    engine = Engine(catalog, registry.find_loaders(), log_dir=log_dir, max_models=settings.max_models,
                    max_queue=settings.max_queue, autoload=settings.autoload, idle_unload=settings.idle_unload,
                    adapters=AdapterCatalog(loras, folders))
    instance = secrets.token_hex(8)
    sessions = Sessions(store.sessions, first=_first_taste(store))
    replies = Replies(engine, store, instance)
    chat = ChatService(engine, store, sessions, store.cards, replies)
    notebook = Notebook(engine, store, sessions, instance)
    jobs = Jobs(changed=engine.watch.touch)  # the pages follow both by one socket
    saved_options = engine.saved_options = SavedOptions(store.keyvalue, engine.loaders)
    downloads = _downloads(settings, data_dir, folders, jobs)
    services = Services(settings, store, engine, sessions, replies, chat, notebook, jobs, saved_options, downloads,
                        Conversions(jobs, catalog, downloads.models), instance)
    engine.on_loaded = services.remember
    return services
