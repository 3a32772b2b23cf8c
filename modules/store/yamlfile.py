"""Plain YAML, read without its dangers: bounded in size, depth and count, no tags, no aliases, no surprises of YAML 1.1."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ..core.errors import BadRequest
from .files import read_bounded, write_atomic

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_LOADER):  # type: ignore[misc]
    """Safe loading in which `no`, `on`, `12:30`, `0123` and `2024-01-01` are text, as the person who typed them meant.

    All that safe_dump writes unquoted as text stays text here: these patterns accept less than PyYAML's own.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(0|[1-9][0-9]{0,30})", list("-+0123456789")),
        ("float", r"[-+]?[0-9]+\.[0-9]*([eE][-+][0-9]{1,3})?", list("-+0123456789"))):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


_ODD_BREAK = re.compile("[\r\x85\u2028\u2029]")


class _Dumper(yaml.SafeDumper):
    """Safe dumping with `|` blocks for texts of several lines."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # Line breaks other than \n are folded away in every style but the quoted one, which escapes them.
    style = '"' if _ODD_BREAK.search(value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _represent_text)


def parse_yaml(content: bytes, name: str) -> dict[str, Any]:
    """The mapping of text keys in `content`; an empty file is {}. Raises BadRequest naming the file, the line and the fault."""
    try:
        words = content.decode("utf-8-sig")
        _check(words, name)
        value = yaml.load(words, Loader=_PlainLoader)
    except UnicodeDecodeError as error:
        raise BadRequest(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadRequest(f"{name} is not valid YAML{line}: {error.problem or error}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadRequest(f"{name} is not valid YAML: {error}.") from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadRequest(f"{name} must hold `name: value` lines; it holds something else.")
    return value


def _check(words: str, name: str) -> None:
    """Refuse what could grow or nest without end, before anything is built from it."""
    depth = 0
    event: Any
    for count, event in enumerate(yaml.parse(words, Loader=_LOADER)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise BadRequest(f"{name} uses YAML anchors (& and *), which are not read; write the values out.")
        if getattr(event, "tag", None):
            raise BadRequest(f"{name} uses the YAML tag {event.tag!r}, which is not read; write a plain value.")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise BadRequest(f"{name} is nested deeper than {MAX_DEPTH} levels or has more than {MAX_NODES:,} values.")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file of at most MAX_BYTES; raises NotFound, TooLarge or BadRequest."""
    return parse_yaml(read_bounded(path, MAX_BYTES), path.name)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write the mapping, keys in the given order, so that `read_yaml` gives it back; raises AppError where it cannot."""
    words = yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120)
    write_atomic(path, words.encode())
