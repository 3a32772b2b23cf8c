"""What each browser tab has open: chat, head, character, model and parameters; kept in memory and saved at each change."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .core.errors import AppError, BadRequest, NotFound
from .core.params import GenerationParams
from .store.schema import LOCAL
from .store.sessions import SessionRow, SessionTable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """One tab's state. params: the changed parameters by name. head: the last message shown, None in an empty chat."""

    id: str
    owner: str = LOCAL
    conversation: str = ""
    head: int | None = None
    character: str = ""
    preset: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    system_prompt: str = ""
    user_name: str = ""
    persona: str = ""
    document: str = ""

    @property
    def speaker(self) -> str:
        """What the person is called where they gave no name."""
        return self.user_name or "You"

    def generation_params(self) -> GenerationParams:
        """The parameters as a value; a name or a value that this version does not know is left out, and the log says so."""
        params = GenerationParams()
        for name, value in self.params.items():
            try:
                params, unknown = params.with_values({name: value})
            except BadRequest as error:
                unknown = [error.message]
            if unknown:
                log.warning("A saved parameter is left out: %s", unknown[0])
        return params


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
            row = await asyncio.to_thread(self._table.get, id, owner)
            if row is None:
                row = await asyncio.to_thread(self._table.latest, owner)
            kept = {f.name: getattr(row, f.name) for f in dataclasses.fields(Session)} if row else self._first
            # Two first requests of one tab may both come here; the first answer stays.
            found = self._open.setdefault(id, Session(**{**kept, "id": id, "owner": owner}))
        if found.owner != owner:
            raise NotFound("This session belongs to somebody else.")
        return found

    async def update(self, id: str, **changes: Any) -> Session:
        """Change and save. Memory changes at once, so two quick changes of one tab never undo each other.

        A state that cannot be written now is written with the next change: it must not keep a message from being sent.
        """
        await self.get(id)
        changed = self._open[id] = dataclasses.replace(self._open[id], **changes)
        async with self._saving:  # one at a time and always the newest state, so an older one never lands last
            try:
                await asyncio.to_thread(self._table.save, SessionRow(**dataclasses.asdict(self._open[id])))
            except AppError as error:
                log.error("What the tab %s has open is not saved: %s", id, error.message)
        return changed
