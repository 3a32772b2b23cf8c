"""The parameters of one generation; a default is the neutral value, so only what was changed has an effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .knobs import Knob, knobs_of, parse_values, setting


@dataclass(frozen=True)
class GenerationParams:
    """How to sample and when to stop. One line adds a parameter: its field, widget, request key and docs row.

    Samplers apply in this order on every loader: logit_bias, ban_eos, grammar, repetition/frequency/presence penalty, DRY,
    top_n_sigma, top_k, typical_p, top_p, min_p, XTC, temperature; mirostat replaces those from top_n_sigma to XTC.
    """

    # One declaration per line is the point of this table, so its lines may be long.
    temperature: float = setting("float", 1.0, "Temperature", "Scales the logits: below 1 is safer, above 1 is wilder, 0 always takes the most likely token.", group="Sampling", minimum=0, maximum=5, step=0.01)
    top_k: int = setting("int", 0, "Top-k", "Keeps only the k most likely tokens; 0 keeps all.", group="Sampling", minimum=0, maximum=1000, step=1)
    top_p: float = setting("float", 1.0, "Top-p", "Keeps the smallest set of tokens whose probabilities add up to p; 1 keeps all.", group="Sampling", minimum=0, maximum=1, step=0.01)
    min_p: float = setting("float", 0.0, "Min-p", "Drops tokens less likely than this fraction of the most likely one; 0 drops none.", group="Sampling", minimum=0, maximum=1, step=0.01)
    typical_p: float = setting("float", 1.0, "Typical-p", "Keeps the tokens whose surprise is closest to the expected one, up to this mass; 1 keeps all.", group="Sampling", minimum=0, maximum=1, step=0.01, aliases=("typical",))
    top_n_sigma: float = setting("float", 0.0, "Top-nσ", "Keeps tokens within n standard deviations of the highest logit; 0 keeps all.", group="Sampling", minimum=0, maximum=10, step=0.05, aliases=("nsigma",))
    xtc_probability: float = setting("float", 0.0, "XTC probability", "How often the most likely choices are excluded; 0 never.", group="XTC", minimum=0, maximum=1, step=0.01)
    xtc_threshold: float = setting("float", 0.1, "XTC threshold", "Tokens at least this likely may be excluded, all but the least likely of them; above 0.5 XTC does nothing.", group="XTC", minimum=0, maximum=1, step=0.01)
    repetition_penalty: float = setting("float", 1.0, "Repetition penalty", "Divides (or multiplies) the logits of tokens already used; 1 does nothing.", group="Penalties", minimum=0.01, maximum=5, step=0.01, aliases=("repeat_penalty", "rep_pen"))
    frequency_penalty: float = setting("float", 0.0, "Frequency penalty", "Subtracted once for every earlier use of a token; 0 does nothing.", group="Penalties", minimum=-2, maximum=2, step=0.05)
    presence_penalty: float = setting("float", 0.0, "Presence penalty", "Subtracted once from every token already used; 0 does nothing.", group="Penalties", minimum=-2, maximum=2, step=0.05)
    repetition_penalty_range: int = setting("int", 0, "Penalty range", "How many of the last tokens (prompt included) the three penalties look at; 0 is the whole context.", group="Penalties", minimum=0, maximum=1_000_000, step=64, aliases=("repeat_last_n", "rep_pen_range"))
    dry_multiplier: float = setting("float", 0.0, "DRY multiplier", "Strength of the penalty on continuing a sequence that was already written; 0 is off.", group="DRY", minimum=0, maximum=5, step=0.05)
    dry_base: float = setting("float", 1.75, "DRY base", "How fast the DRY penalty grows with the length of the repeated sequence.", group="DRY", minimum=1, maximum=4, step=0.05)
    dry_allowed_length: int = setting("int", 2, "DRY allowed length", "Sequences up to this many tokens may repeat freely.", group="DRY", minimum=1, maximum=20, step=1)
    dry_penalty_last_n: int = setting("int", 0, "DRY range", "How many of the last tokens DRY looks at; 0 is the whole context.", group="DRY", minimum=0, maximum=1_000_000, step=64)
    dry_sequence_breakers: tuple[str, ...] = setting("list", ("\n", ":", '"', "*"), "DRY sequence breakers", "Strings across which DRY does not match.", group="DRY", maximum=64)
    mirostat_mode: int = setting("int", 0, "Mirostat mode", "0 is off; 1 and 2 hold the surprise of the text at tau.", group="Mirostat", minimum=0, maximum=2, step=1, aliases=("mirostat",))
    mirostat_tau: float = setting("float", 5.0, "Mirostat tau", "The surprise to hold, in nats as llama.cpp counts it.", group="Mirostat", minimum=0, maximum=20, step=0.1)
    mirostat_eta: float = setting("float", 0.1, "Mirostat eta", "How fast mirostat corrects itself.", group="Mirostat", minimum=0, maximum=1, step=0.01)
    logit_bias: dict[int, float] = setting("map", {}, "Logit bias", "Token id: number added to its logit; -100 or less forbids it.", group="Control", maximum=1024)
    grammar: str = setting("text", "", "Grammar", "A GBNF grammar the reply must follow; empty is none.", group="Control", maximum=65_536, aliases=("grammar_string",))
    ban_eos: bool = setting("bool", False, "Ban end of text", "Never lets the model end its reply by itself.", group="Control", aliases=("ban_eos_token", "ignore_eos"))
    seed: int = setting("int", -1, "Seed", "The same seed gives the same reply; -1 takes a new one each time.", group="Output", minimum=-1, maximum=2**32 - 2, step=1, aliases=("sampler_seed",))
    max_tokens: int = setting("int", 512, "Max new tokens", "The reply ends after this many tokens; 0 means as many as fit the context.", group="Output", minimum=0, maximum=1_000_000, step=1, aliases=("max_new_tokens", "max_completion_tokens", "n_predict", "num_predict"))
    stop: tuple[str, ...] = setting("list", (), "Stop strings", "The reply ends before the first of these; one per line.", group="Output", maximum=64, aliases=("stop_sequence", "stopping_strings", "stop_sequences"))
    top_logprobs: int = setting("int", 0, "Alternatives", "How many of the most likely tokens to report with their log-probabilities beside each chosen one; 0 reports none.", group="Output", minimum=0, maximum=100, step=1)

    def with_values(self, values: Mapping[str, Any]) -> tuple[GenerationParams, list[str]]:
        """A copy with the given values, and the names it does not know; raises BadRequest naming a bad value's range."""
        parsed, unknown = parse_values(PARAM_KNOBS, values)
        return dataclasses.replace(self, **parsed), unknown

    def changed(self) -> dict[str, Any]:
        """What differs from neutral, by name, JSON-ready: all that has an effect."""
        changed = {name: getattr(self, name) for name, knob in PARAM_KNOBS.items() if getattr(self, name) != knob.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


PARAM_KNOBS: dict[str, Knob] = knobs_of(GenerationParams)

# Fields that steer the run itself; every loader honours them, so a LoaderSpec need not list them.
RUN_FIELDS = frozenset({"seed", "max_tokens", "stop", "top_logprobs"})

# A field that has an effect only when another one is switched on: it is not reported as ignored while that one is neutral.
SWITCHES = {"xtc_threshold": "xtc_probability", "dry_base": "dry_multiplier", "dry_allowed_length": "dry_multiplier",
            "dry_penalty_last_n": "dry_multiplier", "dry_sequence_breakers": "dry_multiplier", "mirostat_tau": "mirostat_mode",
            "mirostat_eta": "mirostat_mode"}


def ignored_params(params: GenerationParams, honoured: frozenset[str]) -> list[str]:
    """Names of the changed parameters that a loader honouring only `honoured` would ignore, in declaration order."""
    changed = params.changed()
    return [name for name in changed
            if name not in honoured and name not in RUN_FIELDS and SWITCHES.get(name, name) in changed]
