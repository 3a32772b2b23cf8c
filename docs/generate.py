"""Writes the tables of README.md and docs/*.md that are made from the code: `python -m docs.generate`, or `--check` to only look.

A table stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`; everything else in a file is left alone. The file
tree keeps the words that somebody wrote for a file and takes a new file's from its first line.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `python docs/generate.py`

OPEN_FOLDERS = ("benchmarks", "characters", "loaders", "modules", "presets", "starter")  # every file of theirs is in the tree
TREE_WORDS = 7
BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def code(value: Any) -> str:
    """A default as it is written in a file; nothing for an empty one."""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple | list):
        return ", ".join(f"`{item!r}`".replace("'\\n'", "\\n").replace("`'", "`").replace("'`", "`") for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if value not in ("", {}) else ""


# The tables


def flags() -> str:
    """Every setting in three columns, for the README."""
    from modules.core.options import flag_name
    from modules.core.settings import SETTING_KNOBS

    return table(("flag", "default", "what it does"),
                 ((f"`{flag_name(name)}`", code(knob.default), knob.help) for name, knob in SETTING_KNOBS.items()))


def settings() -> str:
    """Every setting with its key, its variable and what it takes."""
    from modules.core.options import flag_name, variable_name
    from modules.core.settings import SETTING_KNOBS

    return table(("flag", "key in the file", "environment variable", "takes", "default", "what it does"), (
        (f"`{flag_name(name)}`", f"`{name}`", f"`{variable_name(name)}`", knob.range_text(), code(knob.default), knob.help)
        for name, knob in SETTING_KNOBS.items()))


def parameters() -> str:
    """Every parameter, one table a group, with the loaders that honour it."""
    from modules import registry
    from modules.core.params import PARAM_KNOBS, RUN_FIELDS

    loaders = registry.find_loaders()

    def honoured(name: str) -> str:
        by = list(loaders) if name in RUN_FIELDS else [n for n, spec in loaders.items() if name in spec.params]
        return "all" if len(by) == len(loaders) else ", ".join(by)

    groups = dict.fromkeys(knob.group for knob in PARAM_KNOBS.values())
    return "\n".join(
        f"### {group}\n\n" + table(
            ("name", "takes", "neutral", "other names", "honoured by", "what it does"),
            ((f"`{name}`", knob.range_text(), code(knob.default), ", ".join(f"`{alias}`" for alias in knob.aliases),
              honoured(name), knob.help) for name, knob in PARAM_KNOBS.items() if knob.group == group))
        for group in groups)


def loaders() -> str:
    """The loaders and what each can do."""
    from modules import registry
    from modules.core.loader import FileFormat, ModelFile
    from modules.core.params import PARAM_KNOBS, RUN_FIELDS

    specs = registry.find_loaders()
    formats: tuple[FileFormat, ...] = ("gguf", "safetensors", "gptq", "awq", "exl2", "exl3", "server", "echo")
    sampled = [name for name in PARAM_KNOBS if name not in RUN_FIELDS]

    def row(name: str, spec: Any) -> Sequence[str]:
        loads = [kind for kind in formats if spec.accepts(ModelFile("x", "x", kind)) > 0]
        ignored = [param for param in sampled if param not in spec.params]
        return (f"`{name}`", spec.title, ", ".join(loads), ", ".join(f"`{module}`" for module in spec.requires),
                "every sampling parameter" if len(ignored) == len(sampled) else ", ".join(f"`{param}`" for param in ignored),
                ", ".join(sorted(spec.features)))

    overview = table(("name", "title", "loads", "needs", "ignores", "features"), (row(*item) for item in specs.items()))
    options = [f"\n### Options of `{name}`\n\n" + table(
        ("option", "takes", "default", "what it does"),
        ((f"`{option}`", knob.range_text(), code(knob.default), knob.help) for option, knob in spec.options.items()))
        for name, spec in specs.items()]
    return overview + "".join(options)


def routes() -> str:
    """Every address of the API, from the handlers' first lines."""
    from fastapi.routing import APIRoute

    from modules.api.app import DIALECTS, make_api
    from modules.engine import Engine
    from modules.models.catalog import Catalog

    engine = Engine(Catalog([]), {}, log_dir=ROOT)
    found = [*make_api(engine).routes, *(route for dialect in DIALECTS for route in dialect.routes(engine).routes)]
    shown = [route for route in found if isinstance(route, APIRoute) and route.include_in_schema]
    return table(("method", "path", "what it does"),
                 ((", ".join(sorted(route.methods or ())), f"`{route.path}`", route.endpoint.__doc__ or "") for route in shown))


