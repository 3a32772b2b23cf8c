"""Real tokenizers and trained models through the converter; skipped where ../shared/data is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.models.convert import convert
from modules.models.making import Making, order
from modules.models.targets import TARGETS
from modules.store.headers import read_model
from tests.test_convert_tokenizers import folder_with

llama_cpp = pytest.importorskip("llama_cpp")
SEPARATOR = "\n__ggml_vocab_test__\n"


def fields_of(path: Path) -> dict[str, Any]:
    import gguf
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items() if name.startswith("tokenizer.")}


def expected(path: Path) -> list[tuple[str, list[int]]]:
    texts = path.with_name(f"{path.name}.inp").read_text("utf-8").split(SEPARATOR)
    ids = [[int(word) for word in line.split()] for line in path.with_name(f"{path.name}.out").read_text().splitlines()]
    return [(text, wanted) for text, wanted in zip(texts, ids, strict=False) if text]


def tokenized(folder: Path, path: Path, texts: list[str]) -> list[list[int]]:
    convert(folder, path, "f16")
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return [llama.tokenize(text.encode(), add_bos=False, special=False) for text in texts]


def test_llama_2s_pieces_give_its_ids(tmp_path: Path, shared_data: Path) -> None:
    """A SentencePiece file with the 32,000 real pieces."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    source = shared_data / "vocab" / "ggml" / "ggml-vocab-llama-spm.gguf"
    known = fields_of(source)
    model = proto.ModelProto()
    for text, score, kind in zip(known["tokenizer.ggml.tokens"], known["tokenizer.ggml.scores"],
                                 known["tokenizer.ggml.token_type"], strict=True):
        model.pieces.add(piece=text, score=score, type=kind)
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.normalizer_spec.remove_extra_whitespaces = False
    folder = folder_with(tmp_path / "model", config={"bos_token": "<s>", "eos_token": "</s>"}, size=len(model.pieces))
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    cases = expected(source)
    assert len(cases) > 30
    assert tokenized(folder, tmp_path / "model.gguf", [text for text, _ in cases]) == [ids for _, ids in cases]


def test_gpt_2s_merges_give_its_ids(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "vocab" / "ggml" / "ggml-vocab-gpt-2.gguf"
    known = fields_of(source)
    tokens, merges = known["tokenizer.ggml.tokens"], known["tokenizer.ggml.merges"]
    body = {"version": "1.0", "added_tokens": [],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            "model": {"type": "BPE", "vocab": {text: i for i, text in enumerate(tokens)}, "merges": merges}}
    folder = folder_with(tmp_path / "model", json.dumps(body), size=len(tokens))
    cases = expected(source)
    assert len(cases) > 30
    assert tokenized(folder, tmp_path / "model.gguf", [text for text, _ in cases]) == [ids for _, ids in cases]


def test_a_tokenizer_with_tools_and_thinking_agrees(tmp_path: Path, shared_data: Path) -> None:
    from tokenizers import Tokenizer

    source = shared_data / "vocab" / "minimind-hf"
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    config = json.loads((source / "tokenizer_config.json").read_text())
    folder = folder_with(tmp_path / "model", (source / "tokenizer.json").read_text(), config, tokenizer.get_vocab_size())
    texts = [text for text, _ in expected(shared_data / "vocab" / "ggml" / "ggml-vocab-gpt-2.gguf")]
    assert tokenized(folder, tmp_path / "model.gguf", texts) == [tokenizer.encode(text, add_special_tokens=False).ids
                                                                 for text in texts]
    metadata = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False).metadata
    assert metadata["tokenizer.chat_template"] == config["chat_template"]


@pytest.mark.parametrize(("name", "folder"), [("stories260K", "stories260K-hf-f32"),
                                              ("babyllama-tok361", "babyllama-tok361-hf-f32"),
                                              ("babyllama-tok361", "babyllama-tok361-hf-f32-sharded")])
def test_trained_models_go_on_with_their_own_words(tmp_path: Path, shared_data: Path, name: str, folder: str) -> None:
    golden = json.loads((shared_data / "models" / "golden.json").read_text())[name]
    convert(shared_data / "models" / folder, tmp_path / "model.gguf", "f32")
    llama = llama_cpp.Llama(str(tmp_path / "model.gguf"), n_ctx=256, verbose=False, logits_all=True)
    for case in golden:
        if len(case["prompt_ids"]) > 100:
            continue
        assert llama.tokenize(case["prompt"].encode(), add_bos=True, special=False) == case["prompt_ids"]
        llama.reset()
        llama.eval(case["prompt_ids"])
        found = int(np.argmax(llama.scores[len(case["prompt_ids"]) - 1]))
        assert found == case["greedy_ids"][0]
        made = []
        for token in llama.generate(case["prompt_ids"], temp=0.0):
            made.append(token)
            if len(made) == 20:
                break
        assert made == case["greedy_ids"][:20]


def test_a_split_file_is_quantized_whole(tmp_path: Path, shared_data: Path) -> None:
    first = shared_data / "models" / "babyllama-tok361-F16-split" / "babyllama-tok361-F16-00001-of-00003.gguf"
    whole = shared_data / "models" / "babyllama-tok361-F16.gguf"
    for path, name in ((first, "split"), (whole, "whole")):
        Making(order(read_model(path), TARGETS["Q4_0"], tmp_path / f"{name}.gguf", tmp_path)).run(lambda values: None)
    split, plain = read_model(tmp_path / "split.gguf"), read_model(tmp_path / "whole.gguf")
    assert (split.n_params, split.quantization, split.problem) == (plain.n_params, "Q4_0", "")
