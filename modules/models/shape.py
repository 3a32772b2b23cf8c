"""What a GGUF header needs of a config.json: the architecture, sizes, and rotary embeddings; what is not known is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import LoadFailed
from .architectures import ARCHITECTURES, Architecture, Header


@dataclass(frozen=True)
class Shape:
    """rope_scaling: header keys of stretched rotary embeddings, without the architecture's name. rope_factors: Llama 3's divisor
    of each frequency, or None. header: the architecture's own keys. tied: the output matrix is the embedding's."""

    architecture: Architecture
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    vocab: int
    eps: float
    rope_theta: float
    rope_scaling: dict[str, str | float | int]
    rope_factors: list[float] | None
    header: Header
    tied: bool


def read_shape(config: dict[str, Any]) -> Shape:
    """The Shape of a config.json; raises LoadFailed where the model is none that can be converted."""
    named = (config.get("architectures") or ["unknown"])[0]
    architecture = ARCHITECTURES.get(named)
    if architecture is None:
        raise LoadFailed(f"The model is a {str(named)[:100]}; these can be converted: {', '.join(ARCHITECTURES)}. Load it with "
                         "Transformers.")
    inner = config.get("text_config")
    told = {key: value for key, value in (inner if isinstance(inner, dict) else config).items() if value is not None or
            key == "sliding_window"}
    known = {**architecture.defaults, **told}
    try:
        return _shape(architecture, known)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise LoadFailed(f"config.json lacks or misstates a size: {error!r}.") from error


def _shape(architecture: Architecture, config: Mapping[str, Any]) -> Shape:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    layers, head_dim = int(config["num_hidden_layers"]), int(config.get("head_dim") or hidden // heads)
    if not (0 < layers <= 10_000 and 0 < heads <= 100_000 and 0 < head_dim <= 100_000):
        raise ValueError(f"{layers} layers, {heads} heads, {head_dim} numbers a head")
    activation = config.get("hidden_activation") or config.get("hidden_act", architecture.activations[0])
    # Gemma 1's configs say gelu where its code computes its approximation.
    if activation not in architecture.activations and not (architecture.name == "gemma" and activation == "gelu"):
        raise LoadFailed(f"Its activation is {activation!r}; llama.cpp computes {architecture.activations[0]!r} for it.")
    known = {**config, "head_dim": head_dim, "hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers}
    problem = architecture.refuse(known)
    if problem:
        raise LoadFailed(f"{problem} Load the folder with Transformers instead.")
    context = int(config["max_position_embeddings"])
    rope = _rope(config)
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    partial = float(rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)))
    if kind not in architecture.ropes or partial != 1.0:
        raise LoadFailed(f"Rotary embeddings of type {kind[:40]!r} over {partial:g} of a head cannot be converted for it; "
                         f"{' and '.join(architecture.ropes)} over whole heads can.")
    return Shape(
        architecture=architecture, layers=layers, hidden=hidden, feed_forward=int(config["intermediate_size"]), heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads), head_dim=head_dim, context=architecture.context(known, context),
        vocab=int(config["vocab_size"]), eps=float(config.get("rms_norm_eps", 1e-6)), rope_theta=theta,
        rope_scaling=_scaling(kind, rope, context),
        rope_factors=_llama3_factors(rope, theta, head_dim) if kind == "llama3" else None,
        header=architecture.header(known), tied=bool(config.get("tie_word_embeddings", False)))


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary embeddings of layers that see everything; older configs tell their base beside them."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    whole = rope.get("full_attention", rope)
    return whole if isinstance(whole, dict) else {}


def _scaling(kind: str, rope: Mapping[str, Any], context: int) -> dict[str, str | float | int]:
    if kind == "linear":
        return {"type": "linear", "factor": float(rope["factor"])}
    if kind != "yarn":
        return {}
    odd = [key for key, usual in (("beta_fast", 32), ("beta_slow", 1), ("truncate", True), ("attention_factor", None),
                                  ("mscale", None), ("mscale_all_dim", None)) if rope.get(key) not in (None, usual)]
    if odd:
        raise LoadFailed(f"Its YaRN sets {', '.join(odd)}, which cannot be converted. Load the folder with Transformers instead.")
    return {"type": "yarn", "factor": float(rope["factor"]),
            "original_context_length": int(rope.get("original_max_position_embeddings") or context)}


def _llama3_factors(rope: Mapping[str, Any], theta: float, head_dim: int) -> list[float]:
    """Llama 3.1's divisor of each rotary frequency (transformers, modeling_rope_utils._compute_llama3_parameters)."""
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (i / head_dim)
        if wavelength < trained / high:
            factors.append(1.0)
        elif wavelength > trained / low:
            factors.append(factor)
        else:
            smooth = (trained / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors
