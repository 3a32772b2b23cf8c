"""The Transformers loader: greedy equals generate(), prefixes are reused, control tokens stay text, unsafe folders refused."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders import transformers_hf
from loaders.transformers_parts.text import byte_alphabet, incomplete_tail
from modules.core.errors import BadRequest, Busy, Cancelled, ContextTooLong, LoadFailed, OutOfMemory
from modules.core.loader import Loader, Prefilled, RunFailed, StepResult, Token
from modules.core.params import GenerationParams

from .tiny_models import tiny_hf

SHARED = Path(__file__).parents[2] / "shared" / "data"
GREEDY = GenerationParams(temperature=0, max_tokens=40, ban_eos=True)
FOREIGN = "Où est la gare ? 今日は🙂👩‍👩‍👧 \t x=1;\n\n  def"
MARKS = "<|im_end|>\n<|im_start|>system\n<think>no</think><|endoftext|>"
needs_shared = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="../shared/data is not here")


def options(**changed: Any) -> dict[str, Any]:
    """The loader's defaults, but one thread: beside other tests two threads wait for each other."""
    return {**{name: knob.default for name, knob in transformers_hf.SPEC.options.items()}, "threads": 1, **changed}


def load(path: Path | str, **changed: Any) -> Loader:
    return transformers_hf.load(str(path), options(**changed), lambda fraction, text: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Loader]:
    loaded = load(folder)
    yield loaded
    loaded.close()


_names = itertools.count()


def drive(model: Loader, *runs: tuple[Sequence[int], GenerationParams, str]) -> list[list[StepResult]]:
    """Run these together to their ends; the results of each in order."""
    names = [f"run{next(_names)}" for _ in runs]
    for name, (prompt, params, key) in zip(names, runs, strict=True):
        model.add(name, prompt, params, key)
    told: dict[str, list[StepResult]] = {name: [] for name in names}
    while any(not is_over(results) for results in told.values()):
        for name, result in model.step():
            told[name].append(result)
    return list(told.values())


def is_over(results: list[StepResult]) -> bool:
    return bool(results) and (isinstance(results[-1], RunFailed) or (isinstance(results[-1], Token) and bool(results[-1].finish)))


def reply(model: Loader, prompt: Sequence[int], params: GenerationParams = GREEDY, key: str = "") -> list[Token]:
    """Tokens of one run; a key of its own unless one is given, so that nothing is reused."""
    return [item for item in drive(model, (prompt, params, key or f"key{next(_names)}"))[0] if isinstance(item, Token)]


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


def generate(folder: Path, prompt: Sequence[int], n: int, **changed: Any) -> list[int]:
    """Transformers' own greedy continuation."""
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, **changed).eval()
    found = reference.generate(torch.tensor([list(prompt)]), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=0)
    return [int(id_) for id_ in found[0, len(prompt):]]


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


def test_spelled_control_tokens_stay_text_unless_they_are_meant(model: Loader) -> None:
    control = set(model.facts.special_tokens)
    assert len(control) == 5, "two marks of reasoning are control tokens although the tokenizer does not call them special"
    assert control.isdisjoint(model.tokenize(MARKS, control=False))
    assert control <= set(model.tokenize(MARKS, control=True))
    for how in (True, False):
        assert model.detokenize(model.tokenize(MARKS, control=how)) == MARKS.encode()


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back_byte_for_byte(model: Loader, text: str) -> None:
    assert model.detokenize(model.tokenize(text, control=False)) == text.encode()


@needs_shared
@pytest.mark.parametrize("name", ["models/stories260K-hf-f32", "models/babyllama-tok361-chatml-hf-f32"])
def test_sentencepiece_text_comes_back_byte_for_byte(name: str) -> None:
    loaded = load(SHARED / name)
    for text in ("Once upon a time", "a", " b", "", "  two", FOREIGN, MARKS, "</s><s><unk>", "tail "):
        ids = loaded.tokenize(text, control=False)
        assert loaded.detokenize(ids) == text.encode()
        assert set(loaded.facts.special_tokens).isdisjoint(ids)
    loaded.close()


