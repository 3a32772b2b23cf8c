"""What survives when the server or a model's process is killed in the middle of a reply, over real processes and HTTP."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from pathlib import Path

import httpx
import pytest

from loaders.echo import encode
from modules.store.database import Store
from tests.running_app import RunningApp, wait_until, write_script

KILLS = 20
TOKENS_A_SECOND = 100
MAX_LOST_TOKENS = 25
RESTS = ("ata", "eneme", "ivi", "onoro", "ulule", "yky", "isis")
# Every word once, so that a lost, doubled or misplaced piece shows; 210 tokens, 2.1 seconds.
SCRIPT = " ".join(f"{first}{rest}" for first in "bcdfghjklmnpqrs" for rest in RESTS)


def n_tokens(text: str) -> int:
    return len(encode(text, control=False))


def leaves_no_process(app: RunningApp) -> None:
    wait_until(lambda: not app.family(), seconds=2, what="the end of every process of the killed app")


def await_moment(app: RunningApp, node: int, moments: random.Random) -> str:
    """Wait for a random place in the reply, then a little more, so that any phase of journal and drawing may be met; what the
    reply's reader had seen last."""
    place = moments.randrange(n_tokens(SCRIPT) * 9 // 10)
    wait_until(lambda: n_tokens(app.text(node)) >= place, what=f"token {place}")
    time.sleep(moments.uniform(0, 0.1))
    return app.text(node)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_of_the_server_at_random_moments_keeps_every_finished_message_and_all_but_25_tokens(tmp_path: Path) -> None:
    """At each start: the reply cut off is there as far as it was shown, it continues to its very end, and then the next one is
    cut off. What was finished before any of the kills is compared at the end, in the database itself."""
    data, models = tmp_path / "data", tmp_path / "models"
    write_script(models, "script", SCRIPT)
    moments = random.Random(20)
    finished: dict[int, str] = {}
    path: list[int] = []
    shown, cut_off, losses = "", 0, []
    for kill in range(KILLS + 1):
        with RunningApp(data, models, "--model", "script") as app:
            app.wait_for_model()
            if kill == 0:
                app.load("script", rate=TOKENS_A_SECOND)  # remembered for the next starts
            else:
                messages = app.view()["messages"]
                assert [m["id"] for m in messages] == [*path, cut_off]
                assert messages[-1]["status"] == "interrupted"
                kept = app.text(cut_off)
                assert SCRIPT.startswith(kept) and SCRIPT.startswith(shown)
                losses.append(n_tokens(shown) - n_tokens(kept))
                assert losses[-1] <= MAX_LOST_TOKENS, f"{losses[-1]} tokens lost at kill {kill}"
                going_on = app.post("ui-api/continue", {"node": cut_off})["messages"][-1]["id"]
                assert app.ended(going_on)["status"] == "complete"
                assert app.text(going_on) == SCRIPT
                finished |= {cut_off: kept, going_on: SCRIPT}
                path.append(going_on)
            if kill == KILLS:
                break
            said, reply = app.send(f"This is message number {kill}.")
            finished[said["id"]] = f"This is message number {kill}."
            path.append(said["id"])
            cut_off = reply["id"]
            shown = await_moment(app, cut_off, moments)
            app.kill()
            leaves_no_process(app)
    print(f"tokens lost at {KILLS} kills: {losses}")
    with sqlite3.connect(data / "colloquy.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store = Store(data)
    (chat,) = store.chats.listing().chats
    nodes = store.chats.conversation(chat.id).nodes
    assert {id: node.message.text for id, node in nodes.items()} == finished
    store.close()
    assert not list((data / "journal").iterdir())


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_a_polite_stop_in_mid_reply_saves_what_was_shown_though_readers_hang_on(tmp_path: Path, signal_name: str) -> None:
    """A page follows by WebSocket and a client streams from the API; neither may hold the server up."""
    write_script(tmp_path / "models", "script", SCRIPT * 20)
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "script") as app:
        app.wait_for_model()
        app.load("script", rate=TOKENS_A_SECOND, slots=2)
        _, reply = app.send("Go on.")
        body = {"messages": [{"role": "user", "content": "Go on."}], "stream": True, "max_tokens": 4000}
        with app.follow(reply["run"]) as page, app.client.stream("POST", "v1/chat/completions", json=body) as stream:
            page.recv()
            next(stream.iter_lines())
            shown = wait_until(lambda: text if n_tokens(text := app.text(reply["id"])) > 30 else "", what="thirty tokens")
            assert app.stop(signal.Signals[signal_name]) == 0
        leaves_no_process(app)
    assert "Traceback" not in app.output.read_text() and not (tmp_path / "data" / "instance.json").exists()
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "none") as app:
        last = app.view()["messages"][-1]
        assert last["id"] == reply["id"] and last["status"] == "stopped"
        kept = app.text(reply["id"])
        assert kept.startswith(shown) and (SCRIPT * 20).startswith(kept)


def test_kill_9_of_the_worker_keeps_the_partial_reply_says_why_and_the_next_load_works(tmp_path: Path) -> None:
    write_script(tmp_path / "models", "script", SCRIPT)
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "script") as app:
        app.wait_for_model()
        app.load("script", rate=TOKENS_A_SECOND)
        _, reply = app.send("Go on.")
        shown = wait_until(lambda: text if n_tokens(text := app.text(reply["id"])) > 30 else "", what="thirty tokens")
        app.worker().kill()
        last = app.ended(reply["id"])
        assert last["status"] == "failed" and "SIGKILL" in last["stats"]["error"]
        kept = app.text(reply["id"])
        assert kept.startswith(shown) and SCRIPT.startswith(kept)
        assert app.get("health")["models"] == []
        app.load("script", rate=0)
        going_on = app.post("ui-api/continue", {"node": reply["id"]})["messages"][-1]["id"]
        assert app.ended(going_on)["status"] == "complete"
        assert app.text(going_on) == SCRIPT


def test_a_stop_does_not_wait_for_the_replies_of_api_clients(tmp_path: Path) -> None:
    """The server went on until every client's stream had ended by itself, which took as long as their replies."""
    write_script(tmp_path / "models", "story", "word " * 100_000)
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "story") as app:
        app.wait_for_model()
        app.load("story", rate=50, context=400_000)
        _, reply = app.send("Go")
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        with httpx.stream("POST", f"{app.url}v1/chat/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            wait_until(lambda: app.text(reply["id"]), what="some text")
            assert app.stop() == 0
            last = [line for line in lines if line][-1]
        assert "error" in json.loads(last.removeprefix("data: "))
    with RunningApp(tmp_path / "data", tmp_path / "models", "--model", "none") as app:
        last_message = app.view()["messages"][-1]
        assert last_message["status"] == "stopped" and app.text(reply["id"]).startswith("word")
