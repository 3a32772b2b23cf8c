"""The GGUF loader beyond the contract suite: loading, control tokens, samplers, room, memories that cannot be cut."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaders.llama_cpp import LlamaCpp
from modules.core.errors import AppError, BadRequest, Busy, Cancelled, ContextTooLong, LoadFailed
from tests.contract.play import Played, Stage, prompt_of
from tests.llama_play import EXACT, GREEDY, changed, load
from tests.tiny_memories import WINDOW, tiny_gemma, tiny_mamba
from tests.tiny_models import TEMPLATE, tiny_gguf

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def loader(path: Path) -> Iterator[LlamaCpp]:
    loaded = load(path)
    yield loaded
    loaded.close()


@pytest.fixture
def stage(loader: LlamaCpp) -> Iterator[Stage]:
    stage = Stage(loader)
    yield stage
    for run in stage.runs:
        loader.remove(run)


def test_progress_goes_from_nothing_to_ready(path: Path) -> None:
    seen: list[tuple[float, str]] = []
    load(path, lambda fraction, what: seen.append((fraction, what))).close()
    assert [f for f, _ in seen] == sorted(f for f, _ in seen)
    assert seen[0][0] == 0 and seen[-1] == (1.0, "ready") and any("GiB" in what for _, what in seen)


def test_a_cancel_in_the_middle_of_a_load_comes_through(path: Path) -> None:
    def cancel(fraction: float, what: str) -> None:
        if fraction > 0.3:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        load(path, cancel)
    load(path).close()


def test_files_that_are_no_model_are_refused_with_the_reason(path: Path, tmp_path: Path) -> None:
    raw = path.read_bytes()
    for name, content, reason in [("cut.gguf", raw[:200_000], "complete"), ("empty.gguf", b"", "no GGUF"),
                                  ("zip.gguf", b"PK\3\4", "no GGUF"),
                                  ("lfs.gguf", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
                                  ("head.gguf", raw[:100], "complete")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LoadFailed, match=reason):
            load(tmp_path / name)
    with pytest.raises(LoadFailed, match="cannot be read"):
        load(tmp_path / "absent.gguf")


@needs_shared
def test_a_vocabulary_that_would_crash_llama_cpp_is_refused() -> None:
    with pytest.raises(LoadFailed, match="byte"):
        load(SHARED / "models" / "hostile" / "no-byte-pieces-tok105-F16.gguf")


def test_quantized_values_without_flash_attention_are_refused(path: Path) -> None:
    with pytest.raises(LoadFailed, match="flash attention") as caught:
        load(path, kv_type_v="q8_0", flash_attention="off")
    assert caught.value.param == "kv_type_v"


@pytest.mark.parametrize(("changed", "param"), [
    ({"rope_scaling": "yarn"}, "rope_factor"), ({"tensor_split": "much,little"}, "tensor_split"),
    ({"tensor_split": "0,0"}, "tensor_split"), ({"tensor_split": ",".join("1" * 99)}, "tensor_split")])
def test_options_that_mean_nothing_are_refused(path: Path, changed: dict[str, str], param: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        load(path, **changed)
    assert caught.value.param == param


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0", "f32"])
def test_every_kv_type_writes(path: Path, kind: str) -> None:
    loaded = load(path, kv_type_k=kind, kv_type_v=kind)
    assert len(Stage(loaded).alone("run", prompt_of(loaded), GREEDY).tokens) == 20
    assert loaded.facts.options["kv_type_k"] == kind
    loaded.close()


def test_facts_say_what_the_model_is(loader: LlamaCpp) -> None:
    facts = loader.facts
    assert (facts.context, facts.slots, facts.vocab_size) == (1024, 4, 563)
    assert (facts.chat_template, facts.add_bos) == (TEMPLATE, False)
    assert (facts.bos_text, facts.eos_text) == ("<|endoftext|>", "<|im_end|>")
    assert set(facts.eog_ids) == {0, 2}
    assert set(facts.special_tokens.values()) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"}
    assert facts.options["threads"] == 1 and facts.options["flash_attention"] == "on" and facts.memory_bytes > 7_000_000


def test_a_context_is_rounded_up_and_by_default_as_trained(path: Path) -> None:
    for wanted, got in ((300, 512), (0, 8192)):
        loaded = load(path, context=wanted)
        assert loaded.facts.context == loaded.facts.options["context"] == got
        loaded.close()


def test_marks_are_tokens_only_where_control_is_allowed(loader: LlamaCpp) -> None:
    """User-defined tokens too, which llama.cpp finds in any text: a document must not close the model's reasoning."""
    text = "a<|im_end|>\n<think>b</think>c<|im_start|>"
    ids = {text: i for i, text in loader.facts.special_tokens.items()}
    as_text = loader.tokenize(text, control=False)
    assert not set(as_text) & set(ids.values())
    assert loader.detokenize(as_text) == text.encode()
    assert {ids["<|im_end|>"], ids["<think>"], ids["</think>"], ids["<|im_start|>"]} <= set(loader.tokenize(text, control=True))
    assert loader.detokenize(loader.tokenize(text, control=True)) == text.encode()


