"""Loader files are found by lying there; what is broken or lacking is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modules import registry
from modules.core.errors import LoadFailed
from modules.core.loader import LoaderSpec, ModelFile

ROOT = Path(__file__).resolve().parents[1]
HEAD = "from modules.core.loader import LoaderSpec\ndef load(path, options, progress): raise NotImplementedError\n"


def spec_line(name: str, score: float, **more: object) -> str:
    rest = "".join(f", {key}={value!r}" for key, value in more.items())
    accepts = f"lambda file: {score} if file.format == 'gguf' else 0"
    return f"{HEAD}SPEC = LoaderSpec({name!r}, {name.title()!r}, {accepts}, load{rest})\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of loaders in place of the project's; its name is new each time, for modules are imported once."""
    package = tmp_path / f"loaders_of_{tmp_path.name.replace('-', '_')}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = registry.look
    monkeypatch.setattr(registry, "look", lambda: found(package.name))
    return package


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


GGUF = ModelFile(name="tiny", path="tiny.gguf", format="gguf")


def test_the_projects_own_loaders_are_all_sound() -> None:
    found = registry.look()
    assert not found.broken and "echo" in found.specs


def test_finding_loaders_imports_no_backend() -> None:
    """Checked in a process of its own, as other tests import them."""
    code = (
        "import sys\nfrom modules import registry\nimport modules.worker.main, modules.worker.client\nregistry.find_loaders()\n"
        "heavy = {'torch', 'transformers', 'llama_cpp', 'numpy', 'gradio', 'fastapi', 'starlette', 'sqlalchemy', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_broken_files_are_named_and_the_others_work(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, good=spec_line("good", 1), syntax="def (", absent="import no_such_module_anywhere", odd="SPEC = 5",
          twin=spec_line("good", 2), _private="1/0", helper="X = 1")
    assert list(registry.find_loaders()) == ["good"]
    for name in ("syntax", "absent", "odd", "twin"):
        assert f"{name}.py" in caplog.text
    assert "_private" not in caplog.text and "helper" not in caplog.text


def test_missing_modules_are_found_without_importing_any() -> None:
    spec = LoaderSpec("x", "X", lambda file: 1, lambda *args: pytest.fail("not loaded"), requires=(
        "json", "no_such_module_anywhere", "no_such_package.part", "json.decoder"))
    assert registry.missing(spec) == ["no_such_module_anywhere", "no_such_package.part"]


def test_the_highest_score_that_is_installed_wins(folder: Path) -> None:
    write(folder, low=spec_line("low", 1), high=spec_line("high", 5), best=spec_line("best", 9, requires=("no_such_module",)),
          never=spec_line("never", 0))
    assert registry.choose(GGUF).name == "high"


def test_when_nothing_that_suits_is_installed_the_command_is_told(folder: Path) -> None:
    write(folder, best=spec_line("best", 9, requires=("no_such_module",), install="pip install no-such"))
    with pytest.raises(LoadFailed, match="Best needs no_such_module: run pip install no-such"):
        registry.choose(GGUF)


def test_when_nothing_suits_the_format_and_the_broken_files_are_told(folder: Path) -> None:
    write(folder, echo=spec_line("echo", 1), broken="1/0")
    with pytest.raises(LoadFailed, match=r"format is exl3.*echo.*broken\.py is broken: ZeroDivisionError"):
        registry.choose(ModelFile(name="m", path="m", format="exl3"))
    with pytest.raises(LoadFailed, match="The file ends early"):
        registry.choose(ModelFile(name="m", path="m", format="unknown", problem="The file ends early."))


def test_a_loader_that_stumbles_over_a_file_does_not_hide_the_others(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, good=spec_line("good", 1), rude=spec_line("rude", 1).replace("lambda file: 1", "lambda file: 1/0"))
    assert registry.choose(GGUF).name == "good"
    assert "rude" in caplog.text


def test_a_loader_is_found_by_its_name_whatever_its_file_is_called() -> None:
    found = {name: registry.find(name) for name in ("echo", "transformers", "none", "echo_parts.vocabulary", "echo_parts")}
    assert {name for name, spec in found.items() if spec is not None and spec.name == name} == {"echo", "transformers"}
    assert [name for name, spec in found.items() if spec is None] == ["none", "echo_parts.vocabulary", "echo_parts"]
