"""The GGUF loader's samplers, grammars and log-probabilities."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loaders.llama_cpp import LlamaCpp
from loaders.llama_cpp_parts.library import MAX_OVERHEARD
from modules.core.errors import BadRequest
from modules.core.loader import Loader
from tests.contract.play import Stage, prompt_of
from tests.llama_play import GREEDY, changed, load
from tests.tiny_models import tiny_gguf

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    loaded = load(tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))
    yield loaded
    loaded.close()


@pytest.fixture
def stage(loader: LlamaCpp) -> Iterator[Stage]:
    stage = Stage(loader)
    yield stage
    for run in stage.runs:
        loader.remove(run)


@pytest.mark.parametrize("values", [
    {"temperature": 1.5}, {"temperature": 1, "top_k": 5}, {"temperature": 1, "top_p": 0.5}, {"temperature": 1, "min_p": 0.2},
    {"temperature": 1, "typical_p": 0.5}, {"temperature": 1, "top_n_sigma": 1.0}, {"temperature": 1, "xtc_probability": 1.0},
    {"temperature": 1, "mirostat_mode": 1}, {"temperature": 1, "mirostat_mode": 2}, {"repetition_penalty": 1.5},
    {"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"dry_multiplier": 2.0, "dry_allowed_length": 1},
    {"logit_bias": {300: 50.0}}, {"grammar": "root ::= [0-9]+"}], ids=lambda values: ",".join(values))
def test_every_sampler_has_an_effect_that_a_seed_repeats(stage: Stage, values: dict[str, Any]) -> None:
    prompt = prompt_of(stage.loader, "again and again and again and again and")
    name = ",".join(values)
    first, again = (stage.alone(f"{name} {n}", prompt, changed(seed=5, **values)).ids for n in range(2))
    neutral = stage.alone(f"{name} neutral", prompt, changed(seed=5, temperature=values.get("temperature", 0.0))).ids
    assert first == again
    assert first != neutral or values == {"temperature": 1.5}


def test_a_bias_forces_and_forbids(stage: Stage) -> None:
    prompt = prompt_of(stage.loader)
    best = stage.alone("plain", prompt, GREEDY).ids[0]
    assert set(stage.alone("forced", prompt, changed(logit_bias={300: 100.0})).ids) == {300}
    assert best not in stage.alone("forbidden", prompt, changed(logit_bias={best: -100.0})).ids
    with pytest.raises(BadRequest, match="563") as caught:
        stage.add("bad", prompt, changed(logit_bias={563: 1.0}))
    assert caught.value.param == "logit_bias"


def level(loader: Loader, prompt: list[int], wanted: dict[int, float]) -> dict[int, float]:
    """Biases that bring the next token's logits to these values."""
    row = loader.logits(prompt, len(prompt) - 1, len(prompt))[0]
    return {token: value - float(row[token]) for token, value in wanted.items()}


def test_penalties_know_the_prompt_and_its_range(stage: Stage) -> None:
    """A token of the prompt that a bias makes the best one is not taken again, unless it lies beyond the range."""
    prompt = [300, *([301] * 10)]
    bias = level(stage.loader, prompt, {300: 60.0, 302: 59.0})
    assert stage.alone("plain", prompt, changed(logit_bias=bias, max_tokens=1)).ids == [300]
    for name, values in (("repeat", {"repetition_penalty": 5.0}), ("presence", {"presence_penalty": 2.0}),
                         ("frequency", {"frequency_penalty": 2.0})):
        assert stage.alone(name, prompt, changed(logit_bias=bias, max_tokens=1, **values)).ids != [300]
        near = stage.alone(name + " near", prompt, changed(logit_bias=bias, max_tokens=1, repetition_penalty_range=10, **values))
        assert near.ids == [300]


def test_dry_knows_the_prompt_and_its_breakers(stage: Stage) -> None:
    """After a b c d, e, a b c the token d would repeat; a breaker among them stops the match."""
    a, b, c, d, e, other = (stage.loader.tokenize(letter, control=False)[0] for letter in "abcdeo")
    prompt = [a, b, c, d, e, a, b, c]
    bias = level(stage.loader, prompt, {d: 60.0, other: 59.0})
    values = {"logit_bias": bias, "max_tokens": 1, "dry_multiplier": 5.0, "dry_sequence_breakers": ()}
    assert stage.alone("off", prompt, changed(**{**values, "dry_multiplier": 0.0})).ids == [d]
    assert stage.alone("on", prompt, changed(**values)).ids == [other]
    assert stage.alone("broken", prompt, changed(**{**values, "dry_sequence_breakers": ("c",)})).ids == [d]
    with pytest.raises(BadRequest, match="40"):
        stage.add("long", prompt, changed(**{**values, "dry_sequence_breakers": ("x" * 41,)}))


