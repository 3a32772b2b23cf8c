"""Model headers: what they say, and that no file, however broken, is more than a sentence."""

from __future__ import annotations

import functools
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.core.errors import NotFound
from modules.core.loader import ModelFile
from modules.store.headers import read_model, split_parts

DATA = Path("../shared/data/models")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/models")


def write_gguf(path: Path, *, byte_pieces: bool = True, tensors: int = 2, **keys: str | int) -> Path:
    from gguf import GGUFWriter
    writer = GGUFWriter(str(path), str(keys.pop("architecture", "llama")))
    values = {"llama.context_length": 512, "llama.block_count": 3, "llama.embedding_length": 64, "llama.attention.head_count": 8,
              "llama.attention.head_count_kv": 2, "general.file_type": 1, **keys}
    for name, value in values.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    writer.add_tokenizer_model("llama")
    pieces = [f"<0x{n:02X}>" for n in range(256)] if byte_pieces else ["a", "b", "\n"]
    writer.add_token_list(["<s>", *pieces])
    writer.add_token_scores([0.0] * (len(pieces) + 1))
    writer.add_chat_template("{{ messages }}")
    for n in range(tensors):
        writer.add_tensor(f"blk.{n}", np.zeros((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def safetensors(tensors: dict[str, tuple[str, list[int], int]]) -> bytes:
    """A file of zeros; tensors: dtype, shape, bytes."""
    header, place = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(place)


CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 1024, "num_hidden_layers": 4, "hidden_size": 64,
          "num_attention_heads": 8, "num_key_value_heads": 2}


def write_folder(path: Path, weights: bytes | None = None, **files: object) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(safetensors({"a": ("F16", [4, 8], 64)}) if weights is None else weights)
    for name, value in {"config": CONFIG, "tokenizer": {}, **files}.items():
        if value is not None:
            (path / f"{name}.json").write_text(json.dumps(value))
    return path


def test_a_gguf_file_says_what_it_is(tmp_path: Path) -> None:
    file = read_model(write_gguf(tmp_path / "m.gguf"), "m")
    assert file == ModelFile("m", str(tmp_path / "m.gguf"), "gguf", file.size_bytes, "llama", 256, 512, "F16", "{{ messages }}",
                             layers=3, kv_heads=2, head_dim=8, heads=8, hidden_size=64)


@pytest.mark.parametrize(("keys", "words"), [
    ({"byte_pieces": False}, "255 of the 256 byte values"),
    ({"tensors": 0}, "only a vocabulary"),
    ({"general.type": "adapter"}, "LoRA adapter"),
    ({"architecture": "clip"}, "mmproj"),
    ({"split.count": 3}, "3 parts"),
])
def test_a_gguf_file_that_cannot_be_a_model_says_why(tmp_path: Path, keys: dict[str, int], words: str) -> None:
    expected = words.replace("255", "253") if "byte_pieces" in keys else words
    assert expected in read_model(write_gguf(tmp_path / "m.gguf", **keys)).problem


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    for n in (1, 3):
        write_gguf(tmp_path / f"m-{n:05d}-of-00003.gguf")
    for n in (1, 3):
        file = read_model(tmp_path / f"m-{n:05d}-of-00003.gguf")
        assert "m-00002-of-00003.gguf" in file.problem and file.path == str(split_parts(Path(file.path))[0])


@pytest.mark.parametrize(("raw", "words"), [
    (b"", "empty"),
    (b"GGUF", "cut off"),
    (b"GGML" + bytes(40), "does not begin with GGUF"),
    (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
    (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tensors"),
    (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "keys"),
    (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60) + bytes(20), "cut off"),
    (b"GGUF" + struct.pack("<IQQQ4sIIQ", 3, 0, 1, 4, b"some", 9, 4, 2**62), "elements"),
    (b"GGUF" + struct.pack("<IQQQ4sIIQ", 3, 0, 1, 4, b"some", 9, 9, 1), "unknown type 9"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
])
def test_a_broken_gguf_file_is_a_sentence(tmp_path: Path, raw: bytes, words: str) -> None:
    (tmp_path / "m.gguf").write_bytes(raw)
    assert words in read_model(tmp_path / "m.gguf").problem


def test_a_folder_says_what_it_is(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m", tokenizer_config={"chat_template": [{"name": "tool", "template": "t"},
                                                                            {"name": "default", "template": "d"}]})
    file = read_model(path, "m")
    assert file == ModelFile("m", str(path), "safetensors", file.size_bytes, "LlamaForCausalLM", 32, 1024, "F16", "d", 4, 2, 8,
                             heads=8, hidden_size=64, n_outside=32)
    (path / "chat_template.jinja").write_text("jinja")
    assert read_model(path).chat_template == "jinja"


def test_packed_weights_are_counted_as_what_they_stand_for(tmp_path: Path) -> None:
    packed = safetensors({"l.qweight": ("I32", [8, 64], 2048), "l.scales": ("F16", [2, 64], 256),
                          "l.qzeros": ("I32", [2, 8], 64)})
    gptq = {"bits": 4, "group_size": 32}
    inside = {**CONFIG, "quantization_config": {**gptq, "quant_method": "gptq"}}
    old = write_folder(tmp_path / "old", packed, quantize_config=gptq)
    new = write_folder(tmp_path / "new", packed, config=inside)
    for path in (old, new):
        file = read_model(path)
        assert (file.format, file.quantization, file.n_params, file.problem) == ("gptq", "GPTQ 4-bit g32", 8 * 8 * 64, "")
    assert "qweight" in read_model(write_folder(tmp_path / "bare", packed)).problem
    awq = {**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}}
    assert read_model(write_folder(tmp_path / "awq", packed, config=awq)).format == "awq"
    exl = {**CONFIG, "quantization_config": {"quant_method": "exl3", "bits": 4.5}}
    assert read_model(write_folder(tmp_path / "exl", packed, config=exl)).quantization == "EXL3 4.5-bit"


@pytest.mark.parametrize(("weights", "files", "words"), [
    (b"", {}, "empty or cut off"),
    (b"\xff" * 8 + b"{}", {}, "claims a header"),
    (struct.pack("<Q", 50) + b"{}", {}, "cut off within"),
    (struct.pack("<Q", 2) + b"{[", {}, "no JSON"),
    (struct.pack("<Q", 40_000) + b"[" * 40_000, {}, "no JSON"),
    (safetensors({"a": ("F16", [4, 8], 64)})[:-1], {}, "cut off: it has"),
    (safetensors({"a": ("F16", [4, 9], 64)}), {}, "'a' wrongly"),
    (safetensors({"a": ("F16", [2**62, 2**62], 64)}), {}, "'a' wrongly"),
    (b"version https://git-lfs.github.com/spec/v1\n", {}, "LFS"),
    (None, {"config": None}, "config.json is missing"),
    (None, {"config": []}, "no JSON object"),
    (None, {"config": {}}, "architecture"),
    (None, {"tokenizer": None}, "tokenizer is missing"),
])
def test_a_broken_folder_is_a_sentence(tmp_path: Path, weights: bytes | None, files: dict[str, object], words: str) -> None:
    assert words in read_model(write_folder(tmp_path / "m", weights, **files)).problem


def test_an_index_names_its_missing_files_and_only_files_of_its_folder(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "m")
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    index = path / "model.safetensors.index.json"
    both = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": both}))
    assert "model-00002-of-00002" in read_model(path).problem
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd.safetensors"}}))
    assert "no safetensors file in this folder" in read_model(path).problem
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert read_model(path).problem == ""


def test_pickles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    for name in ("m.bin", "m.pt", "m.pth", "m.ckpt"):
        (tmp_path / name).write_bytes(b"\x80\x04")
        file = read_model(tmp_path / name)
        assert file.format == "pickle" and "safetensors or GGUF" in file.problem
    folder = write_folder(tmp_path / "hf")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert read_model(folder).format == "pickle"


def test_adapters_and_strangers_are_recognised(tmp_path: Path) -> None:
    adapter = write_folder(tmp_path / "lora", adapter_config={"base_model_name_or_path": "some/base"})
    file = read_model(adapter)
    assert file.format == "adapter" and "some/base" in file.problem
    (tmp_path / "x.txt").write_text("hi")
    assert read_model(tmp_path / "x.txt").problem
    (tmp_path / "s.echo").write_text("{}")
    assert (read_model(tmp_path / "s.echo").format, read_model(tmp_path / "s.echo").problem) == ("echo", "")
    with pytest.raises(NotFound):
        read_model(tmp_path / "none")


@functools.cache
def small(kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors({"a": ("F16", [4, 8], 64), "b.qweight": ("I32", [4], 16)})
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        return write_gguf(Path(folder) / "m.gguf", tensors=1).read_bytes()


@given(kind=st.sampled_from(["gguf", "safetensors"]), cut=st.none() | st.integers(0, 12_000),
       changes=st.lists(st.tuples(st.integers(0, 12_000), st.binary(min_size=1, max_size=9)), max_size=4))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_file_is_more_than_a_sentence(tmp_path: Path, kind: str, cut: int | None,
                                                     changes: list[tuple[int, bytes]]) -> None:
    raw = bytearray(small(kind))
    for place, new in changes:
        place %= len(raw)
        raw[place:place + len(new)] = new
    path = tmp_path / ("m.gguf" if kind == "gguf" else "hf/model.safetensors")
    write_folder(tmp_path / "hf")
    path.write_bytes(raw[:cut])
    file = read_model(path if kind == "gguf" else path.parent)
    assert 0 <= file.n_params < 1 << 64 and isinstance(file.problem, str)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=6)


@given(config=st.fixed_dictionaries({}, optional={key: JSON for key in [*CONFIG, "text_config", "head_dim", "model_type"]}),
       quantization=st.fixed_dictionaries({}, optional={k: JSON for k in ("bits", "quant_method", "group_size", "load_in_4bit")}),
       template=JSON, weight_map=st.none() | JSON)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_config_is_more_than_a_sentence(tmp_path: Path, config: dict[str, object], quantization: dict[str, object],
                                           template: object, weight_map: object) -> None:
    path = write_folder(tmp_path / "m", config={**config, "quantization_config": quantization},
                        tokenizer_config={"chat_template": template})
    index = path / "model.safetensors.index.json"
    index.unlink(missing_ok=True)
    if weight_map is not None:
        index.write_text(json.dumps({"weight_map": weight_map}))
    read_model(path)


@needs_data
def test_real_models_are_read_as_they_are() -> None:
    assert read_model(DATA / "babyllama-tok361-F16-split").n_params == 969_216
    assert read_model(DATA / "babyllama-tok361-hf-f32-sharded").n_params == 969_216
    assert read_model(DATA / "babyllama-tok361-Q4_0.gguf").quantization == "Q4_0"
    gptq = read_model(DATA / "babyllama-tok361-gptq-4bit-32g")
    assert (gptq.format, gptq.n_params) == ("gptq", 969_216)
    problems = {path.name: read_model(path).problem for path in (DATA / "hostile").iterdir()}
    assert len(problems) == 5 and all(problems.values())
    assert "169 of the 256 byte values" in problems["no-byte-pieces-tok105-F16.gguf"]
