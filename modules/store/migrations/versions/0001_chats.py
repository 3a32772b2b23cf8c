"""Chats, sessions, documents and small values."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False, server_default="local"),
        sa.Column("title", sa.Text(), nullable=False, server_default=""),
        sa.Column("character", sa.Text(), nullable=False, server_default=""),
        sa.Column("card", sa.JSON()),
        sa.Column("system_prompt", sa.Text(), nullable=False, server_default=""),
        sa.Column("settings", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.Column("trashed_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"))
    op.create_index("ix_conversations_owner_trashed_at_updated_id", "conversations", ["owner", "trashed_at", "updated", "id"])
    op.create_table(
        "nodes",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=True),
        sa.Column("conversation", sa.String(64), nullable=False),
        sa.Column("parent", sa.Integer()),
        sa.Column("owner", sa.String(64), nullable=False, server_default="local"),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("text", sa.Text(), nullable=False, server_default=""),
        sa.Column("parts", sa.JSON()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("finish", sa.Text(), nullable=False, server_default=""),
        sa.Column("sampled_ids", sa.LargeBinary(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False, server_default=""),
        sa.Column("loader", sa.Text(), nullable=False, server_default=""),
        sa.Column("quantization", sa.Text(), nullable=False, server_default=""),
        sa.Column("preset", sa.Text(), nullable=False, server_default=""),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("keep_from", sa.Integer()),
        sa.Column("run", sa.String(64), nullable=False, server_default=""),
        sa.Column("instance", sa.String(64), nullable=False, server_default=""),
        sa.Column("heartbeat", sa.Double()),
        sa.Column("stats", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
        sa.ForeignKeyConstraint(["conversation"], ["conversations.id"], name="fk_nodes_conversation", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["parent"], ["nodes.id"], name="fk_nodes_parent"),
        sqlite_autoincrement=True)
    op.create_index("ix_nodes_conversation_id", "nodes", ["conversation", "id"])
    op.create_index("ix_nodes_parent", "nodes", ["parent"])
    is_streaming = sa.text("status = 'streaming'")
    op.create_index("ix_nodes_streaming", "nodes", ["run"], sqlite_where=is_streaming, postgresql_where=is_streaming)
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False, server_default="local"),
        sa.Column("conversation", sa.String(64), nullable=False, server_default=""),
        sa.Column("head", sa.Integer()),
        *(sa.Column(name, sa.Text(), nullable=False, server_default="") for name in ("character", "preset")),
        sa.Column("params", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
        *(sa.Column(name, sa.Text(), nullable=False, server_default="")
          for name in ("model", "system_prompt", "user_name", "persona")),
        sa.Column("document", sa.String(64), nullable=False, server_default=""),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"))
    op.create_index("ix_sessions_owner_updated", "sessions", ["owner", "updated"])
    _documents()


def _documents() -> None:
    op.create_table(
        "documents",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False, server_default="local"),
        sa.Column("title", sa.Text(), nullable=False, server_default=""),
        sa.Column("version", sa.Integer()),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.Column("trashed_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_documents"))
    op.create_index("ix_documents_owner_trashed_at_updated_id", "documents", ["owner", "trashed_at", "updated", "id"])
    op.create_table(
        "document_versions",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=True),
        sa.Column("document", sa.String(64), nullable=False),
        sa.Column("parent", sa.Integer()),
        sa.Column("text", sa.Text(), nullable=False, server_default=""),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(64), nullable=False, server_default=""),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_document_versions"),
        sa.ForeignKeyConstraint(["document"], ["documents.id"], name="fk_document_versions_document", ondelete="CASCADE"),
        sqlite_autoincrement=True)
    op.create_index("ix_document_versions_document_id", "document_versions", ["document", "id"])
    op.create_table(
        "keyvalue",
        sa.Column("owner", sa.String(64), nullable=False, server_default="local"),
        sa.Column("key", sa.String(512), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_keyvalue"))
