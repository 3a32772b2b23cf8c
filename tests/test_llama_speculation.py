"""The GGUF loader with guesses ahead: the same text in fewer steps, whoever guesses; nothing of a wrong guess stays."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from loaders.llama_cpp import LlamaCpp
from modules import registry
from modules.core.errors import LoadFailed
from modules.core.params import GenerationParams
from modules.engine import Engine
from modules.models.catalog import Catalog
from modules.sampling import draft_model
from modules.sampling.speculation import Lookup
from tests.contract.play import Played, Stage, prompt_of
from tests.llama_play import EXACT, GREEDY, changed, load
from tests.tiny_memories import tiny_gemma, tiny_mamba
from tests.tiny_models import tiny_gguf, tiny_hf

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
LONG = changed(max_tokens=60)
STARTER = Path(__file__).parents[1] / "models" / "starter" / "starter-Q8_0.gguf"


class Counted(Stage):
    """Counts its steps."""

    n_steps = 0

    def step(self) -> None:
        self.n_steps += 1
        super().step()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def options(path: Path, kind: str, **more: Any) -> dict[str, Any]:
    """Those of a loader that guesses so; the model itself guesses best."""
    return {**EXACT, "speculation": kind, **({"draft_model": str(path)} if kind == "draft_model" else {}), **more}


def always(loader: LlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses cost nothing and none is too unlikely, so that they are always tried: a tiny model is sure of nothing."""
    monkeypatch.setattr(draft_model, "LEAST_CHANCE", 0.0)
    loader._speculation.costs.took = lambda n_guesses, seconds: None  # type: ignore[method-assign]


def guessed(loader: LlamaCpp, run: str) -> tuple[int, int]:
    guesses = loader._runs[run].guesses
    assert guesses is not None
    return guesses.n_guessed, guesses.n_right


def plainly(path: Path, prompt: list[int], params: GenerationParams) -> Played:
    loader = load(path, **EXACT)
    try:
        return Stage(loader).alone("plain", prompt, params)
    finally:
        loader.close()


@pytest.mark.parametrize("kind", ["prompt_lookup", "draft_model"])
@pytest.mark.parametrize("params", [LONG, changed(max_tokens=60, temperature=0.9, seed=5, top_logprobs=2, min_p=0.02),
                                    changed(max_tokens=60, dry_multiplier=0.8, repetition_penalty=1.2)])
def test_the_text_is_the_one_without_guesses(monkeypatch: pytest.MonkeyPatch, path: Path, kind: str,
                                             params: GenerationParams) -> None:
    loader = load(path, **options(path, kind, slots=1))
    always(loader, monkeypatch)
    try:
        prompt = prompt_of(loader)
        stage = Counted(loader)
        played = stage.alone("a", prompt, params)
        expected = plainly(path, prompt, params)
        assert played.ids == expected.ids and played.text == expected.text
        if params.top_logprobs:
            for one, other in zip(played.tokens, expected.tokens, strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4) and len(one.top) == 2
        if kind == "draft_model" and not params.temperature and not params.dry_multiplier:
            assert stage.n_steps < len(played.ids) / 2, "the model guesses what it writes itself"
        again = Stage(loader).alone("b", [*prompt, *played.ids[:-1]], params, key="a")
        fresh = plainly(path, [*prompt, *played.ids[:-1]], params)
        assert again.cached == len(prompt) + len(played.ids) - 2, "what was right stays, what was wrong is gone"
        assert again.ids == fresh.ids
    finally:
        loader.close()


