"""Who may import whom: the table of docs/architecture.md, checked on every import of every file."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("app", "start", "modules", "loaders", "starter", "benchmarks", "tests")
SKIPPED_FOLDERS = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build",
                   "wheels"}
CODE_SUFFIXES = {".py", ".js", ".mjs", ".css", ".sh"}
MAX_LINES = 350
TORCH = {"torch", "transformers", "tokenizers", "safetensors", "accelerate", "bitsandbytes", "peft", "torchao",
         "sentencepiece", "huggingface_hub"}


@dataclass(frozen=True)
class Layer:
    """What the files of one part may import. `ours` are module prefixes, `theirs` installed packages.

    `inside` are packages that may be imported within functions only, so that importing the file stays cheap.
    """

    ours: tuple[str, ...] = ()
    theirs: frozenset[str] = frozenset()
    inside: frozenset[str] = frozenset()


def layer(*ours: str, theirs: str = "", inside: str = "") -> Layer:
    return Layer(ours, frozenset(theirs.split()), frozenset(inside.split()))


CORE = "modules.core"
BELOW_ENGINE = ("modules.text", "modules.sampling", "modules.models", "modules.store", CORE)
ENGINE = ("modules.engine", "modules.jobs", "modules.registry", "modules.saved_options", "modules.worker")
CHAT = ("modules.answer_again", "modules.chat", "modules.notebook", "modules.replies", "modules.saving", "modules.sessions")
EDGE = ("modules.conversions", "modules.downloads", *CHAT, *ENGINE, *BELOW_ENGINE)
# The routes of the page and what they are cut into: the only files of the page that see requests.
ROUTES = ("again_routes", "routes", "model_routes", "notebook_routes", "requests", "static_files")

# The longest name that fits a file decides. `starter` is in no row: nothing imports it.
LAYERS: dict[str, Layer] = {
    "modules.core": layer(),
    "modules.text": layer(CORE, theirs="jinja2 regex"),
    "modules.sampling": layer(CORE, inside="numpy torch"),
    "modules.store": layer(CORE, theirs="sqlalchemy alembic yaml PIL"),
    "modules.models": layer("modules.store", CORE, theirs="psutil", inside="gguf safetensors huggingface_hub httpx numpy torch"),
    "modules.models.quantize": layer("modules.models", CORE, inside="llama_cpp"),
    "modules.models.save_packed": layer("modules.models", CORE, inside="torch transformers gptqmodel"),
    "modules.engine": layer(*ENGINE, *BELOW_ENGINE, inside="numpy psutil"),
    "modules.registry": layer(*ENGINE, *BELOW_ENGINE),
    "modules.worker": layer(*ENGINE, *BELOW_ENGINE, theirs="numpy psutil"),
    "modules.answer_again": layer(*EDGE),
    "modules.chat": layer(*EDGE),
    "modules.conversions": layer("modules.jobs", "modules.models", "modules.store", CORE),
    "modules.downloads": layer("modules.instance", "modules.jobs", "modules.models", "modules.store", CORE),
    "modules.jobs": layer(CORE),
    "modules.saved_options": layer("modules.store", CORE),
    "modules.notebook": layer(*EDGE),
    "modules.replies": layer(*EDGE),
    "modules.saving": layer(),
    "modules.sessions": layer(*EDGE),
    "modules.ui": layer(*EDGE, theirs="gradio markdown_it mdit_py_plugins pygments nh3 math_core latex2mathml regex"),
    **{f"modules.ui.{name}": layer("modules.ui", *EDGE, theirs="starlette") for name in ROUTES},
    "modules.api": layer(*EDGE, theirs="fastapi"),
    "modules.guard": layer(CORE, theirs="starlette", inside="psutil"),
    "modules.instance": layer(CORE),
    "loaders": layer(CORE, "modules.sampling", inside=f"numpy llama_cpp httpx gptqmodel {' '.join(TORCH)}"),
    "loaders.openai_server": layer("loaders", CORE, "modules.store.servers", inside="numpy httpx"),
    "loaders.llama_cpp_parts.adapters": layer("loaders.llama_cpp_parts", CORE, "modules.store"),
    "loaders.transformers_parts.adapters": layer("loaders.transformers_parts", CORE, "modules.store",
                                                 inside="peft safetensors torch transformers"),
    "modules.assembly": layer(*EDGE),
    "modules.setup": layer("modules.instance", "modules.store", CORE, inside="psutil"),
    "modules.install": layer(),
    "start": layer("modules.install", CORE),
    "app": layer("modules", theirs="fastapi gradio starlette uvicorn yaml"),
}


Runs = Literal["at import", "inside a function", "never, for types only"]


@dataclass(frozen=True)
class Import:
    """One import statement: the whole dotted name, the line, and when it runs."""

    name: str
    line: int
    runs: Runs = "at import"


def files(*folders: str) -> list[Path]:
    """The repository's Python files of these top-level folders or modules."""
    found: list[Path] = []
    for folder in folders:
        path = ROOT / folder
        found += [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else []
        found += [file for file in sorted(path.rglob("*.py")) if not SKIPPED_FOLDERS & set(file.parts)]
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, relative ones made absolute."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def walk(node: ast.AST, runs: Runs) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, runs) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            # `from modules import engine` names a module; `from modules.core.errors import AppError` does not, but the
            # longer name falls into the same layer.
            yield from (Import(f"{start}.{alias.name}", node.lineno, runs) for alias in node.names)
        else:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                runs = "inside a function"
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                runs = "never, for types only"
            for child in ast.iter_child_nodes(node):
                yield from walk(child, runs)

    yield from walk(tree(path), "at import")


def is_below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def layer_of(path: Path) -> tuple[str, Layer] | None:
    name = module_name(path)
    fits = [row for row in LAYERS if is_below(name, (row,))]
    return (max(fits, key=len), LAYERS[max(fits, key=len)]) if fits else None


def fault(path: Path, found: Import) -> str:
    """Why this import breaks the table, or empty."""
    here = layer_of(path)
    assert here is not None
    row, rules = here
    top = found.name.partition(".")[0]
    where = f"{path.relative_to(ROOT)}:{found.line} imports {found.name}"
    if top in sys.stdlib_module_names:
        return ""
    if top in OURS:
        # Loaders may share the parts a backend is cut into, such as `loaders/llama_cpp_parts/`, and never use one another.
        is_part = row == "loaders" and re.match(r"loaders\.\w+_parts\b", found.name) is not None
        is_own = is_part or (row != "loaders" and is_below(found.name, (row,)))
        return "" if is_own or is_below(found.name, rules.ours) else f"{where}: not below {row}"
    if top in rules.theirs or (top in rules.inside and found.runs != "at import") or found.runs == "never, for types only":
        return ""
    return f"{where}: only within a function" if top in rules.inside else f"{where}: {row} may not use {top}"


def test_every_file_belongs_to_a_layer() -> None:
    homeless = [str(path.relative_to(ROOT)) for path in files("modules", "loaders")
                if layer_of(path) is None and path != ROOT / "modules" / "__init__.py"]
    assert not homeless, "add a row to LAYERS for each: " + ", ".join(homeless)


def test_imports_go_down_only_and_heavy_ones_stay_inside_functions() -> None:
    faults = [text for path in files("modules", "loaders", "app", "start") if layer_of(path) is not None
              for found in imports(path) if (text := fault(path, found))]
    assert not faults, "\n" + "\n".join(faults)


def test_the_starter_is_imported_by_nothing() -> None:
    users = [f"{path.relative_to(ROOT)}:{found.line}" for path in files("modules", "loaders", "app", "start", "benchmarks")
             for found in imports(path) if found.name.partition(".")[0] == "starter"]
    assert not users, users


@pytest.mark.parametrize(("path", "name", "is_fault"), [
    ("modules/core/x.py", "numpy", True), ("modules/core/x.py", "modules.store", True), ("modules/core/x.py", "json", False),
    ("modules/engine/x.py", "modules.chat", True), ("modules/engine/x.py", "modules.text.splitter", False),
    ("modules/api/x.py", "modules.ui.page", True), ("modules/api/x.py", "gradio", True), ("modules/ui/x.py", "starlette", True),
    ("modules/ui/routes.py", "starlette.routing", False), ("modules/guard/x.py", "modules.engine", True),
    ("loaders/echo.py", "modules.worker", True), ("loaders/llama_cpp.py", "loaders.llama_cpp_parts.cells", False),
    ("loaders/llama_cpp_parts/cells.py", "loaders.llama_cpp_parts.pace", False), ("loaders/llama_cpp.py", "loaders.echo", True),
    ("loaders/echo.py", "torch", True), ("app.py", "torch", True), ("modules/chat.py", "starter.train", True)])
def test_the_check_finds_what_it_should(path: str, name: str, is_fault: bool) -> None:
    assert bool(fault(ROOT / path, Import(name, 1))) is is_fault


STARTERS = {"Thread", "Process", "Popen", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "parse_args",
            "parse_known_args", "open", "read_text", "mkdir", "write_text", "write_bytes", "check_output", "check_call",
            "basicConfig", "connect", "urlopen", "device"}


def test_importing_a_file_starts_reads_and_parses_nothing() -> None:
    """Calls in the body of a module or class run at import; `if __name__ == "__main__"` and functions do not."""
    def calls(node: ast.AST) -> Iterator[ast.Call]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Call):
            yield node
        for child in ast.iter_child_nodes(node):
            yield from calls(child)

    faults = []
    for path in files("modules", "loaders", "app", "start"):
        if "migrations" in path.parts:
            continue  # Alembic runs those files; nothing imports them
        for call in calls(tree(path)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in STARTERS:
                faults.append(f"{path.relative_to(ROOT)}:{call.lineno} calls {name}() when imported")
    assert not faults, "\n" + "\n".join(faults)


def loaded_after(statement: str) -> set[str]:
    """The top-level packages in memory after a statement, in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stdout.splitlines()[-1].split())


def test_import_app_loads_no_model_library() -> None:
    if not (ROOT / "app.py").exists():
        pytest.skip("app.py is not there yet")
    assert not loaded_after("import app") & {"torch", "transformers", "llama_cpp", "bitsandbytes", "peft", "accelerate"}


def test_the_worker_loads_no_page_server_or_database() -> None:
    if not (ROOT / "modules" / "worker" / "main.py").exists():
        pytest.skip("the worker is not there yet")
    assert not loaded_after("import modules.worker.main") & {"gradio", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic"}


def test_importing_every_loader_is_cheap() -> None:
    names = [path.stem for path in sorted((ROOT / "loaders").glob("*.py")) if path.stem != "__init__"]
    statement = "; ".join(f"import loaders.{name}" for name in names) or "pass"
    assert not loaded_after(statement) & (TORCH | {"llama_cpp", "gptqmodel", "httpx", "gradio", "sqlalchemy"})


def repository_files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*")) if path.is_file() and not SKIPPED_FOLDERS & set(path.relative_to(ROOT).parts)
            and path.relative_to(ROOT).parts[0] not in ("data", "models")]


def test_no_file_names_the_place_it_was_written_at() -> None:
    place = b"/" + b"work" + b"/"
    # A word may stand before it: only the absolute path is a place.
    faults = [str(path.relative_to(ROOT)) for path in repository_files() if path.stat().st_size < 4 * 2**20
              and any(not before[-1:].isalnum() and before[-1:] not in (b".", b"_", b"-")
                      for before in path.read_bytes().split(place)[:-1])]
    assert not faults, faults


def test_no_file_is_longer_than_a_reader_bears() -> None:
    long = {str(path.relative_to(ROOT)): n for path in repository_files() if path.suffix in CODE_SUFFIXES
            and (n := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES}
    assert not long, long


def test_every_file_begins_with_a_sentence_that_says_its_idea() -> None:
    without = [str(path.relative_to(ROOT)) for path in files(*OURS)
               if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree(path))]
    assert not without, without


def test_importing_the_page_writes_nothing_beside_the_sources() -> None:
    """Gradio wrote a stub beside each file that defines a component's class, and the next mypy read that instead of the file."""
    sources = ROOT / "modules" / "ui"
    before = {path for path in sources.rglob("*") if "__pycache__" not in path.parts and path.suffix != ".pyi"}
    subprocess.run([sys.executable, "-c", "import modules.ui.page"], cwd=ROOT, check=True, timeout=120)
    assert {path for path in sources.rglob("*") if "__pycache__" not in path.parts} == before
