"""Open the database of a data folder: make it, bring an older one up to date after copying it, refuse a newer one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..core.errors import Conflict
from . import search, sqlite
from .connection import Database
from .files import private_folder

MIGRATIONS = Path(__file__).parent / "migrations"
FILE_NAME = "colloquy.db"
BACKUPS = "backups"


def revisions() -> list[str]:
    """All schema revisions, oldest first, from the names of the migration files."""
    return sorted(path.name.split("_", 1)[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def open_database(data_dir: Path) -> Database:
    """The folder's database with today's schema and its search index.

    Raises Conflict where a newer version of the app wrote it, and AppError where it cannot be read or copied; the file is
    then as it was.
    """
    private_folder(data_dir)
    path = data_dir / FILE_NAME
    known = revisions()
    is_there = path.exists() and path.stat().st_size > 0
    found = sqlite.revision(path) if is_there else None
    if found is not None and found not in known:
        raise Conflict(f"{path} was written by a newer version of Colloquy (schema {found}; this one knows up to {known[-1]}). "
                       "Nothing was changed. Update Colloquy, or give another --data-dir.")
    if found != known[-1]:
        if found is not None:
            sqlite.copy(path, data_dir / BACKUPS / f"colloquy-{found}-{time.strftime('%Y%m%d-%H%M%S')}.db")
        _upgrade(path, known[-1])
    database = Database(sqlite.connect(path), path)
    with database.write() as connection:
        search.prepare(connection)
    return database


def backups(data_dir: Path) -> list[Path]:
    """The copies made before migrations, oldest first."""
    return sorted((data_dir / BACKUPS).glob("colloquy-*.db"), key=lambda path: path.stat().st_mtime)


def config(connection: Any) -> Any:
    """Alembic's configuration for a connection; needs no file."""
    from alembic.config import Config  # takes a tenth of a second: only where there is something to migrate

    made = Config(attributes={"connection": connection})
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return made


def _upgrade(path: Path, target: str) -> None:
    """All steps in one transaction: after a failure the file is as it was."""
    from alembic import command

    database = Database(sqlite.connect(path, foreign_keys=False), path)
    try:
        with database.write() as connection:
            command.upgrade(config(connection), target)
    finally:
        database.close()
