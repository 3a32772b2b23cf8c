"""Tokenizers that are converted agree with llama.cpp to the id; others are refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import LoadFailed
from modules.models.convert import convert
from modules.models.piece_model import read_pieces
from modules.models.pre_tokenizers import BY_REGEX, pre_tokenizer
from modules.models.vocabulary import read_vocabulary
from tests.tiny_models import CORPUS, tiny_hf

llama_cpp = pytest.importorskip("llama_cpp")
TEXTS = [*CORPUS, "tabs\t\tand  spaces   \r\n\n  x", "naïve café — ‘x’ 12345 1234567", " lead", "trail ", "  two", "", " ",
         "\n", "\n\n\n ", "I'm you'RE he'd WE'LL", "HelloWorld helloWorld HELLOworld ÄÖü", "/path/to//file...!?/\n/x",
         "ǅ Ελληνικά русский हिन्दी ไทย",
         "x²y³ ½ ٣٤ Ⅷ 一二三", "a\u00a0b\u2003c\u200bd", "🙂👩‍👩‍👧", "\x00\x01\x7f"]


def folder_with(folder: Path, tokenizer: str = "", config: dict[str, Any] | None = None, size: int = 768) -> Path:
    """The tiny model with another tokenizer.json, and its config changed."""
    tiny_hf(folder)
    if tokenizer:
        (folder / "tokenizer.json").write_text(tokenizer)
    else:
        (folder / "tokenizer.json").unlink()
    body = json.loads((folder / "tokenizer_config.json").read_text()) | (config or {})
    (folder / "tokenizer_config.json").write_text(json.dumps({key: value for key, value in body.items() if value is not None}))
    _resize(folder, size)
    return folder


def _resize(folder: Path, size: int) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = np.resize(tensors[name], (size, tensors[name].shape[1]))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": size}))


def ids_of(folder: Path, *, bos: bool = False) -> list[list[int]]:
    path = folder.parent / f"{folder.name}.gguf"
    convert(folder, path, "f16")
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return [llama.tokenize(text.encode(), add_bos=bos, special=True) for text in TEXTS]


@pytest.mark.parametrize(("regex", "takes_whole"), BY_REGEX, ids=BY_REGEX.values())
def test_each_known_pre_tokenizer_cuts_as_its_tokenizer_does(tmp_path: Path, regex: str, takes_whole: bool) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False,
                                  special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(TEXTS, trainer)
    body = json.loads(tokenizer.to_str())
    body["model"]["ignore_merges"] = takes_whole
    if takes_whole:  # a piece that no merge makes: taken whole only where the merges are ignored
        body["model"]["vocab"]["HelloWorld"] = 760
    folder = folder_with(tmp_path / "model", json.dumps(body))
    whole = Tokenizer.from_str(json.dumps(body))
    assert ids_of(folder) == [whole.encode(text, add_special_tokens=False).ids for text in TEXTS]


def piece_model(folder: Path, **settings: Any) -> bytes:
    """A SentencePiece model of 600 pieces, trained on the corpus."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    usual = {"model_type": "bpe", "vocab_size": 600, "byte_fallback": True, "normalization_rule_name": "identity",
             "remove_extra_whitespaces": False, "split_digits": True, "hard_vocab_limit": False, "character_coverage": 0.99,
             "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([line for text in CORPUS for line in text.splitlines()]),
                                             model_prefix=str(folder / "made"), **{**usual, **settings})
    return (folder / "made.model").read_bytes()


LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None,
         "add_bos_token": True, "legacy": True}
GEMMA = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>",
         "pad_token": "<pad>", "add_bos_token": True}
GEMMA_TRAINED = {"add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>",
                 "eos_piece": "<eos>", "bos_piece": "<bos>",
                 "user_defined_symbols": ["<mask>", "<start_of_turn>", "<end_of_turn>", "\n\n", "▁▁", "▁▁▁"],
                 "allow_whitespace_only_pieces": True}


