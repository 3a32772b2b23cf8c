"""Log-probabilities over the API: of replies and of prompts, in both shapes, whole and streamed; what harnesses rely on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from modules.engine.scoring import _read

from .test_api_contract import chunks
from .test_api_openai import USER, api


async def test_a_prompt_is_scored_as_evaluation_harnesses_ask(tmp_path: Path) -> None:
    """With max_tokens 0 a whole context was written; the prompt's own tokens had no log-probabilities at all."""
    async with api(tmp_path, script="yes") as (sdk, plain, engine):
        text = "Grüße 世界, hello"
        ids = await engine.tokenize(text)
        for prompt in (text, ids):
            for top in (0, 2):
                answer = await sdk.completions.create(model="echo", prompt=prompt, max_tokens=0, echo=True, logprobs=top)
                choice = answer.choices[0]
                assert (choice.text, choice.finish_reason) == (text, "length")
                assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 0)
                scored = choice.logprobs
                assert "".join(scored.tokens) == text and len(scored.tokens) == len(ids)
                assert scored.token_logprobs[0] is None
                assert all(-20 < value < 0 for value in scored.token_logprobs[1:])
                starts = [0]
                for token in scored.tokens[:-1]:
                    starts.append(starts[-1] + len(token))
                assert scored.text_offset == starts
                if top:
                    assert scored.top_logprobs[0] is None
                    assert all(len(row) >= 1 for row in scored.top_logprobs[1:])
        assert not engine.live_runs, "nothing was generated"
        # As lm-evaluation-harness does: one token more, which it cuts off.
        body = {"prompt": [ids, ids[:5]], "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0, "seed": 1234}
        choices = (await plain.post("/v1/completions", json=body)).json()["choices"]
        for choice, expected in zip(choices, (ids, ids[:5]), strict=True):
            scored = choice["logprobs"]
            assert len(scored["token_logprobs"]) == len(scored["top_logprobs"]) == len(expected) + 1
            assert scored["token_logprobs"][-1] == 0.0, "the script is certain"
            assert all(max(top.values()) >= score for score, top
                       in zip(scored["token_logprobs"][1:-1], scored["top_logprobs"][1:-1], strict=True))


async def test_a_streamed_echo_has_the_same_text_and_logprobs_as_a_whole_one(tmp_path: Path) -> None:
    """Each chunk's offsets began at 0."""
    async with api(tmp_path, script=" there, 世界", rate=300) as (_, plain, _):
        body = {"prompt": "Hello", "echo": True, "logprobs": 1, "max_tokens": 30}
        whole = (await plain.post("/v1/completions", json=body)).json()["choices"][0]
        got = [c["choices"][0] for c in (await chunks(plain, "/v1/completions", body))[:-1]]
        assert "".join(c["text"] for c in got) == whole["text"] == "Hello there, 世界"
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            assert [x for c in got if c["logprobs"] for x in c["logprobs"][name]] == whole["logprobs"][name]
        nothing = await chunks(plain, "/v1/completions", {"prompt": "Hello", "max_tokens": 0})
        assert nothing[-2]["choices"][0]["finish_reason"] == "length" and nothing[-1] == "[DONE]"


async def test_chat_logprobs_spell_the_content_and_not_the_reasoning(tmp_path: Path) -> None:
    async with api(tmp_path, script="<think>let me see</think>Yes, 世界.") as (_, plain, _):
        choice = (await plain.post("/v1/chat/completions", json={"messages": USER, "logprobs": True, "top_logprobs": 1})).json()
        content = choice["choices"][0]["logprobs"]["content"]
        assert "".join(entry["token"] for entry in content) == choice["choices"][0]["message"]["content"]
        assert all(set(entry) == {"token", "logprob", "bytes", "top_logprobs"} for entry in content)


def test_scores_from_logits_are_log_softmax_and_what_cannot_come_is_no_infinity() -> None:
    logits = np.array([[0.0, 1.0, 2.0, -np.inf], [5.0, 5.0, 5.0, 5.0]], np.float32)
    scores, best = _read(logits, [1, 3], 2)
    total = math.log(1 + math.e + math.e**2)
    assert scores == pytest.approx([1 - total, -math.log(4)], abs=1e-6)
    assert [id_ for id_, _ in best[0]] == [2, 1]
    assert best[0][0][1] == pytest.approx(2 - total, abs=1e-6)
