"""The tables: chats as trees of nodes, tabs' sessions, documents with their versions, and small values.

Every row has an owner (`local` until there are users). Times are seconds since the epoch. The migrations under
`migrations/versions` make exactly these tables (a test compares them); a change here needs a new migration.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ..core.session import LOCAL as LOCAL

metadata = sa.MetaData(naming_convention={
    "pk": "pk_%(table_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"})


def storable(value: str) -> str:
    """The text with each lone surrogate, which no database can hold, replaced by U+FFFD; other text is returned as it is."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


class Words(sa.TypeDecorator[str]):
    """Text of any length in any script."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else storable(value)


def _owner() -> sa.Column[str]:
    return sa.Column("owner", sa.String(64), nullable=False, server_default=LOCAL)


def _words(name: str) -> sa.Column[str]:
    return sa.Column(name, Words(), nullable=False, server_default="")


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=False, server_default=sa.text("'{}'"))


def _time(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double(), nullable=False)


conversations = sa.Table(
    "conversations", metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    _owner(),
    _words("title"),
    _words("character"),  # its name when the chat began
    sa.Column("card", sa.JSON(none_as_null=True)),  # the whole card as it was then
    _words("system_prompt"),
    _json("settings"),
    _time("created"),
    _time("updated"),
    sa.Column("trashed_at", sa.Double()),
    sa.Index(None, "owner", "trashed_at", "updated", "id"),
)

nodes = sa.Table(
    "nodes", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("conversation", sa.String(64), sa.ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    sa.Column("parent", sa.Integer, sa.ForeignKey("nodes.id")),
    _owner(),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("name", Words()),
    _words("text"),  # what a person reads, and what the search index holds
    sa.Column("parts", sa.JSON(none_as_null=True)),  # the parts; NULL where the message is one text part, `text`
    sa.Column("status", sa.String(16), nullable=False),
    _words("finish"),
    sa.Column("sampled_ids", sa.LargeBinary, nullable=False, default=b""),  # uint32, little-endian
    _words("model"),
    _words("loader"),
    _words("quantization"),
    _words("preset"),
    sa.Column("seed", sa.BigInteger),
    sa.Column("keep_from", sa.Integer),
    sa.Column("run", sa.String(64), nullable=False, server_default=""),
    sa.Column("instance", sa.String(64), nullable=False, server_default=""),  # the process that runs it
    sa.Column("heartbeat", sa.Double()),  # when that process was last known to live
    _json("stats"),
    _time("created"),
    sa.Column("hidden", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index(None, "conversation", "id"),
    sa.Index(None, "parent"),
    sa.Index("ix_nodes_streaming", "run", sqlite_where=sa.text("status = 'streaming'"),
          postgresql_where=sa.text("status = 'streaming'")),
    sqlite_autoincrement=True,  # an id is never used twice, also after a purge
)

sessions = sa.Table(
    "sessions", metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    _owner(),
    sa.Column("conversation", sa.String(64), nullable=False, server_default=""),
    sa.Column("head", sa.Integer),
    _words("character"),
    _words("preset"),
    _json("params"),
    _words("model"),
    _words("system_prompt"),
    _words("user_name"),
    _words("persona"),
    sa.Column("document", sa.String(64), nullable=False, server_default=""),
    _time("updated"),
    sa.Index(None, "owner", "updated"),
)

documents = sa.Table(
    "documents", metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    _owner(),
    _words("title"),
    sa.Column("version", sa.Integer),  # the version shown; its row holds the text
    _time("created"),
    _time("updated"),
    sa.Column("trashed_at", sa.Double()),
    sa.Index(None, "owner", "trashed_at", "updated", "id"),
)

document_versions = sa.Table(
    "document_versions", metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("document", sa.String(64), sa.ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
    sa.Column("parent", sa.Integer),  # the version it was made from; gone where history was cut
    _words("text"),
    sa.Column("length", sa.Integer, nullable=False),  # characters of text
    sa.Column("run", sa.String(64), nullable=False, server_default=""),
    _time("created"),
    sa.Index(None, "document", "id"),
    sqlite_autoincrement=True,
)

keyvalue = sa.Table(
    "keyvalue", metadata,
    sa.Column("owner", sa.String(64), primary_key=True, server_default=LOCAL),
    sa.Column("key", sa.String(512), primary_key=True),
    sa.Column("value", sa.JSON(), nullable=False),
    _time("updated"),
)