def errors() -> str:
    """Every kind of error that a client can meet."""
    from modules.core.errors import AppError

    def kinds(kind: type[AppError]) -> list[type[AppError]]:
        return [kind, *(below for sub in kind.__subclasses__() if sub.__module__ == AppError.__module__ for below in kinds(sub))]

    meanings = dict(re.findall(r"(\w+) +\d{3}  (.+)", ast.get_docstring(ast.parse(
        (ROOT / "modules" / "core" / "errors.py").read_text(encoding="utf-8"))) or ""))
    rows = {(kind.status, kind.code): meanings.get(kind.__name__, "a mistake of ours; the log says more")
            for kind in kinds(AppError)}
    return table(("status", "code", "when"), ((str(status), f"`{code}`", text) for (status, code), text in sorted(rows.items())))


# The file tree


def tracked() -> list[str]:
    """The files that git knows, in the tree's order, without hidden ones; raises where there is no git or no repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    names = [name for name in listed.stdout.split("\0") if name and not name.startswith(".") and (ROOT / name).is_file()]
    return sorted(names, key=tree_order)


def tree_order(name: str) -> list[tuple[bool, str]]:
    """A folder's own files come before its folders."""
    parts = name.split("/")
    return [(index < len(parts) - 1, part) for index, part in enumerate(parts)]


def file_tree(old: str) -> str:
    """The tree, with the words that `old` has for a file, else the beginning of what the file says of itself."""
    words = dict(tree_entries(old))
    lines = []
    folder: list[str] = []
    for name in tracked():
        *parents, file = name.split("/")
        for depth, parent in enumerate(parents):
            is_open = depth == 0 or parents[0] in OPEN_FOLDERS
            if is_open and folder[:depth + 1] != parents[:depth + 1]:
                path = "/".join(parents[:depth + 1]) + "/"
                lines.append(tree_line("  " * depth + parent + "/", words.get(path, "")))
        folder = parents
        if file != "__init__.py" and (not parents or parents[0] in OPEN_FOLDERS):
            lines.append(tree_line("  " * len(parents) + file, words.get(name) or first_words(ROOT / name)))
    return "```\n" + "\n".join(lines) + "\n```\n"


def tree_line(name: str, words: str) -> str:
    return f"{name:<34}{words}".rstrip()


def tree_entries(text: str) -> list[tuple[str, str]]:
    """(path, words) of each line of a tree; a folder's path ends in a slash."""
    entries: list[tuple[str, str]] = []
    folder: list[str] = []
    for line in text.splitlines():
        found = re.match(r"(?P<indent> *)(?P<name>[\w][\w .-]*?/?)(?:  +(?P<words>.*))?$", line)
        if not found:
            continue
        depth = len(found["indent"]) // 2
        folder = folder[:depth]
        entries.append(("".join(folder) + found["name"], found["words"] or ""))
        if found["name"].endswith("/"):
            folder.append(found["name"])
    return entries


def first_words(path: Path) -> str:
    """The beginning of a file's docstring or first comment."""
    if path.suffix not in (".py", ".js", ".css"):
        return ""
    text = path.read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(text)) or "" if path.suffix == ".py" else text.partition("\n")[0].strip("/* ")
    sentence = re.split(r"[.:;,](?:\s|$)", said.strip() + " ")[0]
    return " ".join(sentence.split()[:TREE_WORDS])


# The files


def conversion_types() -> str:
    """What the Convert tab makes, in its order."""
    from modules.models.targets import TARGETS

    from_what = {"gguf": "folder, GGUF", "bnb": "folder", "gptq": "folder"}
    return table(("type", "about", "bits a weight", "from"),
                 ((f"`{name}`", target.words, f"{target.bits:.4g}", from_what[target.via]) for name, target in TARGETS.items()))


def architectures() -> str:
    """Which models become GGUF files."""
    from modules.models.architectures import ARCHITECTURES

    return table(("in config.json", "in llama.cpp", "rotary embeddings"),
                 ((f"`{name}`", f"`{one.name}`", ", ".join(one.ropes)) for name, one in ARCHITECTURES.items()))


TABLES: Mapping[str, Callable[[], str]] = {"flags": flags, "settings": settings, "parameters": parameters, "loaders": loaders,
                                           "routes": routes, "errors": errors, "conversion-types": conversion_types,
                                           "architectures": architectures}


def generated(text: str) -> str:
    """The text with every generated block made anew; raises KeyError for a block that nothing makes."""
    def block(found: re.Match[str]) -> str:
        name = found["name"]
        body = file_tree(found[0]) if name == "file-tree" else "\n" + TABLES[name]() + "\n"
        return found[1] + body + found[3]

    return BLOCK.sub(block, text)


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def main(argv: Sequence[str]) -> int:
    """Write what has changed, or with --check only name it; 1 where something differs in a check."""
    differing = [path for path in documents() if path.is_file() and generated(path.read_text(encoding="utf-8"))
                 != path.read_text(encoding="utf-8")]
    for path in differing:
        print(f"{path.relative_to(ROOT)} {'differs from the code' if '--check' in argv else 'is written anew'}")
        if "--check" not in argv:
            path.write_text(generated(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if differing and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
