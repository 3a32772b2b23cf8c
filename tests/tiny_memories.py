"""Random GGUFs whose memory is not a plain KV cache: a recurrent model, and one with sliding windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modules.models.vocabulary import read_vocabulary
from tests.tiny_models import tiny_hf

HIDDEN, LAYERS = 64, 2
WINDOW = 64


def tiny_mamba(path: Path) -> Path:
    """A Mamba: its state cannot be cut back."""
    inner, state, rank, kernel = 2 * HIDDEN, 16, 4, 4
    writer, chance, n_vocab = _begin(path, "mamba")
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    _embeddings(writer, chance, n_vocab)
    for layer in range(LAYERS):
        _add(writer, layer, chance, {
            "attn_norm.weight": (HIDDEN,), "ssm_in.weight": (2 * inner, HIDDEN), "ssm_conv1d.weight": (inner, kernel),
            "ssm_conv1d.bias": (inner,), "ssm_x.weight": (rank + 2 * state, inner), "ssm_dt.weight": (inner, rank),
            "ssm_dt.bias": (inner,), "ssm_a": (inner, state), "ssm_d": (inner,), "ssm_out.weight": (HIDDEN, inner)})
    return _end(writer, path)


def tiny_gemma(path: Path) -> Path:
    """A Gemma 3: five layers of six see only the last WINDOW tokens."""
    heads, head_dim, wide = 4, 16, 128
    writer, chance, n_vocab = _begin(path, "gemma3", layers=6)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_sliding_window(WINDOW)
    writer.add_rope_freq_base(10_000.0)
    _embeddings(writer, chance, n_vocab)
    for layer in range(6):
        _add(writer, layer, chance, {
            "attn_norm.weight": (HIDDEN,), "attn_q.weight": (heads * head_dim, HIDDEN),
            "attn_k.weight": (heads * head_dim, HIDDEN), "attn_v.weight": (heads * head_dim, HIDDEN),
            "attn_output.weight": (HIDDEN, heads * head_dim),
            "attn_q_norm.weight": (head_dim,), "attn_k_norm.weight": (head_dim,), "post_attention_norm.weight": (HIDDEN,),
            "ffn_norm.weight": (HIDDEN,), "ffn_gate.weight": (wide, HIDDEN), "ffn_up.weight": (wide, HIDDEN),
            "ffn_down.weight": (HIDDEN, wide), "post_ffw_norm.weight": (HIDDEN,)})
    return _end(writer, path)


def _begin(path: Path, architecture: str, *, layers: int = LAYERS) -> tuple[Any, Any, int]:
    import gguf
    import numpy as np

    vocabulary = read_vocabulary(tiny_hf(path.parent / "words"), 563)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(2048)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(2)
    return writer, np.random.default_rng(0), len(vocabulary.tokens)


def _embeddings(writer: Any, chance: Any, n_vocab: int) -> None:
    import numpy as np

    for name, gain in (("token_embd.weight", 1.0), ("output.weight", 3 * HIDDEN**-0.5)):
        writer.add_tensor(name, (gain * chance.standard_normal((n_vocab, HIDDEN))).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))


def _add(writer: Any, layer: int, chance: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    import numpy as np

    for name, shape in shapes.items():
        if "norm" in name or name == "ssm_d":
            values = np.ones(shape, np.float32)
        elif name == "ssm_a":
            values = -np.ones(shape, np.float32)
        else:
            values = (chance.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
        writer.add_tensor(f"blk.{layer}.{name}", values)


def _end(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