def streamed_equals_detokenized(loaded: Loader, prompt: list[int], n: int) -> None:
    tokens = reply(loaded, prompt, GenerationParams(seed=3, temperature=1.5, max_tokens=n, ban_eos=True))
    text = "".join(token.text for token in tokens)
    whole = loaded.detokenize([*prompt, *ids_of(tokens)])[len(loaded.detokenize(prompt)):]
    assert whole.decode("utf-8", "replace").startswith(text)
    assert len(whole) - len(text.encode()) <= 3 or "\ufffd" in text, "at most an incomplete character is held back"


def test_streamed_text_is_what_detokenizing_the_whole_gives(model: Loader) -> None:
    streamed_equals_detokenized(model, model.tokenize("Once upon", control=False), 300)


@needs_shared
def test_streamed_text_of_a_sentencepiece_model_keeps_its_leading_space() -> None:
    loaded = load(SHARED / "models" / "stories260K-hf-f32")
    prompt = [1, *loaded.tokenize("Once upon a time there was", control=False)]
    assert reply(loaded, prompt, GenerationParams(temperature=0, max_tokens=1))[0].text.startswith(" ")
    streamed_equals_detokenized(loaded, prompt, 200)
    loaded.close()


def test_a_reply_that_goes_on_inside_a_character_completes_it(model: Loader) -> None:
    ids = [model.tokenize(chr(0x1F642), control=False)]
    single = [id_ for id_ in range(model.facts.vocab_size) if len(model.detokenize([id_])) == 1]
    by_byte = {model.detokenize([id_])[0]: id_ for id_ in single}
    prompt = [5, *[by_byte[byte] for byte in "🙂".encode()[:3]]]
    last = by_byte["🙂".encode()[3]]
    token, = reply(model, prompt, GenerationParams(logit_bias={last: 1000.0}, max_tokens=1))
    assert (token.id, token.text) == (last, "🙂"), ids


@given(st.text(min_size=1, max_size=6))
def test_the_incomplete_tail_is_what_the_cut_character_has_so_far(text: str) -> None:
    whole = text.encode("utf-8", "ignore")
    for cut in range(len(whole) + 1):
        complete = whole[:cut].decode("utf-8", "ignore").encode()
        assert incomplete_tail(whole[:cut]) == whole[len(complete): cut]


def test_the_byte_alphabet_names_each_byte_once() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))


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


def test_a_template_in_a_file_of_its_own_is_found(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ messages }}!")
    loaded = load(copy)
    assert loaded.facts.chat_template == "{{ messages }}!"
    loaded.close()


def test_loading_tells_its_progress_and_a_cancel_there_ends_it(folder: Path) -> None:
    told: list[tuple[float, str]] = []
    transformers_hf.load(str(folder), options(), lambda fraction, text: told.append((fraction, text))).close()
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(told) > 20

    def cancel(fraction: float, text: str) -> None:
        if fraction > 0.5:
            raise Cancelled("Loading was cancelled.")

    with pytest.raises(Cancelled):
        transformers_hf.load(str(folder), options(), cancel)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize(("kind", "share"), [("8bit", 0.75), ("4bit", 0.6)])
def test_bitsandbytes_shrinks_the_weights_and_still_generates(model: Loader, folder: Path, kind: str, share: float) -> None:
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


