"""The same weights write the same greedy text in Transformers float32 and in llama.cpp F32."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modules.core.loader import Loader, Token
from modules.core.params import GenerationParams
from modules.registry import look

from .hf_play import SHARED
from .tiny_models import tiny_gguf, tiny_hf

N_TOKENS = 64
# Where the two best logits lie closer than this, float32 sums in another order may choose the other one.
CLOSE = 1e-3
PARAMS = GenerationParams(temperature=0, max_tokens=N_TOKENS, ban_eos=True, top_logprobs=2)
PROMPTS = [
    "Once upon a time", "One day, a dog named Max", "The little girl saw a big", "Lily and Tom went to the", "It was a sunny day",
    "The cat sat on", "\"I am sorry,\" said", "There was a boy who", "Mom said, \"Let's", "In the park, they",
    "He was very happy because", "The bird could not fly", "She looked under the bed", "A small red car", "At night the moon",
    "They played all day and", "The old man gave him", "Where are you going?", "Sue had a toy", "When the rain stopped"]
STARTER = Path(__file__).parents[1] / "models" / "starter"

pytestmark = [pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"),
              pytest.mark.slow]


def tiny(folder: Path) -> tuple[Path, Path]:
    return tiny_hf(folder / "tiny"), tiny_gguf(folder / "tiny.gguf")


def stories(folder: Path) -> tuple[Path, Path]:
    return SHARED / "models" / "stories260K-hf-f32", SHARED / "models" / "stories260K-F32.gguf"


def converted(source: Path) -> Callable[[Path], tuple[Path, Path]]:
    """The folder and a GGUF F32 made from it by the project's own converter."""

    def make(folder: Path) -> tuple[Path, Path]:
        from modules.models.convert import convert

        convert(source, folder / "converted.gguf", "f32")
        return source, folder / "converted.gguf"

    return make


MODELS = {"tiny": tiny, "stories260K": stories, "babyllama": converted(SHARED / "models" / "babyllama-tok361-hf-f32"),
          "starter": converted(STARTER)}
NEEDED = {"stories260K": SHARED / "models", "babyllama": SHARED / "models", "starter": STARTER / "model.safetensors"}


def load(name: str, path: Path, **changed: object) -> Loader:
    spec = look().specs[name]
    options = {**{option: knob.default for option, knob in spec.options.items()}, **changed}
    return spec.load(str(path), options, lambda fraction, text: None)


def greedy(loader: Loader, prompt: list[int]) -> list[Token]:
    loader.add("run", prompt, PARAMS, "")
    tokens: list[Token] = []
    while not (tokens and tokens[-1].finish):
        tokens += [item for _, item in loader.step() if isinstance(item, Token)]
    return tokens


def gap(token: Token) -> float:
    return token.top[0][2] - token.top[1][2]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_text_is_the_same_up_to_a_first_near_tie(name: str, tmp_path: Path) -> None:
    """Twenty prompts of 64 tokens. A prompt is compared up to the first place where the best two logits lie within 1e-3."""
    if name in NEEDED and not NEEDED[name].exists():
        pytest.skip(f"{NEEDED[name]} is not here")
    folder, file = MODELS[name](tmp_path)
    ours = load("transformers", folder, dtype="float32", threads=1)
    # llama.cpp's flash attention on a CPU rounds to float16 on the way, which alone moves log-probabilities by 2e-3.
    theirs = load("llama_cpp", file, kv_type_k="f32", kv_type_v="f32", flash_attention="off", threads=1)
    n_compared = 0
    for text in PROMPTS:
        prompt = ours.tokenize(text, control=False)
        assert prompt == theirs.tokenize(text, control=False)
        prompt = [ours.facts.bos_id, *prompt] if ours.facts.add_bos and ours.facts.bos_id is not None else prompt
        for n, (one, other) in enumerate(zip(greedy(ours, prompt), greedy(theirs, prompt), strict=True)):
            if min(gap(one), gap(other)) < CLOSE:
                print(f"{name}: {text!r} is compared up to token {n}: the two best logits lie {gap(one):.1e} apart")
                break
            assert (one.id, one.text) == (other.id, other.text), f"{text!r}, token {n}, gap {gap(one):.4f}"
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
            n_compared += 1
    ours.close()
    theirs.close()
    assert n_compared > 0.5 * len(PROMPTS) * N_TOKENS, "near ties must be the exception"


@pytest.mark.parametrize(("kind", "factor", "changed"), [
    ("linear", 2.0, {"rope_scaling": "linear", "rope_factor": 2.0}), ("yarn", 4.0, {"rope_scaling": "yarn", "rope_factor": 4.0}),
    ("default", 1.0, {"rope_base": 500_000.0})])
def test_a_stretched_context_means_the_same_in_both(kind: str, factor: float, changed: dict[str, object], tmp_path: Path) -> None:
    """The tiny model, trained on 8,192 tokens, as its config.json would say it and as the GGUF loader's options do."""
    folder, file = tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": kind, "rope_theta": changed.get("rope_base", 10_000.0), "factor": factor,
                                 "original_max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config))
    ids = [20 + i * 7 % 500 for i in range(200)]
    stretched = load("transformers", folder, dtype="float32", threads=1)
    wanted = stretched.logits(ids, 150, 200)
    stretched.close()
    rows = []
    for options in (changed, {}):
        ours = load("llama_cpp", file, kv_type_k="f32", kv_type_v="f32", flash_attention="off", threads=1, **options)
        rows.append(ours.logits(ids, 150, 200))
        ours.close()
    assert abs(rows[0] - wanted).max() < 2e-3
    assert abs(rows[1] - wanted).max() > 0.1, "without the options it is another model"
