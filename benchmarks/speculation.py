"""Replies with guesses ahead beside the same replies without, in turns on the same model.

    python -m benchmarks.speculation            138 M parameters; ends with 1 where a bar is missed
    python -m benchmarks.speculation --short    5 M parameters, for CI

A random model that takes its likeliest token soon repeats itself: there guesses are almost always right, and have to pay. At
temperature 1 it repeats nothing: there guesses have to cost nothing. Draft: the model drafts for itself, which is all cost.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gguf_quantize import gguf_of
from benchmarks.loaders import SHAPES
from benchmarks.transformers_speed import Shape, write_model
from modules.core.loader import Prefilled, Token
from modules.core.params import GenerationParams
from modules.registry import find_loaders
from modules.worker.client import WorkerClient

LOOPING = GenerationParams(temperature=0, ban_eos=True)
WANDERING = GenerationParams(temperature=1.0, ban_eos=True, seed=1)
PROMPT = 64


@dataclass(frozen=True)
class Row:
    """bar: the least that the speed with guesses over the speed without may be."""

    name: str
    loader: str
    params: GenerationParams
    options: dict[str, Any]
    bar: float


def rows(path: Path, source: Path) -> list[tuple[Row, Path]]:
    lookup = {"speculation": "prompt_lookup"}
    return [(Row("llama.cpp, looping", "llama_cpp", LOOPING, lookup, 1.5), path),
            (Row("llama.cpp, wandering", "llama_cpp", WANDERING, lookup, 0.95), path),
            (Row("llama.cpp, drafting for itself", "llama_cpp", WANDERING,
                 {"speculation": "draft_model", "draft_model": str(path)}, 0.85), path),
            (Row("transformers, looping", "transformers", LOOPING, lookup, 1.5), source),
            (Row("transformers, wandering", "transformers", WANDERING, lookup, 0.95), source)]


async def speed(client: WorkerClient, ids: list[int], params: GenerationParams, run: str) -> float:
    """Tokens a second after the first of one reply."""
    ended = asyncio.get_running_loop().create_future()
    came: list[float] = []

    def sink(events: list[Any], at: float) -> None:
        for event in events:
            if isinstance(event, Token):
                came.append(time.perf_counter())
                if event.finish:
                    ended.set_result(None)
            elif not isinstance(event, Prefilled) and hasattr(event, "error"):
                ended.set_exception(event.error)

    client.add(run, ids, params, run, sink)
    await ended
    return (len(came) - 1) / (came[-1] - came[0])


async def measure(row: Row, path: Path, n_tokens: int, pairs: int, log: Path) -> list[tuple[float, float]]:
    """(with, without) of each pair."""
    defaults = {name: knob.default for name, knob in find_loaders()[row.loader].options.items()}
    if row.loader == "transformers":
        defaults["dtype"] = "float32"
    defaults |= {"context": 2048, "slots": 1}
    clients = [await WorkerClient.start(loader=row.loader, path=str(path), options=defaults | more, log_path=log,
                                        on_progress=lambda fraction, what: None) for more in (row.options, {})]
    chance = random.Random(0)
    params = GenerationParams(temperature=row.params.temperature, ban_eos=True, seed=1, max_tokens=n_tokens)
    found = []
    try:
        for pair in range(pairs + 1):
            ids = [chance.randrange(2, 250) for _ in range(PROMPT)]
            order = clients if pair % 2 else clients[::-1]
            speeds = {id(client): await speed(client, ids, params, f"run {pair}") for client in order}
            if pair:  # the first one warms both
                found.append((speeds[id(clients[0])], speeds[id(clients[1])]))
    finally:
        for client in clients:
            await client.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a small model and weaker bars")
    given = parser.parse_args()
    shape, n_tokens, pairs = (Shape(6, 256, 768, 4, 2), 300, 3) if given.short else (SHAPES["138m"], 400, 5)
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = write_model(folder / "source", shape, 2048)
        path = gguf_of(source, folder / "Q8_0.gguf", "Q8_0")
        print(f"{'':<34}{'with':>14}{'without':>14}{'ratio':>8}", flush=True)
        for row, model in rows(path, source):
            found = asyncio.run(measure(row, model, n_tokens, pairs, folder / "log"))
            ratio = statistics.median(a / b for a, b in found)
            bar = min(row.bar, 1.1) * 0.8 if given.short else row.bar
            met = met and ratio >= bar
            print(f"{row.name:<34}" + "".join(f"{statistics.median(side):8.1f} tok/s" for side in zip(*found, strict=True))
                  + f"{ratio:8.2f}   {'ok' if ratio >= bar else f'MISSED ≥ {bar:g}'}", flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
