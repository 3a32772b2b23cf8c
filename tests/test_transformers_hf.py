"""The Transformers loader's runs: greedy equals generate(), prefixes are reused, side by side as alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders.transformers_parts.pace import Pace
from modules.core.errors import BadRequest, Busy, ContextTooLong
from modules.core.loader import Loader, Prefilled, Token
from modules.core.params import GenerationParams

from .hf_play import FOREIGN, GREEDY, SHARED, drive, generate, ids_of, load, needs_shared, reply, saved
from .tiny_models import tiny_hf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Loader]:
    loaded = load(folder)
    yield loaded
    loaded.close()


def test_greedy_ids_equal_those_of_generate(model: Loader, folder: Path) -> None:
    for text in ("Once upon a time", "def add(a, b):\n", "Où est la gare ?"):
        prompt = model.tokenize(text, control=False)
        assert ids_of(reply(model, prompt)) == generate(folder, prompt, 40)


@needs_shared
@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok361"])
def test_greedy_ids_equal_the_golden_ones_of_trained_models(name: str) -> None:
    loaded = load(SHARED / "models" / f"{name}-hf-f32")
    for golden in json.loads((SHARED / "models" / "golden.json").read_text())[name]:
        text = loaded.tokenize(golden["prompt"], control=False)
        assert [loaded.facts.bos_id, *text] == golden["prompt_ids"]
        n = 20 if golden["prompt"].startswith("Tom") else 120  # two logits lie 0.0018 apart there
        n = min(n, loaded.facts.context - len(golden["prompt_ids"]))
        tokens = reply(loaded, golden["prompt_ids"], GenerationParams(temperature=0, max_tokens=n))
        assert ids_of(tokens) == golden["greedy_ids"][:n]
    loaded.close()


def test_runs_side_by_side_give_what_each_gives_alone(model: Loader) -> None:
    prompts = [model.tokenize(text, control=False) for text in ("Once upon", "The quick brown fox", "1 2 3", FOREIGN)]
    alone = [ids_of(reply(model, prompt)) for prompt in prompts]
    together = drive(model, *[(prompt, GREEDY, f"side{n}") for n, prompt in enumerate(prompts)])
    assert [ids_of([item for item in results if isinstance(item, Token)]) for results in together] == alone


def test_a_run_that_joins_later_does_not_stop_the_first_one(model: Loader) -> None:
    """Every step gives the decoding run a token while the other's prompt is evaluated in chunks."""
    model.add("first", [5, 6, 7], GenerationParams(max_tokens=400, ban_eos=True, seed=1), "first")
    model.step()
    model.add("second", list(range(3, 403)) * 2, GenerationParams(max_tokens=1), "second")
    n_chunks, is_done = 0, False
    while not is_done:
        results = model.step()
        assert any(name == "first" and isinstance(item, Token) for name, item in results)
        n_chunks += any(name == "second" and isinstance(item, Prefilled) for name, item in results)
        is_done = any(name == "second" and isinstance(item, Token) for name, item in results)
    assert n_chunks > 1
    model.remove("first")


def test_only_the_last_token_has_a_finish_and_max_tokens_is_obeyed(model: Loader) -> None:
    for n in (1, 2, 7):
        tokens = reply(model, [5, 6], GenerationParams(max_tokens=n, ban_eos=True))
        assert [token.finish for token in tokens] == [None] * (n - 1) + ["length"]


def test_a_bias_for_a_token_that_is_not_there_is_refused(model: Loader) -> None:
    with pytest.raises(BadRequest, match="logit_bias names token 563"):
        model.add("bias", [5], GenerationParams(logit_bias={563: 1.0}), "")


def test_an_end_token_stops_the_run_without_text(model: Loader) -> None:
    tokens = reply(model, [5, 6], GenerationParams(logit_bias={2: 100.0}))
    assert [(token.id, token.text, token.finish) for token in tokens] == [(2, "", "stop")]


def test_a_reply_ends_with_length_where_the_context_ends(folder: Path) -> None:
    short = load(folder, context=64)
    tokens = reply(short, list(range(5, 55)), GenerationParams(max_tokens=0, ban_eos=True))
    assert (len(tokens), tokens[-1].finish) == (14, "length")
    with pytest.raises(ContextTooLong):
        short.add("long", [5] * 64, GREEDY, "")
    short.close()


def test_more_runs_than_slots_are_told_to_wait(folder: Path) -> None:
    small = load(folder, slots=1)
    small.add("a", [5], GREEDY, "")
    with pytest.raises(Busy):
        small.add("b", [5], GREEDY, "")
    small.remove("a")
    small.remove("a")
    assert small.step() == []
    small.close()
    small.close()


