"""Writes a GGUF header: what llama.cpp has to know of a model before its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .shape import Shape
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import gguf


def write_header(writer: gguf.GGUFWriter, name: str, shape: Shape, vocabulary: Vocabulary, file_type: int) -> None:
    """file_type: llama.cpp's number of the type that most matrices have."""
    import gguf

    arch = shape.architecture.name
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab)
    add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
    for key, value in {**{f"rope.scaling.{key}": value for key, value in shape.rope_scaling.items()}, **shape.header}.items():
        add[type(value)](f"{arch}.{key}", value)
    _write_vocabulary(writer, vocabulary)


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre or "default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.model == "llama":
        writer.add_add_space_prefix(vocabulary.adds_space)
    for add, value in ((writer.add_bos_token_id, vocabulary.bos_id), (writer.add_eos_token_id, vocabulary.eos_id),
                       (writer.add_unk_token_id, vocabulary.unk_id), (writer.add_pad_token_id, vocabulary.pad_id)):
        if value is not None:
            add(value)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
