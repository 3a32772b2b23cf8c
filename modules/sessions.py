"""What each browser tab has open: chat, head, character, model and parameters; kept in memory and saved at each change."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

from .core.errors import AppError, BadRequest, NotFound
from .core.session import LOCAL, Session
from .store.sessions import SessionTable

__all__ = ["Session", "Sessions"]

log = logging.getLogger(__name__)


class Sessions:
    """The open sessions; on the event loop. A tab that is new begins as a copy of its owner's latest."""

    def __init__(self, table: SessionTable, *, first: Mapping[str, Any] | None = None) -> None:
        """first: what an owner's very first session begins with, such as a preset."""
        self._table = table
        self._first = dict(first or {})
        self._open: dict[str, Session] = {}
        self._saving = asyncio.Lock()

    async def get(self, id: str, owner: str = LOCAL) -> Session:
        """The session of that id; raises BadRequest for an id that is none."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{8,64}", id):
            raise BadRequest("The page's session id is missing or broken; reload the page.", param="session")
        found = self._open.get(id)
        if found is None:
            saved = await asyncio.to_thread(self._table.get, id, owner)
            if saved is None:
                saved = await asyncio.to_thread(self._table.latest, owner)
            begun = dataclasses.replace(saved, id=id) if saved else Session(**{**self._first, "id": id, "owner": owner})
            # Two first requests of one tab may both come here; the first answer stays.
            found = self._open.setdefault(id, begun)
        if found.owner != owner:
            raise NotFound("This session belongs to somebody else.")
        return found

    async def copy(self, id: str, of: str, owner: str = LOCAL) -> Session:
        """Give a tab what another has open, as its duplicate shows at first."""
        state = await self.get(of, owner)
        await self.get(id, owner)
        kept = ("id", "owner")
        return await self.update(id, **{f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in kept})

    async def update(self, id: str, **changes: Any) -> Session:
        """Change and save. Memory changes at once, so two quick changes of one tab never undo each other.

        A state that cannot be written now is written with the next change: it must not keep a message from being sent.
        """
        await self.get(id)
        changed = self._open[id] = dataclasses.replace(self._open[id], **changes)
        async with self._saving:  # one at a time and always the newest state, so an older one never lands last
            try:
                await asyncio.to_thread(self._table.save, self._open[id])
            except AppError as error:
                log.error("What the tab %s has open is not saved: %s", id, error.message)
        return changed
