"""How long the app takes from its start to its page, beside an empty Gradio page on the same server, started in turns.

    python -m benchmarks.startup            seven pairs, a minute or two
    python -m benchmarks.startup --short    three pairs, for CI

Ends with 1 where the median of the paired ratios is over the bar. CPU seconds stand beside, because they move less when other
programs run. No model is loaded: that happens in another process while the page is already there.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
BAR = 1.5
DEADLINE_SECONDS = 120.0

EMPTY_PAGE = """
import os, sys
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
import gradio, uvicorn
from fastapi import FastAPI
with gradio.Blocks() as page:
    pass
uvicorn.run(gradio.mount_gradio_app(FastAPI(), page, path="/"), port=int(sys.argv[1]), log_level="warning")
"""


@dataclass(frozen=True)
class Start:
    """One start: seconds on the clock, and CPU seconds of the process, until the page had come."""

    seconds: float
    cpu_seconds: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(command: Sequence[str], port: int) -> Start:
    """Start it, ask for its page until it comes, and end it."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not page_comes(port):
            if process.poll() is not None or time.perf_counter() - began > DEADLINE_SECONDS:
                sys.exit(f"No page came within {DEADLINE_SECONDS:g} s from: {' '.join(command)}")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        cpu = psutil.Process(process.pid).cpu_times()
        return Start(seconds, cpu.user + cpu.system)
    finally:
        process.kill()
        process.wait()


def page_comes(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE_SECONDS) as answer:
            return answer.status == 200 and bool(answer.read())
    except (urllib.error.URLError, ConnectionError):
        return False


def ours(data_dir: Path) -> Start:
    port = free_port()
    return measure([sys.executable, "app.py", "--no-browser", "--model", "none", "--port", str(port), "--data-dir",
                    str(data_dir)], port)


def empty_page() -> Start:
    port = free_port()
    return measure([sys.executable, "-c", EMPTY_PAGE, str(port)], port)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="three pairs")
    n_pairs = 3 if parser.parse_args().short else 7
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        first = ours(data_dir)  # makes the database and warms the file cache; in no pair
        empty_page()
        pairs = [(ours(data_dir), empty_page()) if n % 2 else (empty_page(), ours(data_dir))[::-1] for n in range(n_pairs)]
    print(f"\nSeconds from the start of the process to GET / = 200, {n_pairs} pairs, Python {sys.version.split()[0]}")
    print(f"{'':<28}{'clock':>10}{'CPU':>10}")
    for name, starts in (("Colloquy", [a for a, _ in pairs]), ("an empty Gradio page", [b for _, b in pairs])):
        print(f"{name:<28}{statistics.median(s.seconds for s in starts):>10.2f}"
              f"{statistics.median(s.cpu_seconds for s in starts):>10.2f}")
    print(f"{'Colloquy, its first start':<28}{first.seconds:>10.2f}{first.cpu_seconds:>10.2f}   (makes the database; cold files)")
    ratio = statistics.median(a.seconds / b.seconds for a, b in pairs)
    cpu_ratio = statistics.median(a.cpu_seconds / b.cpu_seconds for a, b in pairs)
    print(f"{'median of paired ratios':<28}{ratio:>10.2f}{cpu_ratio:>10.2f}   bar {BAR:g}: {'ok' if ratio <= BAR else 'MISSED'}")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