@pytest.mark.parametrize(("config", "trained"), [(LLAMA, {}), (GEMMA, GEMMA_TRAINED)], ids=["llama", "gemma"])
def test_sentence_piece_models_agree_to_the_id(tmp_path: Path, config: dict[str, Any], trained: dict[str, Any]) -> None:
    """From tokenizer.model as SentencePiece reads it, and from the tokenizer.json that Transformers makes of it."""
    import sentencepiece
    transformers = pytest.importorskip("transformers")

    data = piece_model(tmp_path / "trained", **trained)
    folder = folder_with(tmp_path / "pieces", config=config)
    (folder / "tokenizer.model").write_bytes(data)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert ids_of(folder) == [processor.encode(text) for text in TEXTS]
    vocabulary = read_vocabulary(folder, 768)
    assert (vocabulary.bos_id, vocabulary.eos_id) == (processor.bos_id(), processor.eos_id()) and vocabulary.add_bos

    tokenizer = getattr(transformers, config["tokenizer_class"]).from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = folder_with(tmp_path / "fast", (tmp_path / "saved" / "tokenizer.json").read_text(), config)
    fast = read_vocabulary(saved, 768)
    assert (fast.bos_id, fast.eos_id, fast.add_bos) == (vocabulary.bos_id, vocabulary.eos_id, True)
    ours, theirs = ids_of(saved), [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    # Where Transformers puts a space before a text it puts none before one that begins with a space; SentencePiece itself does.
    begun = [text.startswith(" ") and config is LLAMA for text in TEXTS]
    assert [ids for ids, odd in zip(ours, begun, strict=True) if not odd] == \
           [ids for ids, odd in zip(theirs, begun, strict=True) if not odd]


@pytest.mark.parametrize(("settings", "said"), [
    ({"model_type": "unigram"}, "type BPE"), ({"normalization_rule_name": "nmt_nfkc"}, "rewrites text"),
    ({"remove_extra_whitespaces": True}, "rewrites text")])
def test_sentence_piece_models_that_llama_cpp_reads_otherwise_are_refused(tmp_path: Path, settings: dict[str, Any],
                                                                             said: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(piece_model(tmp_path / "trained", **settings))
    with pytest.raises(LoadFailed, match=said):
        read_pieces(tmp_path / "tokenizer.model")


def test_a_broken_piece_model_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    data = piece_model(tmp_path / "trained")
    path = tmp_path / "tokenizer.model"
    for end in (0, 1, 7, 100, len(data) // 2, len(data) - 3):
        path.write_bytes(data[:end] + (b"\xff" * 12 if end else b""))
        with pytest.raises(LoadFailed, match=r"tokenizer\.model"):
            read_pieces(path)


def test_a_bpe_that_falls_back_to_bytes_and_is_no_sentence_piece_is_refused(tmp_path: Path) -> None:
    data = piece_model(tmp_path / "trained")
    folder = folder_with(tmp_path / "pieces", config=LLAMA)
    (folder / "tokenizer.model").write_bytes(data)
    transformers = pytest.importorskip("transformers")
    transformers.LlamaTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    body = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    del body["model"]["merges"][5]
    with pytest.raises(LoadFailed, match="merges otherwise"):
        read_vocabulary(folder_with(tmp_path / "odd", json.dumps(body), LLAMA), 768)


@pytest.mark.parametrize("change", [
    {"model": []}, {"model": {"type": "BPE", "vocab": ["a"]}}, {"model": {"type": "BPE", "vocab": {"a": "b"}}},
    {"model": {"type": "BPE", "vocab": {"a": -1}}}, {"model": {"type": "BPE", "vocab": {"a": 10**9}}},
    {"added_tokens": [{"id": 1}]}, {"added_tokens": 5},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]], "byte_fallback": True}},
    {"pre_tokenizer": []}, {"post_processor": {"processors": 3}}, {"model": {"type": "WordPiece"}}])
def test_a_broken_tokenizer_is_refused_in_words(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = tiny_hf(tmp_path / "model")
    body = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(body | change))
    with pytest.raises(LoadFailed):
        read_vocabulary(folder, 768)


@pytest.mark.parametrize("change", [
    {"pre_tokenizer": {"type": "Whitespace"}}, {"pre_tokenizer": None},
    {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "model": {"ignore_merges": True}},
    {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": r"\p{L}+"}},
                                                             {"type": "ByteLevel", "use_regex": False}]}}])
def test_unknown_pre_tokenizers_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LoadFailed, match="pre-tokenizer"):
        pre_tokenizer(change)
