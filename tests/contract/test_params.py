"""What a loader says it honours has its effect; the rest it takes without harm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from modules.core.errors import BadRequest
from modules.core.knobs import Knob
from modules.core.loader import LoaderSpec
from modules.core.params import PARAM_KNOBS, RUN_FIELDS, SWITCHES, GenerationParams
from tests.contract.play import GREEDY, Stage, prompt_of

Name = Callable[..., str]
DRAWN = GenerationParams(temperature=1.0, seed=3, max_tokens=24)
NUMBERS = ("int", "float")
ON = {"xtc_probability": 1.0, "dry_multiplier": 0.8, "mirostat_mode": 2}


def needs(spec: LoaderSpec, *names: str) -> None:
    lacking = [name for name in names if name not in spec.params]
    if lacking:
        pytest.skip(f"{spec.name} does not honour {', '.join(lacking)}")


def some_value(name: str, knob: Knob) -> Any:
    """A value that is not neutral."""
    if name == "grammar":
        return "root ::= [a-z ]+"
    if knob.kind == "map":
        return {65: -1.0}
    if knob.kind == "list":
        return ("x",)
    if knob.kind == "bool":
        return not knob.default
    assert knob.step and knob.minimum is not None and knob.maximum is not None, "every number has a range"
    near = (knob.default + 10 * knob.step, knob.default - 10 * knob.step, knob.default + knob.step)
    value = next(value for value in near if knob.minimum <= value <= knob.maximum)
    return int(value) if knob.kind == "int" else value


def test_the_loader_names_only_parameters_that_exist(spec: LoaderSpec) -> None:
    assert spec.params <= set(PARAM_KNOBS)


@pytest.mark.parametrize("name", sorted(PARAM_KNOBS))
def test_every_parameter_is_taken(stage: Stage, fresh: Name, name: str) -> None:
    values: dict[str, Any] = {"max_tokens": 4, name: some_value(name, PARAM_KNOBS[name])}
    if name in SWITCHES:
        values[SWITCHES[name]] = ON[SWITCHES[name]]
    played = stage.alone(fresh(), prompt_of(stage.loader), dataclasses.replace(DRAWN, **values))
    assert played.tokens and played.finish


@pytest.mark.parametrize("name", sorted(name for name in set(PARAM_KNOBS) - RUN_FIELDS if PARAM_KNOBS[name].kind in NUMBERS))
@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_every_number_is_taken_at_the_ends_of_its_range(stage: Stage, fresh: Name, name: str, end: str) -> None:
    knob = PARAM_KNOBS[name]
    value = getattr(knob, end)
    values: dict[str, Any] = {name: int(value) if knob.kind == "int" else float(value)}
    if name in SWITCHES:
        values[SWITCHES[name]] = ON[SWITCHES[name]]
    assert stage.alone(fresh(), prompt_of(stage.loader), dataclasses.replace(DRAWN, max_tokens=4, **values)).tokens


def test_logit_bias_forces_and_forbids(stage: Stage, fresh: Name, spec: LoaderSpec) -> None:
    needs(spec, "logit_bias")
    prompt = prompt_of(stage.loader)
    first = stage.alone(fresh(), prompt).ids[0]
    forced = stage.alone(fresh(), prompt, dataclasses.replace(GREEDY, logit_bias={first + 1: 1e4}, max_tokens=3))
    assert set(forced.ids) == {first + 1}
    forbidden = stage.alone(fresh(), prompt, dataclasses.replace(GREEDY, logit_bias={first: -100.0}))
    assert first not in forbidden.ids


def test_ban_eos_keeps_the_model_from_ending(stage: Stage, fresh: Name, spec: LoaderSpec) -> None:
    needs(spec, "ban_eos", "logit_bias")
    ends = dict.fromkeys(stage.loader.facts.eog_ids, 50.0)
    params = dataclasses.replace(GREEDY, logit_bias=ends, max_tokens=10)
    ended = stage.alone(fresh(), prompt_of(stage.loader), params)
    assert ended.finish == "stop" and len(ended.tokens) == 1 and ended.text == ""
    banned = stage.alone(fresh(), prompt_of(stage.loader), dataclasses.replace(params, ban_eos=True))
    assert banned.finish == "length" and len(banned.tokens) == 10


def test_temperature_zero_and_top_k_one_are_greedy(stage: Stage, fresh: Name, spec: LoaderSpec) -> None:
    needs(spec, "temperature", "top_k")
    prompt = prompt_of(stage.loader)
    right = stage.alone(fresh(), prompt)
    for seed in (1, 2):
        stage.agree(stage.alone(fresh(), prompt, dataclasses.replace(GREEDY, seed=seed)), right)
        stage.agree(stage.alone(fresh(), prompt, dataclasses.replace(GREEDY, temperature=2.0, top_k=1, seed=seed)), right)


@pytest.mark.parametrize("changed", [
    {"temperature": 2.0}, {"top_k": 2}, {"top_p": 0.1}, {"min_p": 0.9}, {"typical_p": 0.05}, {"top_n_sigma": 0.1},
    {"xtc_probability": 1.0, "xtc_threshold": 0.0001}, {"repetition_penalty": 4.0}, {"frequency_penalty": 2.0},
    {"presence_penalty": 2.0}, {"dry_multiplier": 5.0, "dry_allowed_length": 1, "dry_sequence_breakers": ()},
    {"mirostat_mode": 1}, {"mirostat_mode": 2, "mirostat_tau": 0.5},
], ids=lambda changed: next(iter(changed)) + str(next(iter(changed.values()))))
def test_each_sampler_has_an_effect(stage: Stage, fresh: Name, spec: LoaderSpec, changed: dict[str, Any]) -> None:
    """At most 60 seeds of 24 tokens: that a sampler this strong changes none of 1,440 draws does not happen. (Ten were too few
    for DRY, whose repeats a random model seldom goes on with.)"""
    needs(spec, *changed)
    prompt = prompt_of(stage.loader) * 2  # something to repeat
    for seed in range(60):
        params = dataclasses.replace(DRAWN, seed=seed)
        if stage.alone(fresh(), prompt, params).ids != stage.alone(fresh(), prompt, dataclasses.replace(params, **changed)).ids:
            return
    pytest.fail("it changes nothing")


def test_grammar_is_followed(stage: Stage, fresh: Name, spec: LoaderSpec) -> None:
    needs(spec, "grammar")
    for seed in range(5):
        params = dataclasses.replace(DRAWN, grammar='root ::= "yes" | "no"', seed=seed)
        played = stage.alone(fresh(), prompt_of(stage.loader), params)
        assert played.text in ("yes", "no") and played.finish == "stop"


@pytest.mark.parametrize("grammar", ["root ::= (", "nothing", "root ::= other", "(" * 60_000, "root ::= root"])
def test_a_bad_grammar_is_a_bad_request_and_harms_nobody(stage: Stage, fresh: Name, spec: LoaderSpec, grammar: str) -> None:
    needs(spec, "grammar")
    prompt = prompt_of(stage.loader)
    right = stage.alone(fresh(), prompt, DRAWN)
    live = stage.add(fresh(), prompt, DRAWN)
    stage.step()
    with pytest.raises(BadRequest):
        stage.add(fresh(), prompt, dataclasses.replace(DRAWN, grammar=grammar))
    stage.play()
    stage.agree(live, right)


def test_alternatives_are_the_most_likely_tokens_best_first(stage: Stage, fresh: Name) -> None:
    if "logprobs" not in stage.loader.facts.features:
        pytest.skip("no log-probabilities")
    played = stage.alone(fresh(), prompt_of(stage.loader), dataclasses.replace(GREEDY, top_logprobs=5, max_tokens=6))
    # A server's token is one or more ids of ours, of which the last has its text, and the end is ours alone.
    of_the_model = [token for token in played.tokens if token.text or stage.loader.facts.takes == "ids"]
    assert of_the_model
    for token in of_the_model:
        assert token.logprob is not None and token.logprob <= 1e-6
        found = [logprob for _, _, logprob in token.top]
        assert found == sorted(found, reverse=True) and 1 <= len(found) <= 5
        assert token.top[0][0] == token.id and token.top[0][2] == pytest.approx(token.logprob, abs=1e-5)
    plain = stage.alone(fresh(), prompt_of(stage.loader), dataclasses.replace(GREEDY, max_tokens=6))
    stage.agree(plain, played)
    assert all(token.logprob is None and not token.top for token in plain.tokens)


def test_runs_with_different_parameters_do_not_mix(stage: Stage, fresh: Name) -> None:
    """Greedy, for a batch's logits may differ from a single run's in their last bits, and a draw may fall just there."""
    prompt = prompt_of(stage.loader)
    first = stage.alone(fresh(), prompt).ids[0]
    changes: list[dict[str, Any]] = [{}, {"repetition_penalty": 1.5}, {"logit_bias": {first: -100.0}}, {"presence_penalty": 2.0}]
    sets = [dataclasses.replace(GREEDY, **changed) for changed in changes][:stage.loader.facts.slots]
    alone = [stage.alone(fresh(), prompt, params) for params in sets]
    together = [stage.add(fresh(), prompt, params) for params in sets]
    stage.play()
    for played, right in zip(together, alone, strict=True):
        stage.agree(played, right)
