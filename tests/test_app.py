"""The app as it is started: its settings, its start and its end, its key, and what a page and a client see over HTTP."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.running_app import RunningApp, start_and_end, wait_until, write_script

STORY = "The fox went over the hill and under the hedge, and nobody saw it go. "


@pytest.fixture(scope="module")
def echo_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """One app for the tests that only talk to it; `story` is loaded at 200 tokens a second."""
    folder = tmp_path_factory.mktemp("app")
    write_script(folder / "models", "story", STORY * 6)
    with RunningApp(folder / "data", folder / "models", "--model", "story") as app:
        app.wait_for_model()
        app.load("story", rate=200)
        yield app


# Settings


def test_flags_variables_and_the_settings_file_all_reach_the_app(tmp_path: Path) -> None:
    """The port comes from a flag, the model folder from a variable, the rest from the file in the data folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write_script(tmp_path / "models", "story", STORY)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "settings.yaml").write_text(
        "model: story\nmax_models: 2\napi_key: from-the-file\nallowed_hosts: [box.example]\nport: 1\nno_browser: false\n")
    with RunningApp(tmp_path / "data", None, port=port, environment={"COLLOQUY_MODELS_DIR": str(tmp_path / "models")}) as app:
        assert app.link == f"http://127.0.0.1:{port}/?key=from-the-file"
        app.client.headers["Authorization"] = "Bearer from-the-file"
        assert app.wait_for_model() == "story"
        app.load("echo")
        assert sorted(app.get("health")["models"]) == ["echo", "story"]
        assert app.client.get("", headers={"Host": "box.example"}).status_code == 200
        assert app.client.get("", headers={"Host": "elsewhere.example"}).status_code == 421


def test_a_bad_setting_ends_the_start_with_its_range_and_its_source(tmp_path: Path) -> None:
    ended = start_and_end("--data-dir", str(tmp_path), "--max-models", "0")
    assert ended.returncode == 2
    assert "max_models must be a whole number from 1 to 16; got '0'" in ended.stderr and "--max-models" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_busy_port_is_refused_with_the_next_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = start_and_end("--data-dir", str(tmp_path / "data"), "--port", str(port))
    assert ended.returncode == 2
    assert f"Port {port} on 127.0.0.1 is taken" in ended.stderr and "start with --port" in ended.stderr


def test_a_second_start_on_the_same_data_names_the_page_that_runs(echo_app: RunningApp) -> None:
    ended = start_and_end("--data-dir", str(echo_app.data_dir), "--port", "0")
    assert ended.returncode == 1
    assert echo_app.url in ended.stderr
    assert echo_app.get("health")["status"] == "ok"


def test_without_any_model_the_app_starts_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with RunningApp(tmp_path / "data", tmp_path / "models") as app:
        assert app.client.get("").status_code == 200
        assert app.get("v1/models")["data"] == []
        answer = app.client.post("v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "no_model"
        said, reply = app.send("Hello, is anybody there?")
        assert reply["status"] == "failed" and "Load one in the Model tab" in reply["stats"]["error"]
        assert app.text(said["id"]) == "Hello, is anybody there?"
        refused = app.client.post("v1/internal/model/load", json={"model_name": "anything"})
        assert refused.status_code == 404 and "the model folders are empty" in refused.json()["error"]["message"]


def test_a_model_may_be_named_by_its_path_at_the_start(tmp_path: Path) -> None:
    path = write_script(tmp_path / "elsewhere", "story", STORY)
    (tmp_path / "models").mkdir()
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", str(path)) as app:
        assert app.wait_for_model() == "story"


def test_the_data_folder_and_the_key_are_their_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "none", "--listen") as app:
        key = (app.data_dir / "api_key").read_text().strip()
        assert app.link.endswith(f"/?key={key}") and len(key) >= 32
        assert stat.S_IMODE((app.data_dir / "api_key").stat().st_mode) == 0o600
        assert stat.S_IMODE(app.data_dir.stat().st_mode) == 0o700
        assert key not in (app.data_dir / "instance.json").read_text()
        check_that_only_the_key_opens(app, key)
        check_that_the_links_for_other_devices_open(app)
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "none", "--listen") as app:
        assert app.link.endswith(key), "the key stays the same from start to start"


def check_that_the_links_for_other_devices_open(app: RunningApp) -> None:
    """The printed link named 127.0.0.1 alone, of no use to another device."""
    printed = app.output.read_text("utf-8").partition("From other devices: ")[2].partition("\n")[0]
    links = [link for link in printed.split(", ") if link.startswith("http://")]
    assert links or "no network address" in printed
    for link in links:
        assert "127.0.0.1" not in link
        assert httpx.get(link, follow_redirects=True, timeout=30).status_code in (200, 303), link


def test_the_app_works_below_a_root_path(tmp_path: Path) -> None:
    """Page, its scripts, the page's routes, the API: all behind the prefix that a reverse proxy leaves in place."""
    write_script(tmp_path / "models", "story", STORY)
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "story", "--root-path", "/colloquy/") as app:
        assert app.url.endswith("/colloquy/")
        page = app.client.get("")
        assert page.status_code == 200 and "/colloquy" in page.text
        assert app.client.get("ui-api/chats", headers={"X-Session": "a-session-of-this-test"}).status_code == 200
        wait_until(lambda: app.client.get("v1/models").json()["data"], what="the model")
        answer = app.client.post("v1/completions", json={"prompt": "x", "max_tokens": 4})
        assert answer.status_code == 200 and answer.json()["choices"][0]["text"]


