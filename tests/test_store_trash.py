"""Emptying the trash leaves no trace, whatever held the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modules.core.character import Character
from modules.core.messages import Message, ReasoningPart, TextPart, message
from modules.core.session import Session
from modules.store import migrate, search
from modules.store.database import Store

# Characters that occur nowhere else and share no first bytes: the index holds trigrams, each without what it shares with
# the one before, so that of each at least the last two characters can be seen in the file.
MARKER = "ꙮ𓀀ⲀꡀꝎ𐨀ⴰ"
ASCII_MARKER = "zqxjkvzqxjkv"


def traces(folder: Path) -> list[str]:
    """The files in which two characters of the marker, or the ASCII marker, can still be read."""
    pairs = [word[n:n + 2] for word in (MARKER, MARKER.lower()) for n in range(len(MARKER) - 1)]
    pieces = [ASCII_MARKER.encode(), json.dumps(MARKER[0]).strip('"').encode(), *(pair.encode() for pair in pairs)]
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
            if any(piece in path.read_bytes() for piece in pieces)]


def fill(store: Store) -> str:
    """A chat with the marker in every place that can hold text; returns its id."""
    words = f"{MARKER} {ASCII_MARKER}"
    chat = store.chats.create(title=words, character=Character(words, words), system_prompt=words, settings={"x": words})
    under = None
    for number in range(30):
        said = Message("assistant", (ReasoningPart(words), TextPart(f"{number} {words} " * 50)))
        under = store.chats.add(chat.id, under, said, stats={"error": words}, run=f"run{number}").id
    store.chats.hide(chat.id, under)
    streaming = store.chats.add(chat.id, None, message("assistant", words), status="streaming", run="live")
    store.journal.open("live", {"node": streaming.id, "conversation": chat.id}).append(words)
    store.journal.open("other", {"conversation": chat.id}).append(words)
    store.journal.flush()
    store.sessions.save(Session("tab", conversation=chat.id, head=under, system_prompt=words))
    return chat.id


def fill_document(store: Store) -> str:
    words = f"{MARKER} {ASCII_MARKER} " * 20
    document = store.documents.create(title=words, text=words)
    for number in range(10):
        document = store.documents.save(document.id, f"{number} {words}", base=document.version)
    store.journal.open("page", {"document": document.id}).append(words)
    store.journal.flush()
    return document.id


def around(store: Store) -> str:
    """Another chat, whose pages and index segments the marker's lie among."""
    chat = store.chats.create(title="stays")
    for number in range(40):
        store.chats.add(chat.id, None, message("user", f"other words {number} " * 30))
    return chat.id


def test_a_purged_chat_leaves_no_trace_in_any_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = Store(data)
    kept = around(store)
    chat = fill(store)
    around(store)
    broken = data / "journal" / "torn.journal"
    broken.write_text(f"no header {ASCII_MARKER}\n")
    assert traces(data), "the test could not see the marker before"
    store.chats.trash(chat)
    store.recover(lambda _: False)
    assert store.chats.purge() == 1
    assert traces(data) == []
    assert store.chats.listing(query="other words").total == 2 and store.chats.listing(query=MARKER).total == 0
    session = store.sessions.get("tab")
    assert session and (session.conversation, session.head, session.system_prompt) == ("", None, "")
    store.close()
    again = Store(data)
    assert len(again.chats.conversation(kept).nodes) == 40
    again.close()
    assert traces(data) == []


def test_a_purged_document_leaves_no_trace_in_any_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    document = fill_document(store)
    assert traces(tmp_path)
    store.documents.trash(document)
    assert store.trash.purge_documents() == 1
    assert traces(tmp_path) == []
    store.close()


def test_deleted_presets_and_characters_go_with_the_trash(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.cards.save("Someone", Character("Someone", ASCII_MARKER))
    store.cards.delete("Someone")
    store.cards.save("Someone", Character("Someone", ASCII_MARKER))
    store.cards.delete("Someone")
    assert len(traces(tmp_path)) == 2
    assert store.empty_trash() == 2 and traces(tmp_path) == []
    store.close()


def test_copies_made_before_migrations_go_with_the_purged_text(tmp_path: Path) -> None:
    from modules.store import sqlite

    store = Store(tmp_path / "data")
    chat = fill(store)
    sqlite.copy(tmp_path / "data" / migrate.FILE_NAME, tmp_path / "data" / migrate.BACKUPS / "colloquy-0000-then.db")
    store.chats.trash(chat)
    store.chats.purge(chat)
    assert traces(tmp_path) == [] and migrate.backups(tmp_path / "data") == []
    store.close()


def test_a_crash_between_deleting_and_cleaning_is_made_good_at_the_next_start(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    store = Store(data)
    around(store)
    chat = fill(store)
    store.chats.trash(chat)

    def crash(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(search, "forget", crash)
        with pytest.raises(KeyboardInterrupt):
            store.chats.purge()
    store.close()
    assert traces(data), "cleaning is what removes the last trace"
    Store(data).close()
    assert traces(data) == []


def test_a_live_reply_to_a_purged_chat_ends_without_a_word_on_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    chat = store.chats.create()
    writer = store.journal.open("r", {"conversation": chat.id})
    writer.append(ASCII_MARKER)
    store.chats.trash(chat.id)
    store.chats.purge()
    writer.append(ASCII_MARKER)
    store.journal.flush()
    writer.close()
    store.close()
    assert traces(tmp_path) == []
