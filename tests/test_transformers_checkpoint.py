"""Loading a Transformers folder: progress and cancel, and every unsafe or broken folder refused with the way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from loaders import transformers_hf
from modules.core.errors import Cancelled, LoadFailed, OutOfMemory
from modules.core.loader import Loader

from .hf_play import SHARED, ids_of, load, needs_shared, options, reply, saved
from .tiny_models import tiny_hf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Loader]:
    loaded = load(folder)
    yield loaded
    loaded.close()


def test_loading_tells_its_progress_and_a_cancel_there_ends_it(folder: Path) -> None:
    told: list[tuple[float, str]] = []
    transformers_hf.load(str(folder), options(), lambda fraction, text: told.append((fraction, text))).close()
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(told) > 20

    def cancel(fraction: float, text: str) -> None:
        if fraction > 0.5:
            raise Cancelled("Loading was cancelled.")

    with pytest.raises(Cancelled):
        transformers_hf.load(str(folder), options(), cancel)


def test_an_architecture_without_a_usable_state_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    path = saved("mamba", folder, tmp_path / "model", state_size=8)
    with pytest.raises(LoadFailed, match="GGUF"):
        load(path)


def broken(folder: Path, target: Path, *, without: Sequence[str] = (), **bodies: dict[str, Any]) -> Path:
    """A copy of the folder with files left out, or JSON files written anew (config={...})."""
    shutil.copytree(folder, target, ignore=lambda _, names: [name for name in names if name in without])
    for name, body in bodies.items():
        (target / f"{name}.json").write_text(json.dumps(body))
    return target


def test_pickled_weights_are_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    path = broken(folder, tmp_path / "m", without=["model.safetensors"])
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(LoadFailed, match=r"pytorch_model\.bin.*safetensors"):
        load(path)


def test_a_model_that_needs_its_own_code_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "evil.X"}}
    path = broken(folder, tmp_path / "m", config=config)
    (path / "evil.py").write_text("raise SystemExit('the code ran')")
    with pytest.raises(LoadFailed, match="auto_map"):
        load(path)


def test_a_built_in_architecture_never_runs_the_folders_code(model: Loader, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil.X", "AutoConfig": "evil.Y"}}
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text()) | {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}}
    path = broken(folder, tmp_path / "m", config=config, tokenizer_config=tokenizer)
    (path / "evil.py").write_text("raise SystemExit('the code ran')")
    loaded = load(path)
    assert ids_of(reply(loaded, [5, 6])) == ids_of(reply(model, [5, 6]))
    loaded.close()


@pytest.mark.parametrize(("name", "words"), [
    ("../../secret.safetensors", "not a .safetensors file in the folder"), ("model.bin", "not a .safetensors file in the folder"),
    ("model-00002-of-00002.safetensors", "missing")])
def test_an_index_that_names_other_files_is_refused(folder: Path, tmp_path: Path, name: str, words: str) -> None:
    path = broken(folder, tmp_path / "m")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(LoadFailed, match=words):
        load(path)


def test_weights_that_lack_a_tensor_are_refused_instead_of_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = broken(folder, tmp_path / "m")
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadFailed, match="up_proj"):
        load(path)


@pytest.mark.parametrize(("file", "text", "words"), [
    ("config.json", "{", "cannot be read"), ("config.json", "[]", "no JSON object"),
    ("config.json", '{"model_type": "nonesuch"}', "nonesuch"),
    ("config.json", '{"quantization_config": {"quant_method": "gptq"}}', "GPTQ"),
    ("model.safetensors", "version https://git-lfs", "could not be loaded"), ("tokenizer.json", "{}", "could not be loaded")])
def test_broken_files_are_named(folder: Path, tmp_path: Path, file: str, text: str, words: str) -> None:
    path = broken(folder, tmp_path / "m")
    (path / file).write_text(text)
    with pytest.raises(LoadFailed, match=words):
        load(path)


@needs_shared
def test_a_truncated_checkpoint_is_refused() -> None:
    with pytest.raises(LoadFailed):
        load(SHARED / "models" / "hostile" / "truncated-hf")


def test_an_absent_folder_and_an_absent_device_are_named(folder: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(LoadFailed, match="not a folder"):
        load(tmp_path / "nothing")
    if not torch.cuda.is_available():
        with pytest.raises(LoadFailed, match="no cuda device"):
            load(folder, device="cuda")


def test_memory_errors_are_told_as_such() -> None:
    import torch

    from loaders.transformers_parts.model import translate

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert isinstance(translate(caught.value), OutOfMemory)
    assert isinstance(translate(MemoryError()), OutOfMemory)
    assert translate(ValueError("x")) is None


def test_loading_leaves_the_hubs_offline_switch_as_it_was(folder: Path) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    load(folder).close()
    assert before == constants.HF_HUB_OFFLINE
