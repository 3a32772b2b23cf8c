"""The services of one app over a real data folder: what is loaded first and remembered, what a failing disk may do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from modules.assembly import LAST_MODEL, Services, make_services
from modules.core.errors import AppError
from modules.core.settings import Settings
from modules.setup import load_settings
from modules.store.chats import Chats

from .running_app import write_script
from .test_engine import until


def services_of(tmp_path: Path, **settings: Any) -> Services:
    (tmp_path / "models").mkdir(exist_ok=True)
    return make_services(Settings(data_dir=str(tmp_path / "data"), models_dir=(str(tmp_path / "models"),), **settings), tmp_path)


async def test_a_model_that_is_away_for_a_day_is_not_forgotten(tmp_path: Path) -> None:
    """The starter model, loaded in its place, was remembered as the person's choice."""
    write_script(tmp_path / "models", "mine", "x")
    services = services_of(tmp_path)
    await services.open()
    await services.engine.load("mine", options={"context": 4096})
    await until(lambda: services.store.keyvalue.get(LAST_MODEL, None) is not None)
    await services.close()
    (tmp_path / "models" / "mine.echo").rename(tmp_path / "away")
    (tmp_path / "models" / "starter").mkdir()
    write_script(tmp_path / "models" / "starter", "starter-Q8_0", "stands in")
    services = services_of(tmp_path)
    await services.open()
    await until(lambda: bool(services.engine.models))
    assert services.engine.models[0].name != "mine"
    await services.close()
    (tmp_path / "away").rename(tmp_path / "models" / "mine.echo")
    services = services_of(tmp_path)
    await services.open()
    await until(lambda: bool(services.engine.models))
    held = services.engine.models[0]
    assert (held.name, held.facts.context) == ("mine", 4096)
    await services.close()


async def test_a_disk_that_fails_once_does_not_end_the_heartbeat(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The first failure ended the task, in silence."""
    beats = 0

    def beat(self: Chats, instance: str) -> None:
        nonlocal beats
        beats += 1
        if beats == 1:
            raise AppError("The disk is full.")

    monkeypatch.setattr("modules.assembly.BEAT_SECONDS", 0.02)
    monkeypatch.setattr(Chats, "beat", beat)
    write_script(tmp_path / "models", "mine", "word " * 1000)
    services = services_of(tmp_path, model="mine")
    with caplog.at_level(logging.WARNING):
        await services.open()
        await until(lambda: bool(services.engine.models))
        await services.engine.load("mine", options={"rate": 50})
        await services.chat.send("tab-0123456789", "Go", conversation="", under=None)
        await until(lambda: beats >= 3)
        await services.close()
    assert "The disk is full." in caplog.text


async def test_closing_at_any_moment_of_the_start_leaves_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_script(tmp_path / "models", "mine", "x")
    for _ in range(3):
        services = services_of(tmp_path, model="mine")
        await services.open()
        await services.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(("given", "meant"), [("", ""), ("/", ""), ("colloquy", "/colloquy"), ("/a/b/", "/a/b")])
def test_a_root_path_is_understood_with_and_without_its_slashes(tmp_path: Path, given: str, meant: str) -> None:
    """Without the first slash the address that was printed named another port."""
    assert load_settings(["--root-path", given, "--data-dir", str(tmp_path)], {}).root_path == meant
