"""Finds the loader files, says what each lacks, and which one suits a file."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
from dataclasses import dataclass, field

from .core.errors import LoadFailed
from .core.loader import LoaderSpec, ModelFile

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The loaders by name, and why the others are broken, by file name."""

    specs: dict[str, LoaderSpec] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def look(package: str = "loaders") -> Found:
    """Imports every file of the loaders' folder, cheaply: a loader imports its backend inside load().

    A folder, a file without a SPEC, or one whose name begins with an underscore is no loader. One that fails to import is broken,
    not fatal.
    """
    found = Found()
    for module_info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        name = module_info.name
        if name.startswith("_") or module_info.ispkg:
            continue
        try:
            spec = getattr(importlib.import_module(f"{package}.{name}"), "SPEC", None)
            if spec is None:
                continue
            if not isinstance(spec, LoaderSpec):
                raise TypeError(f"its SPEC is a {type(spec).__name__}, not a LoaderSpec")
            if spec.name in found.specs:
                raise ValueError(f"another file already calls its loader {spec.name!r}")
        except Exception as error:  # noqa: BLE001 - a stranger's file may raise anything; it is reported by name
            found.broken[name] = f"{type(error).__name__}: {error}"
        else:
            found.specs[spec.name] = spec
    return found


def find_loaders() -> dict[str, LoaderSpec]:
    """The loaders that work, by name; each broken file is logged as a warning."""
    found = look()
    for name, reason in found.broken.items():
        _log.warning("The loader file loaders/%s.py is broken and left out: %s", name, reason)
    return found.specs


def find(name: str) -> LoaderSpec | None:
    """The loader of that name, None where there is none that works. The file of that name is looked into first: importing all
    of them takes a tenth of a second of every load."""
    try:
        spec = getattr(importlib.import_module(f"loaders.{name}"), "SPEC", None) if name.isidentifier() else None
    except Exception:  # noqa: BLE001 - there is no such file, or it is broken, which find_loaders reports
        spec = None
    if isinstance(spec, LoaderSpec) and spec.name == name:
        return spec
    return find_loaders().get(name)


def missing(spec: LoaderSpec) -> list[str]:
    """The modules it requires that are not installed; looks for them without importing them."""
    return [name for name in spec.requires if not _is_installed(name)]


def choose(file: ModelFile) -> LoaderSpec:
    """The installed loader that suits the file best; raises LoadFailed saying why there is none."""
    found = look()
    scored = sorted(((_score(spec, file), spec.name) for spec in found.specs.values()), reverse=True)
    suited = [found.specs[name] for score, name in scored if score > 0]
    for spec in suited:
        if not missing(spec):
            return spec
    if suited:
        raise LoadFailed(" ".join([f"{file.name} needs a loader that is not installed.", *map(_lack, suited)]), param="loader")
    broken = "".join(f" The loader file {name}.py is broken: {reason}." for name, reason in found.broken.items())
    reason = file.problem or f"Its format is {file.format}"
    raise LoadFailed(f"No loader can load {file.name}. {reason.rstrip('.')}; there are loaders for other formats: "
                     f"{', '.join(sorted(found.specs)) or 'none'}.{broken}", param="loader")


def _score(spec: LoaderSpec, file: ModelFile) -> float:
    try:
        return spec.accepts(file)
    except Exception:  # noqa: BLE001 - one stranger's loader must not hide the others
        _log.exception("The loader %s stumbled over %s; it is passed over.", spec.name, file.name)
        return 0.0


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent package of a dotted name is absent
        return False


def _lack(spec: LoaderSpec) -> str:
    return f"{spec.title} needs {', '.join(missing(spec))}{f': run {spec.install}' if spec.install else ''}."
