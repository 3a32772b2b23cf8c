"""Reads the settings: flags win over environment variables, those over the settings YAML, those over the defaults."""

from __future__ import annotations

import argparse
import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import BadRequest
from .knobs import Knob
from .settings import SETTING_KNOBS, Settings

ENVIRONMENT_PREFIX = "COLLOQUY_"
SETTINGS_FILE = "settings.yaml"

logger = logging.getLogger("colloquy.options")


def read_settings(argv: Sequence[str], environ: Mapping[str, str], yaml_mapping: Mapping[str, Any]) -> Settings:
    """The settings from flags (without the program's name), environment and the already parsed YAML mapping.

    Raises BadRequest that names the value, its range and where it came from. A flag that does not exist, and `--help`,
    end the process as argparse does. A variable `COLLOQUY_X` that is no setting is named in the log and left alone,
    because container systems set such names for their own ends.
    """
    values: dict[str, Any] = {}
    for name, knob in SETTING_KNOBS.items():
        if name in yaml_mapping:
            values[name] = _parsed(knob, yaml_mapping[name], f"the settings file's key {name}")
    _refuse_unknown_keys(yaml_mapping)
    for name, text in _environment_values(environ).items():
        values[name] = _parsed(SETTING_KNOBS[name], text, f"the environment variable {variable_name(name)}")
    for name, text in _flag_values(argv).items():
        values[name] = _parsed(SETTING_KNOBS[name], text, flag_name(name))
    return Settings(**values)


def settings_path(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Path, bool]:
    """The settings file to read before `read_settings`, and whether it must exist because a person named it.

    The data folder counts here only as given by flag or environment: the file inside it cannot say where it lies.
    """
    values: dict[str, Any] = {**_environment_values(environ), **_flag_values(argv)}
    named = str(values.get("settings") or "")
    if named:
        return Path(named).expanduser(), True
    folder = str(values.get("data_dir") or SETTING_KNOBS["data_dir"].default)
    return Path(folder).expanduser() / SETTINGS_FILE, False


def flag_name(name: str) -> str:
    """`models_dir` is given as `--models-dir`."""
    return "--" + name.replace("_", "-")


def variable_name(name: str) -> str:
    """`models_dir` is given as `COLLOQUY_MODELS_DIR`."""
    return ENVIRONMENT_PREFIX + name.upper()


def make_parser() -> argparse.ArgumentParser:
    """One flag for each knob, in the knobs' groups; values stay strings, which the knobs parse."""
    parser = argparse.ArgumentParser(
        prog="app.py", allow_abbrev=False, argument_default=argparse.SUPPRESS,
        description="Colloquy: a web UI for local language models.",
        epilog="Each flag is also an environment variable (COLLOQUY_MODELS_DIR) and a key of the settings YAML (models_dir).")
    groups: dict[str, Any] = {}
    for name, knob in SETTING_KNOBS.items():
        if knob.group not in groups:
            groups[knob.group] = parser.add_argument_group(knob.group)
        _add_flag(groups[knob.group], name, knob)
    return parser


def _add_flag(group: Any, name: str, knob: Knob) -> None:
    shown = f"{knob.help} Default: {_shown_default(knob)}.".replace("%", "%%")
    extra: dict[str, Any] = {"dest": name, "help": shown}
    if knob.kind == "bool":
        extra |= {"nargs": "?", "const": "true", "metavar": "true|false"}
    else:
        extra["metavar"] = {"int": "N", "float": "X"}.get(knob.kind, "TEXT")
    if knob.kind == "list":
        extra["action"] = "append"
    group.add_argument(flag_name(name), **extra)


def _shown_default(knob: Knob) -> str:
    text = ", ".join(knob.default) if isinstance(knob.default, tuple) else str(knob.default)
    return text or "empty"


def _flag_values(argv: Sequence[str]) -> dict[str, Any]:
    return vars(make_parser().parse_args(list(argv)))


def _environment_values(environ: Mapping[str, str]) -> dict[str, str | list[str]]:
    """The settings among the environment variables; an empty variable counts as not set.

    A list is separated by commas, or by new lines where there are any (for folders with a comma in their name).
    """
    by_variable = {variable_name(name): name for name in SETTING_KNOBS}
    values: dict[str, str | list[str]] = {}
    for variable, text in environ.items():
        name = by_variable.get(variable.upper())
        if name is None:
            if variable.upper().startswith(ENVIRONMENT_PREFIX):
                logger.warning("The environment variable %s is no setting and is ignored.", variable)
        elif text:
            is_list = SETTING_KNOBS[name].kind == "list"
            separator = "\n" if "\n" in text else ","
            values[name] = [part.strip() for part in text.split(separator) if part.strip()] if is_list else text
    return values


def _parsed(knob: Knob, value: Any, source: str) -> Any:
    try:
        return knob.parse(value)
    except BadRequest as error:
        raise BadRequest(f"{error.message} It comes from {source}.", param=knob.name) from error


def _refuse_unknown_keys(yaml_mapping: Mapping[str, Any]) -> None:
    for key in yaml_mapping:
        if key not in SETTING_KNOBS:
            near = difflib.get_close_matches(str(key), list(SETTING_KNOBS), n=1)
            advice = f"Did you mean {near[0]}?" if near else "The keys are " + ", ".join(SETTING_KNOBS) + "."
            raise BadRequest(f"The settings file has a key {str(key)[:80]!r} that is no setting. {advice}", param="settings")
