"""Fixtures of the contract suite: each subject's loader, shared by the tests of a module, and fresh ones with other options."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modules import registry
from modules.core.knobs import parse_values
from modules.core.loader import Loader, LoaderSpec
from tests.contract.play import Stage
from tests.contract.subjects import SUBJECTS, Subject

CONTEXT, SLOTS = 1024, 4
_numbers = itertools.count()


@pytest.fixture(scope="package", params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    return found


@pytest.fixture(scope="package")
def spec(subject: Subject) -> LoaderSpec:
    found = registry.look()
    if subject.loader in found.broken:
        pytest.fail(f"loaders/{subject.loader}.py: {found.broken[subject.loader]}")
    if subject.loader not in found.specs:
        pytest.skip(f"there is no loader called {subject.loader}")
    spec = found.specs[subject.loader]
    lacking = registry.missing(spec)
    if lacking:
        pytest.skip(f"{subject.loader} needs {', '.join(lacking)}")
    return spec


@pytest.fixture(scope="package")
def path(subject: Subject, spec: LoaderSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with subject.make(tmp_path_factory.mktemp(subject.name)) as path:
        yield path


@pytest.fixture(scope="package")
def options(subject: Subject, spec: LoaderSpec) -> Callable[..., dict[str, Any]]:
    """The subject's options with others over them, parsed and complete as the worker gives them."""

    def complete(**others: Any) -> dict[str, Any]:
        parsed, unknown = parse_values(spec.options, {"context": CONTEXT, "slots": SLOTS, **subject.options, **others})
        assert not unknown, f"{spec.name} has no option {unknown}"
        return {**{name: knob.default for name, knob in spec.options.items()}, **parsed}

    return complete


@pytest.fixture(scope="package")
def load(spec: LoaderSpec, path: Path, options: Callable[..., dict[str, Any]]) -> Callable[..., Loader]:
    return lambda **others: spec.load(str(path), options(**others), lambda fraction, what: None)


@pytest.fixture
def make(load: Callable[..., Loader]) -> Iterator[Callable[..., Loader]]:
    """Loads the subject with other options; closed at the test's end."""
    made: list[Loader] = []

    def make_one(**others: Any) -> Loader:
        made.append(load(**others))
        return made[-1]

    yield make_one
    for loader in made:
        loader.close()


@pytest.fixture(scope="module")
def loader(load: Callable[..., Loader]) -> Iterator[Loader]:
    """One loader for a module's tests: what one leaves behind must not disturb the next."""
    loader = load()
    yield loader
    loader.close()


@pytest.fixture(scope="package")
def noise(subject: Subject) -> float:
    return subject.noise


@pytest.fixture
def stage(loader: Loader, noise: float) -> Iterator[Stage]:
    """A stage on the shared loader, which it leaves without runs."""
    stage = Stage(loader, noise)
    yield stage
    for run in stage.runs:
        loader.remove(run)


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A name nobody used: for runs and cache keys."""
    return lambda stem="run": f"{stem} {next(_numbers)}"
