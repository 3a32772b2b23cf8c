"""Full-text search over messages with SQLite's FTS5 trigrams: any script, any part of a word, upper or lower case.

The index holds every node that is not streaming, from the moment its text is final. It is derived: where it is absent,
`prepare` builds it from the nodes, so no migration has to know it. (It reads texts from the nodes table: an entry can be
removed only while its node still has the text it was put with.)
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, text

from ..core.errors import BadRequest
from .schema import storable

MAX_QUERY = 256
NEWEST = 100_000      # matching messages looked at, newest first
PIECE = 2000          # pages of the index rewritten at once, about a tenth of a second

_CREATE = """CREATE VIRTUAL TABLE node_search USING fts5(text, content='nodes', content_rowid='id', tokenize='trigram')"""
_FILL = "INSERT INTO node_search(rowid, text) SELECT id, text FROM nodes WHERE status <> 'streaming'"
_PUT = text("INSERT INTO node_search(rowid, text) VALUES (:node, :words)")
_REMOVE = text("INSERT INTO node_search(node_search, rowid, text) SELECT 'delete', id, text FROM nodes "
               "WHERE conversation IN :conversations AND status <> 'streaming'"
               ).bindparams(bindparam("conversations", expanding=True))
_HITS = """
SELECT nodes.conversation, max(nodes.id), count(*) FROM ({found}) AS found
JOIN nodes ON nodes.id = found.id JOIN conversations ON conversations.id = nodes.conversation
WHERE NOT nodes.hidden AND conversations.owner = :owner AND (conversations.trashed_at IS NOT NULL) = :trashed
GROUP BY nodes.conversation"""


def prepare(connection: Connection) -> None:
    """Make the index where there is none."""
    if not connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'node_search'").first():
        connection.exec_driver_sql(_CREATE)
        connection.exec_driver_sql(_FILL)


def put(connection: Connection, node: int, words: str) -> None:
    """Index a node whose text is final; call it once, in the transaction that made it so."""
    connection.execute(_PUT, {"node": node, "words": storable(words)})


def remove(connection: Connection, conversations: Sequence[str]) -> None:
    """Take all nodes of these conversations out; call it before their rows are deleted."""
    connection.execute(_REMOVE, {"conversations": list(conversations)})


def forget(connection: Connection, *, begin: bool) -> bool:
    """Rewrite a piece of the index without what was removed: until then FTS5 keeps removed words and only marks them.

    Call it first with begin=True, then without, each in a transaction of its own, until it returns False. In one piece (FTS5's
    `optimize`) other writers would wait for all of it, a second for every 100,000 messages.
    """
    before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
    pages = -PIECE if begin else PIECE      # a negative number puts all segments into one merge
    connection.exec_driver_sql(f"INSERT INTO node_search(node_search, rank) VALUES ('merge', {pages})")
    return bool(connection.exec_driver_sql("SELECT total_changes()").scalar_one() - before >= 2)   # as FTS5's manual says


def terms(query: str) -> list[str]:
    """The words of a query; all of them must occur in what is found. Raises BadRequest for a query that is too long."""
    if len(query) > MAX_QUERY:
        raise BadRequest(f"A search may have {MAX_QUERY} characters; this one has {len(query):,}.", param="query")
    return storable(query).replace("\x00", " ").split()


def hits(connection: Connection, words: Sequence[str], owner: str, *, trashed: bool) -> tuple[dict[str, int], bool]:
    """The newest matching visible node of each conversation; False where more than NEWEST messages match.

    Words of three characters or more are looked up; shorter ones are looked for in what those found, or, where there are
    none, in all messages of the owner.
    """
    found, values = _found(words)
    rows = connection.execute(text(_HITS.format(found=found)), {**values, "owner": owner, "trashed": trashed}).all()
    return {row[0]: row[1] for row in rows}, sum(row[2] for row in rows) < NEWEST


def _found(words: Sequence[str]) -> tuple[str, dict[str, object]]:
    """A SELECT of the ids of matching nodes, newest first, and its values."""
    values: dict[str, object] = {"newest": NEWEST}
    long = [word for word in words if len(word) >= 3]
    conditions = []
    for number, word in enumerate(word for word in words if len(word) < 3):
        spellings = {f"short{number}_{n}": f"%{_escape(spelling)}%" for n, spelling in enumerate(_spellings(word))}
        conditions.append("(" + " OR ".join(f"nodes.text LIKE :{name} ESCAPE '\\'" for name in spellings) + ")")
        values.update(spellings)
    if not long:
        return (f"SELECT nodes.id FROM nodes WHERE status <> 'streaming' AND {' AND '.join(conditions)} "
                "ORDER BY nodes.id DESC LIMIT :newest"), values
    values["match"] = " AND ".join('"' + word.replace('"', '""') + '"' for word in long)
    if not conditions:
        return "SELECT rowid AS id FROM node_search WHERE node_search MATCH :match ORDER BY rowid DESC LIMIT :newest", values
    return ("SELECT nodes.id FROM node_search JOIN nodes ON nodes.id = node_search.rowid WHERE node_search MATCH :match "
            f"AND {' AND '.join(conditions)} ORDER BY nodes.id DESC LIMIT :newest"), values


def _spellings(word: str) -> list[str]:
    """The word in upper and lower case, character by character: LIKE itself knows the case of ASCII only."""
    choices = [{char} if char.isascii() else {char, char.lower(), char.upper()} for char in word]
    return ["".join(spelling) for spelling in itertools.product(*choices)]


def _escape(word: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", word)


def snippet(message: str, words: Sequence[str], *, before: int = 40, after: int = 100) -> str:
    """A line of the message around the first of the words in it, as plain text, with `…` where it was cut."""
    places = [place.start() for word in words if (place := re.search(re.escape(word), message, re.IGNORECASE))]
    middle = min(places, default=0)
    start, stop = max(0, middle - before), middle + after
    line = " ".join(message[start:stop].split())
    return f"{'…' if start else ''}{line}{'…' if stop < len(message) else ''}"
