"""The store of one data folder: everything that writes, made in one place and closed in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .cards import Cards
from .chats import Chats
from .documents import Documents
from .files import private_folder
from .journal import Journal
from .keyvalue import KeyValue
from .migrate import open_database
from .presets import Presets
from .recovery import Recovered, Recovery
from .schema import LOCAL
from .sessions import SessionTable
from .shelf import Shelf
from .trash import Trash

SHIPPED = Path(__file__).resolve().parents[2]


class Store:
    """A data folder, opened: chats, documents, sessions, small values, journals, presets and characters.

    Everything here is synchronous and may be called from any thread; on the event loop use asyncio.to_thread, except for
    JournalWriter.append, which returns at once. `shipped` holds the folders presets/ and characters/ that come with the app.
    Raises AppError where the folder or its database cannot be used; see migrate.open_database.
    """

    def __init__(self, data_dir: Path, *, shipped: Path = SHIPPED) -> None:
        self.data_dir = private_folder(Path(data_dir))
        self._database = open_database(self.data_dir)
        self.journal = Journal(self.data_dir / "journal")
        self.trash = Trash(self._database, self.journal, self.data_dir)
        self.chats = Chats(self._database, self.trash)
        self.documents = Documents(self._database)
        self.sessions = SessionTable(self._database)
        self.keyvalue = KeyValue(self._database)
        self.presets = Presets(Shelf("preset", shipped / "presets", self.data_dir / "presets"))
        self.cards = Cards(Shelf("character", shipped / "characters", self.data_dir / "characters"))
        self.trash.clean()

    def recover(self, is_alive: Callable[[str], bool]) -> Recovered:
        """Mark what dead processes were writing as interrupted, with its journal's text; `is_alive(instance)` spares others'."""
        return Recovery(self._database, self.chats, self.documents, self.journal).run(is_alive)

    def empty_trash(self, owner: str = LOCAL) -> int:
        """Delete everything in the trash for good: chats, documents, presets and characters; returns how many."""
        return (self.trash.purge_chats(owner) + self.trash.purge_documents(owner)
                + self.presets.shelf.empty_trash() + self.cards.shelf.empty_trash())

    def close(self) -> None:
        """Write what is in flight to its journals and close the database. A second call does nothing."""
        self.journal.close()
        self._database.close()
