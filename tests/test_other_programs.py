"""Models of other programs on this machine: found where these keep them, named as their users know them, and never trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from modules.core.errors import NotFound
from modules.core.loader import ModelFile
from modules.core.settings import Settings
from modules.models.catalog import Catalog
from modules.models.explain import sentence
from modules.models.other_programs import MAX_MANIFEST_BYTES, OLLAMA_MODEL, Place, candidates, usual_places
from tests.test_headers import write_folder, write_gguf

REVISIONS = ("a" * 40, "b" * 40)


def hub_file(repository: Path, revision: str, name: str, source: Path) -> None:
    """Put a file into a hub cache as huggingface_hub does: the bytes among the blobs, a link in the snapshot."""
    blob = repository / "blobs" / hashlib.sha256(source.read_bytes() + name.encode()).hexdigest()
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, blob)
    link = repository / "snapshots" / revision / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))


def ollama_model(folder: Path, manifest: str, source: Path, *, media_type: str = OLLAMA_MODEL) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    shutil.copy(source, folder / "blobs" / f"sha256-{digest}")
    path = folder / "manifests" / manifest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64},
        {"mediaType": media_type, "digest": f"sha256:{digest}"}]}))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with every program's models."""
    home = tmp_path / "home"
    gguf, folder = write_gguf(tmp_path / "one.gguf"), write_folder(tmp_path / "two")
    hub = home / ".cache" / "huggingface" / "hub"
    for name in sorted(path.name for path in folder.iterdir()):
        hub_file(hub / "models--org--Two-7B", REVISIONS[0], name, folder / name)
        hub_file(hub / "models--org--Two-7B", REVISIONS[1], name, folder / name)
    (hub / "models--org--Two-7B" / "refs").mkdir()
    (hub / "models--org--Two-7B" / "refs" / "main").write_text(REVISIONS[0])
    hub_file(hub / "models--org--One-GGUF", REVISIONS[0], "One.Q4_0.gguf", gguf)
    hub_file(hub / "datasets--org--data", REVISIONS[0], "model.gguf", gguf)
    studio = home / ".lmstudio" / "models" / "maker" / "One-GGUF"
    studio.mkdir(parents=True)
    write_gguf(studio / "One-Q4_0.gguf")
    ollama_model(home / ".ollama" / "models", "registry.ollama.ai/library/one/latest", gguf)
    write_folder(home / "text-generation-webui" / "user_data" / "models" / "two")
    return home


def found_by_name(home: Path, *folders: Path, **environ: str) -> dict[str, ModelFile]:
    return {file.name: file for file in Catalog(folders, others=usual_places(environ, home)).list()}


@pytest.mark.skipif(os.name != "posix", reason="makes symbolic links")
def test_each_programs_models_are_listed_under_the_names_that_its_users_know(home: Path) -> None:
    found = found_by_name(home)
    assert {name: file.source for name, file in found.items()} == {
        "org/Two-7B": "Hugging Face's cache", "org/One-GGUF/One.Q4_0": "Hugging Face's cache",
        "maker/One-GGUF/One-Q4_0": "LM Studio", "one": "Ollama", "two": "text-generation-webui"}
    assert [file.problem for file in found.values() if file.problem] == []
    assert f"snapshots/{REVISIONS[0]}" in found["org/Two-7B"].path
    assert sentence(found["one"]).endswith("It belongs to Ollama.")
    assert found["one"].format == "gguf" and found["one"].quantization == found["org/One-GGUF/One.Q4_0"].quantization


def test_without_a_main_revision_the_newest_snapshot_is_shown(home: Path) -> None:
    repository = home / ".cache" / "huggingface" / "hub" / "models--org--Two-7B"
    os.utime(repository / "snapshots" / REVISIONS[0], (1, 1))
    for named in ("", "../../..", "c" * 40):
        (repository / "refs" / "main").write_text(named)
        assert f"snapshots/{REVISIONS[1]}" in found_by_name(home)["org/Two-7B"].path
    shutil.rmtree(repository / "refs")
    assert f"snapshots/{REVISIONS[1]}" in found_by_name(home)["org/Two-7B"].path


