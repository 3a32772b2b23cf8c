"""The Llama forward pass for training: the same numbers as Transformers' own, in one function that the compiler can fuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM


def weights_of(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    """The model's own parameters by name, so that gradients of `loss` land in them; the tied output matrix is not named twice."""
    return dict(model.named_parameters())


def loss(weights: dict[str, torch.Tensor], config: LlamaConfig, turns: tuple[torch.Tensor, torch.Tensor], ids: torch.Tensor,
         places: torch.Tensor, targets: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The weighted mean cross entropy in nats at `places`.

    ids: (rows, length) int64; padding lies to the right, so that no mask but the causal one is needed. places: (n,) indices into
    the flattened ids after which `targets` (n,) are to come, `shares` (n,) float32 their weights. turns: see `rotations`.
    """
    import torch.nn.functional as functional

    hidden = states(weights, config, turns, ids, places)
    each = functional.cross_entropy(functional.linear(hidden, weights["model.embed_tokens.weight"]), targets, reduction="none")
    return (each * shares).sum() / shares.sum()


def states(weights: dict[str, torch.Tensor], config: LlamaConfig, turns: tuple[torch.Tensor, torch.Tensor],
           ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The last hidden states after the final norm at the places, (n, hidden) float32.

    After the last layer's attention nothing is computed elsewhere.
    """
    import torch
    from torch.nn import functional

    rows, length = ids.shape
    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    cos, sin = turns[0][:length], turns[1][:length]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps) * weights[name]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        return x * cos + torch.cat([-x[..., width // 2:], x[..., :width // 2]], -1) * sin

    x = functional.embedding(ids, weights["model.embed_tokens.weight"])
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}."
        parts = torch.cat([weights[f"{layer}self_attn.{part}_proj.weight"] for part in "qkv"])
        packed = functional.linear(norm(x, layer + "input_layernorm.weight"), parts)
        q, k, v = packed.split([heads * width, kv_heads * width, kv_heads * width], -1)
        q = rotate(q.view(rows, length, heads, width).transpose(1, 2))
        k = rotate(k.view(rows, length, kv_heads, width).transpose(1, 2)).repeat_interleave(heads // kv_heads, 1)
        v = v.view(rows, length, kv_heads, width).transpose(1, 2).repeat_interleave(heads // kv_heads, 1)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        seen = seen.transpose(1, 2).reshape(rows, length, heads * width)
        if i == config.num_hidden_layers - 1:
            x, seen = x.flatten(0, 1)[places], seen.flatten(0, 1)[places]
        x = x + functional.linear(seen, weights[layer + "self_attn.o_proj.weight"])
        inner = norm(x, layer + "post_attention_layernorm.weight")
        gate = functional.silu(functional.linear(inner, weights[layer + "mlp.gate_proj.weight"]))
        inner = gate * functional.linear(inner, weights[layer + "mlp.up_proj.weight"])
        x = x + functional.linear(inner, weights[layer + "mlp.down_proj.weight"])
    return norm(x, "model.norm.weight")


def rotations(config: LlamaConfig, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the rotary embedding for positions below `length`, each (length, head_dim) float32."""
    import torch

    theta = float(config.rope_parameters["rope_theta"])
    slow = 1.0 / theta ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    angles = torch.outer(torch.arange(length).float(), slow)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()
