"""The keys of a GGUF file that our converter writes: names, sizes, rotary embeddings, vocabulary, template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .shape import Shape
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import gguf


def write(writer: gguf.GGUFWriter, name: str, shape: Shape, vocabulary: Vocabulary, kind: str) -> None:
    """All keys that come before the tensors. kind: the type of most matrices."""
    import gguf

    writer.add_name(name)
    writer.add_file_type({"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
                          "bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[kind])
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
    if shape.rope_linear != 1.0:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_linear)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.attention_cap:
        writer.add_attn_logit_softcapping(shape.attention_cap)
    if shape.logit_cap:
        writer.add_final_logit_softcapping(shape.logit_cap)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab)
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
