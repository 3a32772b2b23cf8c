"""What the later turns of a chat evaluate, through chat, template and engine, on every loader: only what is new."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modules import registry
from modules.core.conversation import Node
from modules.engine import Engine
from modules.models.catalog import Catalog

from .echo_models import EchoCatalog
from .test_chat import TAB, Desk

MODELS = Path(__file__).resolve().parent.parent / "models"
SCRIPT = {"script": "some words of a reply that goes on " * 3}
# One thread, for they share a busy machine. What the starter model writes beyond the context it was trained for is odd; what it
# evaluates is what counts here.
SUBJECTS = [
    pytest.param("echo", "echo", SCRIPT, id="echo"),
    pytest.param("starter-Q8_0.gguf", "llama_cpp", {"threads": 1}, id="gguf"),
    pytest.param("starter", "transformers", {"threads": 1}, id="safetensors"),
]


@asynccontextmanager
async def desk_of(tmp_path: Path, name: str, loader: str, options: dict[str, Any]) -> AsyncIterator[Desk]:
    """The services of an app whose one model is this."""
    catalog = EchoCatalog("echo") if loader == "echo" else Catalog([MODELS])
    engine = Engine(catalog, registry.find_loaders(), log_dir=tmp_path)  # type: ignore[arg-type]
    desk = Desk(engine, tmp_path / "data")
    try:
        await engine.load(name, loader=loader, options=options)
        yield desk
    finally:
        await engine.close()
        await desk.replies.close()
        await desk.notebook.close()
        desk.store.close()


def evaluated(node: Node) -> int:
    return int(node.stats["prompt_tokens"]) - int(node.stats["cached_tokens"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loader", "options"), SUBJECTS)
async def test_fifty_turns_at_temperature_one_and_a_half_evaluate_what_is_new_and_one_more(
        tmp_path: Path, name: str, loader: str, options: dict[str, Any]) -> None:
    """New is what the prompt grew by beyond the last prompt and what was sampled after it; one more is the last sampled token."""
    async with desk_of(tmp_path, name, loader, {**options, "context": 4096}) as desk:
        await desk.sessions.update(TAB, params={"max_tokens": 16, "temperature": 1.5})
        before: Node | None = None
        for turn in range(50):
            reply = await desk.say(f"message {turn}")
            assert not reply.stats["dropped"]
            if before is not None:
                new = reply.stats["prompt_tokens"] - before.stats["prompt_tokens"] - before.stats["completion_tokens"]
                assert evaluated(reply) <= new + 1, f"turn {turn}"
            before = reply


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loader", "options"), SUBJECTS)
async def test_past_the_context_at_most_one_turn_in_eight_evaluates_more_than_what_is_new(
        tmp_path: Path, name: str, loader: str, options: dict[str, Any]) -> None:
    """Sixty turns past the context. A cut frees up to half of the room, of which a turn takes about a twentieth here."""
    async with desk_of(tmp_path, name, loader, {**options, "context": 1024}) as desk:
        await desk.sessions.update(TAB, params={"max_tokens": 24, "temperature": 1.5})
        before: Node | None = None
        past = costly = turn = 0
        while past < 60:
            reply = await desk.say(f"message {turn} with a few words")
            if before is not None and reply.stats["dropped"]:
                past += 1
                new = reply.stats["prompt_tokens"] - before.stats["prompt_tokens"] - before.stats["completion_tokens"]
                costly += evaluated(reply) > max(new, 0) + 1
            before, turn = reply, turn + 1
            assert turn < 200, "the context is never full"
        assert costly <= past / 8
