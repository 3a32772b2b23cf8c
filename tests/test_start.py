"""start.py: it may be stopped and run again, a second start does nothing, and flags that are not its own go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import start
from modules.install import progress


def test_llama_cpp_python_is_split_out_and_the_rest_is_kept_word_for_word() -> None:
    text = "# a\ntorch==2\nLlama_cpp-Python[x]==3  # why\nllama-cpp-pythonic==1\n"
    assert start.split_requirements(text) == ("# a\ntorch==2\nllama-cpp-pythonic==1\n", "Llama_cpp-Python[x]==3")
    assert start.split_requirements("torch\n") == ("torch\n", "")
    base, line = start.split_requirements((start.ROOT / start.REQUIREMENTS).read_text())
    assert line.startswith("llama-cpp-python==") and "llama-cpp" not in base.replace("start.py", "").split("# GGUF")[0]


def test_only_supported_pythons_go_on() -> None:
    assert [check for minor in (11, 12, 13) if (check := start.check_version(3, minor))] == []
    for version in ((3, 9), (3, 10), (3, 14), (4, 0)):
        assert "3.11, 3.12 and 3.13" in start.check_version(*version)


def test_windows_interpreters_lie_elsewhere(tmp_path: Path) -> None:
    assert start.python_of(tmp_path, "win32") == tmp_path / "Scripts" / "python.exe"
    assert start.python_of(tmp_path, "linux") == tmp_path / "bin" / "python"


def test_flags_that_are_not_start_pys_go_on_untouched() -> None:
    flags, rest = start.read_flags(["--listen", "--backend", "cuda", "--model", "x", "--port=1", "--index-url", "http://i"])
    assert (flags.command, flags.backend, flags.index_url) == ("run", "cuda", "http://i")
    assert rest == ["--listen", "--model", "x", "--port=1"]
    flags, rest = start.read_flags(["test", "-k", "guard", "--back"])
    assert (flags.command, rest) == ("test", ["-k", "guard", "--back"])
    for wrong in (["install", "--listen"], ["--backend", "tpu"]):
        with pytest.raises(SystemExit):
            start.read_flags(wrong)


def test_help_names_the_flags_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        start.read_flags(["--help"])
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--backend", "--index-url", "--listen", "--models-dir"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project whose lists need nothing from any index: a real environment is made for it."""
    (tmp_path / start.REQUIREMENTS).write_text("# nothing\n")
    (tmp_path / start.DEV_REQUIREMENTS).write_text("pip\n")
    return tmp_path


@pytest.mark.slow
def test_a_real_install_a_second_one_that_starts_nothing_and_one_after_an_interruption(
        small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    venv = small / ".venv"

    def again(*, dev: bool = False) -> None:
        start.install(small, venv, dev=dev, backend="", index_url="", retry=False)

    again()
    assert start.venv_version(venv).startswith("3.") and list(start.read_stamps(venv)) == [start.REQUIREMENTS]
    assert "packages" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", None)
        patched.setattr(subprocess, "Popen", None)
        again()
    with monkeypatch.context() as patched:
        patched.setattr(progress, "run_visibly", lambda *_, **__: 1)
        with pytest.raises(start.SetupFailed, match="run the same command again"):
            again(dev=True)
        assert start.DEV_REQUIREMENTS not in start.read_stamps(venv), "only what ended well is stamped"
    again(dev=True)
    assert len(start.read_stamps(venv)) == 2
    (small / start.REQUIREMENTS).write_text("pip\n")
    again()
    assert "Requirement already satisfied: pip" in (venv / "install.log").read_text()


@pytest.mark.slow
def test_an_environment_whose_making_was_interrupted_is_made_anew(small: Path) -> None:
    venv = small / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"version = {sys.version_info[0]}.{sys.version_info[1]}.0\n")
    os.symlink(small / "gone", venv / "bin" / "python")
    assert start.venv_version(venv) == ""
    start.make_venv(venv)
    assert start.venv_version(venv)


def test_checks_that_fail_are_named_by_pytest_and_set_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def call(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> int:
        ran.append(command[2:])
        if command[2] == "pytest":
            assert env is not None and env["CHECKS_FAILED"] == "mypy"
        return 1 if command[2] == "mypy" else 0

    monkeypatch.setattr(subprocess, "call", call)
    assert start.run_tests(Path("python"), ["-k", "x"]) == 1
    assert [words[0] for words in ran] == ["ruff", "mypy", "pytest"] and ran[2] == ["pytest", "-k", "x"]


def test_stamps_that_are_damaged_count_as_none(tmp_path: Path) -> None:
    for content in ("", "[]", "{"):
        (tmp_path / start.STAMP_FILE).write_text(content)
        assert start.read_stamps(tmp_path) == {}
    (tmp_path / start.STAMP_FILE).write_text(json.dumps({"a": "b"}))
    assert start.read_stamps(tmp_path) == {"a": "b"}
