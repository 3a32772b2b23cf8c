"""After a crash every word that was on disk is in its chat or document, once, and nobody else's live reply is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.errors import AppError
from modules.core.messages import Message, ReasoningPart, TextPart, message
from modules.store.chats import Chats
from modules.store.database import Store

ROOT = Path(__file__).parents[1]


def nobody(instance: str) -> bool:
    return False


def begin_reply(store: Store, chat: str, run: str, start: Message | None = None, instance: str = "dead") -> int:
    said = start or Message("assistant", (), "Ann")
    node = store.chats.add(chat, None, said, status="streaming", run=run, instance=instance, sampled_ids=(9,), stats={"x": 1})
    store.journal.open(run, {"instance": instance, "conversation": chat, "node": node.id})
    return node.id


def append(store: Store, run: str, *pieces: tuple[str, str]) -> None:
    for channel, text in pieces:
        store.journal._writers[run].append(text, channel, [1])  # type: ignore[arg-type]


def crash(store: Store) -> Store:
    """The store as the next start finds it: files are there, nothing was finished."""
    store.close()
    return Store(store.data_dir)


def journals(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.journal.folder)) for path in store.journal.folder.rglob("*.journal"))


def test_a_reply_cut_off_is_interrupted_with_its_text_and_found_by_search(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chat = store.chats.create()
    node = begin_reply(store, chat.id, "r1")
    append(store, "r1", ("reasoning", "Let me "), ("reasoning", "think."), ("text", "The answer "), ("text", "is"))
    store = crash(store)
    assert store.recover(nobody).nodes == (node,)
    found = store.chats.node(node)
    assert found.message == Message("assistant", (ReasoningPart("Let me think."), TextPart("The answer is")), "Ann")
    assert (found.status, found.sampled_ids, found.stats) == ("interrupted", (), {"x": 1, "completion_tokens": 4})
    assert store.chats.listing(query="answer").total == 1
    assert journals(store) == [] and store.recover(nobody).nodes == ()
    store.close()


def test_a_continued_reply_keeps_what_it_went_on_from(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chat = store.chats.create()
    start = Message("assistant", (ReasoningPart("Hm. ", 2.0), TextPart("Once upon")))
    node = begin_reply(store, chat.id, "r1", start)
    append(store, "r1", ("text", " a time"), ("reasoning", "Well."))
    store = crash(store)
    store.recover(nobody)
    assert store.chats.node(node).message.content == (ReasoningPart("Hm. Well.", 2.0), TextPart("Once upon a time"))
    store.close()


def test_a_reply_without_a_journal_is_interrupted_as_it_was(tmp_path: Path) -> None:
    """The kill came between the row and the journal."""
    store = Store(tmp_path)
    chat = store.chats.create()
    node = store.chats.add(chat.id, None, message("assistant", "begun"), status="streaming", run="r")
    store = crash(store)
    assert store.recover(nobody).nodes == (node.id,)
    assert (store.chats.node(node.id).status, store.chats.node(node.id).message.text) == ("interrupted", "begun")
    store.close()


def test_a_finished_reply_is_not_changed_by_its_left_over_journal(tmp_path: Path) -> None:
    """The kill came between saving the reply and deleting its journal."""
    store = Store(tmp_path)
    chat = store.chats.create()
    node = begin_reply(store, chat.id, "r1")
    append(store, "r1", ("text", "the whole"))
    store.chats.finish(node, message("assistant", "the whole reply"), status="complete")
    store = crash(store)
    assert store.recover(nobody).nodes == () and journals(store) == []
    assert store.chats.node(node).message.text == "the whole reply"
    store.close()


def test_another_living_process_keeps_its_reply_and_its_journal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chat = store.chats.create()
    alive = begin_reply(store, chat.id, "r1", instance="alive")
    dead = begin_reply(store, chat.id, "r2")
    store = crash(store)
    assert store.recover(lambda instance: instance == "alive").nodes == (dead,)
    assert store.chats.node(alive).status == "streaming" and journals(store) == ["r1.journal"]
    store.chats.beat("alive")
    store.close()


def test_one_broken_journal_hides_no_other_and_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chat = store.chats.create()
    nodes = [begin_reply(store, chat.id, f"r{n}") for n in range(3)]
    for n in range(3):
        append(store, f"r{n}", ("text", f"reply {n}"))
    store.close()
    (tmp_path / "journal" / "r1.journal").write_bytes(b'\xff\x00garbage\n{"c":"text","t":"what is left","i":[]}\n')
    (tmp_path / "journal" / "stray.journal").write_bytes(b"\x00" * 100)
    store = Store(tmp_path)
    assert store.recover(nobody).nodes == tuple(nodes)
    assert [store.chats.node(node).message.text for node in nodes] == ["reply 0", "what is left", "reply 2"]
    assert journals(store) == ["unreadable/stray.journal"]
    store.close()


def test_a_reply_that_cannot_be_saved_keeps_its_journal_for_the_next_start(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    chat = store.chats.create()
    nodes = [begin_reply(store, chat.id, f"r{n}") for n in range(2)]
    for n in range(2):
        append(store, f"r{n}", ("text", f"reply {n}"))
    store = crash(store)
    real = Chats.finish

    def fail_first(self: Chats, node: int, *rest: object, **named: object) -> object:
        if node == nodes[0]:
            raise AppError("the disk is full")
        return real(self, node, *rest, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as disk:
        disk.setattr(Chats, "finish", fail_first)
        assert store.recover(nobody).nodes == (nodes[1],)
    assert journals(store) == ["r0.journal"] and store.chats.node(nodes[0]).status == "streaming"
    assert store.recover(nobody).nodes == (nodes[0],) and store.chats.node(nodes[0]).message.text == "reply 0"
    store.close()


def test_a_document_gets_its_text_once_and_on_the_version_it_was_written_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    doc = store.documents.create("ann", text="Once")
    header = {"instance": "dead", "document": doc.id, "base": doc.version, "owner": "ann"}
    store.journal.open("r1", header).append(" upon a time")
    store.documents.save(doc.id, "another tab's text", base=doc.version, owner="ann")
    store.journal.open("r2", header).append(" saved already")
    store.documents.save(doc.id, "Once saved already", base=doc.version, owner="ann", run="r2")
    store.journal.open("r3", {"document": "purged since", "base": 1}).append("x")
    store = crash(store)
    assert store.recover(nobody).documents == (doc.id,)
    assert store.documents.get(doc.id, "ann").text == "Once upon a time" and journals(store) == []
    texts = [store.documents.version(doc.id, one.id, "ann") for one in store.documents.versions(doc.id, "ann")]
    assert texts == ["Once upon a time", "Once saved already", "another tab's text", "Once"]
    store.close()


def test_text_written_for_a_trashed_document_brings_it_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    doc = store.documents.create(text="a")
    store.journal.open("r1", {"document": doc.id, "base": doc.version}).append("b")
    store.documents.trash(doc.id)
    store = crash(store)
    store.recover(nobody)
    assert (store.documents.get(doc.id).text, store.documents.get(doc.id).trashed_at) == ("ab", None)
    store.close()


CHILD = """
import sys, time
from pathlib import Path
from modules.core.messages import Message, message
from modules.store.database import Store
store = Store(Path(sys.argv[1]))
chat = store.chats.create(title="killed")
under = None
for turn in range(10_000):
    under = store.chats.add(chat.id, under, message("user", f"question {turn}")).id
    print("saved", under, f"question {turn}", flush=True)
    node = store.chats.add(chat.id, under, Message("assistant", ()), status="streaming", run=f"r{turn}", instance="child")
    writer = store.journal.open(f"r{turn}", {"instance": "child", "conversation": chat.id, "node": node.id})
    words = [f"{turn}.{n} " for n in range(20)]
    for word in words:
        writer.append(word)
        time.sleep(0.001)
    store.chats.finish(node.id, message("assistant", "".join(words)), status="complete")
    print("saved", node.id, "".join(words), flush=True)
    writer.close(delete=True)
    under = node.id
"""


@pytest.mark.parametrize("n_lines", [1, 2, 7, 20, 41])
def test_kill_at_any_moment_loses_no_saved_message_and_the_database_opens(tmp_path: Path, n_lines: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    try:
        lines = [child.stdout.readline() for _ in range(n_lines)]
    finally:
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
        child.wait()
        child.stdout.close()
    saved = {int(line.split(" ", 2)[1]): line.split(" ", 2)[2].rstrip("\n") for line in lines if line.endswith("\n")}
    store = Store(tmp_path)
    store.recover(nobody)
    [chat] = store.chats.listing().chats
    found = store.chats.conversation(chat.id).nodes
    assert len(saved) >= n_lines
    assert {id: found[id].message.text for id in saved} == saved
    last = found[max(found)]
    words = [f"{last.message.text.split('.')[0]}.{n} " for n in range(20)] if last.message.role == "assistant" else []
    assert "".join(words).startswith(last.message.text) or last.message.role == "user"
    assert {node.status for node in found.values()} <= {"complete", "interrupted"} and journals(store) == []
    assert len(found) - len(saved) <= 2, "at most the reply in flight and one not yet printed"
    store.close()
