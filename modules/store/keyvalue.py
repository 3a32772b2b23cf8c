"""Small values that are remembered: the model used last, the options saved for each model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, insert, select, update

from ..core.errors import TooLarge
from .connection import Database
from .schema import LOCAL, keyvalue

MAX_VALUE = 256 << 10
MAX_KEY = 512


class KeyValue:
    """JSON values by owner and key. Any thread may call.

    Keys in use: `last_model` (a name), `model_options:NAME` ({"loader", "options"}).
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = clock

    def get(self, key: str, default: Any = None, *, owner: str = LOCAL) -> Any:
        with self._database.read() as connection:
            row = connection.execute(select(keyvalue.c.value).where(keyvalue.c.owner == owner, keyvalue.c.key == key)).first()
        return row.value if row else default

    def set(self, key: str, value: Any, *, owner: str = LOCAL) -> None:
        """Remember a value that JSON can hold; None forgets it. Raises TooLarge."""
        length = len(json.dumps(value))
        if length > MAX_VALUE or len(key) > MAX_KEY:
            raise TooLarge(f"{key[:80]!r} cannot be remembered: {length:,} characters, at most {MAX_VALUE:,} are kept.")
        place = (keyvalue.c.owner == owner, keyvalue.c.key == key)
        values = {"value": value, "updated": self._now()}
        with self._database.write() as connection:
            if value is None:
                connection.execute(delete(keyvalue).where(*place))
            elif not connection.execute(update(keyvalue).where(*place).values(**values)).rowcount:
                connection.execute(insert(keyvalue).values(owner=owner, key=key, **values))
