"""Models on two servers of other projects, run as their own commands: transformers serve, and llama-cpp-python's."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from modules import registry
from modules.core.events import Request
from modules.core.messages import Message, message
from modules.core.params import GenerationParams
from modules.engine import Engine
from modules.models.catalog import Catalog

from .server_play import servers_file

STARTER = Path(__file__).resolve().parent.parent / "models" / "starter"
START_SECONDS = 150.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.skipif(
    importlib.util.find_spec("sse_starlette") is None, reason="llama_cpp.server needs sse-starlette of requirements-dev.txt")]


@contextmanager
def serving(command: Sequence[str], port: int, folder: Path) -> Iterator[str]:
    """The command's server until the end of the block; its address."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(folder / "hub")}
    log = folder / "server.log"
    with log.open("wb") as output, subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text("utf-8", "replace")[-4000:]
                try:
                    httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=5)
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.mark.parametrize("server", ["transformers serve", "llama_cpp.server"])
async def test_a_chat_there_is_the_chat_here_and_a_stop_stops(server: str, tmp_path: Path) -> None:
    port = free_port()
    model = str(STARTER if server == "transformers serve" else STARTER / "starter-Q8_0.gguf")
    params = GenerationParams(temperature=0, max_tokens=40, seed=1)
    here = await talk(Engine(Catalog([STARTER.parent]), registry.find_loaders(), log_dir=tmp_path), model, params)
    command = ([sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--host", "127.0.0.1", "--port", str(port),
                "--device", "cpu"] if server == "transformers serve" else
               [sys.executable, "-m", "llama_cpp.server", "--model", model, "--host", "127.0.0.1", "--port", str(port),
                "--n_ctx", "2048"])
    with serving(command, port, tmp_path) as url:
        file = servers_file(tmp_path, {"name": "far", "base_url": url, "model": model, "context": 2048})
        there = await talk(Engine(Catalog([tmp_path], servers=file), registry.find_loaders(), log_dir=tmp_path), "far", params)
        assert there == here


async def talk(engine: Engine, model: str, params: GenerationParams) -> list[str]:
    """Three replies and how each ended; then a story that is stopped, and the first question again."""
    try:
        await engine.load(model)
        said: tuple[Message, ...] = ()
        told = []
        for text in ("Hello!", "My name is Nora.", "What is my name?"):
            said = (*said, message("user", text))
            run = engine.start(Request(params, said))
            end = await run.wait()
            told += [run.text(), end.reason]
            said = (*said, message("assistant", run.text()))
        story = (message("user", "Tell me a story about Nora and a key."),)
        long = engine.start(Request(replace(params, max_tokens=400), story))
        async for _ in long.follow():
            if long.text():
                long.cancel()
        assert (await long.wait()).reason == "cancelled"
        again = engine.start(Request(params, said[:1]))
        await again.wait()
        return [*told, again.text()]
    finally:
        await engine.close()
