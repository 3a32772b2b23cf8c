"""A database as the store's files use it: short read and write transactions, and errors in the person's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..core.errors import AppError


class Database:
    """An open, migrated database. Any thread may use it; each transaction has a connection of its own."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self.engine = engine
        self.path = path

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database throughout. Raises AppError where it cannot be read."""
        with self._translated("read"), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, kept when the block ends and undone when it raises. Raises AppError where it cannot be written."""
        with self._translated("written"), self.engine.connect() as connection:
            connection = connection.execution_options(immediate=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise AppError(f"The database {self.path} could not be {done} ({cause}); nothing was changed by this. See that the "
                           "disk has space and that no other program holds the file, then try again.") from error

    def close(self) -> None:
        self.engine.dispose()
