"""What several test files share: the real data beside the repository, and Chromium; what is absent skips by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real files beside the repository; skips where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The browser for tests marked `browser`; skips where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium")
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say before the closing line which of ruff and mypy, run by start.py before, found faults."""
    failed = os.environ.get("CHECKS_FAILED", "")
    if failed:
        terminalreporter.section("failed before the tests (see above)", sep="=", red=True)
        terminalreporter.write_line(failed)
