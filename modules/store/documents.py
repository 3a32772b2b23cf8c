"""Notebook documents: every save is a new version, undo and redo move between them, and a stale tab's save becomes a branch."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, insert, select, update

from ..core.errors import BadRequest, Conflict, NotFound, TooLarge
from .connection import Database
from .schema import LOCAL, document_versions, documents

MAX_TEXT = 16 << 20
MAX_VERSIONS = 500
MAX_HISTORY = 64 << 20      # characters of all versions of a document together
MAX_PAGE = 500
MAX_TITLE = 500
LAST_WORDS = 80             # characters of a version that the list of versions shows: what was added stands at the end


@dataclass(frozen=True)
class DocumentSummary:
    id: str
    title: str
    created: float
    updated: float
    trashed_at: float | None = None


@dataclass(frozen=True)
class Document(DocumentSummary):
    """A document with the text of the version shown. version: its id, to be given as `base` of the next save."""

    owner: str = LOCAL
    text: str = ""
    version: int = 0
    can_undo: bool = False
    can_redo: bool = False


@dataclass(frozen=True)
class Version:
    """A saved text in the list of a document's versions. length: its characters; ending: the last LAST_WORDS of them."""

    id: int
    created: float
    length: int
    ending: str
    is_shown: bool


class Documents:
    """The documents of a database. Any thread may call; every method is one transaction.

    Methods that take an id raise NotFound where the owner has no such document.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = clock

    def create(self, owner: str = LOCAL, *, title: str = "", text: str = "") -> Document:
        id, now = uuid.uuid4().hex, self._now()
        with self._database.write() as connection:
            connection.execute(insert(documents).values(id=id, owner=owner, title=title[:MAX_TITLE], created=now, updated=now))
            self._append(connection, id, None, text, run="")
            return _document(connection, id, owner)

    def get(self, id: str, owner: str = LOCAL) -> Document:
        with self._database.read() as connection:
            return _document(connection, id, owner)

    def listing(self, owner: str = LOCAL, *, trashed: bool = False, offset: int = 0,
                limit: int = 50) -> tuple[list[DocumentSummary], int]:
        """Documents, the last saved (in the trash: put there) first, and how many there are."""
        if not 0 < limit <= MAX_PAGE or offset < 0:
            raise BadRequest(f"limit must be from 1 to {MAX_PAGE} and offset 0 or more; got {limit} and {offset}.", param="limit")
        table = documents.c
        kept = (table.owner == owner, table.trashed_at.is_not(None) if trashed else table.trashed_at.is_(None))
        columns = select(table.id, table.title, table.created, table.updated, table.trashed_at)
        order = ((table.trashed_at.desc(),) if trashed else ()) + (table.updated.desc(), table.id.desc())
        newest = columns.where(*kept).order_by(*order).offset(offset).limit(limit)
        with self._database.read() as connection:
            total = connection.execute(select(func.count()).select_from(documents).where(*kept)).scalar_one()
            return [DocumentSummary(*row) for row in connection.execute(newest)], total

    def save(self, id: str, text: str, *, base: int, owner: str = LOCAL, run: str = "") -> Document:
        """Add a version made from version `base` and show it; text equal to the version shown adds none.

        Where another tab saved after `base`, this is a branch beside its version, which undo and then redo do not reach but
        `versions` lists. run: the run whose result this is. Raises Conflict in the trash, TooLarge beyond MAX_TEXT.
        """
        if len(text) > MAX_TEXT:
            raise TooLarge(f"A document may have {MAX_TEXT:,} characters; this one has {len(text):,}. Split it.")
        with self._database.write() as connection:
            shown = _document(connection, id, owner)
            if shown.trashed_at is not None:
                raise Conflict("This document is in the trash. Restore it, then save again.")
            if shown.text != text or run:
                self._append(connection, id, base, text, run=run)
                self._cut_history(connection, id)
            return _document(connection, id, owner)

    def undo(self, id: str, owner: str = LOCAL) -> Document:
        """Show the version from which the one shown was made; without one, nothing changes."""
        with self._database.write() as connection:
            shown = _document(connection, id, owner)
            above = _version(connection, id, shown.version).parent if shown.can_undo else None
            return self._show(connection, shown, above)

    def redo(self, id: str, owner: str = LOCAL) -> Document:
        """Show the newest version made from the one shown; without one, nothing changes."""
        with self._database.write() as connection:
            shown = _document(connection, id, owner)
            return self._show(connection, shown, _newest_child(connection, id, shown.version))

    def version(self, id: str, version: int, owner: str = LOCAL) -> str:
        """The text of one version; raises NotFound where history was cut before it."""
        with self._database.read() as connection:
            _find(connection, id, owner)
            row = _version(connection, id, version)
            if row is None:
                raise NotFound(f"Version {version} of this document is gone; only the last {MAX_VERSIONS} are kept.")
            return str(row.text)

    def versions(self, id: str, owner: str = LOCAL) -> list[Version]:
        """All that are kept, newest first."""
        table = document_versions.c
        start = case((table.length > LAST_WORDS, table.length - LAST_WORDS + 1), else_=1)
        with self._database.read() as connection:
            shown = _find(connection, id, owner).version
            columns = select(table.id, table.created, table.length, func.substr(table.text, start))
            kept = columns.where(table.document == id).order_by(table.id.desc())
            return [Version(*row, is_shown=row.id == shown) for row in connection.execute(kept)]

    def bring_back(self, id: str, version: int, owner: str = LOCAL) -> Document:
        """Show the text of any version again, as a new one made from the version shown; raises as `version` and `save` do.

        Two transactions: what is saved between them is a version beside this one.
        """
        return self.save(id, self.version(id, version, owner), base=self.get(id, owner).version, owner=owner)

    def has_run(self, id: str, run: str) -> bool:
        """Whether a version holds the result of this run."""
        table = document_versions.c
        with self._database.read() as connection:
            return connection.execute(select(table.id).where(table.document == id, table.run == run).limit(1)).first() is not None

    def rename(self, id: str, title: str, owner: str = LOCAL) -> None:
        self._set(id, owner, title=title[:MAX_TITLE])

    def trash(self, id: str, owner: str = LOCAL) -> None:
        self._set(id, owner, trashed_at=self._now())

    def restore(self, id: str, owner: str = LOCAL) -> None:
        self._set(id, owner, trashed_at=None)

    def _set(self, id: str, owner: str, **values: Any) -> None:
        with self._database.write() as connection:
            _find(connection, id, owner)
            connection.execute(update(documents).where(documents.c.id == id).values(**values))

    def _append(self, connection: Connection, id: str, base: int | None, text: str, *, run: str) -> None:
        now = self._now()
        made = connection.execute(insert(document_versions).values(document=id, parent=base, text=text, length=len(text), run=run,
                                                                   created=now).returning(document_versions.c.id)).scalar_one()
        connection.execute(update(documents).where(documents.c.id == id).values(version=made, updated=now))

    def _show(self, connection: Connection, shown: Document, version: int | None) -> Document:
        if version is None:
            return shown
        connection.execute(update(documents).where(documents.c.id == shown.id).values(version=version, updated=self._now()))
        return _document(connection, shown.id, shown.owner)

    def _cut_history(self, connection: Connection, id: str) -> None:
        """Forget the oldest versions beyond MAX_VERSIONS or MAX_HISTORY, never the newest, which is the one shown."""
        table = document_versions.c
        rows = connection.execute(select(table.id, table.length).where(table.document == id).order_by(table.id.desc())).all()
        characters, cut = 0, None
        for count, row in enumerate(rows):
            characters += row.length
            if count and (count >= MAX_VERSIONS or characters > MAX_HISTORY):
                cut = row.id
                break
        if cut is not None:
            connection.execute(delete(document_versions).where(table.document == id, table.id <= cut))


def _find(connection: Connection, id: str, owner: str) -> Row[Any]:
    row = connection.execute(select(documents).where(documents.c.id == id, documents.c.owner == owner)).one_or_none()
    if row is None:
        raise NotFound(f"There is no document {id!r}; it may have been deleted for good. Choose one from the list.")
    return row


def _version(connection: Connection, document: str, version: int | None) -> Any:
    """The version's row, or None where history was cut before it."""
    table = document_versions
    return connection.execute(select(table).where(table.c.id == version, table.c.document == document)).one_or_none()


def _newest_child(connection: Connection, document: str, version: int) -> int | None:
    table = document_versions.c
    return connection.execute(select(func.max(table.id)).where(table.document == document, table.parent == version)).scalar()


def _document(connection: Connection, id: str, owner: str) -> Document:
    row = _find(connection, id, owner)
    shown = _version(connection, id, row.version)
    table = document_versions.c
    above = connection.execute(select(table.id).where(table.id == shown.parent, table.document == id)).first()
    return Document(row.id, row.title, row.created, row.updated, row.trashed_at, owner=owner, text=shown.text, version=shown.id,
                    can_undo=above is not None, can_redo=_newest_child(connection, id, shown.id) is not None)
