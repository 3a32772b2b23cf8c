"""What each browser tab had open when it was last changed; a new tab copies its owner's latest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from ..core.session import LOCAL, Session
from .connection import Database
from .schema import sessions

KEPT = 1000


class SessionTable:
    """The saved sessions. Any thread may call."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = clock

    def get(self, id: str, owner: str = LOCAL) -> Session | None:
        """The session, or None where this owner has none of that id."""
        with self._database.read() as connection:
            row = connection.execute(select(sessions).where(sessions.c.id == id, sessions.c.owner == owner)).one_or_none()
        return _session(row) if row else None

    def latest(self, owner: str = LOCAL) -> Session | None:
        """The session changed last, or None where there is none."""
        newest = select(sessions).where(sessions.c.owner == owner).order_by(sessions.c.updated.desc(), sessions.c.id).limit(1)
        with self._database.read() as connection:
            row = connection.execute(newest).one_or_none()
        return _session(row) if row else None

    def save(self, session: Session) -> None:
        """Write the state as of now. With a new session the owner's oldest beyond KEPT are forgotten."""
        values = {**asdict(session), "updated": self._now()}
        owned = sessions.c.owner == session.owner
        with self._database.write() as connection:
            if connection.execute(update(sessions).where(sessions.c.id == session.id, owned).values(**values)).rowcount:
                return
            connection.execute(insert(sessions).values(**values))
            old = select(sessions.c.id).where(owned).order_by(sessions.c.updated.desc(), sessions.c.id).offset(KEPT).limit(KEPT)
            gone = connection.execute(old).scalars().all()
            if gone:
                connection.execute(delete(sessions).where(sessions.c.id.in_(gone)))


def _session(row: Row[Any]) -> Session:
    return Session(**row._mapping)
