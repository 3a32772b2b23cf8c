"""The forecast before a load beside what the model then takes: weights, KV cache and computing, above an empty worker.

    python -m benchmarks.forecast              random models of 1 B parameters; ends with 1 where a case is off by over 10 %
    python -m benchmarks.forecast --only Q8_0

Measured is the worker's proportional set size (Linux) once a prompt has filled the context, or FILL tokens of a longer one:
llama.cpp takes its whole KV cache at the start. Without flash attention the scores grow with what is read, so that case reads a
whole context. The empty worker is this one before it read a weight. The Model tab shows both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.loaders import Ours
from modules.models.catalog import Catalog
from modules.models.forecast import forecast
from modules.registry import find_loaders
from modules.worker import memory_use
from modules.worker.client import WorkerClient

ROOT = Path(__file__).resolve().parent.parent
BAR = 0.10
FILL = 2048  # tokens that are read before a measurement, at most
LARGE = (10, 3072, 8192, 24, 8)  # layers, hidden, feed-forward, heads, key/value heads: 1.0 B
MAKE = """
import sys
from pathlib import Path
from benchmarks.transformers_speed import Shape, write_model
write_model(Path(sys.argv[1]), Shape(*map(int, sys.argv[2:])), 32768)
"""


@dataclass(frozen=True)
class Case:
    """kind: the GGUF's type, "" for the Hugging Face folder itself. fill: tokens that are read before the measurement."""

    loader: str
    kind: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    fill: int = FILL

    @property
    def name(self) -> str:
        what = self.kind or str(self.options.get("quantization") or self.options["dtype"])
        more = [f"{name}={value}" for name, value in self.options.items() if name not in ("quantization", "dtype")]
        return " ".join([what, *more])


def _gguf(kind: str, context: int, **more: Any) -> Case:
    return Case("llama_cpp", kind, {"context": context, **more})


def _hf(context: int, dtype: str, **more: Any) -> Case:
    return Case("transformers", "", {"dtype": dtype, "context": context, **more})


Q8_KV = {"kv_type_k": "q8_0", "kv_type_v": "q8_0"}
CASES = [
    _gguf("F16", 2048), _gguf("F16", 16_384), _gguf("Q8_0", 2048), _gguf("Q8_0", 8192), _gguf("Q8_0", 16_384, **Q8_KV),
    _gguf("Q8_0", 32_768),
    replace(_gguf("Q8_0", 4096, flash_attention="off"), fill=4096), _gguf("Q4_K_M", 2048), _gguf("Q4_K_M", 16_384),
    _hf(512, "float32"), _hf(2048, "float32"), _hf(512, "bfloat16"), _hf(2048, "bfloat16"),
    _hf(512, "bfloat16", quantization="4bit"), _hf(512, "float32", quantization="8bit"), _hf(512, "float32", quantization="int8")]


async def measured(case: Case, path: Path, log: Path) -> int:
    """Bytes that the worker takes with this model, after reading a prompt and writing three tokens."""
    client = await WorkerClient.start(loader=case.loader, path=str(path), options=options_of(case), log_path=log,
                                      on_progress=lambda fraction, what: None)
    worker = Ours(client)
    try:
        chance = random.Random(0)
        n_tokens = min(int(case.options["context"]), case.fill) - 8
        await worker.write([chance.randrange(2, 250) for _ in range(n_tokens)], 3)
        return memory_use.bytes_of(client.pid) - client.facts.base_bytes
    finally:
        await worker.end()


def options_of(case: Case) -> dict[str, Any]:
    """All of the loader's options, one slot, two threads."""
    knobs = find_loaders()[case.loader].options
    return {**{name: knob.default for name, knob in knobs.items()}, "slots": 1, "threads": 2, **case.options}


class Files:
    """The models, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, case: Case) -> Path:
        """The case's model."""
        source = self._folder / "source"
        if not source.exists():
            self._run("-c", MAKE, str(source), *map(str, LARGE))
        if not case.kind:
            return source
        target = self._folder / f"{case.kind}.gguf"
        if not target.exists():
            code = "import sys; from pathlib import Path; from benchmarks.gguf_quantize import gguf_of; "
            code += "gguf_of(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
            self._run("-c", code, str(source), str(target), case.kind)
        return target

    @staticmethod
    def _run(*arguments: str) -> None:
        """In a child: no library is to be mapped here too, which would halve the child's share of it."""
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="cases whose name begins with one of these")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    cases = [case for case in CASES if not given.only or case.name.startswith(tuple(given.only))]
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = Files(folder)
        print(f"{'case':<44}{'weights':>9}{'KV':>8}{'compute':>9}{'forecast':>10}{'measured':>10}{'off':>8}", flush=True)
        for case in cases:
            path = files.path(case)
            needs = forecast(Catalog([], allowed=[str(path)]).find(str(path)), options_of(case))
            started = time.monotonic()
            found = asyncio.run(measured(case, path, folder / "log"))
            off = needs.total_bytes / found - 1
            worst = max(worst, abs(off))
            parts = "".join(f"{n / 1e6:>{width}.0f}" for n, width in (
                (needs.weights_bytes, 9), (needs.kv_bytes, 8), (needs.compute_bytes, 9), (needs.total_bytes, 10), (found, 10)))
            print(f"{case.name:<44}{parts}{off:+8.1%}   {time.monotonic() - started:.0f} s", flush=True)
    print(f"the worst is off by {worst:.1%}; the bar is {BAR:.0%}")
    return 0 if worst <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
