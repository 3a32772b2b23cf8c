"""Documents keep every saved text within their bounds; sessions and small values come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.core.errors import BadRequest, Conflict, NotFound, TooLarge
from modules.core.session import Session
from modules.store import documents as documents_file
from modules.store import sessions as sessions_file
from modules.store.database import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data")
    yield opened
    opened.close()


def test_undo_and_redo_walk_the_saved_texts(store: Store) -> None:
    doc = store.documents.create(title="t", text="0")
    assert not doc.can_undo and not doc.can_redo
    for n in range(1, 4):
        doc = store.documents.save(doc.id, str(n), base=doc.version)
    texts = [(doc := store.documents.undo(doc.id)).text for _ in range(4)]
    assert texts == ["2", "1", "0", "0"] and doc.can_redo and not doc.can_undo
    texts = [(doc := store.documents.redo(doc.id)).text for _ in range(4)]
    assert texts == ["1", "2", "3", "3"] and doc.can_undo and not doc.can_redo


def test_a_save_after_undo_loses_no_text(store: Store) -> None:
    doc = store.documents.create(text="a")
    doc = store.documents.save(doc.id, "ab", base=doc.version)
    doc = store.documents.undo(doc.id)
    doc = store.documents.save(doc.id, "ac", base=doc.version)
    assert not doc.can_redo and store.documents.undo(doc.id).text == "a" and store.documents.redo(doc.id).text == "ac"
    assert {store.documents.version(doc.id, version.id) for version in store.documents.versions(doc.id)} == {"a", "ab", "ac"}


def test_two_tabs_saving_on_the_same_version_keep_both_texts(store: Store) -> None:
    start = store.documents.create(text="start")
    store.documents.save(start.id, "first tab", base=start.version)
    stale = store.documents.save(start.id, "second tab", base=start.version)
    assert stale.text == "second tab" and store.documents.undo(start.id).text == "start"
    kept = [store.documents.version(start.id, version.id) for version in store.documents.versions(start.id)]
    assert kept == ["second tab", "first tab", "start"]


def test_a_version_beside_the_shown_one_comes_back_on_top_and_nothing_is_lost(store: Store) -> None:
    """What a tab had saved before another saved from the same version was reached by neither undo nor redo."""
    start = store.documents.create(text="start")
    first = store.documents.save(start.id, "first tab " * 20, base=start.version)
    second = store.documents.save(start.id, "second tab", base=start.version)
    listed = store.documents.versions(start.id)
    assert [(v.id, v.length, v.is_shown) for v in listed] == [
        (second.version, 10, True), (first.version, 200, False), (start.version, 5, False)]
    assert [v.ending for v in listed] == ["second tab", ("first tab " * 20)[-documents_file.LAST_WORDS:], "start"]
    back = store.documents.bring_back(start.id, first.version)
    assert back.text == "first tab " * 20 and len(store.documents.versions(start.id)) == 4
    assert store.documents.undo(start.id).text == "second tab" and store.documents.redo(start.id).text == back.text
    with pytest.raises(NotFound):
        store.documents.bring_back(store.documents.create().id, first.version)


def test_saving_the_same_text_adds_no_version(store: Store) -> None:
    doc = store.documents.create(text="same")
    assert store.documents.save(doc.id, "same", base=doc.version).version == doc.version
    assert len(store.documents.versions(doc.id)) == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["save", "stale", "undo", "redo"]), max_size=15))
def test_no_order_of_steps_loses_a_saved_text(store: Store, steps: list[str]) -> None:
    doc = store.documents.create(text="0")
    first, saved = doc.version, {"0"}
    for number, step in enumerate(steps):
        if step == "undo":
            doc = store.documents.undo(doc.id)
        elif step == "redo":
            doc = store.documents.redo(doc.id)
        else:
            saved.add(f"text {number}")
            doc = store.documents.save(doc.id, f"text {number}", base=doc.version if step == "save" else first)
            assert doc.text == f"text {number}"
    assert {store.documents.version(doc.id, version.id) for version in store.documents.versions(doc.id)} == saved
    assert store.documents.get(doc.id) == doc


@pytest.mark.parametrize(("bound", "value", "kept"), [("MAX_VERSIONS", 5, 5), ("MAX_HISTORY", 35, 3)])
def test_history_is_bounded_and_the_newest_text_stays(
        store: Store, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, kept: int) -> None:
    """Ten characters a version: 35 hold three."""
    monkeypatch.setattr(documents_file, bound, value)
    doc = store.documents.create(text="x" * 10)
    for n in range(12):
        doc = store.documents.save(doc.id, f"{n:010}", base=doc.version)
    assert len(store.documents.versions(doc.id)) == kept
    texts = [(doc := store.documents.undo(doc.id)).text for _ in range(kept + 2)]
    assert texts[-1] == f"{12 - kept:010}" and not doc.can_undo
    with pytest.raises(NotFound, match="is gone"):
        store.documents.version(doc.id, 1)
    monkeypatch.setattr(documents_file, "MAX_TEXT", 5)
    with pytest.raises(TooLarge):
        store.documents.save(doc.id, "123456", base=doc.version)


def test_a_text_larger_than_the_whole_history_is_still_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_file, "MAX_HISTORY", 5)
    doc = store.documents.create(text="x")
    assert store.documents.save(doc.id, "long text", base=doc.version).text == "long text"


def test_a_document_lists_renames_and_returns_from_the_trash(store: Store) -> None:
    one, two = store.documents.create(title="one"), store.documents.create(title="two")
    store.documents.save(one.id, "x", base=one.version)
    assert [d.title for d in store.documents.listing()[0]] == ["one", "two"]
    store.documents.rename(two.id, "zwei")
    store.documents.trash(two.id)
    with pytest.raises(Conflict, match="in the trash"):
        store.documents.save(two.id, "y", base=two.version)
    assert (store.documents.listing()[1], [d.title for d in store.documents.listing(trashed=True)[0]]) == (1, ["zwei"])
    store.documents.restore(two.id)
    assert store.documents.listing()[1] == 2
    with pytest.raises(BadRequest):
        store.documents.listing(limit=0)


def test_another_owner_sees_and_changes_no_document(store: Store) -> None:
    doc = store.documents.create("ann", text="secret")
    for attempt in (lambda: store.documents.get(doc.id, "bob"), lambda: store.documents.undo(doc.id, "bob"),
                    lambda: store.documents.save(doc.id, "x", base=doc.version, owner="bob"),
                    lambda: store.documents.version(doc.id, doc.version, "bob"), lambda: store.documents.versions(doc.id, "bob"),
                    lambda: store.documents.trash(doc.id, "bob"), lambda: store.documents.rename(doc.id, "x", "bob")):
        with pytest.raises(NotFound):
            attempt()
    other = store.documents.create("bob")
    with pytest.raises(NotFound):
        store.documents.version(other.id, doc.version, "bob")
    assert store.documents.listing("bob")[1] == 1 and store.trash.purge_documents("bob", [doc.id]) == 0


# ---- sessions and small values

def test_a_session_comes_back_and_the_latest_is_the_one_changed_last(store: Store) -> None:
    assert store.sessions.get("a") is None and store.sessions.latest() is None
    a = Session("a", conversation="c", head=3, character="Åsa", preset="p", params={"stop": ["x"]}, model="m",
                   system_prompt="s", user_name="You", persona="me", document="d")
    store.sessions.save(a)
    store.sessions.save(Session("b"))
    store.sessions.save(Session("c", owner="ann"))
    assert (latest := store.sessions.latest()) and latest.id == "b"
    store.sessions.save(a)
    found = store.sessions.latest()
    assert found and found.updated > 0 and Session(**{**vars(found), "updated": 0.0}) == a
    assert store.sessions.get("c") is None and store.sessions.get("c", "ann")


def test_old_sessions_are_forgotten_beyond_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_file, "KEPT", 3)
    store.sessions.save(Session("other", owner="ann"))
    for n in range(6):
        store.sessions.save(Session(str(n)))
    assert [n for n in range(6) if store.sessions.get(str(n))] == [3, 4, 5] and store.sessions.get("other", "ann")


def test_small_values_are_remembered_by_owner_and_forgotten(store: Store) -> None:
    values = store.keyvalue
    assert values.get("last_model", "none") == "none"
    for value in ("a", {"options": {"n": [1, 2.5, True, "é"]}}, False, 0, ""):
        values.set("last_model", value)
        assert values.get("last_model") == value and values.get("last_model", owner="ann") is None
    values.set("last_model", None)
    assert values.get("last_model", 5) == 5
    with pytest.raises(TooLarge):
        values.set("big", "x" * 300_000)
