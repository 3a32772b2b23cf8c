"""The child process itself: its streams are its own, and it never outlives its parent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from modules.core.params import GenerationParams
from modules.worker import messages
from modules.worker.child import environment
from modules.worker.messages import Add, Load

ROOT = Path(__file__).resolve().parents[1]


async def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


NOISE = """
import os, subprocess, sys
from modules.worker.main import _take_descriptors
commands, replies = _take_descriptors()
print("print", flush=True)
os.write(1, b"native\\n")
subprocess.run([sys.executable, "-c", "print('grandchild')"])
os.write(replies, b"frame:" + os.read(commands, 100))
assert sys.stdin.read() == "" and os.read(0, 1) == b""
"""


def test_what_libraries_print_goes_to_the_log_and_not_among_the_frames() -> None:
    done = subprocess.run([sys.executable, "-c", NOISE], input=b"command", cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"frame:command"
    for noise in (b"print", b"native", b"grandchild"):
        assert noise in done.stderr


def test_the_child_gets_the_environment_without_the_apps_key_and_the_hubs_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLLOQUY_API_KEY", "COLLOQUY_HUB_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PYTHONPATH", "/mine")
    made = environment()
    assert "secret" not in made.values() and made["CUDA_VISIBLE_DEVICES"] == "0" and made["PATH"] == os.environ["PATH"]
    assert made["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/mine"]


PARENT = """
import asyncio, sys
from pathlib import Path
from modules.core.params import GenerationParams
from modules.worker.client import WorkerClient
async def main():
    options = {"load_seconds": 600 * (sys.argv[2] == "load"), "prefill_ms": 60000, "rate": 1}
    told = lambda f, w: print("loading", flush=True)
    client = await WorkerClient.start(loader="echo", path="", options=options, log_path=Path(sys.argv[1]), on_progress=told)
    if sys.argv[2] == "prefill":
        client.add("r", [65] * 256, GenerationParams(), "", lambda events, at: print(events, flush=True))
    print("ready", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["load", "idle", "prefill"])
async def test_a_worker_ends_soon_after_its_parent_is_killed(tmp_path: Path, moment: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path / "log"), moment, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    awaited = {"load": b"loading", "idle": b"ready", "prefill": b"Admitted"}[moment]
    async for line in parent.stdout:
        if awaited in line:
            break
    (worker,) = psutil.Process(parent.pid).children()
    parent.kill()
    await parent.wait()
    await until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker's end")


@pytest.mark.parametrize("moment", ["start", "load", "idle", "prefill"])
def test_a_worker_ends_when_its_commands_end(moment: str) -> None:
    """Its parent lives on here: only the reading thread can see the end, as on systems without a parent-death signal."""
    worker = subprocess.Popen([sys.executable, "-m", "modules.worker.main", str(os.getpid())], cwd=ROOT, env=environment(),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with worker:
        try:
            assert worker.stdin is not None and worker.stdout is not None
            options = {"load_seconds": 600 * (moment == "load"), "prefill_ms": 60_000}
            if moment != "start":
                worker.stdin.write(messages.encode(Load("echo", "", options)))
            if moment == "prefill":
                worker.stdin.write(messages.encode(Add("run", [65] * 256, GenerationParams(), "")))
            worker.stdin.flush()
            said = b""
            while moment != "start" and {"load": b"progress", "idle": b"ready", "prefill": b"admitted"}[moment] not in said:
                said += worker.stdout.read1()
            worker.stdin.close()
            assert worker.wait(timeout=20) == 0
        finally:
            worker.kill()


@pytest.mark.parametrize("nonsense", [b"\xff" * 8, messages.encode(Add("run", [1], GenerationParams(), ""))])
def test_a_worker_that_is_told_nonsense_ends_and_answers_nothing(nonsense: bytes) -> None:
    done = subprocess.run([sys.executable, "-m", "modules.worker.main", str(os.getpid())], cwd=ROOT, env=environment(),
                          input=nonsense, capture_output=True, timeout=60)
    assert not done.stdout