def test_the_persons_own_models_keep_their_names_and_one_place_is_listed_once(home: Path, tmp_path: Path) -> None:
    own = tmp_path / "models"
    write_folder(own / "two")
    found = found_by_name(home, own, home / ".lmstudio" / "models")
    assert found["two"].source == "" and found["two (2)"].source == "text-generation-webui"
    assert found["maker/One-GGUF/One-Q4_0"].source == "" and "maker/One-GGUF/One-Q4_0 (2)" not in found


def test_a_listed_path_is_found_and_others_in_these_folders_are_not(home: Path) -> None:
    catalog = Catalog([], others=usual_places({}, home))
    listed = catalog.find("one")
    assert catalog.find(listed.path) == listed
    with pytest.raises(NotFound):
        catalog.find(str(home / ".ollama" / "models" / "blobs" / ("sha256-" + "0" * 64)))


def test_ollamas_names_leave_out_what_nobody_writes(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "m.gguf")
    for manifest in ("registry.ollama.ai/library/llama3.2/1b-instruct-q4_0", "registry.ollama.ai/someone/tale/latest",
                     "hf.co/org/Model-GGUF/Q4_K_M"):
        ollama_model(tmp_path / "o", manifest, gguf)
    assert [item.label for item in candidates(Place("Ollama", tmp_path / "o", "ollama"))] == [
        "hf.co/org/Model-GGUF:Q4_K_M", "llama3.2:1b-instruct-q4_0", "someone/tale"]


@pytest.mark.parametrize("body", [
    "", "[]", "{", '{"layers": 5}', '{"layers": [{}]}', json.dumps({"layers": [{"mediaType": OLLAMA_MODEL, "digest": 5}]}),
    json.dumps({"layers": [{"mediaType": OLLAMA_MODEL, "digest": "sha256:../../../secret"}]}),
    json.dumps({"layers": [{"mediaType": OLLAMA_MODEL, "digest": "sha256:" + "f" * 64}]}), "[" * 100_000,
    json.dumps({"layers": []}) + " " * MAX_MANIFEST_BYTES])
def test_manifests_that_are_none_are_passed_over(tmp_path: Path, body: str) -> None:
    ollama_model(tmp_path / "o", "registry.ollama.ai/library/good/latest", write_gguf(tmp_path / "m.gguf"))
    (tmp_path / "o" / "manifests" / "registry.ollama.ai" / "library" / "good" / "bad").write_text(body)
    (tmp_path / "o" / "manifests" / "stray").write_text(body)
    assert [item.label for item in candidates(Place("Ollama", tmp_path / "o", "ollama"))] == ["good"]


@pytest.mark.skipif(os.name != "posix", reason="makes symbolic links")
def test_a_hub_snapshot_that_links_out_of_the_cache_is_refused(home: Path, tmp_path: Path) -> None:
    secret = write_gguf(tmp_path / "secret.gguf")
    snapshot = home / ".cache" / "huggingface" / "hub" / "models--org--One-GGUF" / "snapshots" / REVISIONS[0]
    (snapshot / "leak.gguf").symlink_to(secret)
    assert "link to a place outside" in found_by_name(home)["org/One-GGUF/leak"].problem


def test_the_environment_says_where_the_folders_are(tmp_path: Path) -> None:
    for below in ("hub", "huggingface/hub", "ollama", "other"):
        (tmp_path / below).mkdir(parents=True)

    def places(**environ: str) -> list[str]:
        return [str(place.folder.relative_to(tmp_path)) for place in usual_places(environ, tmp_path / "nobody")
                if place.folder.is_relative_to(tmp_path)]

    assert places() == []
    assert places(HF_HUB_CACHE=str(tmp_path / "other"), HF_HOME=str(tmp_path)) == ["other"]
    assert places(HF_HOME=str(tmp_path)) == ["hub"] and places(XDG_CACHE_HOME=str(tmp_path)) == ["huggingface/hub"]
    assert places(OLLAMA_MODELS=str(tmp_path / "ollama")) == ["ollama"]
    assert places(OLLAMA_MODELS=str(tmp_path / "gone")) == []


def test_they_are_listed_unless_told_otherwise(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.assembly import make_services

    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    for own_only, wanted in ((False, True), (True, False)):
        settings = Settings(data_dir=str(tmp_path / f"data-{own_only}"), models_dir=(str(tmp_path / "none"),),
                            own_models_only=own_only)
        services = make_services(settings, tmp_path)
        assert bool(services.engine.catalog.list()) == wanted
        services.store.close()
