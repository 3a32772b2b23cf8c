"""The chat page's addresses: what they answer, what they refuse, and that nothing typed is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from modules.ui.requests import MAX_BODY
from modules.ui.routes import RUN_UNKNOWN, ui_routes
from modules.ui.static_files import assets, assets_version

from .fake_chats import FakeChats, FakeServices

SESSION = "s" * 24
HEADERS = {"X-Session": SESSION}


@pytest.fixture
def chats() -> FakeChats:
    return FakeChats()


@pytest.fixture
def client(chats: FakeChats) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=ui_routes(FakeServices(chats))), headers=HEADERS, raise_server_exceptions=False) as client:
        yield client


def get(client: TestClient, path: str, **query: Any) -> dict[str, Any]:
    response = client.get(f"/ui-api/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def post(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/ui-api/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_an_empty_chat_is_an_empty_view(client: TestClient) -> None:
    assert get(client, "view") == {"conversation": "", "title": "", "head": None, "names": {"user": "You", "assistant": "Ada"},
                                   "elsewhere": [], "again": [], "loaders": {"llama_cpp": "llama.cpp"}, "messages": [],
                                   "more": False}


def test_history_comes_fifty_at_a_time_from_the_newest(client: TestClient, chats: FakeChats) -> None:
    chats.fill(SESSION, 120)
    newest = get(client, "view")
    assert len(newest["messages"]) == 50 and newest["more"]
    assert newest["messages"][-1]["id"] == newest["head"] == 120
    middle = get(client, "view", before=newest["messages"][0]["id"])
    oldest = get(client, "view", before=middle["messages"][0]["id"])
    assert [len(middle["messages"]), middle["more"], len(oldest["messages"]), oldest["more"]] == [50, True, 20, False]
    ids = [m["id"] for m in [*oldest["messages"], *middle["messages"], *newest["messages"]]]
    assert ids == list(range(1, 121))


def test_a_message_is_drawn_with_its_facts(client: TestClient, chats: FakeChats) -> None:
    chats.fill(SESSION, 2, "*{n}* <script>x</script>")
    first, second = get(client, "view")["messages"]
    assert first["html"] == '<div class="b"><p><em>0</em> &lt;script&gt;x&lt;/script&gt;</p>\n</div>'
    assert (first["name"], second["name"], second["parent"], second["siblings"]) == ("You", "Ada", 1, [2])


def test_send_answers_with_what_was_added_and_the_run(client: TestClient, chats: FakeChats) -> None:
    chats.fill(SESSION, 4)
    answer = post(client, "send", text="hello", conversation="chat1", under=4)
    user, reply = answer["messages"]
    assert answer["after"] == 4 and user["parent"] == 4 and reply["status"] == "streaming" and reply["run"] in chats.runs


def test_the_first_message_begins_a_chat(client: TestClient) -> None:
    answer = post(client, "send", text="hello", conversation="", under=None)
    assert answer["conversation"] == "chat1" and "after" not in answer and len(answer["messages"]) == 2


def test_a_stale_page_writes_a_branch(client: TestClient, chats: FakeChats) -> None:
    """A page that still shows message 2 as the last sends under it: message 3 and 4 stay, beside what it wrote."""
    chats.fill(SESSION, 4)
    answer = post(client, "send", text="other", conversation="chat1", under=2)
    assert answer["after"] == 2 and answer["messages"][0]["siblings"] == [3, 5]
    assert not chats.nodes[3].hidden and not chats.nodes[4].hidden


def test_swipes_edits_and_continues_answer_from_the_place_that_changed(client: TestClient, chats: FakeChats) -> None:
    chats.fill(SESSION, 4)
    again = post(client, "regenerate", node=4)
    assert again["after"] == 3 and again["messages"][0]["siblings"] == [4, 5]
    back = post(client, "choose", node=4)
    assert back["after"] == 3 and back["head"] == 4
    edited = post(client, "edit", node=3, text="changed", resend=True)
    assert edited["after"] == 2 and edited["messages"][0]["siblings"] == [3, 6] and len(edited["messages"]) == 2
    on = post(client, "continue", node=4)
    assert on["messages"][0]["html"] == get(client, "view")["messages"][-1]["html"]


def test_a_deleted_message_comes_back_by_undo(client: TestClient, chats: FakeChats) -> None:
    chats.fill(SESSION, 4)
    gone = post(client, "delete", node=3)
    assert gone["messages"] == [] and gone["after"] == 2 and set(gone["hidden"]) == {3, 4} and gone["head_before"] == 4
    assert [m["id"] for m in get(client, "view")["messages"]] == [1, 2]
    back = post(client, "undelete", nodes=gone["hidden"], head=gone["head_before"])
    assert [m["id"] for m in back["messages"]] == [3, 4] and back["after"] == 2
    first = post(client, "delete", node=1)
    assert first["messages"] == [] and "after" not in first and first["head"] is None
    assert len(post(client, "undelete", nodes=first["hidden"], head=4)["messages"]) == 4


def test_the_text_is_as_it_was_written_also_while_it_streams(client: TestClient, chats: FakeChats) -> None:
    answer = post(client, "send", text="  *as* typed\n", conversation="", under=None)
    user, reply = answer["messages"]
    assert get(client, "text", node=user["id"]) == {"text": "  *as* typed\n"}
    chats.runs[reply["run"]].say("half **a**")
    assert get(client, "text", node=reply["id"]) == {"text": "half **a**"}


def test_chats_are_listed_in_pages_searched_renamed_and_trashed(client: TestClient, chats: FakeChats) -> None:
    for n in range(45):
        chats.rows[chats.begin(f"Chat number {n}")].updated = float(n)
    first = get(client, "chats")
    assert len(first["chats"]) == 40 and first["more"] and first["chats"][0]["title"] == "Chat number 44"
    rest = get(client, "chats", offset=40)
    assert len(rest["chats"]) == 5 and not rest["more"]
    assert [chat["title"] for chat in get(client, "chats", query="number 7")["chats"]] == ["Chat number 7"]
    post(client, "rename", conversation="chat1", title="Birds")
    post(client, "trash", conversation="chat1")
    assert [chat["title"] for chat in get(client, "chats", trashed=1)["chats"]] == ["Birds"]
    post(client, "restore", conversation="chat1")
    assert get(client, "chats", trashed=1)["chats"] == []
    post(client, "open", conversation="chat1")
    assert get(client, "view")["title"] == "Birds"
    post(client, "new", character="")
    assert get(client, "view")["conversation"] == ""


@pytest.mark.parametrize("session", ["", "short", "x" * 65, "a" * 20 + "/../", "a" * 20 + " ", "é" * 20])
def test_a_session_id_that_is_none_is_refused(client: TestClient, session: str) -> None:
    response = client.get("/ui-api/view", headers={"X-Session": session.encode("utf-8")})
    assert response.status_code == 400 and response.json()["error"]["param"] == "X-Session"


@pytest.mark.parametrize(("path", "body"), [
    ("send", {"text": 5}), ("send", {"text": "x", "under": "1; drop"}), ("send", {"text": "x", "under": -1}), ("send", []),
    ("regenerate", {}), ("regenerate", {"node": True}), ("regenerate", {"node": 2**60}), ("choose", {"node": 1.5}),
    ("undelete", {"nodes": "all"}), ("undelete", {"nodes": [None]}), ("rename", {"conversation": None, "title": "x"})])
def test_bodies_of_the_wrong_shape_are_refused_with_a_reason(client: TestClient, path: str, body: Any) -> None:
    response = client.post(f"/ui-api/{path}", json=body)
    assert response.status_code == 400 and response.json()["error"]["message"]


def test_a_body_that_is_no_json_or_too_long_is_refused(client: TestClient) -> None:
    assert client.post("/ui-api/send", content=b"{").status_code == 400
    too_long = json.dumps({"text": "x" * MAX_BODY})
    response = client.post("/ui-api/send", content=too_long)
    assert response.status_code == 413 and response.json()["error"]["code"] == "too_large"


def test_an_error_of_the_service_is_answered_in_its_words(client: TestClient, chats: FakeChats) -> None:
    chats.refuse = "The disk is full; free some space."
    response = client.post("/ui-api/send", json={"text": "x", "conversation": "", "under": None})
    assert response.json()["error"] == {"message": "The disk is full; free some space.", "code": "invalid_request", "param": None}


def test_a_mistake_of_ours_is_said_without_its_traceback(client: TestClient) -> None:
    response = client.post("/ui-api/regenerate", json={"node": 999})
    assert response.status_code == 500 and "Traceback" not in response.text and "999" not in response.text


def test_a_run_is_followed_to_its_end(client: TestClient, chats: FakeChats) -> None:
    run = post(client, "send", text="hello", conversation="", under=None)["messages"][1]["run"]
    with client.websocket_connect(f"/ui-api/runs/{run}") as socket:
        assert socket.receive_json()["s"]["state"] == "starting"
        client.portal.call(chats.runs[run].say, "hi")  # type: ignore[union-attr]
        client.portal.call(chats.runs[run].finish)  # type: ignore[union-attr]
        frames = []
        with pytest.raises(WebSocketDisconnect) as left:
            while True:
                frames.append(socket.receive_json())
    assert left.value.code == 1000
    assert frames[-1]["s"]["state"] == "complete"
    assert any(frame.get("text") == [1, [[0, 0, "<p>hi</p>\n"]]] for frame in frames)


def test_an_unknown_run_is_closed_with_its_own_code(client: TestClient) -> None:
    with client.websocket_connect("/ui-api/runs/nope") as socket, pytest.raises(WebSocketDisconnect) as left:
        socket.receive_json()
    assert left.value.code == RUN_UNKNOWN


def test_assets_are_served_for_ever_under_their_hash_only(client: TestClient) -> None:
    for name in assets():
        response = client.get(f"/ui-static/{assets_version()}/{name}")
        assert response.status_code == 200 and "immutable" in response.headers["cache-control"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-type"].startswith(("text/javascript", "text/css"))
    assert client.get("/ui-static/old/style.css").headers["cache-control"] == "no-cache"
    for path in ("nothing.js", "..%2froutes.py", "%2e%2e/routes.py"):
        assert client.get(f"/ui-static/x/{path}").status_code == 404


def test_no_asset_names_another_host() -> None:
    for name, content in assets().items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text and "@import" not in text, name