def test_guesses_from_the_prompt_are_right_where_the_reply_repeats_it(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """The tiny model falls into a loop, as greedy small models do."""
    loader = load(path, **options(path, "prompt_lookup", slots=1, context=2048))
    always(loader, monkeypatch)
    try:
        stage = Counted(loader)
        played = stage.add("a", prompt_of(loader), changed(max_tokens=400))
        stage.play(lambda: len(played.tokens) >= 390)
        n_guessed, n_right = guessed(loader, "a")
        assert n_right <= n_guessed and stage.n_steps < 300
        run = loader._runs["a"]
        assert run.guesses is not None and isinstance(run.guesses._drafter, Lookup)
        assert run.guesses._drafter._ids == [*prompt_of(loader), *played.ids] == [*run.seq.tokens, run.next_token]
    finally:
        loader.close()


def test_limits_and_ends_hold_in_the_middle_of_what_was_guessed(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    loader = load(path, **options(path, "draft_model", slots=1, context=256, draft_tokens=16))
    always(loader, monkeypatch)
    try:
        prompt = prompt_of(loader)
        for n in (1, 2, 3, 5, 17):
            played = Stage(loader).alone(f"n{n}", prompt, changed(max_tokens=n))
            assert len(played.ids) == n and played.finish == "length"
        to_the_end = Stage(loader).alone("full", prompt, changed(max_tokens=0))
        assert to_the_end.finish == "length" and len(prompt) + len(to_the_end.ids) == 257  # the last is not evaluated any more
        stage = Stage(loader)
        cancelled = stage.add("gone", prompt, LONG)
        stage.play(lambda: len(cancelled.tokens) > 8)
        stage.remove("gone")
        assert loader.step() == []
    finally:
        loader.close()


def test_replies_written_together_are_not_guessed_and_go_on_alone(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    loader = load(path, **options(path, "draft_model", slots=2))
    always(loader, monkeypatch)
    try:
        stage = Stage(loader)
        prompt = prompt_of(loader)
        one, other = stage.add("one", prompt, changed(max_tokens=80)), stage.add("two", prompt[:9], LONG)
        stage.play(lambda: len(one.tokens) >= 20)
        assert guessed(loader, "one") == (0, 0)
        stage.remove("two")
        stage.play(lambda: len(one.tokens) >= 70)
        assert guessed(loader, "one")[1] > 20
        stage.play(lambda: one.is_over)
        assert one.ids == plainly(path, prompt, changed(max_tokens=80)).ids and other.ids
        assert "repeatable" not in loader.facts.features
    finally:
        loader.close()


def test_a_long_prompt_is_read_by_the_draft_model_piece_by_piece(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    loader = load(path, **options(path, "draft_model", slots=1, context=2048, batch=64))
    always(loader, monkeypatch)
    try:
        prompt = prompt_of(loader, n_tokens=1000)
        played = Stage(loader).add("a", prompt, LONG)
        stage = Counted(loader)
        stage.runs["a"] = played
        stage.play(lambda: played.is_over)
        assert played.ids == plainly_long(path, prompt).ids
    finally:
        loader.close()


def plainly_long(path: Path, prompt: list[int]) -> Played:
    loader = load(path, **EXACT, context=2048, batch=64)
    try:
        return Stage(loader).alone("plain", prompt, LONG)
    finally:
        loader.close()


def test_what_cannot_be_guessed_for_is_refused_with_the_way_out(path: Path, tmp_path: Path) -> None:
    for bad, more, words in (
            (tiny_mamba(tmp_path / "mamba.gguf"), {}, "taken back"),
            (tiny_gemma(tmp_path / "gemma.gguf"), {"full_swa": False}, "full_swa on")):
        with pytest.raises(LoadFailed, match=words):
            load(bad, speculation="prompt_lookup", **more)
    load(tmp_path / "gemma.gguf", speculation="prompt_lookup", full_swa=True).close()
    for wrong, words in (({"speculation": "draft_model"}, "choose one in draft_model"),
                         ({"draft_model": str(path)}, "speculation is none"),
                         ({"speculation": "draft_model", "draft_model": str(STARTER)}, "another vocabulary"),
                         ({"speculation": "draft_model", "draft_model": str(tmp_path / "mamba.gguf")}, "running state"),
                         ({"speculation": "draft_model", "draft_model": str(tmp_path / "none.gguf")}, "cannot be read")):
        with pytest.raises(LoadFailed, match=words):
            load(path, **wrong)
    assert GREEDY.max_tokens == 20 and load(path, **options(path, "draft_model")).facts.options["draft_model"] == path.name


async def test_a_draft_model_is_named_as_the_list_has_it_and_counts_in_the_forecast(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "large.gguf")
    shutil.copy(path, tmp_path / "small.gguf")
    tiny_hf(tmp_path / "folder")
    engine = Engine(Catalog([tmp_path]), registry.find_loaders(), log_dir=tmp_path / "log")
    (tmp_path / "log").mkdir()
    plain = {"context": 512, "threads": 1}
    drafting = {**plain, "speculation": "draft_model"}
    try:
        alone = (await engine.load("large", options=plain)).forecast_bytes
        held = await engine.load("large", options={**drafting, "draft_model": "small"})
        assert held.forecast_bytes == 2 * alone and held.asked["draft_model"] == "small"
        assert held.facts.options["draft_model"] == "small.gguf", "no path of this machine"
        for name, words in (("none", "draft_model: .*none"), ("folder", "draft_model: folder is safetensors")):
            with pytest.raises(LoadFailed, match=words):
                await engine.load("large", options={**drafting, "draft_model": name})
        assert engine.held().forecast_bytes == 2 * alone, "what was loaded stays"
    finally:
        await engine.close()
