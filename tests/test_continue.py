"""Continue at the context's end: a reply that fills the context goes on, as often as one likes, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .test_chat import TAB
from .test_turns import desk_of

SUBJECTS = [
    pytest.param("echo", "echo", {"script": "wörds and 文字 go on " * 400}, id="echo"),
    pytest.param("starter-Q8_0.gguf", "llama_cpp", {"threads": 1}, id="gguf"),
    pytest.param("starter", "transformers", {"threads": 1}, id="safetensors"),
]


@pytest.mark.parametrize(("name", "loader", "options"), SUBJECTS)
async def test_continue_works_at_the_contexts_end_again_and_again(
        tmp_path: Path, name: str, loader: str, options: dict[str, Any]) -> None:
    """It failed: "The last message needs 300 tokens ... room for 225 ... Shorten the message"."""
    async with desk_of(tmp_path, name, loader, {**options, "context": 512}) as desk:
        await desk.sessions.update(TAB, params={"max_tokens": 0, "temperature": 1.0, "ban_eos": True})
        reply = await desk.say("Tell me something long.")
        assert reply.finish == "length"
        assert reply.stats["prompt_tokens"] + reply.stats["completion_tokens"] >= 510
        left_out = []
        for _ in range(4):
            turn = await desk.chat.continue_reply(TAB, reply.id)
            assert turn.reply is not None and turn.run, turn.reply and turn.reply.stats
            longer = await desk.saved(turn.reply)
            assert (longer.status, longer.finish) == ("complete", "length"), longer.stats
            assert longer.message.text.startswith(reply.message.text)
            assert len(longer.message.text) > len(reply.message.text)
            assert "\ufffd" not in longer.message.text or loader != "echo"
            left_out.append(longer.stats["left_out"])
            reply = longer
        assert all(left_out) and left_out == sorted(left_out), "and it is told"


async def test_a_question_that_fills_the_context_is_still_refused_with_the_counts(tmp_path: Path) -> None:
    async with desk_of(tmp_path, "echo", "echo", {"script": "ok", "context": 512}) as desk:
        reply = await desk.say("word " * 600)
        assert reply.status == "failed"
        assert "512" in reply.stats["error"] or "384" in reply.stats["error"]