@needs_shared
def test_text_that_goes_on_gets_no_space_before_it() -> None:
    loaded = load(SHARED / "models" / "stories260K-F32.gguf", context=512)
    assert loaded.detokenize(loaded.tokenize("Once upon", control=False)) == b" Once upon", "the model was trained so"
    for text in ("Once upon", " Once", "\n\nx", "", "é", "</s>"):
        assert loaded.detokenize(loaded.tokenize(text, control=False, first=False)) == text.encode()
    loaded.close()


def test_unknown_ids_and_long_prompts_are_refused(loader: LlamaCpp) -> None:
    with pytest.raises(BadRequest, match="563"):
        loader.add("run", [1, 563], GREEDY, "")
    with pytest.raises(BadRequest, match="-1"):
        loader.detokenize([-1])
    with pytest.raises(ContextTooLong, match="1024"):
        loader.add("run", [1] * 1024, GREEDY, "")


def test_fifty_turns_evaluate_only_what_is_new(path: Path) -> None:
    loader = load(path, context=8192)
    stage, ids = Stage(loader), prompt_of(loader)
    new = loader.tokenize("<|im_end|>\n<|im_start|>user\nand then?<|im_end|>\n<|im_start|>assistant\n", control=True)
    for turn in range(50):
        played = stage.alone(f"turn {turn}", ids, changed(temperature=1.5, seed=turn, max_tokens=30), "chat")
        assert not turn or played.evaluated <= len(new) + 1, f"turn {turn}"
        ids = [*ids, *played.ids, *new]
    loader.close()


def test_a_regenerated_reply_is_the_same_to_the_bit(path: Path) -> None:
    """The prompt computed in pieces, then found in the cache; flash attention and float16 as by default."""
    loader = load(path)
    stage, prompt = Stage(loader), prompt_of(loader, n_tokens=700)
    params = changed(temperature=1.2, seed=9, top_logprobs=1, max_tokens=60)
    cold, warm, again = (stage.alone(f"run {n}", prompt, params, "chat") for n in range(3))
    assert (cold.cached, warm.cached, again.cached) == (0, 699, 699)
    assert cold.tokens == warm.tokens == again.tokens
    loader.close()


def test_open_runs_share_the_room_and_end_with_length(path: Path) -> None:
    loader = load(path, context=1024, slots=2)
    stage = Stage(loader)
    one = stage.add("one", prompt_of(loader), changed(max_tokens=0))
    stage.step()
    two = stage.add("two", prompt_of(loader, "The fox"), changed(max_tokens=0))
    stage.play()
    assert one.finish == two.finish == "length"
    assert min(len(one.tokens), len(two.tokens)) > 256
    assert max(len(one.tokens), len(two.tokens)) > 700, "when one has ended, the other goes on into its cells"
    loader.close()


def test_a_chat_that_waits_is_parked_and_its_next_turn_goes_on(path: Path) -> None:
    """Two chats in turns, both longer than what one context holds: nothing is computed twice, and the text is as if alone."""
    loader, roomy = load(path, context=1024, slots=1, **EXACT), load(path, context=4096, slots=1, parking=0, **EXACT)
    stage, alone = Stage(loader), Stage(roomy)
    texts = {key: prompt_of(loader, text, n_tokens=700) for key, text in (("a", "The quick brown fox"), ("b", "Numbers: 1 2 3"))}
    for turn in range(3):
        for key, ids in texts.items():
            played = stage.alone(f"{key} {turn}", ids, GREEDY, key)
            assert not turn or played.evaluated <= 4
            assert played.ids == alone.alone(f"{key} {turn}", ids, GREEDY, key).ids
            texts[key] = [*ids, *played.ids, 5, 6, 7]
    loader.close()
    roomy.close()


def test_what_does_not_fit_waits_and_an_idle_chat_gives_way(path: Path) -> None:
    loader = load(path, context=512, slots=2)
    stage = Stage(loader)
    stage.alone("idle", prompt_of(loader, n_tokens=300), GREEDY, "idle")
    one = stage.add("one", prompt_of(loader, n_tokens=200), changed(max_tokens=200))
    with pytest.raises(Busy):
        stage.add("two", prompt_of(loader, n_tokens=100), changed(max_tokens=100))
    two = stage.add("three", prompt_of(loader, n_tokens=50), changed(max_tokens=40))
    stage.play()
    assert (len(one.tokens), len(two.tokens)) == (200, 40)
    loader.close()


