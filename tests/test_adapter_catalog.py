"""Adapters in the folders: listed with their headers beside the models, never among them, and broken ones with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modules.core.errors import NotFound
from modules.models.adapters import AdapterCatalog
from modules.models.catalog import Catalog

from .tiny_adapters import ALPHA, RANK, gguf_adapter, peft_adapter
from .tiny_models import tiny_gguf, tiny_hf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    hf = tiny_hf(root / "models" / "base")
    tiny_gguf(root / "models" / "tiny.gguf")
    described = peft_adapter(hf, root / "loras" / "pirate") / "adapter_config.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "base_model_name_or_path": "some/base"}))
    gguf_adapter(root / "loras" / "pirate", root / "loras" / "pirate.gguf", **{"general.base_model.0.name": "Some Base"})
    shutil.copytree(root / "loras" / "pirate", root / "models" / "poet")
    shutil.copy(root / "loras" / "pirate.gguf", root / "models" / "sea.gguf")
    pickled = Path(shutil.copytree(root / "loras" / "pirate", root / "loras" / "pickled"))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    shutil.copytree(hf, root / "loras" / "misplaced")
    shutil.copy(root / "loras" / "pirate" / "adapter_model.safetensors", root / "loras" / "loose.safetensors")
    (root / "loras" / "junk.gguf").write_bytes(b"GGUF and no more")
    return root


def test_they_are_listed_with_their_headers_and_never_as_models(folder: Path) -> None:
    catalog = AdapterCatalog([folder / "loras"], [folder / "models"])
    found = {file.name: file for file in catalog.list()}
    assert set(found) == {"pirate", "pirate.gguf", "poet", "sea", "pickled", "misplaced", "loose", "junk"}
    peft, gguf = found["pirate"], found["pirate.gguf"]
    assert (peft.format, peft.rank, peft.alpha, peft.base, peft.layers) == ("safetensors", RANK, ALPHA, "some/base", 21)
    assert (gguf.format, gguf.rank, gguf.alpha, gguf.base, gguf.layers) == ("gguf", RANK, ALPHA, "Some Base", 21)
    assert {name for name, file in found.items() if file.problem} == {"pickled", "misplaced", "loose", "junk"}
    assert "pickle" in found["pickled"].problem and "adapter_model.safetensors" in found["pickled"].problem
    assert "a model, not an adapter" in found["misplaced"].problem
    assert "adapter_config.json" in found["loose"].problem
    assert {file.name for file in Catalog([folder / "models"]).list()} == {"base", "tiny", "tiny-hf"}
    assert catalog.find("poet").path == str(folder / "models" / "poet")


def test_one_that_is_not_there_is_refused_with_the_closest_names(folder: Path) -> None:
    with pytest.raises(NotFound, match="pirate"):
        AdapterCatalog([folder / "loras"]).find("pirates")
    with pytest.raises(NotFound, match="Put a GGUF adapter"):
        AdapterCatalog([folder / "none"]).find("pirate")
    for name in ("../loras/pirate", str(folder / "loras" / "pirate"), "pirate\0"):
        with pytest.raises(NotFound):
            AdapterCatalog([folder / "loras"]).find(name)


def test_headers_are_read_again_only_when_a_file_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = AdapterCatalog([folder / "loras"], [folder / "models"])
    first = catalog.list()
    monkeypatch.setattr("modules.models.adapters.read_model", lambda path: pytest.fail(f"{path} is read again"))
    assert catalog.list() == first
