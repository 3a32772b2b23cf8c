"""Runs the contract suite and writes docs/loaders_ran.md, which says what ran where: `python -m docs.contract`."""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from docs.generate import table

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "tests" / "contract"
PAGE = ROOT / "docs" / "loaders_ran.md"
PACKAGES = ("torch", "transformers", "bitsandbytes", "llama-cpp-python")
HEAD = """# What the loaders were tried with

`tests/contract` is one suite for every loader. This page is written by a whole run of it, `python -m docs.contract`: how many
tests of each group passed with each loader and quantization, and what was skipped and why. All ran on the CPU, on models of three
layers with random weights.

"""


class Outcomes:
    """A pytest plugin that counts what became of each test, by subject and group. groups: the suite's files without `test_`."""

    def __init__(self) -> None:
        self.passed: Counter[tuple[str, str]] = Counter()
        self.failed: list[str] = []
        self.skipped: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)  # by reason
        self.seconds: Counter[str] = Counter()
        self._places: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: Iterable[Any]) -> None:
        for item in items:
            if "subject" in getattr(getattr(item, "callspec", None), "params", {}):
                self._places[item.nodeid] = (item.callspec.params["subject"].name, item.path.stem.removeprefix("test_"))

    def pytest_runtest_logreport(self, report: Any) -> None:
        place = self._places.get(report.nodeid)
        if place is None:
            return
        self.seconds[place[0]] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            self.skipped[report.longrepr[2].removeprefix("Skipped: ")][place] += 1
        elif report.when == "call":
            self.passed[place] += 1

    def n_skipped(self, place: tuple[str, str]) -> int:
        return sum(counts[place] for counts in self.skipped.values())


def groups() -> list[str]:
    return sorted(path.stem.removeprefix("test_") for path in SUITE.glob("test_*.py"))


def page(outcomes: Outcomes, subjects: Sequence[Any], not_run: Sequence[tuple[str, str, str]]) -> str:
    """The whole page; the subjects are in the suite's order."""
    def cell(place: tuple[str, str]) -> str:
        counts = [str(outcomes.passed[place])] if outcomes.passed[place] else []
        counts += [f"{outcomes.n_skipped(place)} skipped"] if outcomes.n_skipped(place) else []
        return ", ".join(counts) or "0"

    rows = [(f"`{one.name}`", f"`{one.loader}`", one.what, *(cell((one.name, group)) for group in groups())) for one in subjects]
    rows += [("", f"`{loader}`", what, f"not run: {why}", *[""] * (len(groups()) - 1)) for loader, what, why in not_run]
    reasons = [(reason, ", ".join(f"`{name}` {n}" for name, n in _by_subject(counts)))
               for reason, counts in sorted(outcomes.skipped.items())]
    where = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (f"{HEAD}Python {platform.python_version()} on {platform.system()} ({platform.machine()}), {where}.\n\n"
            + table(("subject", "loader", "model", *groups()), rows)
            + "\n## Skipped, and why\n\n" + table(("reason", "tests of"), reasons))


def _by_subject(counts: Counter[tuple[str, str]]) -> list[tuple[str, int]]:
    found: Counter[str] = Counter()
    for (subject, _), n in counts.items():
        found[subject] += n
    return list(found.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def main() -> int:
    """Run the suite; 1 where a test failed, and the page is then left as it was."""
    import pytest

    from tests.contract.subjects import NOT_RUN, SUBJECTS

    outcomes = Outcomes()
    started = time.monotonic()
    code = pytest.main([str(SUITE), "-q", "-p", "no:cacheprovider"], plugins=[outcomes])
    print(f"{time.monotonic() - started:.0f} s; by subject: " + ", ".join(f"{n} {s:.0f}" for n, s in outcomes.seconds.items()))
    if code or outcomes.failed:
        print("The suite failed, so the page was not written:", *outcomes.failed, sep="\n")
        return 1
    PAGE.write_text(page(outcomes, SUBJECTS, NOT_RUN), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
