"""Fifty exchanges of the model within one conversation, with stops, cancelled loads and a killed process: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from modules.core.conversation import Node
from modules.core.session import Session
from modules.models.convert import convert
from modules.store.database import Store
from tests.running_app import ROOT, SESSION, RunningApp, wait_until, write_script

pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")
pytest.importorskip("llama_cpp")

SEED = 4
N_SWAPS = 50
WARM_UP = 4  # rounds of the quick ones
MAX_TOKENS = 24
ECHO_RATE = 4  # tokens a second: a reply of MAX_TOKENS lasts six seconds, in the middle of which it is stopped
MOST_GROWTH = 0.02
SCRIPT = " ".join(f"word{n}" for n in range(200))


@dataclass(frozen=True)
class Variant:
    """A model as it is loaded, and what its replies say of it. times: of the fifty; starting PyTorch costs seconds."""

    model: str
    loader: str
    quantization: str
    times: int
    shrunk: str = ""

    @property
    def written_by(self) -> tuple[str, str, str]:
        return self.model, self.loader, self.quantization


FIRST = Variant("starter/starter-Q8_0", "llama_cpp", "Q8_0", 14)
ECHO = Variant("talker", "echo", "", 13)
VARIANTS = (FIRST, ECHO, Variant("starter-f16", "llama_cpp", "F16", 13), Variant("starter", "transformers", "F16", 3, "none"),
            Variant("starter", "transformers", "4bit", 4, "4bit"), Variant("starter", "transformers", "8bit", 3, "8bit"))


def order(chance: random.Random) -> list[Variant]:
    """All of them so many times, none twice in a row, and the first not at once."""
    assert sum(variant.times for variant in VARIANTS) == N_SWAPS
    while True:
        drawn = [variant for variant in VARIANTS for _ in range(variant.times)]
        chance.shuffle(drawn)
        if all(one != other for one, other in zip([FIRST, *drawn], drawn, strict=False)):
            return drawn


def memory(app: RunningApp) -> int:
    """What the app and its children hold of their own, in bytes: the anonymous and shared parts of their proportional set sizes.

    What is mapped from files is left out: it halves when another program maps the same libraries (measured: 20 MB, then 11, with
    another copy of the app beside it).
    """
    total = 0
    for process in app.family():
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended since the family was asked for
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total * 1024


def files(app: RunningApp) -> list[str]:
    """What the app's own file descriptors are open on, sorted. Those of the database are left out: its pool keeps up to eight
    connections, as many as were needed at once so far."""
    found = []
    for link in Path(f"/proc/{app.process.pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            continue  # closed just now
        if "/colloquy.db" not in target:
            found.append(target.partition(":")[0])  # of a pipe or socket only what it is
    return sorted(found)


@dataclass
class Talk:
    """The conversation as it has to be: every message's text and, of a reply, who wrote it and how it ended."""

    app: RunningApp
    chance: random.Random
    texts: dict[int, str] = field(default_factory=dict)
    writers: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    path: list[int] = field(default_factory=list)
    stopped: int = 0

    def say(self, variant: Variant, *, stops: bool = False, kills: bool = False) -> None:
        said, reply = self.app.send(f"This is message number {len(self.texts)}.")
        self.texts[said["id"]] = self.app.text(said["id"])
        self.path += [said["id"], reply["id"]]
        self.see(reply, variant, stops=stops, kills=kills)

    def see(self, reply: dict[str, Any], variant: Variant, *, stops: bool = False, kills: bool = False) -> None:
        """The reply to its end, in the middle of which it may be stopped, or its model's process be killed."""
        if stops or kills:
            shown = wait_until(lambda: self.app.text(reply["id"]), what="its first words")
            if kills:
                os.kill(self.app.worker().pid, signal.SIGKILL)
            else:
                self.app.post("ui-api/stop", {"run": reply["run"]})
        ended = self.app.ended(reply["id"])
        wait_until(lambda: not self.app.get("ui-api/unsaved", node=reply["id"])["reason"], what="the saved row")
        text = self.app.text(reply["id"])
        expected = "failed" if kills else "stopped" if stops and variant is ECHO else ended["status"]
        assert ended["status"] == expected and expected in ("complete", "stopped", "failed"), ended
        if stops or kills:
            assert text.startswith(shown)
            self.stopped += ended["status"] == "stopped"
        self.texts[reply["id"]] = text
        self.writers[reply["id"]] = variant.written_by

    def load(self, variant: Variant) -> None:
        options = {"rate": ECHO_RATE} if variant is ECHO else {"quantization": variant.shrunk} if variant.shrunk else {}
        self.app.load(variant.model, **options)

    def answer_again(self, variant: Variant, *, cancels: bool = False) -> None:
        """Another version of the last reply; or a load for it that is cancelled, after which all is as it was."""
        before = self.app.view()
        node = before["messages"][-1]["id"]
        body = {"conversation": before["conversation"], "node": node, "model": variant.model, "quantization": variant.shrunk}
        self.app.post("ui-api/again/start", body)
        if cancels:
            asked = self.app.view()["again"][0]["id"]
            self.app.post("ui-api/again/cancel", {"asked": asked})
            [ended] = wait_until(lambda: [one for one in self.app.view()["again"] if one["status"] != "loading"],
                                 seconds=300, what="the end of the load")
            assert ended["status"] == "cancelled"
            self.app.post("ui-api/again/dismiss", {"asked": asked})
            assert self.app.view()["messages"] == before["messages"]
            return
        wait_until(lambda: not self.app.view()["again"], seconds=300, what=f"the load of {variant}")
        reply = self.app.view()["messages"][-1]
        assert reply["id"] != node and reply["parent"] == before["messages"][-1]["parent"]
        self.path[-1] = reply["id"]
        self.see(reply, variant)

    def swap(self, variant: Variant, *, kills: bool) -> None:
        """To another model and a reply by it, in one of the ways in which a person does it."""
        how = self.chance.random()
        if how < 0.15:
            self.answer_again(variant, cancels=True)
        if variant is ECHO or how < 0.5:
            self.load(variant)
            self.say(variant, stops=variant is ECHO or how < 0.3, kills=kills)
        else:
            self.answer_again(variant)
            if how < 0.7:
                self.say(variant)