def test_a_cancel_during_prefill_takes_effect_after_one_chunk(model: Loader) -> None:
    model.add("long", [5, 6, 7, 8] * 1000, GREEDY, "cancelled")
    (_, first), = model.step()
    assert isinstance(first, Prefilled) and 0 < first.done < first.total
    model.remove("long")
    assert model.step() == []
    assert model.add("again", [5, 6, 7, 8] * 1000, GREEDY, "cancelled") == first.done
    model.remove("again")


@pytest.mark.parametrize(("fixed", "per_token", "smallest", "largest"), [(0.0, 0.01, 16, 32), (3.0, 0.0001, 128, 256),
                                                                         (0.0, 1e-5, 4096, 4096)])
def test_chunks_shrink_only_where_that_makes_them_shorter(fixed: float, per_token: float, smallest: int, largest: int) -> None:
    """0.4 s are 40 tokens at 10 ms each; a fixed 3 s a pass is not shortened by smaller ones."""
    pace = Pace()
    for _ in range(20):
        pace.prefilled(pace.size(alone=True), fixed + per_token * pace.size(alone=True), alone=True)
        last = pace.size(alone=True)
    assert smallest <= last <= largest


def test_every_prompt_token_is_reported_evaluated_or_cached(model: Loader) -> None:
    results, = drive(model, ([9, 8, 7] * 300, GenerationParams(max_tokens=1), "whole"))
    done = [item.done for item in results if isinstance(item, Prefilled)]
    assert done == sorted(done) and done[-1] == 900
    results, = drive(model, ([9, 8, 7] * 300, GenerationParams(max_tokens=1), "whole"))
    assert [(item.done, item.cached) for item in results if isinstance(item, Prefilled)] == [(900, 899)]


def test_fifty_turns_evaluate_only_the_new_tokens_and_one(folder: Path) -> None:
    """At temperature 1.5 sampled text tokenizes otherwise than it was sampled; the ids are what counts."""
    chat = load(folder)
    prompt: list[int] = []
    chance = np.random.default_rng(0)
    n_known = 0  # of the next prompt, all but what the person adds
    for turn in range(50):
        said = chance.integers(3, 500, 1 + turn % 9).tolist()
        prompt += said
        results, = drive(chat, (prompt, GenerationParams(temperature=1.5, max_tokens=20, seed=turn), "chat"))
        first = next(item for item in results if isinstance(item, Prefilled))
        n_evaluated = len(prompt) - first.cached
        assert n_evaluated <= (len(prompt) - n_known) + 1
        prompt += ids_of([item for item in results if isinstance(item, Token)])
        n_known = len(prompt)
    chat.close()


def test_a_warm_cache_gives_the_text_of_a_cold_one(model: Loader) -> None:
    """Thirty seeds, twenty tokens each: the whole prompt at once, and after a prefix that another run left."""
    for seed in range(30):
        prompt = np.random.default_rng(seed).integers(3, 500, 120).tolist()
        params = GenerationParams(seed=seed, max_tokens=20, ban_eos=True)
        cold = ids_of(reply(model, prompt, params, f"cold{seed}"))
        drive(model, (prompt[: 20 + seed], GenerationParams(max_tokens=3, seed=1), f"warm{seed}"))
        assert ids_of(reply(model, prompt, params, f"warm{seed}")) == cold
        assert ids_of(reply(model, prompt, params, f"warm{seed}")) == cold, "and once more, all but the last token cached"


def test_nothing_is_reused_under_another_key(model: Loader) -> None:
    drive(model, ([5, 6, 7, 8], GREEDY, "mine"))
    assert model.add("x", [5, 6, 7, 8, 9], GREEDY, "yours") == 0
    model.remove("x")


def test_idle_prefixes_go_oldest_first_when_slots_are_needed(folder: Path) -> None:
    small = load(folder, slots=2)
    for key in ("a", "b", "c"):
        drive(small, ([5, 6, 7, 8], GenerationParams(max_tokens=1), key))
    reused = {}
    for key in ("a", "c"):
        reused[key] = small.add(key, [5, 6, 7, 8, 9], GREEDY, key)
        small.remove(key)
    assert reused == {"a": 0, "c": 4}
    small.close()


def test_a_short_common_beginning_leaves_the_long_branch_cached(model: Loader) -> None:
    long = list(range(3, 203))
    drive(model, (long, GenerationParams(max_tokens=1), "branch"))
    drive(model, ([*long[:20], 300, 301], GenerationParams(max_tokens=1), "branch"))
    assert model.add("back", [*long, 9], GREEDY, "branch") == 200
    model.remove("back")


