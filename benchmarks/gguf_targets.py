"""What benchmarks/gguf_speed.py measures: llama-bench, llama-server, our loader in its child process, our HTTP API."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
# llama-server's own defaults, given to all by name.
SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
START_SECONDS = 180.0


@dataclass(frozen=True)
class Stream:
    """One reply: when it was asked for, when its pieces came (seconds, time.perf_counter), and how many tokens each had."""

    n_tokens: int
    asked: float
    times: list[float]
    counts: list[float]

    @property
    def rate(self) -> float:
        """Tokens a second over wall time, after the first one."""
        return (self.n_tokens - 1) / (self.times[-1] - self.times[0])


def rate_together(streams: list[Stream]) -> float:
    """Tokens a second of all streams while every one of them is written: after the last one's first token, before the first end.

    Prompts are then read everywhere. One server reads all of them before it writes, another writes beside; see rate_whole.
    """
    start, end = max(s.times[0] for s in streams), min(s.times[-1] for s in streams)
    tokens = sum(count for s in streams for at, count in zip(s.times, s.counts, strict=True) if start < at <= end)
    return tokens / (end - start)


def rate_whole(streams: list[Stream]) -> float:
    """Tokens a second of all streams from the asking to the last token, prompts read included."""
    return sum(s.n_tokens for s in streams) / (max(s.times[-1] for s in streams) - min(s.asked for s in streams))


class Target(Protocol):
    """Something that writes."""

    name: str

    async def write(self, prompt: list[int], n_tokens: int) -> Stream:
        """A reply of exactly n_tokens to this prompt; raises RuntimeError where it ends earlier."""


class HttpTarget:
    """A server that streams `data:` lines. Reads bytes, not JSON, so that the client takes as little of the cores as can be."""

    def __init__(self, name: str, host: str, port: int, path: str, body: dict[str, Any], *, length: str, key: str = "") -> None:
        """length: the body's field for how many tokens to write."""
        self.name = name
        self._host, self._port, self._path = host, port, path
        self._body, self._length, self._key = body, length, key

    async def write(self, prompt: list[int], n_tokens: int) -> Stream:
        body = json.dumps({**self._body, "prompt": prompt, self._length: n_tokens}).encode()
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**22)
        key = f"Authorization: Bearer {self._key}\r\n" if self._key else ""
        writer.write(f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n{key}"
                     f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        asked, times, pieces = time.perf_counter(), [], []
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{self.name} answered {status!r} {await reader.read(2000)!r}")
        async for line in reader:
            if line.startswith(b"data: {"):
                times.append(time.perf_counter())
                pieces.append(line)
        writer.close()
        last = pieces[-1] if pieces else b""
        found = re.search(rb'"(?:completion_tokens|tokens_predicted)":\s*(\d+)', last)
        if found is None or int(found[1]) != n_tokens:
            raise RuntimeError(f"{self.name} wrote {found and found[1]!r} of {n_tokens} tokens: {last[:300]!r}")
        if self._path.startswith("/v1"):
            times.pop()  # the chunk with the usage, after the last token's
        # How many tokens a piece has is not said by all; its share of the text tells, the same way for each server.
        lengths = [_text_length(line) for line in pieces[:len(times)]]
        total = max(1, sum(lengths))
        return Stream(n_tokens, asked, times, [n_tokens * length / total for length in lengths])


class ChildTarget:
    """Our loader in its worker process, without engine and HTTP."""

    name = "loader in the child"

    def __init__(self, client: Any) -> None:
        self._client = client

    async def write(self, prompt: list[int], n_tokens: int) -> Stream:
        from modules.core.loader import RunFailed, Token
        from modules.core.params import GenerationParams

        times: list[float] = []
        counts: list[float] = []
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        count = 0

        def take(events: list[Any], at: float) -> None:
            nonlocal count
            found = [event for event in events if isinstance(event, Token)]
            failed = next((event for event in events if isinstance(event, RunFailed)), None)
            if found:
                times.append(time.perf_counter())
                counts.append(len(found))
                count += len(found)
            if failed is not None:
                done.set_exception(failed.error)
            elif found and found[-1].finish is not None:
                done.set_result(count)

        params = GenerationParams(**SAMPLING, max_tokens=n_tokens, ban_eos=True)
        run, asked = secrets.token_hex(8), time.perf_counter()
        self._client.add(run, prompt, params, run, take)
        if await done != n_tokens:
            raise RuntimeError(f"the child wrote {count} of {n_tokens} tokens")
        return Stream(n_tokens, asked, times, counts)


@asynccontextmanager
async def child(path: Path, options: dict[str, Any]) -> AsyncIterator[ChildTarget]:
    from modules.worker.client import WorkerClient

    with tempfile.TemporaryDirectory() as folder:
        client = await WorkerClient.start(loader="llama_cpp", path=str(path), options=options, log_path=Path(folder) / "log",
                                          on_progress=lambda fraction, what: None)
        try:
            yield ChildTarget(client)
        finally:
            await client.close()


@asynccontextmanager
async def llama_server(program: Path, path: Path, options: dict[str, Any]) -> AsyncIterator[HttpTarget]:
    """llama-server with the same context, slots and threads, its cells shared as ours are."""
    port = _free_port()
    threads = str(options["threads"])
    process = _start([str(program), "-m", str(path), "--port", str(port), "-c", str(options["context"]), "--kv-unified",
                      "-np", str(options["slots"]), "-t", threads, "-tb", threads])
    try:
        await _until_up(process, port, "/health")
        body = {**SAMPLING, "stream": True, "ignore_eos": True}
        yield HttpTarget("llama-server", "127.0.0.1", port, "/completion", body, length="n_predict")
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def app(path: Path, options: dict[str, Any]) -> AsyncIterator[HttpTarget]:
    """Our app in a process of its own, with this model loaded."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = _start([sys.executable, "app.py", "--no-browser", "--port", str(port), "--data-dir", folder, "--models-dir",
                          str(path.parent), "--model", "none"])
        try:
            await _until_up(process, port, "/health")
            await asyncio.to_thread(_load_in_app, port, path, options)
            yield api("127.0.0.1", port)
        finally:
            process.terminate()
            process.wait()


def api(host: str, port: int, key: str = "") -> HttpTarget:
    """A running Colloquy's /v1/completions."""
    body = {**SAMPLING, "stream": True, "ban_eos": True, "stream_options": {"include_usage": True}}
    return HttpTarget("our /v1/completions", host, port, "/v1/completions", body, length="max_tokens", key=key)


def llama_bench(program: Path, path: Path, n_tokens: int, threads: int) -> float:
    """Tokens a second of llama-bench's own decode loop: no sampling, no text."""
    done = subprocess.run([program, "-m", path, "-p", "0", "-n", str(n_tokens), "-t", str(threads), "-r", "1", "-o", "json"],
                          capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)[0]["avg_ts"])


def _load_in_app(port: int, path: Path, options: dict[str, Any]) -> None:
    import httpx

    url = f"http://127.0.0.1:{port}"
    names = httpx.get(f"{url}/v1/internal/model/list").json()["model_names"]
    name = next(n for n in names if n in (path.name, path.stem))
    answer = httpx.post(f"{url}/v1/internal/model/load", json={"model_name": name, "loader": "llama_cpp", "options": options},
                        timeout=START_SECONDS)
    if answer.status_code != 200:
        raise RuntimeError(f"the app could not load {name}: {answer.text}")


def _text_length(line: bytes) -> int:
    """Characters of text in one `data:` line of either server."""
    body = json.loads(line[len(b"data: "):])
    choices = body.get("choices")
    return len(choices[0]["text"] if choices else body.get("content", ""))


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """A silent process in the project's folder, without settings of the app from this environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COLLOQUY_")}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def _until_up(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    """Wait for a 200; raises RuntimeError where the process ends or takes too long."""
    import httpx

    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient() as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode} before it answered")
            try:
                if (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not listening yet
            await asyncio.sleep(0.2)
    raise RuntimeError(f"port {port} did not answer within {START_SECONDS:g} s")
