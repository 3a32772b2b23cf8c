"""The database opens whatever earlier version wrote it, and refuses what it must not touch."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from modules.core.errors import AppError, Conflict
from modules.core.messages import message
from modules.store import migrate, sqlite
from modules.store.connection import Database
from modules.store.database import Store
from modules.store.schema import metadata

REVISIONS = migrate.revisions()


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but the search index's own."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                 if not name.startswith(("sqlite_", "node_search"))]
        return {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}


def write_old_database(path: Path, revision: str) -> None:
    """A database as the app of that revision left it: one row in each table, a value of its type in each column."""
    from alembic import command

    path.parent.mkdir(parents=True)
    database = Database(sqlite.connect(path), path)
    with database.write() as connection:
        command.upgrade(migrate.config(connection), revision)
        found = sa.MetaData()
        found.reflect(connection)
        for table in found.sorted_tables:
            if table.name != "alembic_version":
                connection.execute(sa.insert(table).values({column.name: sample(column) for column in table.columns}))
    database.close()


def sample(column: sa.Column[Any]) -> Any:
    if column.name == "parent":
        return None
    if column.name in ("parts", "card"):
        return sa.null()
    if column.name == "trashed_at":
        return None
    if column.name == "owner":
        return "local"
    if column.name == "status":
        return "complete"
    if column.name == "role":
        return "user"
    kind = column.type
    if isinstance(kind, sa.JSON):
        return {}
    if isinstance(kind, sa.LargeBinary):
        return b"\1\0\0\0"
    if isinstance(kind, sa.Boolean):
        return False
    if isinstance(kind, (sa.Integer, sa.Double, sa.Float)):
        return 1
    return "one" if column.name in ("id", "conversation", "document") else "words to find"


def test_migration_files_are_one_chain_in_the_order_of_their_names() -> None:
    from alembic.script import ScriptDirectory

    chain = [script.revision for script in ScriptDirectory.from_config(migrate.config(None)).walk_revisions()]
    assert chain[::-1] == REVISIONS


def test_migrations_make_exactly_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = migrate.open_database(tmp_path)
    with database.read() as connection:
        options = {"include_name": lambda name, kind, parents: not str(name).startswith("node_search"), "compare_type": True}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    database.close()
    assert differences == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_each_earlier_revision_opens_with_its_chats(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "data" / migrate.FILE_NAME
    write_old_database(path, revision)
    before = tables(path)
    with_copy = revision != REVISIONS[-1]
    store = Store(tmp_path / "data")
    conversation = store.chats.conversation("one")
    found = store.chats.listing(query="words find")
    store.chats.add("one", None, message("user", "and a new one"))
    store.close()
    assert [node.message.text for node in conversation.nodes.values()] == ["words to find"]
    assert [chat.id for chat in found.chats] == ["one"]
    copies = migrate.backups(tmp_path / "data")
    assert len(copies) == with_copy
    assert all(revision in copy.name and tables(copy) == before for copy in copies)


def add_revision(monkeypatch: pytest.MonkeyPatch, folder: Path, step: str) -> None:
    """Pretend that the app's next version adds a migration whose body is `step`."""
    import shutil

    shutil.copytree(migrate.MIGRATIONS, folder)
    (folder / "versions" / "9999_next.py").write_text(
        f"from alembic import op\nimport sqlalchemy as sa\nrevision = '9999'\ndown_revision = {REVISIONS[-1]!r}\n"
        f"def upgrade():\n    {step}\n")
    monkeypatch.setattr(migrate, "MIGRATIONS", folder)


def test_a_whole_copy_is_made_before_migrating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "data")
    chat = store.chats.create(title="kept")
    store.chats.add(chat.id, None, message("user", "a word in the log, not yet in the file"))
    before = tables(tmp_path / "data" / migrate.FILE_NAME)
    # The log is left unmerged by a connection that stays open.
    with store._database.read() as held:
        held.execute(sa.text("SELECT 1"))
        add_revision(monkeypatch, tmp_path / "migrations", "op.add_column('conversations', sa.Column('mood', sa.Text()))")
        later = Store(tmp_path / "data")
        assert later.chats.summary(chat.id).title == "kept"
        later.close()
    store.close()
    [copy] = migrate.backups(tmp_path / "data")
    assert REVISIONS[-1] in copy.name and tables(copy) == before
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_a_failed_migration_leaves_the_database_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "data")
    store.chats.create(title="kept")
    store.close()
    path = tmp_path / "data" / migrate.FILE_NAME
    before = tables(path)
    with monkeypatch.context() as later:
        add_revision(later, tmp_path / "migrations", "op.drop_table('documents'); op.drop_table('nodes'); 1 / 0")
        with pytest.raises(ZeroDivisionError):
            Store(tmp_path / "data")
    assert tables(path) == before
    again = Store(tmp_path / "data")
    assert again.chats.listing().total == 1
    again.close()


def test_a_newer_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    Store(tmp_path / "data").close()
    path = tmp_path / "data" / migrate.FILE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(Conflict, match="newer version of Colloquy"):
        Store(tmp_path / "data")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database at all, " * 200, b"SQLite format 3\x00" + b"\x00" * 5000])
def test_a_broken_database_is_named_and_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / migrate.FILE_NAME
    path.write_bytes(content)
    with pytest.raises(AppError, match=r"colloquy\.db"):
        Store(tmp_path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / migrate.FILE_NAME)) as connection:
        connection.execute("CREATE TABLE songs (name)")
    with pytest.raises(AppError, match="another program"):
        Store(tmp_path)


def test_the_data_folder_and_the_database_are_their_owners_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.chats.create(title="private")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    for path in (tmp_path / "data").glob("colloquy.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    store.close()


def test_opening_an_up_to_date_database_does_not_import_alembic(tmp_path: Path) -> None:
    """Starting the app takes its time from the person; Alembic costs a tenth of a second."""
    import subprocess
    import sys

    Store(tmp_path).close()
    code = (f"import sys; from pathlib import Path; from modules.store.database import Store\n"
            f"Store(Path({str(tmp_path)!r})).close()\nassert 'alembic' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
