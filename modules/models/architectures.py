"""The architectures that become GGUF files: how each names its tensors, and what llama.cpp computes differently from its config.

An architecture is one entry of ARCHITECTURES, by the name that config.json gives it. Each one is held to its own code in
Transformers by tests/test_convert_architectures.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]
Header = dict[str, int | float]

OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_ATTENTION = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output"}
_FEED_FORWARD = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_TWO_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_FOUR_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
               "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
_PLAIN = {**_ATTENTION, **_FEED_FORWARD, **_TWO_NORMS}
_SANDWICH = {**_ATTENTION, **_FEED_FORWARD, **_FOUR_NORMS}
_SILU = ("silu", "swish")
_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
_ROPES = ("default", "linear")


@dataclass(frozen=True)
class Architecture:
    """name: llama.cpp's. layer: its names of the parts of a layer, each of which has a weight in every layer.

    swaps_halves: Q and K rows of a head are stored as pairs, not as halves. adds_one: norms are stored less one. ropes: kinds of
    rotary embedding that it takes. defaults: what its config leaves out. refuse: why llama.cpp would compute something else, or
    "". header: keys of its own, without its name. context: how many tokens are computed as the model's own code does, of those
    that config.json tells. prefixes: what stands before the names of its tensors; skipped: tensors that are left out.
    """

    name: str
    layer: Mapping[str, str]
    swaps_halves: bool = False
    adds_one: bool = False
    activations: tuple[str, ...] = _SILU
    ropes: tuple[str, ...] = _ROPES
    defaults: Config = field(default_factory=dict)
    refuse: Callable[[Config], str] = lambda config: ""
    header: Callable[[Config], Header] = lambda config: {}
    context: Callable[[Config, int], int] = lambda config, told: told
    prefixes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def _no_window(config: Config) -> str:
    kinds = config.get("layer_types") or []
    if config.get("use_sliding_window") or "sliding_attention" in kinds:
        return "Some of its layers see a sliding window, which llama.cpp does not compute for it."
    return ""


def _mistral_context(config: Config, told: int) -> int:
    """llama.cpp gives every layer the whole context; up to the window both agree."""
    window = config.get("sliding_window")
    return min(told, window) if isinstance(window, int) and window > 0 else told


def _is_alternating(config: Config, every: int) -> bool:
    """Whether each layer sees a window but the last of every `every`, as llama.cpp assumes."""
    count = int(config["num_hidden_layers"])
    kinds = config.get("layer_types") or ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(count)]
    step = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or every
    return step == every and list(kinds) == ["full_attention" if (i + 1) % every == 0 else "sliding_attention"
                                             for i in range(count)]


def _scale_problem(config: Config, large: int) -> str:
    """llama.cpp knows the attention's scale by the number of layers: of the largest model, and of all others."""
    head_dim = config["hidden_size"] // config["num_attention_heads"] if config["num_hidden_layers"] == large \
        else config["head_dim"]
    scalar = config["query_pre_attn_scalar"]
    return "" if scalar == head_dim else f"Its query_pre_attn_scalar is {scalar}, where llama.cpp computes with {head_dim}."


def _refuse_gemma2(config: Config) -> str:
    if not _is_alternating(config, 2):
        return "Its layers with and without a sliding window do not alternate as llama.cpp expects."
    return _scale_problem(config, 46)


def _refuse_gemma3(config: Config) -> str:
    if not _is_alternating(config, 6):
        return "Its layers with and without a sliding window do not follow the order that llama.cpp expects."
    if config.get("attn_logit_softcapping"):
        return "It caps the attention's logits, which llama.cpp does not do for it."
    if config.get("use_bidirectional_attention"):
        return "Its attention looks both ways, which llama.cpp does not do for it."
    local = _local_theta(config)
    return "" if local == 10000.0 else f"Its local rotary base is {local:g}, where llama.cpp computes with 10000."


def _local_theta(config: Config) -> float:
    ropes = config.get("rope_parameters")
    local = ropes.get("sliding_attention") if isinstance(ropes, dict) else None
    return float(local["rope_theta"] if isinstance(local, dict) else config.get("rope_local_base_freq", 10000.0))


def _gemma2_header(config: Config) -> Header:
    """Caps are written also where there is none: llama.cpp's own default is 50 and 30."""
    caps = {"attn_logit_softcapping": config.get("attn_logit_softcapping"),
            "final_logit_softcapping": config.get("final_logit_softcapping")}
    return {"attention.sliding_window": int(config["sliding_window"]), **{key: float(cap) for key, cap in caps.items() if cap}}


def _gemma3_header(config: Config) -> Header:
    cap = config.get("final_logit_softcapping")
    return {"attention.sliding_window": int(config["sliding_window"]), **({"final_logit_softcapping": float(cap)} if cap else {})}


_GEMMA3_DEFAULTS: Config = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 4096, "rope_theta": 1e6, "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh"}
_GEMMA = {"adds_one": True, "activations": _GELU}
_GEMMA3: dict[str, Any] = {"layer": {**_SANDWICH, **_QK_NORMS}, "defaults": _GEMMA3_DEFAULTS, "header": _gemma3_header,
                           "refuse": lambda config: _refuse_gemma3(config) or _scale_problem(config, 62), **_GEMMA}

ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", _PLAIN, swaps_halves=True, ropes=(*_ROPES, "llama3")),
    "MistralForCausalLM": Architecture("llama", _PLAIN, swaps_halves=True, context=_mistral_context,
                                       defaults={"sliding_window": 4096}),
    "Qwen2ForCausalLM": Architecture("qwen2", _PLAIN, refuse=_no_window, ropes=(*_ROPES, "yarn")),
    "Qwen3ForCausalLM": Architecture("qwen3", {**_PLAIN, **_QK_NORMS}, refuse=_no_window, ropes=(*_ROPES, "yarn"),
                                     defaults={"head_dim": 128}),
    "GemmaForCausalLM": Architecture("gemma", _PLAIN, ropes=("default",), **_GEMMA,  # type: ignore[arg-type]
                                     defaults={"head_dim": 256, "tie_word_embeddings": True, "hidden_activation": _GELU[0]}),
    "Gemma2ForCausalLM": Architecture("gemma2", _SANDWICH, ropes=("default",), refuse=_refuse_gemma2, header=_gemma2_header,
                                      defaults={"head_dim": 256, "tie_word_embeddings": True, "query_pre_attn_scalar": 256,
                                                "sliding_window": 4096, "attn_logit_softcapping": 50.0,
                                                "final_logit_softcapping": 30.0, "hidden_activation": _GELU[0]},
                                      **_GEMMA),  # type: ignore[arg-type]
    "Gemma3ForCausalLM": Architecture("gemma3", **_GEMMA3),
    "Gemma3ForConditionalGeneration": Architecture(
        "gemma3", **_GEMMA3, prefixes=("language_model.", "model.language_model."),
        skipped=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."))}
