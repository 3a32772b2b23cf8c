"""How a setting is declared: once; the widget, flag, request field, YAML key and docs row all come from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import BadRequest

Kind = Literal["int", "float", "bool", "str", "text", "choice", "list", "map", "model"]
TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


@dataclass(frozen=True)
class Knob:
    """One setting: what it is called, what it means, and which values it takes.

    kind: int, float, bool, str (one line), text (many lines), choice (one of `choices`), list (of strings),
    map (token id -> number), model (the name of a model in the list, "" for none; loaders get its path).
    is_secret: the value is in no error and no representation. `minimum` and `maximum` bound numbers, and the length of strings
    and lists.
    `aliases` are other spellings that requests and presets use. `name` is filled in by `knobs_of` for dataclass fields.
    """

    kind: Kind
    default: Any
    label: str
    help: str
    group: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    name: str = ""
    is_secret: bool = False

    def parse(self, value: Any) -> Any:
        """The value in its own kind; raises BadRequest naming the setting, the value and the range.

        Strings are accepted for every kind (flags and environment variables are strings). None is the default.
        """
        if value is None:
            return self.default
        try:
            parsed = _PARSERS[self.kind](self, value)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._refusal(value) from error
        self._check_bounds(value, parsed)
        return parsed

    def range_text(self) -> str:
        """What may be given, in words, for errors and docs: `a number from 0 to 2`."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        noun = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a line of text",
                "text": "text", "list": "a list of strings", "map": "an object of token id: number",
                "model": "the name of a model"}[self.kind]
        low, high = self.minimum, self.maximum
        if self.kind in ("int", "float"):
            if low is not None and high is not None:
                return f"{noun} from {low:.10g} to {high:.10g}"
            if low is not None:
                return f"{noun}, {low:.10g} or more"
            return f"{noun}, {high:.10g} or less" if high is not None else noun
        unit = "entries" if self.kind in ("list", "map") else "characters"
        return f"{noun} of at most {high:.10g} {unit}" if high is not None else noun

    def _refusal(self, value: Any) -> BadRequest:
        shown = "a value that is not shown here" if self.is_secret else repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return BadRequest(f"{self.name or self.label} must be {self.range_text()}; got {shown}.", param=self.name or None)

    def _check_bounds(self, value: Any, parsed: Any) -> None:
        if self.kind == "choice":
            if parsed not in self.choices:
                raise self._refusal(value)
            return
        if self.kind == "bool":
            return
        size = parsed if self.kind in ("int", "float") else len(parsed)
        if (self.minimum is not None and size < self.minimum) or (self.maximum is not None and size > self.maximum):
            raise self._refusal(value)


def _as_int(_: Knob, value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a truth value is not a number")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("not a whole number")
        return int(value)
    return int(value)


def _as_float(_: Knob, value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a truth value is not a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _as_bool(_: Knob, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in TRUE | FALSE:
        return value.strip().lower() in TRUE
    raise ValueError("not true or false")


def _as_str(_: Knob, value: Any) -> str:
    if not isinstance(value, str):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        raise TypeError("not text")
    if "\x00" in value:
        raise ValueError("contains a NUL character")
    return value


def _as_list(_: Knob, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(line for line in value.split("\n") if line) if value else ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of strings")
    return tuple(value)


def _as_map(_: Knob, value: Any) -> dict[int, float]:
    if isinstance(value, str):
        pairs = [part.split(":", 1) for part in value.replace("\n", ",").split(",") if part.strip()]
        value = {int(key): float(number) for key, number in pairs}
    if not isinstance(value, Mapping):
        raise TypeError("not an object")
    parsed = {int(key): float(number) for key, number in value.items()}
    if any(math.isnan(number) or key < 0 for key, number in parsed.items()):
        raise ValueError("token ids are 0 or more and biases are numbers")
    return parsed


_PARSERS = {"int": _as_int, "float": _as_float, "bool": _as_bool, "str": _as_str, "text": _as_str, "choice": _as_str,
            "list": _as_list, "map": _as_map, "model": _as_str}


def setting(kind: Kind, default: Any, label: str, help: str, **rest: Any) -> Any:
    """A dataclass field that carries its Knob: `top_k: int = setting("int", 0, "Top-k", "...")`."""
    made = Knob(kind, default, label, help, **rest)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata={"knob": made})
    return dataclasses.field(default=default, repr=not made.is_secret, metadata={"knob": made})


def knobs_of(kind: type) -> dict[str, Knob]:
    """The knobs of a dataclass whose fields were made with `setting`, by name, in their order."""
    return {field.name: dataclasses.replace(field.metadata["knob"], name=field.name)
            for field in dataclasses.fields(kind) if "knob" in field.metadata}


def parse_values(knobs: Mapping[str, Knob], values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Parsed values by canonical name, and the given names that no knob has; raises BadRequest on a bad value.

    A canonical name wins over its alias when both are given.
    """
    by_alias = {alias: name for name, knob in knobs.items() for alias in knob.aliases}
    parsed: dict[str, Any] = {}
    unknown = []
    for given, value in sorted(values.items(), key=lambda item: item[0] in knobs):
        name = given if given in knobs else by_alias.get(given)
        if name is None:
            unknown.append(given)
        else:
            parsed[name] = knobs[name].parse(value)
    return parsed, sorted(unknown)