def test_log_probabilities_are_the_models_own(model: Loader) -> None:
    prompt = [5, 6, 7]
    token, = reply(model, prompt, GenerationParams(temperature=0.3, seed=2, max_tokens=1, top_logprobs=3, top_k=2))
    row = model.logits(prompt, 2, 3)[0].astype(np.float64)
    expected = row - np.log(np.exp(row - row.max()).sum()) - row.max()
    assert token.logprob == pytest.approx(expected[token.id], abs=1e-4)
    assert [id_ for id_, _, _ in token.top] == np.argsort(-expected)[:3].tolist()
    assert [value for _, _, value in token.top] == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-4)


def test_scores_logits_and_embeddings_do_not_hang_on_how_they_are_asked_for(model: Loader) -> None:
    ids = np.random.default_rng(0).integers(3, 500, 700).tolist()
    whole = model.logits(ids, 0, 700)
    pieces = [model.logits(ids, start, start + 100) for start in range(0, 700, 100)]
    assert np.abs(np.concatenate(pieces) - whole).max() < 1e-3
    shifted = whole[:-1] - whole[:-1].max(axis=1, keepdims=True)
    expected = (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))[np.arange(699), ids[1:]]
    scores = model.score(ids)
    assert np.isnan(scores[0]) and np.abs(scores[1:] - expected).max() < 1e-3
    assert model.embed(ids).shape == (256,)
    with pytest.raises(BadRequest, match="positions"):
        model.logits(ids, 5, 5)
    with pytest.raises(BadRequest, match="vocabulary"):
        model.score([1, 99_999])


def test_facts_are_those_of_tokenizer_and_configuration(model: Loader) -> None:
    facts = model.facts
    assert (facts.context, facts.vocab_size, facts.slots, facts.add_bos) == (8192, 563, 4, False)
    assert (facts.bos_text, facts.eos_text, facts.eog_ids) == ("<|endoftext|>", "<|im_end|>", (0, 2))
    assert "<|im_start|>" in facts.chat_template
    assert facts.options["context"] == 8192 and facts.options["dtype"] == "float32" and facts.memory_bytes > 1_000_000


@pytest.mark.parametrize(("kind", "share"), [("8bit", 0.75), ("4bit", 0.6), ("int8", 0.75)])
def test_quantization_shrinks_the_weights_and_still_generates(model: Loader, folder: Path, kind: str, share: float) -> None:
    package = "torchao" if kind == "int8" else "bitsandbytes"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    small = load(folder, quantization=kind)
    assert small.facts.memory_bytes < share * model.facts.memory_bytes
    assert small.facts.options["quantization"] == kind
    prompt = small.tokenize("Once upon a time", control=False)
    first = ids_of(reply(small, prompt))
    assert len(first) == 40
    assert ids_of(reply(small, prompt)) == first, "also after the first pass, which repacks 4-bit weights"
    gap = np.abs(small.logits(prompt, 0, len(prompt)) - model.logits(prompt, 0, len(prompt))).mean()
    assert gap < 1.5, "logits have a deviation of 3"
    small.close()


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "sliding window": ("mistral", {"sliding_window": 16}),
    "sliding and full layers": ("gemma3_text", {"sliding_window": 16,
                                                "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "a state that no prompt can follow in parts": ("jamba", {
        "mamba_d_state": 8, "num_experts": 2, "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "use_mamba_kernels": False}),
    "recurrent and full layers": ("lfm2", {"layer_types": ["conv", "full_attention"] * 2, "block_multiple_of": 32}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_caches_that_cannot_be_cut_back_are_computed_again(name: str, folder: Path, tmp_path: Path) -> None:
    """Regenerate, edit and go on, in the ways a chat does: always what generate() gives on the whole prompt."""
    kind, config = ARCHITECTURES[name]
    path = saved(kind, folder, tmp_path / "model", **config)
    loaded = load(path)
    prompt = np.random.default_rng(1).integers(3, 500, 60).tolist()
    first = ids_of(reply(loaded, prompt, GREEDY, "chat"))
    assert first == generate(path, prompt, 40)
    assert ids_of(reply(loaded, prompt, GREEDY, "chat")) == first, "regenerate"
    edited = [*prompt[:30], 7, 8, 9]
    assert ids_of(reply(loaded, edited, GREEDY, "chat")) == generate(path, edited, 40)
    longer = [*edited, *ids_of(reply(loaded, edited, GREEDY, "chat")), 11, 12]
    assert ids_of(reply(loaded, longer, GREEDY, "chat")) == generate(path, longer, 40)
    loaded.close()
