"""What of a config.json a GGUF header needs, and what in it llama.cpp would compute otherwise, which is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..core.errors import LoadFailed
from .architectures import ARCHITECTURES, Architecture

GEMMA3_LOCAL_THETA = 10_000.0  # llama.cpp has it for the layers that see a window


@dataclass(frozen=True)
class Shape:
    """rope_factors are Llama 3's per-frequency divisors or None. window: tokens that windowed layers see, 0 for none.

    attention_cap and logit_cap: Gemma 2's soft caps, 0 for none.
    """

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
    rope_linear: float
    rope_factors: list[float] | None
    window: int = 0
    attention_cap: float = 0.0
    logit_cap: float = 0.0
    is_tied: bool = False


def read_shape(config: dict[str, Any]) -> Shape:
    """The Shape of a config.json; raises LoadFailed where llama.cpp would not compute what the model does."""
    named = str((config.get("architectures") or ["unknown"])[0])
    architecture = ARCHITECTURES.get(named)
    if architecture is None:
        raise LoadFailed(f"The model is a {named}; only {', '.join(ARCHITECTURES)} can be converted: load it with Transformers.")
    try:
        return _checked(config, architecture)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise LoadFailed(f"config.json lacks or misstates a size: {error!r}.") from error


def _checked(config: dict[str, Any], architecture: Architecture) -> Shape:
    hidden, heads, layers = int(config["hidden_size"]), int(config["num_attention_heads"]), int(config["num_hidden_layers"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "full_attention" in rope:
        local = float(rope.get("sliding_attention", {}).get("rope_theta", GEMMA3_LOCAL_THETA))
        _require(local == GEMMA3_LOCAL_THETA, f"a rotary base of {local:g} in its windowed layers")
        rope = rope["full_attention"]
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise LoadFailed(f"Rotary embeddings of type {kind!r} cannot be converted; only default, linear and llama3 can.")
    activation = config.get("hidden_activation") or config.get("hidden_act") or "silu"
    # Gemma 1's "gelu" was always meant, and is computed, as the approximation by tanh.
    wanted = ("gelu_pytorch_tanh", "gelu") if architecture.is_gemma else ("silu",)
    _require(activation in wanted, f"the activation {activation!r}")
    context, window = int(config["max_position_embeddings"]), _window(config, architecture, layers)
    if architecture.name == "llama" and window:  # llama.cpp gives this architecture no windows: beyond one it would differ
        context, window = min(context, window), 0
    caps = [float(config.get(f"{which}_logit_softcapping") or 0) for which in ("attn", "final")]
    _require(architecture.name == "gemma2" or not any(caps), "soft caps of logits")
    scale = float(config.get("query_pre_attn_scalar") or head_dim)
    _require(not architecture.is_gemma or scale == head_dim, f"an attention scale of {scale:g} with heads of {head_dim}")
    return Shape(
        architecture, layers=layers, hidden=hidden, feed_forward=int(config["intermediate_size"]), heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads), head_dim=head_dim, context=context,
        vocab=int(config["vocab_size"]), eps=float(config.get("rms_norm_eps", 1e-6)), rope_theta=theta,
        rope_linear=float(rope.get("factor", 1.0)) if kind == "linear" else 1.0,
        rope_factors=_llama3_factors(rope, theta, head_dim) if kind == "llama3" else None, window=window,
        attention_cap=caps[0], logit_cap=caps[1], is_tied=bool(config.get("tie_word_embeddings", architecture.is_gemma)))


def _window(config: dict[str, Any], architecture: Architecture, layers: int) -> int:
    """Tokens that windowed layers see; 0 where there are none. llama.cpp knows itself which of Gemma's layers these are."""
    kinds = config.get("layer_types")
    window = int(config.get("sliding_window") or 0)
    if architecture.name in ("gemma2", "gemma3"):
        every = 2 if architecture.name == "gemma2" else 6
        usual = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
        _require(kinds in (None, usual), "windowed layers in another order than usual")
        return window
    if architecture.name.startswith("qwen"):
        _require(not config.get("use_sliding_window") and "sliding_attention" not in (kinds or []), "windowed layers")
        return 0
    return window


def _require(is_so: bool, what: str) -> None:
    if not is_so:
        raise LoadFailed(f"The model has {what}, which llama.cpp would compute otherwise: load it with Transformers.")


def _llama3_factors(rope: dict[str, Any], theta: float, head_dim: int) -> list[float]:
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