def test_a_grammar_shapes_the_reply_and_ends_it(stage: Stage) -> None:
    params = changed(grammar='root ::= "yes" | "no"', ban_eos=False, temperature=1.0, seed=1)
    played = stage.alone("run", prompt_of(stage.loader), params)
    assert played.text in ("yes", "no") and played.finish == "stop" and played.tokens[-1].text == ""


@pytest.mark.parametrize("grammar", [
    "root ::= (", "rule ::= a", "root ::= missing", 'root ::= root "x"', "root ::= " + "(" * 60_000, 'root ::= "a"{5000}',
    "root ::= [", "\x7f", "root ::= <[99999999999999999999]>"])
def test_a_bad_grammar_is_refused_before_the_run(stage: Stage, grammar: str) -> None:
    with pytest.raises(BadRequest) as caught:
        stage.add("bad", prompt_of(stage.loader), changed(grammar=grammar))
    assert caught.value.param == "grammar"
    assert stage.alone("good", prompt_of(stage.loader), changed(grammar='root ::= "a"+')).text == "a" * 20


@pytest.mark.parametrize(("grammar", "reason"), [
    ("root ::= missing", "Undefined rule identifier 'missing'"), ('root ::= root "x"', "left recursion"),
    ('rule ::= "a"', "does not contain a 'root' symbol"), ("root ::= missing " + '"long" ' * 300, "Undefined rule identifier")])
def test_a_refused_grammar_brings_the_parsers_words(stage: Stage, grammar: str, reason: str,
                                                   capfd: pytest.CaptureFixture[str]) -> None:
    """The error said that the model's log says where, and no log came with it."""
    with capfd.disabled(), pytest.raises(BadRequest) as caught:  # else pytest, not the process, holds standard error
        stage.add("bad", prompt_of(stage.loader), changed(grammar=grammar))
    assert reason in caught.value.log
    assert len(caught.value.log) <= MAX_OVERHEARD


def test_a_grammar_that_leaves_nothing_ends_that_run_only(stage: Stage) -> None:
    """llama.cpp would end the process: the grammar is complete, and the end of the text is banned."""
    other = stage.add("other", prompt_of(stage.loader, "The fox"), GREEDY)
    stuck = stage.add("stuck", prompt_of(stage.loader), changed(grammar='root ::= "yes"'))
    stage.play()
    assert isinstance(stuck.error, BadRequest) and stuck.text == "yes"
    assert len(other.tokens) == 20


@pytest.mark.slow
def test_no_grammar_kills_the_process(tmp_path: Path) -> None:
    """Two thousand broken grammars in a process of its own, which would die of a C++ exception."""
    path = tiny_gguf(tmp_path / "tiny.gguf")
    script = f"""
import random, sys
from pathlib import Path
from modules.core.errors import BadRequest
from tests.llama_play import changed, load
loader, chance = load(Path({str(path)!r})), random.Random(1)
parts = ['root', '::=', 'a', '"', '"x"', '[', ']', '[a-z]', '(', ')', '|', '*', '+', '?', '{{', '}}', '{{2,3}}', '{{,2}}', '\\n',
         '#', '\\\\', '\\\\x4', '.', '^', '-', '!', '<', '>', '<[1]>', '<a>', 'é', '🙂', '\\\\u00', '99999999999999999999', ',']
for n in range(2000):
    text = ('root ::= ' if n % 2 else '') + ' '[n % 3 // 2:].join(chance.choices(parts, k=chance.randint(1, 25)))
    try:
        loader.add('run', [1, 2, 3], changed(grammar=text, max_tokens=4, temperature=1.0, seed=n), '')
    except BadRequest:
        continue
    for _ in range(6):
        loader.step()
    loader.remove('run')
print('alive')
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=170, check=False,
                          cwd=Path(__file__).resolve().parents[1])
    assert done.stdout.strip() == "alive", f"exit code {done.returncode}: {done.stderr[-500:]}"


def test_log_probabilities_are_the_models_own(stage: Stage) -> None:
    import numpy as np

    loader = stage.loader
    prompt = prompt_of(loader)
    played = stage.alone("run", prompt, changed(top_logprobs=5, max_tokens=3, temperature=1.0, seed=3, top_k=2))
    rows = loader.logits([*prompt, *played.ids], len(prompt) - 1, len(prompt) + 2).astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    for token, row in zip(played.tokens, logs, strict=True):
        assert token.logprob == pytest.approx(row[token.id], abs=2e-2)
        assert [i for i, _, _ in token.top][:2] == np.argsort(-row)[:2].tolist() and len(token.top) == 5
        assert [p for _, _, p in token.top] == sorted((p for _, _, p in token.top), reverse=True)
    assert stage.alone("none", prompt, GREEDY).tokens[0].logprob is None
