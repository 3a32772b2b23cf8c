"""Writes a random-weight GGUF of a real model's shape, quantized as llama-quantize would: as fast to run as a trained one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VOCAB = 32_000


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int


# TinyLlama-1.1B; a GPT-2-small-sized Llama; and one for a quick look.
SHAPES = {"1.1b": Shape(22, 2048, 5632, 32, 4), "125m": Shape(12, 768, 2048, 12, 12), "tiny": Shape(4, 256, 768, 4, 4)}


def model_file(name: str, context: int = 16_384) -> Path:
    """The Q4_0 file of that shape under build/, written if it is not there yet."""
    path = ROOT / "build" / f"random-{name}-q4_0.gguf"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".part")
        write(partial, SHAPES[name], context)
        partial.rename(path)
    return path


def write(path: Path, shape: Shape, context: int) -> None:
    """Q4_0 matrices and a Q6_K output matrix, one tensor at a time in memory; equal every time."""
    import gguf
    import numpy as np

    chance = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    _header(writer, shape, context)
    tensors = list(_tensors(shape))
    for name, rows, columns, kind in tensors:
        if kind == "F32":
            writer.add_tensor_info(name, [columns], np.dtype("float32"), columns * 4)
        else:
            stored = gguf.GGMLQuantizationType[kind]
            block, size = gguf.GGML_QUANT_SIZES[stored]
            row_bytes = columns // block * size
            writer.add_tensor_info(name, [rows, row_bytes], np.dtype("uint8"), rows * row_bytes, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, rows, columns, kind in tensors:
        if kind == "F32":
            writer.write_tensor_data(np.ones(columns, np.float32))
        else:
            writer.write_tensor_data(_random_blocks(chance, rows, columns, kind))
    writer.close()


def _random_blocks(chance: Any, rows: int, columns: int, kind: str) -> Any:
    """(rows, bytes a row) uint8: random quants whose weights have a deviation of 1 / sqrt(columns)."""
    import numpy as np

    deviation = columns**-0.5
    if kind == "Q4_0":  # 32 weights d * (q - 8): a float16 d and 16 bytes of two q each; uniform q deviate by 4.6
        blocks = np.frombuffer(chance.bytes(rows * columns // 32 * 18), np.uint8).reshape(-1, 18).copy()
        blocks[:, :2] = np.frombuffer(np.float16(deviation / 4.6).tobytes(), np.uint8)
    else:  # Q6_K: 256 weights d * scale * (q - 32): 192 bytes of q, 16 int8 scales, a float16 d; uniform q deviate by 18.5
        blocks = np.frombuffer(chance.bytes(rows * columns // 256 * 210), np.uint8).reshape(-1, 210).copy()
        blocks[:, 192:208] = 16
        blocks[:, 208:] = np.frombuffer(np.float16(3 * deviation / (16 * 18.5)).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)


def _tensors(shape: Shape) -> Iterator[tuple[str, int, int, str]]:
    """Name, rows, columns and type of each tensor."""
    kv = shape.hidden // shape.heads * shape.kv_heads
    yield "token_embd.weight", VOCAB, shape.hidden, "Q4_0"
    yield "output_norm.weight", 1, shape.hidden, "F32"
    yield "output.weight", VOCAB, shape.hidden, "Q6_K"
    for layer in range(shape.layers):
        for name, rows, columns in (
                ("attn_q", shape.hidden, shape.hidden), ("attn_k", kv, shape.hidden), ("attn_v", kv, shape.hidden),
                ("attn_output", shape.hidden, shape.hidden), ("ffn_gate", shape.feed_forward, shape.hidden),
                ("ffn_up", shape.feed_forward, shape.hidden), ("ffn_down", shape.hidden, shape.feed_forward)):
            yield f"blk.{layer}.{name}.weight", rows, columns, "Q4_0"
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", 1, shape.hidden, "F32"


def _header(writer: Any, shape: Shape, context: int) -> None:
    import gguf

    writer.add_name("random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens, kinds, merges = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Tokens, types and merges of a byte-level BPE of all words of two and three letters, with and without a space."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    space = chr(256 + 32)  # GPT-2's letter for a space, the 33rd byte that is not printable
    tokens = ["<|endoftext|>", *alphabet]
    merges = []
    pairs = [left + right for left, right in product(ascii_lowercase, repeat=2)]
    for left, right in [*((p[0], p[1]) for p in pairs), *((space, p) for p in pairs), *product(pairs, ascii_lowercase),
                        *product([space + p for p in pairs], ascii_lowercase)]:
        if len(tokens) == VOCAB:
            break
        merges.append(f"{left} {right}")
        tokens.append(left + right)
    return tokens, [3] + [1] * (len(tokens) - 1), merges


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    print(model_file(parser.parse_args().shape))
