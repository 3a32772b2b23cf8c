"""A tiny random Llama with a trained byte-level BPE and a ChatML template, as Hugging Face folder and GGUF of equal weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modules.models.convert import convert

HIDDEN, FEED_FORWARD, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT = 256, 512, 3, 4, 2, 768, 8192
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # ids 0, 1, 2: BOS, and the two that ChatML needs; 0 and 2 end a text
THINK = ("<think>", "</think>")  # marks of reasoning: tokens of their own, but not "special"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
CORPUS = [
    "Once upon a time there was a little girl who lived near the sea with her mother and an old grey cat.",
    "The quick brown fox jumps over the lazy dog, again and again, until the evening comes and the lamps are lit.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3\n",
    "user\nWhat is the name of the town?\nassistant\nThe town is called Ashford; it has 3,412 people and one bakery.",
    "Où est la gare ? Der Zug fährt um 12:45 Uhr. ¿Cuánto cuesta? 今日は天気がいいです。你好，世界。🙂👩‍👩‍👧",
    "Numbers: 0 1 2 3 4 5 6 7 8 9 10 100 1000. Quotes: \"yes\" 'no'. Marks: !?;:()[]{}<>|*_~`#",
]


def tiny_hf(folder: Path, *, seed: int = 0) -> Path:
    """Write the model as a Hugging Face folder (float32) and return it; equal seeds give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = _write_tokenizer(folder)
    _write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size, "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HIDDEN // HEADS, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 2, "torch_dtype": "float32"})
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": [2, 0]})
    _write_weights(folder / "model.safetensors", vocab_size, seed)
    return folder


def tiny_gguf(path: Path, *, seed: int = 0, kind: str = "f32") -> Path:
    """Write the same model as one GGUF file and return its path."""
    convert(tiny_hf(path.parent / f"{path.stem}-hf", seed=seed), path, kind)
    return path


def _write_tokenizer(folder: Path) -> int:
    """Train and write the tokenizer; returns the number of rows the embedding needs."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(THINK), special_tokens=list(SPECIALS), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in THINK])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIALS[0], "eos_token": SPECIALS[2],
        "pad_token": SPECIALS[0], "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False,
        "add_bos_token": False, "chat_template": TEMPLATE})
    return int(tokenizer.get_vocab_size())


def _write_weights(path: Path, vocab_size: int, seed: int) -> None:
    """Normal weights, scaled so that the logits' deviation is about 3: greedy choices are then seldom ties."""
    import numpy as np
    from safetensors.numpy import save_file

    chance = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        return (chance.standard_normal((rows, columns), np.float32) * np.float32(gain / columns**0.5))

    kv = HIDDEN // HEADS * KV_HEADS
    tensors = {"model.embed_tokens.weight": matrix(vocab_size, HIDDEN, 16.0), "lm_head.weight": matrix(vocab_size, HIDDEN, 3.0),
               "model.norm.weight": np.ones(HIDDEN, np.float32)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        for part, rows, columns in (("self_attn.q_proj", HIDDEN, HIDDEN), ("self_attn.k_proj", kv, HIDDEN),
                                    ("self_attn.v_proj", kv, HIDDEN), ("self_attn.o_proj", HIDDEN, HIDDEN),
                                    ("mlp.gate_proj", FEED_FORWARD, HIDDEN), ("mlp.up_proj", FEED_FORWARD, HIDDEN),
                                    ("mlp.down_proj", HIDDEN, FEED_FORWARD)):
            tensors[f"{name}{part}.weight"] = matrix(rows, columns)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}{part}.weight"] = np.ones(HIDDEN, np.float32)
    save_file(tensors, path, metadata={"format": "pt"})


def _write_json(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False), "utf-8")
