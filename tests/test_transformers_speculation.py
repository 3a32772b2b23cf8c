"""The Transformers loader with guesses ahead: the same text in fewer steps, whoever guesses; nothing of a wrong guess stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import AppError, LoadFailed
from tests.contract.play import Played, Stage, prompt_of
from tests.llama_play import changed
from tests.test_llama_speculation import Counted, always, guessed
from tests.tiny_models import tiny_hf

pytest.importorskip("torch")
LONG = changed(max_tokens=60)
STARTER = Path(__file__).parents[1] / "models" / "starter"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("hf") / "tiny")


def load(folder: Path, **options: Any) -> Any:
    from loaders.transformers_hf import SPEC

    complete = {name: knob.default for name, knob in SPEC.options.items()}
    return SPEC.load(str(folder), {**complete, "threads": 1, "dtype": "float32", "context": 1024, **options}, lambda *_: None)


def plainly(folder: Path, prompt: list[int], params: Any) -> Played:
    return Stage(load(folder)).alone("plain", prompt, params)


@pytest.mark.parametrize("kind", ["prompt_lookup", "draft_model"])
@pytest.mark.parametrize("params", [LONG, changed(max_tokens=60, temperature=0.9, seed=5, top_logprobs=2),
                                    changed(max_tokens=60, dry_multiplier=0.8, repetition_penalty=1.2)])
def test_the_text_is_the_one_without_guesses(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str, params: Any) -> None:
    loader = load(folder, speculation=kind, **({"draft_model": str(folder)} if kind == "draft_model" else {}))
    always(loader, monkeypatch)
    prompt = prompt_of(loader)
    stage = Counted(loader)
    played, expected = stage.alone("a", prompt, params), plainly(folder, prompt, params)
    assert played.ids == expected.ids and played.text == expected.text
    if params.top_logprobs:
        for one, other in zip(played.tokens, expected.tokens, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4) and len(one.top) == 2
    if kind == "draft_model" and not params.temperature and not params.dry_multiplier:
        assert stage.n_steps < len(played.ids) / 4, "the model guesses what it writes itself"
    longer = [*prompt, *played.ids[:-1]]
    again = Stage(loader).alone("b", longer, params, key="a")
    assert again.cached == len(longer) - 1, "what was right stays, what was wrong is gone"
    assert again.ids == plainly(folder, longer, params).ids


def test_a_draft_model_that_is_wrong_costs_no_token(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    loader = load(folder, speculation="draft_model", draft_model=str(tiny_hf(tmp_path / "other", seed=7)), draft_tokens=3)
    always(loader, monkeypatch)
    stage, prompt = Stage(loader), prompt_of(loader)
    played = stage.add("a", prompt, LONG)
    stage.play(lambda: len(played.tokens) >= 50)
    n_guessed, n_right = guessed(loader, "a")
    assert n_guessed > n_right
    stage.play(lambda: played.is_over)
    assert played.ids == plainly(folder, prompt, LONG).ids and "repeatable" not in loader.facts.features
    assert loader.facts.options["draft_model"] == "other"


def test_who_guesses_knows_the_whole_text(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    loader = load(folder, speculation="prompt_lookup")
    always(loader, monkeypatch)
    stage = Stage(loader)
    played = stage.add("a", prompt_of(loader), changed(max_tokens=200))
    stage.play(lambda: len(played.tokens) >= 150)
    run = loader._runs["a"]
    assert run.guesses._drafter._ids == run.ids == [*prompt_of(loader), *played.ids]
    assert run.cache.get_seq_length() == run.n_evaluated == len(run.ids) - 1


def test_a_fault_among_guesses_loses_no_token_before_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    loader = load(folder, speculation="draft_model", draft_model=str(folder))
    always(loader, monkeypatch)
    stage, prompt = Stage(loader), prompt_of(loader)
    played = stage.add("a", prompt, LONG)
    sampler = loader._runs["a"].sampler
    choose, n_calls = sampler.choose, [0]

    def failing(logits: Any) -> int:
        n_calls[0] += 1
        if n_calls[0] > 30:
            raise AppError("No token is left.")
        return int(choose(logits))

    monkeypatch.setattr(sampler, "choose", failing)
    stage.play(lambda: played.is_over)
    assert played.error is not None and played.error.message == "No token is left."
    assert played.ids == plainly(folder, prompt, LONG).ids[:30]


def test_limits_hold_in_the_middle_of_what_was_guessed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    loader = load(folder, speculation="draft_model", draft_model=str(folder), context=128, draft_tokens=16)
    always(loader, monkeypatch)
    prompt = prompt_of(loader)
    for n in (1, 2, 3, 5, 17):
        played = Stage(loader).alone(f"n{n}", prompt, changed(max_tokens=n))
        assert len(played.ids) == n and played.finish == "length"
    to_the_end = Stage(loader).alone("full", prompt, changed(max_tokens=0))
    assert to_the_end.finish == "length" and len(prompt) + len(to_the_end.ids) == 128
    stage = Stage(loader)
    cancelled = stage.add("gone", prompt, LONG)
    stage.play(lambda: len(cancelled.tokens) > 8)
    stage.remove("gone")
    assert loader.step() == []


def test_replies_written_together_are_not_guessed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    loader = load(folder, speculation="draft_model", draft_model=str(folder))
    always(loader, monkeypatch)
    stage, prompt = Stage(loader), prompt_of(loader)
    one = stage.add("one", prompt, changed(max_tokens=80))
    stage.add("two", prompt[:9], LONG)
    stage.play(lambda: len(one.tokens) >= 20)
    assert guessed(loader, "one") == (0, 0)
    stage.remove("two")
    stage.play(lambda: one.is_over)
    assert one.ids == plainly(folder, prompt, changed(max_tokens=80)).ids


def test_what_cannot_be_guessed_for_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    for wrong, words in (({"speculation": "draft_model"}, "go together"), ({"draft_model": str(folder)}, "go together"),
                         ({"speculation": "draft_model", "draft_model": str(STARTER)}, "another vocabulary"),
                         ({"speculation": "draft_model", "draft_model": str(tmp_path)}, "config.json")):
        with pytest.raises(LoadFailed, match=words):
            load(folder, **wrong)
    windowed = tiny_hf(tmp_path / "windowed")
    config = json.loads((windowed / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    (windowed / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadFailed, match="a window of the text"):
        load(windowed, speculation="prompt_lookup")
