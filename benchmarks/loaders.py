"""Each loader and quantization beside the bare library in the same run: load time, decode speed, peak memory.

    python -m benchmarks.loaders                        138 M parameters; ends with 1 where a bar is missed
    python -m benchmarks.loaders --shape 1.1b --only Q4_K_M Q8_0
    python -m benchmarks.loaders --short                5 M parameters and two rows, for CI

Ours is the worker process as the app starts it; the reference a fresh process with the library alone (benchmarks/loaders_bare):
generate() of Transformers, the class Llama of llama-cpp-python. Each is started several times in turns. Load: from the process'
start until the model has computed its first token, the best of all starts. Peak: the most memory resident after the load and one
reply (Linux). Decode: tokens a second after the first one, of replies written in turns, the median of the pairs' ratios.
GPTQ and AWQ have a reference where GPTQModel is installed (requirements-gptq.txt). A server's model is as fast as its server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gguf_quantize import gguf_of
from benchmarks.transformers_speed import Shape, ours, write_model
from modules.registry import find_loaders
from modules.worker.client import WorkerClient

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = 2048


@dataclass(frozen=True)
class Bars:
    """Ours over the reference: at most for the load, at least for decoding; the peak's ratio and MiB allowed beside it."""

    load: float
    decode: float
    peak: float = 1.05
    peak_mib: float = 50.0


@dataclass(frozen=True)
class Size:
    """How much is measured: starts of each side, pairs of replies, tokens of prompt and reply. threads 0: the library chooses."""

    shape: Shape
    starts: int
    pairs: int
    prompt: int
    reply: int
    threads: int
    bars: Bars


SHAPES = {"138m": Shape(16, 768, 2560, 12, 12), "1.1b": Shape(22, 2048, 6144, 16, 16)}  # rows of 256 for the K-quants
FULL = Size(SHAPES["138m"], 3, 7, 128, 96, 0, Bars(load=1.1, decode=0.95))
# At 5 M parameters the pipe to the worker and the imports weigh more than the work, and CI does other things beside it.
SHORT = Size(Shape(6, 256, 768, 4, 2), 2, 5, 32, 48, 1, Bars(load=2.5, decode=0.6))
SHORT_CASES = ("float32", "Q4_K_M")


@dataclass(frozen=True)
class Case:
    """A row: the loader, its options, and how the model is made from a Hugging Face folder: make(source, folder) -> path."""

    loader: str
    make: Callable[[Path, Path], Path]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def lacks(self) -> str:
        """The package that the reference needs and that is not installed, or ""."""
        return "GPTQModel" if self.loader == "gptq" and find_spec("gptqmodel") is None else ""


def _gguf(kind: str) -> Case:
    return Case("llama_cpp", lambda source, folder: gguf_of(source, folder / f"{kind}.gguf", kind))


def _packed(kernel: str = "auto", **style: Any) -> Case:
    def make(source: Path, folder: Path) -> Path:
        from tests.gptq_play import Style, pack_model

        name = "-".join(map(str, style.values()))
        pack_model(source, folder / name, folder / f"{name}-plain", Style(is_symmetric=False, group=128, **style))
        return folder / name

    return Case("gptq", make, {"dtype": "bfloat16", "kernel": kernel})


def _transformers(**options: Any) -> Case:
    return Case("transformers", lambda source, folder: source, options)


CASES = {
    "float32": _transformers(dtype="float32"), "bfloat16": _transformers(dtype="bfloat16"),
    "8bit": _transformers(dtype="float32", quantization="8bit"), "4bit": _transformers(dtype="float32", quantization="4bit"),
    "F32": _gguf("F32"), "F16": _gguf("F16"), "Q8_0": _gguf("Q8_0"), "Q4_K_M": _gguf("Q4_K_M"), "Q2_K": _gguf("Q2_K"),
    "GPTQ 4-bit": _packed(bits=4), "GPTQ 8-bit": _packed("dense", bits=8), "GPTQ 3-bit": _packed("dense", bits=3),
    "GPTQ 2-bit": _packed("dense", bits=2), "AWQ 4-bit": _packed(method="awq", version="gemm")}


class Side(Protocol):
    """A process with the model loaded."""

    pid: int

    async def write(self, prompt: list[int], n: int) -> tuple[float, float]:
        """Seconds to the first of n tokens, and from there to the last."""

    async def end(self) -> None: ...


class Ours:
    """Our worker."""

    def __init__(self, client: WorkerClient) -> None:
        self.pid, self._client, self._n = client.pid, client, 0

    @classmethod
    async def start(cls, case: Case, path: Path, options: dict[str, Any], log: Path) -> Ours:
        return cls(await WorkerClient.start(loader=case.loader, path=str(path), options=options, log_path=log,
                                            on_progress=lambda fraction, what: None))

    async def write(self, prompt: list[int], n: int) -> tuple[float, float]:
        self._n += 1
        times = await ours(self._client, prompt, n, f"run {self._n}")
        return times.first, times.rest

    async def end(self) -> None:
        await self._client.close()