def test_when_the_memory_has_no_room_only_the_last_run_ends(path: Path) -> None:
    """Cells taken behind the books' back: llama_decode answers 1, which must not kill the reply that was there before."""
    loader = load(path, context=256, slots=2)
    stage = Stage(loader)
    first = stage.add("first", prompt_of(loader, n_tokens=20), changed(max_tokens=60))
    stage.play(lambda: len(first.tokens) > 2)
    context = loader._context
    assert context is not None
    context.begin()
    context.add_chunk([5] * 130, 0, 5)
    assert context.decode() == 0
    second = stage.add("second", prompt_of(loader, n_tokens=120), changed(max_tokens=10))
    stage.play()
    assert isinstance(second.error, Busy) and len(first.tokens) == 60
    loader.close()


@needs_shared
def test_scores_are_those_that_numpy_computed() -> None:
    """../shared/data/README.md: stories260K on tinyshakespeare, the first 511 tokens after BOS: 3.9002 nats a token."""
    import numpy as np

    loader = load(SHARED / "models" / "stories260K-F32.gguf", context=512, **EXACT)
    text = (SHARED / "text" / "tinyshakespeare.txt").read_text("utf-8")
    ids = [1, *loader.tokenize(text[:8000], control=False)][:512]
    scores = loader.score(ids)
    assert np.isnan(scores[0]) and -scores[1:].mean() == pytest.approx(3.9002, abs=1e-3)
    loader.close()


def test_evaluation_beside_runs_changes_none_of_them(path: Path) -> None:
    import numpy as np

    loader = load(path, **EXACT)
    stage, ids = Stage(loader), prompt_of(loader, n_tokens=200)
    alone = stage.alone("alone", prompt_of(loader), GREEDY).ids
    before = loader.logits(ids, 0, 200)
    run = stage.add("run", prompt_of(loader), GREEDY)
    stage.play(lambda: len(run.tokens) == 5)
    pieces = np.concatenate([loader.logits(ids, n, n + 50) for n in range(0, 200, 50)])
    np.testing.assert_allclose(pieces, before, atol=1e-4)
    rows = before.astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(loader.score(ids)[1:], logs[np.arange(199), ids[1:]], atol=1e-4)
    vector = loader.embed(ids)
    assert vector.shape == (256,) and vector.dtype == np.float32 and np.isfinite(vector).all()
    np.testing.assert_allclose(loader.embed(ids), vector, atol=1e-5)
    stage.play()
    assert run.ids == alone
    with pytest.raises(BadRequest, match="Positions"):
        loader.logits(ids, 190, 201)
    loader.close()


def test_what_does_not_fit_beside_the_runs_is_not_evaluated(path: Path) -> None:
    loader = load(path, context=512, slots=1)
    Stage(loader).add("run", prompt_of(loader, n_tokens=100), changed(max_tokens=300))
    with pytest.raises(Busy):
        loader.score([5] * 200)
    assert len(loader.score([5] * 100)) == 100
    loader.close()


def turns(loader: LlamaCpp, key: str, n_prompt: int) -> list[Played]:
    """A reply, the next turn, and the first one again."""
    stage = Stage(loader)
    prompt = prompt_of(loader, n_tokens=n_prompt)
    first = stage.alone("first" + key, prompt, GREEDY, key)
    further = [*prompt, *first.ids, *prompt_of(loader, " and then")]
    return [first, stage.alone("next" + key, further, GREEDY, key), stage.alone("again" + key, prompt, GREEDY, key),
            stage.alone("cold" + key, further, GREEDY, key + " cold")]


def test_a_recurrent_models_state_is_reused_only_where_it_ends(tmp_path: Path) -> None:
    loader = load(tiny_mamba(tmp_path / "mamba.gguf"))
    first, following, again, cold = turns(loader, "chat", 100)
    assert following.cached == 119 and again.cached == 0
    assert again.ids == first.ids and following.ids == cold.ids
    loader.close()


@pytest.mark.parametrize("full_swa", [True, False])
def test_a_sliding_window_is_computed_again_where_it_is_gone(tmp_path: Path, full_swa: bool) -> None:
    """Regenerating from 800 tokens back: in the windows' own small cache those cells are overwritten by then."""
    loader = load(tiny_gemma(tmp_path / "gemma.gguf"), full_swa=full_swa, context=2048, slots=1, batch=64, ubatch=32, **EXACT)
    stage, prompt = Stage(loader), prompt_of(loader, n_tokens=3 * WINDOW)
    first = stage.alone("first", prompt, changed(max_tokens=800), "chat")
    again = stage.alone("again", prompt, changed(max_tokens=800), "chat")
    assert again.ids == first.ids
    assert again.cached == (len(prompt) - 1 if full_swa else 0)
    following = stage.alone("next", [*prompt, *first.ids, 5, 6], GREEDY, "chat")
    assert following.cached == len(prompt) + 799
    loader.close()


def test_closing_with_runs_and_twice_is_harmless(path: Path) -> None:
    loader = load(path)
    loader.add("run", [1, 2, 3], GREEDY, "")
    loader.step()
    loader.close()
    loader.close()
    with pytest.raises(AppError, match="closed"):
        loader.embed([1])