def afresh(talk: Talk) -> None:
    """The first model in a new process that has read nothing yet: its KV cache fills with the chat, which is no growth."""
    talk.load(ECHO)
    talk.load(FIRST)


def check(talk: Talk, data_dir: Path) -> None:
    """What lies in the database against what was seen: order, texts, writers."""
    store = Store(data_dir)
    try:
        tree = store.chats.conversation(talk.app.view()["conversation"])
        assert [node.id for node in tree.path(talk.path[-1])] == talk.path
        assert set(tree.nodes) == set(talk.texts)
        for id, text in talk.texts.items():
            node: Node = tree.nodes[id]
            assert node.message.text == text
            assert node.status != "streaming"
            if node.message.role == "assistant":
                assert (node.model, node.loader, node.quantization) == talk.writers[id]
                assert node.seed is not None
    finally:
        store.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_swaps_in_one_conversation_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    data, models = tmp_path / "data", tmp_path / "models"
    write_script(models, ECHO.model, SCRIPT)
    convert(ROOT / "models" / "starter", models / "starter-f16.gguf", "f16")
    store = Store(data)
    store.sessions.save(Session(SESSION, params={"max_tokens": MAX_TOKENS}))
    store.close()
    chance = random.Random(SEED)
    swaps = order(chance)
    kill_at = next(i for i, variant in enumerate(swaps) if variant is ECHO and i >= N_SWAPS // 2)
    with RunningApp(data, models, "--models-dir", str(ROOT / "models"), "--model", FIRST.model) as app:
        app.client.timeout = httpx.Timeout(600)
        app.wait_for_model()
        talk = Talk(app, chance)
        talk.say(FIRST)
        # What any use fills at first: threads, database connections, the caches of the page's renderer, the heap's free places.
        for variant in [*VARIANTS[1:3], FIRST] * WARM_UP:
            talk.swap(variant, kills=False)
        afresh(talk)
        baseline, n_processes, files_before = memory(app), len(app.family()), files(app)
        for i, variant in enumerate(swaps):
            talk.swap(variant, kills=i == kill_at)
            print(f"{i:2} {variant.model:22} {variant.quantization:5} {memory(app) / 1e6:7.1f} MB", flush=True)
        afresh(talk)
        wait_until(lambda: len(app.family()) == n_processes, what="the end of every other process")
        after = memory(app)
        print(f"{baseline / 1e6:.1f} MB before, {after / 1e6:.1f} MB after; {talk.stopped} stopped")
        talk.say(FIRST)
        check(talk, data)
        assert talk.stopped >= 10
        assert files(app) == files_before
        assert after <= baseline * (1 + MOST_GROWTH)
