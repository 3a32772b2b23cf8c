"""Colloquy: reads the settings, makes engine, stores, API and page, and serves them on one port."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from modules.assembly import Services, make_services
from modules.core.errors import AppError
from modules.instance import AlreadyRunning
from modules.setup import prepare_process, spare_what_stays, take_place

ROOT = Path(__file__).resolve().parent
LIMITS: Any = {"ws_max_size": 1 << 16, "timeout_graceful_shutdown": 10}  # bytes: pages only listen; seconds, with replies stopped


def make_app(services: Services, *, key: str = "", started: Callable[[], None] = lambda: None) -> Any:
    """The whole server as one ASGI application: guard, API, the page's routes, and the page last."""
    from modules.api.app import make_api
    from modules.guard import Guard, local_hosts
    from modules.ui.notebook_routes import notebook_routes
    from modules.ui.page import mount
    from modules.ui.page_services import PageServices
    from modules.ui.routes import ui_routes

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await services.open()
        spare_what_stays()
        started()
        try:
            yield
        finally:
            await services.close()

    store, settings = services.store, services.settings
    page = PageServices(services.engine, services.chat, services.sessions, services.notebook, store.presets, store.cards,
                        services.jobs, services.saved_options, services.downloads, services.conversions)
    api = make_api(services.engine, lifespan=lifespan)
    api.router.routes[:0] = [*ui_routes(page), *notebook_routes(services.notebook, services.engine)]
    mount(api, page, root_path=settings.root_path)
    hosts = local_hosts(settings.listen) | set(settings.allowed_hosts)
    return Guard(api, allowed_hosts=hosts, cors_origins=settings.cors_origins, api_key=key or None, root_path=settings.root_path)


def main(argv: Sequence[str]) -> int:
    """Run until stopped; 0 after a clean stop, 1 where another instance runs, 2 where a setting is at fault."""
    import uvicorn

    prepare_process()
    try:
        place = take_place(argv, os.environ)
        services = make_services(place.settings, ROOT)
        app = make_app(services, key=place.key, started=place.announce)
    except AppError as error:
        print(error.message, file=sys.stderr)
        if isinstance(error, AlreadyRunning) and error.url and "--no-browser" not in argv:
            webbrowser.open(error.url)
        return 1 if isinstance(error, AlreadyRunning) else 2
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio", **LIMITS))
    async def shutdown(sockets: list[Any] | None = None) -> None:
        await services.engine.close()  # first: a client's stream would hold up the end for as long as its reply takes
        await uvicorn.Server.shutdown(server, sockets)
    server.shutdown = shutdown  # type: ignore[method-assign]
    try:
        server.run(sockets=[place.socket])
    except KeyboardInterrupt:
        print("Colloquy has stopped.", flush=True)
    finally:
        place.instance.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
