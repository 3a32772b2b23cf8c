"""docs/loaders_ran.md names every subject, group and reason of the contract suite as it is: else `python -m docs.contract`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from docs import contract
from tests.contract.subjects import NOT_RUN, SUBJECTS


def rows() -> list[list[str]]:
    """The cells of the first table's rows, its head included."""
    lines = contract.PAGE.read_text(encoding="utf-8").partition("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines if line.startswith("| ")]


def test_the_table_has_a_row_for_each_subject_and_for_what_cannot_run() -> None:
    assert contract.PAGE.read_text(encoding="utf-8").startswith(contract.HEAD)
    head, *body = rows()
    assert head == ["subject", "loader", "model", *contract.groups()]
    wanted = [[f"`{one.name}`", f"`{one.loader}`", one.what] for one in SUBJECTS]
    wanted += [["", f"`{loader}`", what] for loader, what, _ in NOT_RUN]
    assert [row[:3] for row in body] == wanted
    assert [row[3] for row in body[len(SUBJECTS):]] == [f"not run: {why}" for *_, why in NOT_RUN]


def test_every_subject_ran_in_every_group() -> None:
    for row in rows()[1:len(SUBJECTS) + 1]:
        assert all(cell[:1].isdigit() and cell != "0" for cell in row[3:]), row


@pytest.mark.parametrize(("outcome", "cells"), [("passed", ["1", "0"]), ("skipped", ["1 skipped", "0"])])
def test_outcomes_are_counted_where_they_belong(outcome: str, cells: list[str]) -> None:
    outcomes = contract.Outcomes()
    item = SimpleNamespace(nodeid="x", path=contract.SUITE / "test_runs.py",
                           callspec=SimpleNamespace(params={"subject": SimpleNamespace(name="one")}))
    outcomes.pytest_collection_modifyitems([item])
    outcomes.pytest_runtest_logreport(SimpleNamespace(
        nodeid="x", duration=1.0, when="call", failed=False, skipped=outcome == "skipped",
        longrepr=("file", 1, "Skipped: no wheels")))
    page = contract.page(outcomes, [SimpleNamespace(name="one", loader="a", what="b")], [])
    row = next(line for line in page.splitlines() if line.startswith("| `one`"))
    found = dict(zip(contract.groups(), [cell.strip() for cell in row.strip("|").split(" |")][3:], strict=True))
    assert [found["runs"], found["text"]] == cells
    assert ("no wheels | `one` 1" in page) is (outcome == "skipped")
