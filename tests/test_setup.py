"""How the process itself is prepared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .running_app import ROOT, clean_environment

PROGRAM = """
import asyncio, gc, sys, time
from app import ROOT, make_app
from modules.assembly import make_services
from modules.core.settings import Settings

def full_search():
    began = time.perf_counter()
    gc.collect()
    return time.perf_counter() - began

async def main():
    settings = Settings(data_dir=sys.argv[1] + "/data", models_dir=(sys.argv[1],), model="none", no_browser=True)
    started, inbox = asyncio.Event(), asyncio.Queue()
    app = make_app(make_services(settings, ROOT), started=started.set)
    gc.collect()
    before = full_search()
    async def send(message):
        assert "failed" not in message["type"], message
    serving = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, inbox.get, send))
    inbox.put_nowait({"type": "lifespan.startup"})
    await started.wait()
    print(before, full_search())
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await serving

asyncio.run(main())
"""


def test_a_search_for_garbage_passes_over_what_the_start_made(tmp_path: Path) -> None:
    """Each took 300 to 560 ms in the middle of long replies, with everything else standing still."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)], cwd=ROOT, env=clean_environment(),
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.split()[-2:])
    assert after < before / 5, f"{before:.3f} s before, {after:.3f} s after"