def check_that_only_the_key_opens(app: RunningApp, key: str) -> None:
    """Page, page's routes, API, Gradio's routes and WebSocket, without the key, with another and with the right one."""
    paths = ["", "v1/models", "ui-api/view", "gradio_api/info", "config", "ui-api/chats"]
    for path in paths:
        assert app.client.get(path).status_code == 401, path
    assert app.client.get("v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert app.client.get("health").status_code == 200
    assert close_code(app) == 4401
    assert app.client.get("v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    with httpx.Client(base_url=app.url, headers={"X-Session": "a-browser-with-a-cookie"}) as browser:
        answer = browser.get("", params={"key": key})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and key not in cookie
        for path in paths:
            assert browser.get(path).status_code == 200, path
        assert close_code(app, Cookie=cookie.partition(";")[0]) == 4404, "with the cookie the run is looked for"


def close_code(app: RunningApp, **headers: str) -> int:
    """Why the WebSocket of a run that is not there closes."""
    with app.follow("none", **headers) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


# What a page sees


def test_a_reload_shows_the_same_chat_and_a_new_tab_the_latest(echo_app: RunningApp) -> None:
    said, reply = echo_app.send("Tell me a story.")
    assert echo_app.ended(reply["id"])["status"] == "complete"
    first = echo_app.view()
    assert [m["id"] for m in first["messages"][-2:]] == [said["id"], reply["id"]]
    assert echo_app.view() == first
    other = echo_app.view(session="another-tab-of-this-person")
    assert other == first


def test_a_reply_goes_on_and_is_saved_though_its_page_is_gone(echo_app: RunningApp) -> None:
    _, reply = echo_app.send("Tell it again.")
    with echo_app.follow(reply["run"]) as socket:
        socket.recv()
    ended = echo_app.ended(reply["id"])
    assert ended["status"] == "complete" and ended["stats"]["tokens"] > 50 and ended["stats"]["speed"] > 0
    assert echo_app.text(reply["id"]) == STORY * 6


def test_a_page_that_comes_back_gets_the_whole_live_reply_and_follows_it_to_its_end(echo_app: RunningApp) -> None:
    _, reply = echo_app.send("And again.")
    wait_until(lambda: len(echo_app.text(reply["id"])) > 40, what="some text")
    assert echo_app.view()["messages"][-1]["run"] == reply["run"]
    with echo_app.follow(reply["run"]) as socket:
        frames = [json.loads(frame) for frame in socket]
    first = next(frame["text"] for frame in frames if "text" in frame)
    assert first[0] == 1 and "The fox went over the hill" in first[1][0][2]
    assert frames[-1]["s"]["state"] == "complete"


def test_two_chats_streaming_at_once_keep_their_own_words(echo_app: RunningApp) -> None:
    """text-generation-webui#5748: switching chats while a reply streams wrote it over the other chat."""
    echo_app.load("echo", rate=200)
    try:
        one, two = "the-tab-of-chat-one", "the-tab-of-chat-two"
        for session in (one, two):
            echo_app.post("ui-api/new", session=session)
        _, apples = echo_app.send("apples " * 40, session=one)
        left = echo_app.view(session=one)["conversation"]
        echo_app.post("ui-api/new", session=one)  # the first tab leaves its chat while the reply streams
        _, pears = echo_app.send("pears " * 40, session=two)
        _, plums = echo_app.send("plums " * 40, session=one)
        assert echo_app.ended(pears["id"], session=two)["status"] == "complete"
        assert echo_app.ended(plums["id"], session=one)["status"] == "complete"
        assert "plums" in echo_app.text(plums["id"], session=one) and "apples" not in echo_app.text(plums["id"], session=one)
        assert echo_app.text(pears["id"], session=two).count("pears") == 40
        echo_app.post("ui-api/open", {"conversation": left}, session=one)
        assert echo_app.ended(apples["id"], session=one)["status"] == "complete"
        assert echo_app.text(apples["id"], session=one).count("apples") == 40
    finally:
        echo_app.load("story", rate=200)


# Broken model files


def test_every_hostile_model_file_is_listed_and_refused_with_a_reason(tmp_path: Path, shared_data: Path) -> None:
    hostile = shared_data / "models" / "hostile"
    with RunningApp(tmp_path / "data", hostile, "--model", "none") as app:
        names = app.get("v1/internal/model/list")["model_names"]
        assert len(names) == len(list(hostile.iterdir()))
        for name in names:
            refused = app.client.post("v1/internal/model/load", json={"model_name": name})
            error = refused.json()["error"]
            assert refused.status_code >= 400 and len(error["message"]) > 40, (name, error)
            assert app.get("health")["status"] == "ok"
        app.load("echo")
        _, reply = app.send("Still there?")
        assert app.ended(reply["id"])["status"] == "complete"
