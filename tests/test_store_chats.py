"""Chats: no word is lost, nothing is written over, and the list and the search find what is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.core.character import Character
from modules.core.errors import BadRequest, Conflict, NotFound, TooLarge
from modules.core.messages import MediaPart, Message, ReasoningPart, TextPart, ToolCallPart, ToolResultPart, message
from modules.store import nodes as nodes_file
from modules.store.database import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data")
    yield opened
    opened.close()


def say(store: Store, chat: str, text: str, under: int | None = None) -> int:
    return store.chats.add(chat, under, message("user", text)).id


# ---- writing

def test_a_message_comes_back_as_it_was_said(store: Store) -> None:
    chat = store.chats.create()
    said = [
        message("user", "plain"), message("user", ""), Message("assistant", ()), message("user", "with a name", name="Åsa"),
        Message("assistant", (ReasoningPart("why", 1.5), TextPart("so"), TextPart(" on"))),
        Message("assistant", (TextPart("look"), MediaPart("image", "ab" * 32), ToolCallPart("1", "f", '{"x": 1}'))),
        Message("tool", (ToolResultPart("1", "42"),)), message("user", "lone \ud83d surrogate, NUL \x00, 🦊"),
    ]
    ids = [store.chats.add(chat.id, None, each).id for each in said]
    found = store.chats.conversation(chat.id)
    assert [found.nodes[id].message for id in ids] == said


def test_a_node_keeps_what_its_run_recorded(store: Store) -> None:
    chat = store.chats.create()
    node = store.chats.add(chat.id, None, message("assistant", "x"), finish="stop", sampled_ids=(0, 5, 2**32 - 1), model="m",
                           loader="l", quantization="Q4_0", preset="p", seed=2**32 - 2, keep_from=7, run="r",
                           stats={"error": None, "speed": 1.5, "ignored": ["a"]})
    assert store.chats.node(node.id) == node
    assert (node.sampled_ids, node.seed, node.stats["ignored"]) == ((0, 5, 2**32 - 1), 2**32 - 2, ["a"])


def test_ids_grow_and_are_never_used_again(store: Store) -> None:
    chat = store.chats.create()
    ids = [say(store, chat.id, "one"), say(store, chat.id, "two")]
    store.chats.trash(chat.id)
    store.chats.purge()
    other = store.chats.create()
    assert say(store, other.id, "three") > max(ids)


def test_a_parent_of_another_chat_is_refused(store: Store) -> None:
    one, two = store.chats.create(), store.chats.create()
    first = say(store, one.id, "in one")
    with pytest.raises(BadRequest, match="another chat"):
        say(store, two.id, "in two", first)
    with pytest.raises(NotFound):
        say(store, two.id, "in two", 999)
    assert not store.chats.conversation(two.id).nodes


def test_a_streaming_message_is_finished_once_and_never_again(store: Store) -> None:
    chat = store.chats.create()
    node = store.chats.add(chat.id, None, message("assistant", ""), status="streaming", run="r", instance="me")
    done = store.chats.finish(node.id, message("assistant", "the reply"), status="complete", finish="stop", sampled_ids=(1, 2))
    assert (done.id, done.status, done.finish, done.sampled_ids, done.run) == (node.id, "complete", "stop", (1, 2), "r")
    for status in ("complete", "failed"):
        with pytest.raises(Conflict, match="already complete"):
            store.chats.finish(node.id, message("assistant", ""), status=status)
    plain = say(store, chat.id, "a person's message")
    with pytest.raises(Conflict):
        store.chats.finish(plain, message("user", "overwritten"), status="complete")
    assert [n.message.text for n in store.chats.conversation(chat.id).nodes.values()] == ["the reply", "a person's message"]


def test_a_message_over_the_limit_is_refused_with_its_length(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_file, "MAX_TEXT", 10)
    chat = store.chats.create()
    with pytest.raises(TooLarge, match="11"):
        say(store, chat.id, "x" * 11)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans=st.lists(st.lists(st.integers(0, 10), max_size=12), min_size=2, max_size=2))
def test_two_writers_lose_no_message_whatever_they_answer(store: Store, plans: list[list[int]]) -> None:
    """Each writer is a stale tab: it sees only what it wrote, and answers the k-th of that, or the root."""
    chat = store.chats.create()
    root = say(store, chat.id, "root")
    written: list[dict[int, tuple[int, str]]] = [{}, {}]
    failures: list[BaseException] = []
    start = threading.Barrier(2)

    def write(writer: int) -> None:
        try:
            start.wait()
            seen = [root]
            for step, k in enumerate(plans[writer]):
                text = f"writer {writer} step {step}"
                under = seen[k % len(seen)]
                seen.append(say(store, chat.id, text, under))
                written[writer][seen[-1]] = (under, text)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = store.chats.conversation(chat.id)
    expected = {**written[0], **written[1]}
    assert len(expected) == len(plans[0]) + len(plans[1])
    assert {id: (n.parent, n.message.text) for id, n in found.nodes.items() if id != root} == expected
    for id in expected:
        assert found.path(id)[0].id == root


# ---- deleting

def test_deleting_hides_a_message_with_all_below_and_undo_shows_exactly_these(store: Store) -> None:
    chat = store.chats.create()
    a = say(store, chat.id, "a")
    b = say(store, chat.id, "b marker", a)
    c = say(store, chat.id, "c", b)
    d = say(store, chat.id, "d", a)
    assert store.chats.hide(chat.id, c) == [c]
    assert store.chats.hide(chat.id, b) == [b]
    assert list(store.chats.conversation(chat.id).nodes) == [a, d]
    assert store.chats.listing(query="marker").total == 0
    with pytest.raises(Conflict, match="restore that one first"):
        store.chats.unhide(chat.id, [c])
    with pytest.raises(Conflict, match="deleted"):
        say(store, chat.id, "under a deleted one", b)
    store.chats.unhide(chat.id, [b])
    assert list(store.chats.conversation(chat.id).nodes) == [a, b, d]
    assert store.chats.listing(query="marker").total == 1
    store.chats.unhide(chat.id, [c])
    assert store.chats.hide(chat.id, a) == [a, b, c, d]


def test_a_reply_deleted_while_it_streams_is_still_saved(store: Store) -> None:
    chat = store.chats.create()
    node = store.chats.add(chat.id, None, message("assistant", ""), status="streaming")
    store.chats.hide(chat.id, node.id)
    store.chats.trash(chat.id)
    assert store.chats.finish(node.id, message("assistant", "whole"), status="complete").hidden
    assert store.chats.node(node.id).message.text == "whole"


def test_a_trashed_chat_takes_no_messages_and_comes_back_whole(store: Store) -> None:
    chat = store.chats.create(title="t")
    a = say(store, chat.id, "a")
    store.chats.trash(chat.id)
    assert store.chats.listing().total == 0 and store.chats.listing(trashed=True).chats[0].trashed
    with pytest.raises(Conflict, match="Restore it"):
        say(store, chat.id, "b", a)
    store.chats.restore(chat.id)
    assert list(store.chats.conversation(chat.id).nodes) == [a] and store.chats.listing().total == 1


def test_purge_takes_only_what_is_in_the_trash(store: Store) -> None:
    kept, gone = store.chats.create(), store.chats.create()
    say(store, kept.id, "kept")
    store.chats.trash(gone.id)
    assert store.chats.purge(kept.id) == 0 and store.chats.purge() == 1
    assert len(store.chats.conversation(kept.id).nodes) == 1
    with pytest.raises(NotFound):
        store.chats.summary(gone.id)


# ---- owners

def test_another_owner_sees_and_changes_nothing(store: Store) -> None:
    chat = store.chats.create("ann", title="secret")
    node = store.chats.add(chat.id, None, message("user", "secret words"), owner="ann")
    tries = [lambda: store.chats.summary(chat.id, "bob"), lambda: store.chats.conversation(chat.id, "bob"),
             lambda: store.chats.node(node.id, "bob"), lambda: store.chats.rename(chat.id, "x", "bob"),
             lambda: store.chats.trash(chat.id, "bob"), lambda: store.chats.hide(chat.id, node.id, "bob"),
             lambda: store.chats.unhide(chat.id, [node.id], "bob"),
             lambda: store.chats.add(chat.id, None, message("user", "x"), owner="bob"),
             lambda: store.chats.finish(node.id, message("user", "x"), owner="bob", status="complete")]
    for attempt in tries:
        with pytest.raises(NotFound):
            attempt()
    assert store.chats.listing("bob").total == store.chats.listing("bob", "secret").total == store.chats.purge("", "bob") == 0
    assert store.chats.listing("ann", "secret").total == 1


# ---- listing and search

def test_the_chat_written_to_last_is_listed_first_page_by_page(store: Store) -> None:
    chats = [store.chats.create(title=str(n)) for n in range(7)]
    say(store, chats[2].id, "again")
    expected = ["2", "6", "5", "4", "3", "1", "0"]
    pages = [store.chats.listing(offset=offset, limit=3) for offset in (0, 3, 6, 9)]
    assert [chat.title for page in pages for chat in page.chats] == expected
    assert {page.total for page in pages} == {7}
    with pytest.raises(BadRequest):
        store.chats.listing(limit=100_000)


def test_a_chat_is_listed_and_searched_once_somebody_has_written_in_it(store: Store) -> None:
    """Each character that was looked at left a chat with its greeting in the list, for ever."""
    def greeted(**given: str) -> str:
        chat = store.chats.create(title="Maren", character="Maren", **given).id
        for text in ("Another greeting, lighthouse", "A greeting, lighthouse"):
            store.chats.add(chat, None, message("assistant", text), finish="greeting")
        return chat

    answered, edited, titled, prompted, drafted, deleted = (greeted() for _ in range(6))
    looked_at = [greeted() for _ in range(5)]
    told = greeted(system_prompt="Speak in rhymes.")
    root = store.chats.conversation(answered).newest_leaf(None)
    say(store, answered, "Maren, a word", root)
    store.chats.add(edited, None, message("assistant", "A greeting, lighthouse, changed by hand"))
    store.chats.rename(titled, "The one with the storm")
    store.chats.change(prompted, system_prompt="Speak slowly.")
    store.chats.hide(deleted, say(store, deleted, "a word taken back", store.chats.conversation(deleted).newest_leaf(None)))
    for query in ("", "lighthouse"):
        listed = [chat.id for offset in (0, 2, 4, 6)
                  for chat in store.chats.listing(query=query, drafts=[drafted], offset=offset, limit=2).chats]
        assert sorted(listed) == sorted([answered, edited, titled, prompted, drafted, deleted, told])
        assert store.chats.listing(query=query, drafts=[drafted]).total == 7
        assert store.chats.listing(query=query).total == 6
    store.chats.trash(looked_at[0])
    assert [chat.id for chat in store.chats.listing(trashed=True).chats] == looked_at[:1], "what can be purged is shown"


def test_a_chat_keeps_its_own_copy_of_the_card(store: Store) -> None:
    card = Character("Åsa", "persona", alternate_greetings=("a", "b"), tags=("t",), raw={"x": {"y": [1]}})
    chat = store.chats.create(character=card, system_prompt="s", settings={"k": 1})
    assert store.chats.summary(chat.id) == chat
    assert (chat.card, chat.character) == (card, "Åsa")
    changed = store.chats.change(chat.id, system_prompt="t", character="Other")
    assert (changed.system_prompt, changed.character, changed.card, changed.settings) == ("t", "Other", None, {"k": 1})


TEXTS = ["Grüße aus Köln", "我喜欢学习中文", "日本語のテキスト検索", "Привет, мир", "שלום עולם", "สวัสดีชาวโลก", "naïve café",
         "100% _sure_\\ok", 'say "cheese" AND (run* OR near:this)', "emoji 🦊🌲 here", "a-b c^d", "tab\tand\nline"]


@pytest.mark.parametrize("text", TEXTS)
def test_search_finds_every_part_of_a_message_in_any_script(store: Store, text: str) -> None:
    chat, other = store.chats.create(), store.chats.create()
    node = say(store, chat.id, text)
    say(store, other.id, "qqq")
    for length in (1, 2, 3, 5):
        for start in range(len(text) - length + 1):
            query = text[start:start + length]
            if query.strip():
                page = store.chats.listing(query=query)
                assert [(hit.id, hit.snippet_node) for hit in page.chats] == [(chat.id, node)], query


@pytest.mark.parametrize(("text", "query"), [
    ("Grüße", "GRÜ"), ("ПРИВЕТ", "привет"), ("Ёлка", "ёл"), ("éa", "É"), ("The Cat", "cat the"), ("THE", "th")])
def test_search_does_not_mind_case_or_the_order_of_words(store: Store, text: str, query: str) -> None:
    chat = store.chats.create()
    say(store, chat.id, text)
    assert store.chats.listing(query=query).total == 1


@pytest.mark.parametrize("query", ["%", "_", "\\", "a%c", "ab_", '"', "abc OR xyz", "NOT abc", "abc*", "^abc", "text:abc",
                                   "'; --", "\x00abcd", "\ud800"])
def test_special_characters_in_a_query_are_text(store: Store, query: str) -> None:
    chat = store.chats.create()
    say(store, chat.id, "abc")
    assert store.chats.listing(query=query).total == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=256))
def test_no_query_is_an_error(store: Store, query: str) -> None:
    store.chats.listing(query=query)


def test_titles_are_searched_too_and_the_snippet_shows_the_place(store: Store) -> None:
    store.chats.create(title="Straße nach Süden")
    chat = store.chats.create(title="other")
    say(store, chat.id, "x" * 200 + " the needle " + "y" * 200)
    assert [hit.title for hit in store.chats.listing(query="SÜDEN").chats] == ["Straße nach Süden"]
    [hit] = store.chats.listing(query="needle").chats
    assert "the needle" in hit.snippet and hit.snippet.startswith("…") and hit.snippet.endswith("…") and len(hit.snippet) < 150
    store.chats.trash(chat.id)
    assert store.chats.listing(query="needle").total == 0 and store.chats.listing(query="needle", trashed=True).total == 1


def test_a_streaming_reply_is_found_once_it_is_finished(store: Store) -> None:
    chat = store.chats.create()
    node = store.chats.add(chat.id, None, message("assistant", "beginning"), status="streaming")
    assert store.chats.listing(query="beginning").total == store.chats.listing(query="be").total == 0
    store.chats.finish(node.id, message("assistant", "beginning and end"), status="stopped")
    assert store.chats.listing(query="beginning end").total == 1


def test_listing_search_and_opening_a_chat_use_indexes(store: Store) -> None:
    """The plans of all statements that these run must scan no table; the search index's own lookups are no scans of one."""
    import sqlalchemy as sa

    chat = store.chats.create(title="abc")
    node = say(store, chat.id, "abcdef")
    plans: list[str] = []

    def explain(connection: sa.Connection, cursor: object, statement: str, parameters: object, *_: object) -> None:
        if not statement.startswith(("EXPLAIN", "BEGIN")) and "Executing" not in statement:
            raw = connection.connection.driver_connection
            assert raw is not None
            plans.extend(f"{row[3]} | {statement}" for row in raw.execute("EXPLAIN QUERY PLAN " + statement, parameters))

    sa.event.listen(store._database.engine, "before_cursor_execute", explain)
    store.chats.listing()
    store.chats.listing(trashed=True)
    store.chats.listing(query="abc")
    store.chats.conversation(chat.id)
    store.chats.hide(chat.id, node)
    store.sessions.latest()
    store.documents.listing()
    store.recover(lambda _: True)
    sa.event.remove(store._database.engine, "before_cursor_execute", explain)
    scans = [plan for plan in plans if plan.startswith("SCAN") and "USING" not in plan.split("|")[0]
             and "VIRTUAL TABLE" not in plan and not plan.startswith(("SCAN below", "SCAN found", "SCAN (subquery"))]
    sorts = [plan for plan in plans if "TEMP B-TREE FOR ORDER BY" in plan]
    assert len(plans) > 10 and scans == [] and sorts == []