def saved(kind: str, folder: Path, target: Path, **config: Any) -> Path:
    """A tiny random model of another architecture, with the tiny model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 563, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2,
             "pad_token_id": 0, "initializer_range": 0.3}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **config}))
    made.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, target / name)
    return target


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "sliding window": ("mistral", {"sliding_window": 16}),
    "sliding and full layers": ("gemma3_text", {"sliding_window": 16,
                                                "layer_types": ["sliding_attention", "full_attention"] * 2}),
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


def test_an_architecture_without_a_usable_state_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    path = saved("mamba", folder, tmp_path / "model", state_size=8)
    with pytest.raises(LoadFailed, match="GGUF"):
        load(path)


def broken(folder: Path, target: Path, *, without: Sequence[str] = (), **bodies: dict[str, Any]) -> Path:
    """A copy of the folder with files left out, or JSON files written anew (config={...})."""
    shutil.copytree(folder, target, ignore=lambda _, names: [name for name in names if name in without])
    for name, body in bodies.items():
        (target / f"{name}.json").write_text(json.dumps(body))
    return target


def test_pickled_weights_are_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    path = broken(folder, tmp_path / "m", without=["model.safetensors"])
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(LoadFailed, match=r"pytorch_model\.bin.*safetensors"):
        load(path)


def test_a_model_that_needs_its_own_code_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "evil.X"}}
    path = broken(folder, tmp_path / "m", config=config)
    (path / "evil.py").write_text("raise SystemExit('the code ran')")
    with pytest.raises(LoadFailed, match="auto_map"):
        load(path)


def test_a_built_in_architecture_never_runs_the_folders_code(model: Loader, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil.X", "AutoConfig": "evil.Y"}}
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text()) | {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}}
    path = broken(folder, tmp_path / "m", config=config, tokenizer_config=tokenizer)
    (path / "evil.py").write_text("raise SystemExit('the code ran')")
    loaded = load(path)
    assert ids_of(reply(loaded, [5, 6])) == ids_of(reply(model, [5, 6]))
    loaded.close()


@pytest.mark.parametrize(("name", "words"), [
    ("../../secret.safetensors", "not a .safetensors file in the folder"), ("model.bin", "not a .safetensors file in the folder"),
    ("model-00002-of-00002.safetensors", "missing")])
def test_an_index_that_names_other_files_is_refused(folder: Path, tmp_path: Path, name: str, words: str) -> None:
    path = broken(folder, tmp_path / "m")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(LoadFailed, match=words):
        load(path)


def test_weights_that_lack_a_tensor_are_refused_instead_of_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = broken(folder, tmp_path / "m")
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadFailed, match="up_proj"):
        load(path)


@pytest.mark.parametrize(("file", "text", "words"), [
    ("config.json", "{", "cannot be read"), ("config.json", "[]", "no JSON object"),
    ("config.json", '{"model_type": "nonesuch"}', "nonesuch"),
    ("config.json", '{"quantization_config": {"quant_method": "gptq"}}', "GPTQ"),
    ("model.safetensors", "version https://git-lfs", "could not be loaded"), ("tokenizer.json", "{}", "could not be loaded")])
def test_broken_files_are_named(folder: Path, tmp_path: Path, file: str, text: str, words: str) -> None:
    path = broken(folder, tmp_path / "m")
    (path / file).write_text(text)
    with pytest.raises(LoadFailed, match=words):
        load(path)


@needs_shared
def test_a_truncated_checkpoint_is_refused() -> None:
    with pytest.raises(LoadFailed):
        load(SHARED / "models" / "hostile" / "truncated-hf")


def test_an_absent_folder_and_an_absent_device_are_named(folder: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(LoadFailed, match="not a folder"):
        load(tmp_path / "nothing")
    if not torch.cuda.is_available():
        with pytest.raises(LoadFailed, match="no cuda device"):
            load(folder, device="cuda")


def test_memory_errors_are_told_as_such() -> None:
    import torch

    from loaders.transformers_parts.model import translate

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert isinstance(translate(caught.value), OutOfMemory)
    assert isinstance(translate(MemoryError()), OutOfMemory)
    assert translate(ValueError("x")) is None


def test_loading_leaves_the_hubs_offline_switch_as_it_was(folder: Path) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    load(folder).close()
    assert before == constants.HF_HUB_OFFLINE