class Bare:
    """The library alone."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid, self._process = process.pid, process

    @classmethod
    async def start(cls, case: Case, path: Path, options: dict[str, Any], log: Path) -> Bare:
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.loaders_bare", case.loader, str(path), json.dumps(options), cwd=ROOT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors)
        bare = cls(process)
        while (line := await bare._line()) != b"ready\n":
            if not line:
                await process.wait()
                said = await asyncio.to_thread(log.read_text, "utf-8", "replace")
                raise RuntimeError(f"the library alone could not load {path.name}: {said[-2000:]}")
        return bare

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    async def write(self, prompt: list[int], n: int) -> tuple[float, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompt": prompt, "n": n}).encode() + b"\n")
        first, rest = json.loads(await self._line())
        return first, rest

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@dataclass
class Seen:
    """What was measured of one side: seconds of each load, MiB of each peak, tokens a second of each reply."""

    loads: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


def peak_mib(pid: int) -> float:
    """The most memory that was resident; nan where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return float("nan")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


async def measure(case: Case, path: Path, size: Size, log: Path) -> list[Seen]:
    """Ours and, where it is installed, the library alone, in turns."""
    spec = find_loaders()[case.loader]
    options = {**{name: knob.default for name, knob in spec.options.items()}, "context": CONTEXT, "threads": size.threads,
               **case.options}
    chance = random.Random(0)

    def prompt() -> list[int]:
        return [chance.randrange(2, 250) for _ in range(size.prompt)]

    kinds = [Ours] if case.lacks else [Ours, Bare]
    seen = [Seen() for _ in kinds]
    held: dict[int, Side] = {}
    try:
        for start in range(size.starts):
            for which in (range(len(kinds)) if start % 2 == 0 else reversed(range(len(kinds)))):
                began = time.perf_counter()
                held[which] = await kinds[which].start(case, path, options, log)
                seen[which].loads.append(time.perf_counter() - began)
                await held[which].write(prompt(), size.reply)
                seen[which].peaks.append(peak_mib(held[which].pid))
                if start < size.starts - 1:
                    await held.pop(which).end()
        for _ in range(size.pairs):
            asked = prompt()
            for which, side in sorted(held.items()):
                _, rest = await side.write(asked, size.reply)
                seen[which].rates.append((size.reply - 1) / rest)
    finally:
        for side in held.values():
            await side.end()
    return seen


def row(name: str, case: Case, seen: list[Seen], bars: Bars) -> bool:
    """Prints a row; False where a bar is missed."""
    mine = seen[0]
    load, peak, rate = min(mine.loads), statistics.median(mine.peaks), statistics.median(mine.rates)
    print(f"{name:<12}{load:8.2f} s{rate:9.1f} tok/s{peak:8.0f} MiB", end="")
    if len(seen) == 1:
        print(f"   no reference: {case.lacks} is not installed")
        return True
    other = seen[1]
    loads = load / min(other.loads)
    rates = statistics.median(a / b for a, b in zip(mine.rates, other.rates, strict=True))
    least = statistics.median(other.peaks)
    missed = [what for what, is_missed in (
        (f"load ≤ {bars.load:g}", loads > bars.load), (f"decode ≥ {bars.decode:g}", rates < bars.decode),
        (f"peak ≤ {bars.peak:g} × + {bars.peak_mib:g} MiB", peak > bars.peak * least + bars.peak_mib)) if is_missed]
    verdict = f"MISSED {', '.join(missed)}" if missed else "ok"
    print(f"{loads:10.2f}{rates:9.2f}{peak / least:9.2f} ({peak - least:+.0f} MiB)   {verdict}", flush=True)
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a small model, two rows and weaker bars")
    parser.add_argument("--shape", choices=SHAPES, default="138m", help="how large the random model is")
    parser.add_argument("--only", nargs="+", choices=CASES, help="these rows alone")
    given = parser.parse_args()
    size = SHORT if given.short else replace(FULL, shape=SHAPES[given.shape])
    # An installation has its bytecode; without it only our side would compile its files at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = write_model(folder / "source", size.shape, CONTEXT)
        print(f"{'':<12}{'load':>10}{'decode':>15}{'peak':>12}{'÷ load':>10}{'decode':>9}{'peak':>9}", flush=True)
        for name in given.only or (SHORT_CASES if given.short else CASES):
            path = CASES[name].make(source, folder)
            seen = asyncio.run(measure(CASES[name], path, size, folder / "log"))
            met = row(name, CASES[name], seen, size.bars) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
