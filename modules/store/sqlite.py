"""SQLite's own side of the store: how a file is opened, read before it is trusted, copied whole, and cleaned of deleted text.

This file and search.py are the only ones that know SQLite.

`synchronous=FULL`: in WAL mode NORMAL survives a killed process, but a power cut may take the last commits with it. A commit
here is a person's message or a finished reply, a few a second at most, and FULL costs it one fsync of the log (median of 300
messages saved: 4.0 ms instead of 0.9), in a thread that nobody waits for while text streams. That goes to the journal.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import PoolProxiedConnection

from ..core.errors import AppError

BUSY_SECONDS = 30
PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", f"busy_timeout = {BUSY_SECONDS * 1000}", "secure_delete = ON",
           "temp_store = MEMORY", "cache_size = -8000")


def connect(path: Path, *, foreign_keys: bool = True) -> Engine:
    """An engine on the file, which is made readable by its owner alone.

    A connection with the execution option `immediate` takes the write lock when its transaction begins: one that reads first
    and writes later would otherwise fail at once, without waiting, where another wrote between. foreign_keys=False is for
    migrations, which replace tables under the rows that point at them.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=24, pool_timeout=BUSY_SECONDS,
                           connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None      # the driver begins no transactions of its own; `begin` below does
        for pragma in (*PRAGMAS, f"foreign_keys = {'ON' if foreign_keys else 'OFF'}"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def revision(path: Path) -> str | None:
    """The schema revision of an existing file, None for an empty one; writes nothing to it.

    Raises AppError where the file is not a database of Colloquy or cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return None
            if "alembic_version" not in tables:
                raise AppError(f"{path} is a database of another program. Nothing was changed; give another --data-dir.")
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(row[0]) if row else None
    except sqlite3.Error as error:
        raise AppError(f"The chat database {path} cannot be read ({error}). Nothing was changed. Move it away, or put one of the "
                       f"copies in {path.parent / 'backups'} in its place, and start again.") from error


def copy(path: Path, target: Path) -> None:
    """Write a consistent copy of the database, its log included, to `target`, which appears only when it is whole."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    free, size = shutil.disk_usage(target.parent).free, path.stat().st_size
    if free < size + (16 << 20):
        raise AppError(f"Before its upgrade the chat database is copied, which needs {size >> 20} MB in {target.parent}; "
                       f"{free >> 20} MB are free. Free some space and start again.")
    unfinished = target.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as source, closing(sqlite3.connect(unfinished)) as copied:
        source.backup(copied)
    unfinished.replace(target)


def empty_log(engine: Engine) -> bool:
    """Move the write-ahead log into the database and truncate it; False where another connection held it too long."""
    pooled: PoolProxiedConnection = engine.raw_connection()
    try:
        row = pooled.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # type: ignore[union-attr]
        return bool(row[0] == 0)
    finally:
        pooled.close()
