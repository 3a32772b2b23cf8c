"""A converted model says and computes what the folder it was made from does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modules.core.errors import LoadFailed
from modules.models.convert import convert, read_shape
from tests.tiny_models import CORPUS, TEMPLATE, tiny_gguf, tiny_hf

llama_cpp = pytest.importorskip("llama_cpp")
TEXTS = [*CORPUS, "<|im_start|>user\nhi<|im_end|>\n", "tabs\t\tand  spaces\r\n\n  x", "naïve café — ‘x’ 12345",
         " <think>hm</think>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("tiny") / "hf")


def greedy_gguf(path: Path, ids: list[int], n: int) -> list[int]:
    llama = llama_cpp.Llama(str(path), n_ctx=512, verbose=False)
    found = []
    for token in llama.generate(ids, temp=0.0):
        found.append(token)
        if len(found) == n:
            break
    return found


def test_equal_seeds_give_equal_files(tmp_path: Path, folder: Path) -> None:
    again = tiny_hf(tmp_path / "again")
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    assert (tiny_hf(tmp_path / "other", seed=1) / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


def test_both_tokenizers_agree_and_the_template_travels(tmp_path: Path, folder: Path) -> None:
    from tokenizers import Tokenizer

    path = tmp_path / "tiny.gguf"
    convert(folder, path, "f32")
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        assert llama.tokenize(text.encode(), add_bos=False, special=True) == tokenizer.encode(text, add_special_tokens=False).ids
    assert llama.metadata["tokenizer.chat_template"] == TEMPLATE


def test_greedy_ids_agree_with_transformers(tmp_path: Path, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    path = tmp_path / "tiny.gguf"
    convert(folder, path, "f32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = [1, 300, 301, 302, 50, 60]
    made = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None)[0, len(prompt):].tolist()
    assert greedy_gguf(path, prompt, 24) == made


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_smaller_types_load_and_are_smaller(tmp_path: Path, kind: str) -> None:
    full, small = tiny_gguf(tmp_path / "full.gguf"), tiny_gguf(tmp_path / "small.gguf", kind=kind)
    assert small.stat().st_size < full.stat().st_size * 0.6
    assert len(greedy_gguf(small, [1, 300, 301], 4)) == 4


def test_what_cannot_be_converted_is_refused_with_the_reason(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(LoadFailed, match="FalconForCausalLM"):
        read_shape({"architectures": ["FalconForCausalLM"]})
    with pytest.raises(LoadFailed, match="hidden_size"):
        read_shape({"architectures": ["LlamaForCausalLM"]})
    copy = tmp_path / "cut"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(LoadFailed, match="cut off"):
        convert(copy, tmp_path / "cut.gguf")
    assert not list(tmp_path.glob("cut.gguf*"))
    (copy / "model.safetensors").unlink()
    with pytest.raises(LoadFailed, match="safetensors"):
        convert(copy, tmp_path / "cut.gguf")


def test_an_unknown_pre_tokenizer_is_refused(tmp_path: Path, folder: Path) -> None:
    """A wrong pre-tokenizer gives a model that reads text in pieces it was never trained on, without any error."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    body = json.loads((folder / "tokenizer.json").read_text())
    body["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(LoadFailed, match="pre-tokenizer"):
        convert(tmp_path, tmp_path / "x.gguf")
