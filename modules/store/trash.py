"""Emptying the trash: what was deleted for good leaves no trace in tables, search index, log, journals or copies."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from . import search, sqlite
from .connection import Database
from .journal import Journal
from .migrate import backups
from .schema import LOCAL, conversations, documents, keyvalue, nodes, sessions

_PENDING = "trash_pending"      # set with the deletion and cleared after the cleaning, so that a crash between is made good

logger = logging.getLogger(__name__)


class Trash:
    """Deletes trashed chats and documents for good. Any thread may call.

    The pages that held the text are zeroed when they are freed (secure_delete), the search index is rewritten without it, in
    pieces between which others write, and the log is truncated: one to two seconds for every 100,000 messages in the database.
    Copies made before migrations go too: they hold every text of their time, and the database has been opened since.
    """

    def __init__(self, database: Database, journal: Journal, data_dir: Path) -> None:
        self._database = database
        self._journal = journal
        self._data_dir = data_dir

    def purge_chats(self, owner: str = LOCAL, ids: Sequence[str] | None = None) -> int:
        """Delete these of the owner's trashed chats, or all (None); returns how many. Others are left alone."""
        with self._database.write() as connection:
            gone = _trashed(connection, conversations.c, owner, ids)
            runs: list[str] = []
            for chat in gone:
                runs += connection.execute(select(nodes.c.run).where(nodes.c.conversation == chat, nodes.c.run != "")).scalars()
                search.remove(connection, [chat])
                connection.execute(delete(nodes).where(nodes.c.conversation == chat))
                connection.execute(delete(conversations).where(conversations.c.id == chat))
                connection.execute(update(sessions).where(sessions.c.conversation == chat).values(
                    conversation="", head=None, system_prompt=""))
            _mark(connection, bool(gone))
        self._journal.discard(runs=runs, conversations=gone)
        self.clean()
        return len(gone)

    def purge_documents(self, owner: str = LOCAL, ids: Sequence[str] | None = None) -> int:
        """Delete these of the owner's trashed documents, or all (None), with all their versions; returns how many."""
        with self._database.write() as connection:
            gone = _trashed(connection, documents.c, owner, ids)
            for document in gone:
                connection.execute(delete(documents).where(documents.c.id == document))
                connection.execute(update(sessions).where(sessions.c.document == document).values(document=""))
            _mark(connection, bool(gone))
        self._journal.discard(documents=gone)
        self.clean()
        return len(gone)

    def clean(self) -> None:
        """Remove what is left of purged text, where a purge says that there is some. Called at every opening too."""
        pending = (keyvalue.c.owner == LOCAL, keyvalue.c.key == _PENDING)
        with self._database.read() as connection:
            if connection.execute(select(keyvalue.c.key).where(*pending)).first() is None:
                return
        is_more = begin = True
        while is_more:
            with self._database.write() as connection:
                is_more = search.forget(connection, begin=begin)
            begin = False
        for path in backups(self._data_dir):
            path.unlink()
        if not sqlite.empty_log(self._database.engine):
            logger.warning("Deleted text is still in the log of %s, which a reader holds; it goes at the next start.",
                           self._database.path)
            return
        with self._database.write() as connection:
            connection.execute(delete(keyvalue).where(*pending))


def _trashed(connection: Connection, table: Any, owner: str, ids: Sequence[str] | None) -> list[str]:
    is_gone: ColumnElement[bool] = (table.owner == owner) & table.trashed_at.is_not(None)
    found = connection.execute(select(table.id).where(is_gone)).scalars().all()
    return [id for id in found if ids is None or id in set(ids)]


def _mark(connection: Connection, is_needed: bool) -> None:
    if is_needed:
        connection.execute(delete(keyvalue).where(keyvalue.c.owner == LOCAL, keyvalue.c.key == _PENDING))
        connection.execute(insert(keyvalue).values(owner=LOCAL, key=_PENDING, value=True, updated=time.time()))
