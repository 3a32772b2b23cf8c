"""The catalog: what is in the model folders, by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modules.core.errors import NotFound
from modules.models.catalog import Catalog
from modules.models.naming import decode
from tests.test_headers import write_folder, write_gguf


def names(catalog: Catalog) -> list[str]:
    return [file.name for file in catalog.list()]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    for path in ("a.Q4_0.gguf", "org/Big-7B/Big-7B.gguf", "split/s-00001-of-00002.gguf", "split/s-00002-of-00002.gguf"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        keys = {"split.count": 2} if "split" in path else {}
        write_gguf(folder / path, **keys)
    write_folder(folder / "org" / "hf")
    (folder / "talk.echo").write_text("hello")
    (folder / "readme.md").write_text("no model")
    (folder / ".hidden.gguf").write_text("")
    return folder


def test_models_have_plain_unique_names(models: Path) -> None:
    assert names(Catalog([models])) == ["a.Q4_0", "org/Big-7B", "org/hf", "split/s", "talk"]
    write_folder(models / "a.Q4_0")
    assert {"a.Q4_0", "a.Q4_0.gguf"} < set(names(Catalog([models]))), "the folder has the plain name, the file keeps its suffix"
    twice = names(Catalog([models, models]))
    assert len(twice) == len({name.lower() for name in twice}) == 6


def test_split_files_are_one_model_of_all_their_bytes(models: Path) -> None:
    file = Catalog([models]).find("split/s")
    assert file.size_bytes == sum(path.stat().st_size for path in (models / "split").iterdir())
    assert file.path.endswith("s-00001-of-00002.gguf") and file.problem == ""


@pytest.mark.parametrize("name", ["a.Q4_0", "A.q4_0", "a.Q4_0.gguf", "org/Big-7B", "Big-7B", "big-7b.gguf", "hf", "s"])
def test_a_model_is_found_by_what_people_call_it(models: Path, name: str) -> None:
    assert Catalog([models]).find(name).problem == ""


def test_a_path_is_found_only_within_the_folders_or_where_named_at_start(models: Path, tmp_path: Path) -> None:
    outside = write_gguf(tmp_path / "outside.gguf")
    catalog = Catalog([models])
    assert catalog.find(str(models / "a.Q4_0.gguf")).name == "a.Q4_0"
    assert catalog.find(str(models / "split" / "s-00002-of-00002.gguf")).name == "split/s"
    for name in (str(outside), "../outside.gguf", f"{models}/../outside.gguf", "/etc/passwd", "a\0b", "x" * 9999, ""):
        with pytest.raises(NotFound):
            catalog.find(name)
    allowed = Catalog([models], allowed=[outside])
    assert allowed.find(str(outside)).format == "gguf" and "outside" in names(allowed)


@pytest.mark.skipif(os.name != "posix", reason="makes symbolic links")
def test_links_out_of_the_folders_are_not_followed(models: Path, tmp_path: Path) -> None:
    outside = write_gguf(tmp_path / "outside.gguf")
    hf = write_folder(tmp_path / "elsewhere")
    (models / "link.gguf").symlink_to(outside)
    (models / "linked").symlink_to(hf)
    (models / "inner.gguf").symlink_to(models / "a.Q4_0.gguf")
    (models / "loop").symlink_to(models)
    mixed = write_folder(models / "mixed")
    (mixed / "chat_template.jinja").symlink_to("/etc/hostname")
    found = {file.name: file for file in Catalog([models]).list()}
    for name in ("link", "linked", "mixed"):
        assert "--models-dir" in found[name].problem and not found[name].chat_template
    assert found["inner"].problem == ""
    assert len(found) == 9


def test_a_refusal_names_close_models(models: Path) -> None:
    with pytest.raises(NotFound, match="Did you mean org/Big-7B"):
        Catalog([models]).find("Bigg-7B")
    with pytest.raises(NotFound, match="folders are empty"):
        Catalog([models / "none"]).find("x")


def test_headers_are_read_again_only_when_a_file_changes(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.models import catalog as module
    reads: list[str] = []
    real = module.read_model
    monkeypatch.setattr(module, "read_model", lambda path: (reads.append(path.name), real(path))[1])
    catalog = Catalog([models])
    catalog.list()
    assert len(reads) == 5
    catalog.list()
    assert len(reads) == 5
    (models / "a.Q4_0.gguf").write_bytes(b"GGUF")
    assert catalog.find("a.Q4_0").problem
    assert reads[5:] == ["a.Q4_0.gguf"]


def test_echo_is_found_without_being_listed(models: Path) -> None:
    catalog = Catalog([models])
    assert catalog.find("echo").format == "echo" and "echo" not in names(catalog)
    assert catalog.find("talk").format == "echo"


def test_broken_models_are_listed_with_their_problem(models: Path) -> None:
    (models / "zero.gguf").write_bytes(b"")
    (models / "old.pth").write_bytes(bytes(2_000_000))
    (models / "split" / "s-00002-of-00002.gguf").unlink()
    found = {file.name: file.problem for file in Catalog([models]).list()}
    assert "empty" in found["zero"] and "pickle" in found["old"] and "s-00002-of-00002.gguf" in found["split/s"]


@pytest.mark.parametrize(("name", "n_params", "quantization", "kind"), [
    ("CapybaraHermes-2.5-Mistral-7B.Q5_K_M.gguf", 7_000_000_000, "Q5_K_M", ""),
    ("Llama-3.2-1B-Instruct-Q4_0", 1_000_000_000, "Q4_0", "instruct"),
    ("Mixtral-8x7B-v0.1-GPTQ", 56_000_000_000, "GPTQ", ""),
    ("gemma-2-2b-it-IQ4_XS", 2_000_000_000, "IQ4_XS", "instruct"),
    ("stories260K-F16", 260_000, "F16", ""),
    ("SmolLM-135M-base-4bit-32g", 135_000_000, "4BIT-32G", "base"),
    ("Yarn-16k", 0, "", ""),
])
def test_names_are_decoded(name: str, n_params: int, quantization: str, kind: str) -> None:
    found = decode(name)
    assert (found.n_params, found.quantization, found.kind) == (n_params, quantization, kind)


@pytest.mark.parametrize(("name", "base"), [
    ("CapybaraHermes-2.5-Mistral-7B.Q5_K_M.gguf", "Mistral"), ("Hermes-3-Llama-3.1-8B", "Llama"), ("Llama-3.2-1B-Instruct", ""),
    ("Meta-Llama-3-8B", ""), ("org-of-qwen/Tale-7B", ""), ("Philosopher-7B", ""), ("a/DeepSeek-R1-Distill-Qwen-7B", "")])
def test_a_fine_tune_names_its_base_after_itself(name: str, base: str) -> None:
    assert decode(name).base == base


def test_a_folder_whose_weights_are_missing_is_listed_with_what_to_do_and_parts_of_others_are_not(tmp_path: Path) -> None:
    """A download that was cut short was not listed, and nothing said why."""
    for name in ("half", "pooling", "quants"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "half" / "tokenizer.json").write_text("{}")
    (tmp_path / "quants" / "tokenizer.json").write_text("{}")
    (tmp_path / "quants" / "a.gguf").write_bytes(b"")
    found = {file.name: file.problem for file in Catalog([tmp_path]).list()}
    assert "download its *.safetensors files" in found["half"]
    assert "pooling" not in found and "quants" not in found
