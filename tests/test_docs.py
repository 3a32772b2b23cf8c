"""README and docs: their tables are those of the code, their links lead somewhere, and their examples run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from docs import generate
from modules import registry
from modules.core.knobs import parse_values
from modules.core.loader import Loader, ModelFile, Prefilled, Token
from modules.core.options import make_parser, read_settings
from modules.core.params import PARAM_KNOBS, GenerationParams
from modules.store.servers import read_servers
from modules.store.yamlfile import read_yaml
from tests.running_app import ROOT, RunningApp, clean_environment, write_script

PAGE = "http://127.0.0.1:7860"
DOCUMENTS = [path for path in generate.documents() if path.is_file()]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(language: str) -> list[Any]:
    """Every fenced block in this language, named by its file and place in it."""
    return [pytest.param(found[2], id=f"{path.name}-{number}") for path in DOCUMENTS
            for number, found in enumerate(FENCE.finditer(path.read_text(encoding="utf-8"))) if found[1] == language]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("docs")
    write_script(folder / "models", "starter", "Hello to you too.")
    with RunningApp(folder / "data", folder / "models", "--model", "starter") as app:
        app.wait_for_model()
        yield app


# Tables


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_those_that_the_code_makes(path: Path) -> None:
    """After a change: `python -m docs.generate`."""
    if not (ROOT / ".git").exists() and "file-tree" in path.read_text(encoding="utf-8"):
        pytest.skip("needs a git repository")
    assert generate.generated(path.read_text(encoding="utf-8")) == path.read_text(encoding="utf-8")


def test_every_table_has_its_place_and_every_mark_its_end() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert {found["name"] for found in generate.BLOCK.finditer(text)} == {*generate.TABLES, "file-tree"}
    assert len(re.findall("<!-- generated: ", text)) == len(list(generate.BLOCK.finditer(text)))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git repository")
def test_the_tree_keeps_written_words_and_takes_a_new_files_from_its_first_line() -> None:
    words = dict(generate.tree_entries(generate.file_tree("modules/    in layers\n  chat.py    turns\n")))
    assert words["modules/"] == "in layers" and words["modules/chat.py"] == "turns"
    assert words["modules/core/errors.py"] == "Errors a person can act on"
    assert "tests/" in words and not [name for name in words if name.startswith("tests/") and name != "tests/"]


def test_every_file_of_the_tree_has_a_few_words() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = next(found[0] for found in generate.BLOCK.finditer(text) if found["name"] == "file-tree")
    for name, words in generate.tree_entries(tree):
        assert name.endswith("_parts/") or 1 <= len(words.split()) <= generate.TREE_WORDS, name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    targets = [link for link in links if "://" not in link and not link.startswith("docs/images/")]
    assert not [link for link in targets if not (path.parent / link).exists()]


# Examples


@pytest.mark.parametrize("text", examples("sh"))
def test_commands_run_or_are_understood(text: str, app: RunningApp) -> None:
    for command in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(command)
        if words[0] == "curl":
            run_curl(command, app)
        elif words[:2] == ["python3", "start.py"]:
            assert words[2:] in ([], ["test"], ["install"])
        elif words[:2] == ["python", "app.py"]:
            make_parser().parse_args(words[2:])
        elif words[:2] == ["python", "-m"]:
            assert find_spec(words[2]) is not None
        else:
            assert words[:3] == ["pip", "install", "-r"] and (ROOT / words[3]).is_file(), f"no test knows how to try: {command}"


def run_curl(command: str, app: RunningApp) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    assert PAGE in command
    done = subprocess.run(["bash", "-c", command.replace(PAGE, app.url.rstrip("/")) + " --fail-with-body"], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(("{", "data: {"))


@pytest.mark.parametrize("text", [example for example in examples("python") if "SPEC = " not in example.values[0]])
def test_programs_run(text: str, app: RunningApp) -> None:
    app.load("starter")
    done = subprocess.run([sys.executable, "-c", text.replace(PAGE, app.url.rstrip("/"))], capture_output=True, text=True,
                          env=clean_environment(), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Hello to you too.")


@pytest.mark.parametrize("text", examples("yaml"))
def test_yaml_is_settings_a_preset_or_servers(text: str, tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(text, encoding="utf-8")
    values = read_yaml(tmp_path / "example.yaml")
    if set(values) <= set(PARAM_KNOBS):
        assert parse_values(PARAM_KNOBS, values)[0]
    elif isinstance(values.get("servers"), list):
        found = read_servers(tmp_path / "example.yaml", {"BIG_KEY": "x"})
        assert found and not any(server.problem for server in found)
    else:
        assert read_settings([], {}, values)


@pytest.mark.parametrize("text", [example for example in examples("python") if "SPEC = " in example.values[0]])
def test_the_loader_of_the_docs_is_found_and_plays(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "documented_loaders").mkdir()
    (tmp_path / "documented_loaders" / "shout.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.look("documented_loaders")
    assert not found.broken
    spec = found.specs["shout"]
    assert spec.accepts(ModelFile("x", "x", "echo")) > 0
    loader = spec.load("", {}, lambda fraction, what: None)
    for name in ("tokenize", "detokenize", "add", "step", "remove", "score", "close"):
        assert list(signature(getattr(loader, name)).parameters) == list(signature(getattr(Loader, name)).parameters)[1:]
    for limit, expected, finish in ((0, "GRÜẞ GOTT", "stop"), (3, "GRÜ"[:2], "length")):
        assert loader.add("run", loader.tokenize("grüẞ gott", control=False), GenerationParams(max_tokens=limit), "") == 0
        results = [result for _, result in loader.step()]
        assert isinstance(results[0], Prefilled)
        tokens: list[Token] = []
        while not tokens or tokens[-1].finish is None:
            tokens += [result for _, result in loader.step() if isinstance(result, Token)]
        assert "".join(token.text for token in tokens) == expected and tokens[-1].finish == finish
    loader.close()
    loader.close()
