"""How fast our GGUF streams are beside llama-server and llama-bench on the same file, and how even beside a long prefill.

    python -m benchmarks.gguf_speed                       125 M and 1.1 B; builds llama.cpp's programs at first (ten minutes)
    python -m benchmarks.gguf_speed --shapes 125m --rounds 5
    python -m benchmarks.gguf_speed --short               a tiny model, our side only where llama-server is not built; for CI

Ends with 1 where a bar is missed; --short prints and sets no bar on speed. A round measures every target once, one after the
other, so that the machine's moods meet all of them; ratios are within a round, and their median counts. A rate below half of its
target's median is a collapse (OpenMP threads that lost their core): that round is left out for it, and the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import gguf_targets as targets
from benchmarks.gguf_model import VOCAB, model_file
from benchmarks.llama_reference import build_programs, find_programs

STREAMS = 8
PROMPT = 32
# Bars: our stream over llama-server's, by model and number of streams.
BARS = {("1.1b", 1): 0.95, ("1.1b", STREAMS): 0.95, ("125m", 1): 0.95, ("125m", STREAMS): 0.90}
GAP_BAR = 3.0
SERVER, API, BENCH = "llama-server", "our /v1/completions", "llama-bench"


@dataclass(frozen=True)
class Size:
    """How much is measured: tokens of one reply, rounds, tokens of the long prompt; on how many threads; one table or both."""

    n_tokens: int
    rounds: int
    long_prompt: int
    threads: int
    only: str = ""


async def measure(shape: str, size: Size, programs: dict[str, Path] | None, *, api_url: str, has_app: bool) -> bool:
    """Prints one model's tables; True where its bars are met."""
    path = model_file(shape)
    options = {"context": 8192, "slots": STREAMS, "threads": size.threads}
    print(f"\n{shape} ({path.stat().st_size / 1e6:.0f} MB, Q4_0), {size.threads} threads, {size.rounds} × {size.n_tokens} tokens")
    async with AsyncExitStack() as stack:
        found: list[targets.Target] = []
        if programs:
            found.append(await stack.enter_async_context(targets.llama_server(programs[SERVER], path, options)))
        found.append(await stack.enter_async_context(targets.child(path, options)))
        if api_url:
            host, _, port = api_url.removeprefix("http://").rstrip("/").partition(":")
            found.append(targets.api(host, int(port or 80), os.environ.get("COLLOQUY_API_KEY", "")))
        elif has_app:
            found.append(await stack.enter_async_context(targets.app(path, options)))
        for target in found:  # touch every page, and let the pace settle
            await target.write(prompt(), 16)
        met = []
        if size.only != "gap":
            alone, together, whole = await in_turns(found, size, programs, path)
            met += [table("one stream", alone, BARS.get((shape, 1))),
                    table(f"{STREAMS} streams together", together, BARS.get((shape, STREAMS))),
                    table(f"{STREAMS} with their prompts", whole, None)]
        if size.only != "speed":
            met += [await gap(target, size, is_ours=target.name != SERVER) for target in found]
    return all(met)


async def in_turns(found: list[targets.Target], size: Size, programs: dict[str, Path] | None,
                   path: Path) -> tuple[dict[str, list[float]], ...]:
    """Rates by target, one a round: of one stream, of eight together, and of eight from the asking on."""
    alone: dict[str, list[float]] = {target.name: [] for target in found}
    together: dict[str, list[float]] = {target.name: [] for target in found}
    whole: dict[str, list[float]] = {target.name: [] for target in found}
    for _ in range(size.rounds):
        if programs:
            rate = await asyncio.to_thread(targets.llama_bench, programs[BENCH], path, size.n_tokens, size.threads)
            alone.setdefault(BENCH, []).append(rate)
        for target in found:
            alone[target.name].append((await target.write(prompt(), size.n_tokens)).rate)
        for target in found:
            streams = await asyncio.gather(*(target.write(prompt(), size.n_tokens) for _ in range(STREAMS)))
            together[target.name].append(targets.rate_together(streams))
            whole[target.name].append(targets.rate_whole(streams))
    return alone, together, whole


def table(title: str, rates: dict[str, list[float]], bar: float | None) -> bool:
    """Prints rates and ratios; False where our stream misses the bar."""
    print(f"\n  {title:<26}{'tokens/s':>10}{'÷ ' + SERVER:>16}{'÷ ' + BENCH:>16}   rounds, discarded")
    met = True
    for name, values in rates.items():
        kept, against_server = paired(values, rates.get(SERVER))
        _, against_bench = paired(values, rates.get(BENCH))
        line = f"  {name:<26}{statistics.median(values):>10.1f}{shown(against_server):>16}{shown(against_bench):>16}   "
        line += f"{kept}, {len(values) - kept}"
        if name == API and bar is not None and against_server is not None:
            line += f"   ≥ {bar:g} {'ok' if against_server >= bar else 'MISSED'}"
            met = against_server >= bar
        print(line)
    return met


def paired(values: list[float], others: list[float] | None) -> tuple[int, float | None]:
    """How many rounds count, and the median of the ratios in them."""
    if others is None:
        return sum(v > statistics.median(values) / 2 for v in values), None
    floors = statistics.median(values) / 2, statistics.median(others) / 2
    ratios = [v / o for v, o in zip(values, others, strict=True) if v > floors[0] and o > floors[1]]
    return len(ratios), statistics.median(ratios) if ratios else None


def shown(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


async def gap(target: targets.Target, size: Size, *, is_ours: bool) -> bool:
    """A stream's largest gap while another prompt is evaluated, over its median gap; False where ours is above the bar."""
    background = asyncio.create_task(target.write(prompt(), size.n_tokens * 4))
    await asyncio.sleep(0.5)
    loop = asyncio.get_running_loop()
    start = loop.time()
    await target.write(prompt(size.long_prompt), 2)
    seconds = loop.time() - start
    stream = await background
    gaps = [after - before for before, after in pairwise(stream.times)]
    ratio = max(gaps) / statistics.median(gaps)
    verdict = f"   ≤ {GAP_BAR:g} {'ok' if ratio <= GAP_BAR else 'MISSED'}" if is_ours else ""
    print(f"  {target.name:<26}{size.long_prompt} tokens of another prompt in {seconds:.1f} s; gaps: median "
          f"{statistics.median(gaps) * 1000:.1f} ms, largest {max(gaps) * 1000:.0f} ms = {ratio:.1f} of it{verdict}")
    return ratio <= GAP_BAR or not is_ours


def prompt(n: int = PROMPT) -> list[int]:
    """A prompt nobody had before: caches must not help."""
    return [random.randrange(300, VOCAB) for _ in range(n)]


def cores() -> int:
    from loaders.llama_cpp_parts.library import physical_cores
    return physical_cores()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tiny model and few rounds, no bars")
    parser.add_argument("--shapes", nargs="+", default=["125m", "1.1b"], choices=["tiny", "125m", "1.1b"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--api", default="", metavar="URL", help="a running Colloquy with the model, instead of starting one")
    parser.add_argument("--only", default="", choices=["speed", "gap"], help="only the rates, or only the gaps beside a prompt")
    parser.add_argument("--no-app", action="store_true", help="leave our HTTP API out")
    parser.add_argument("--threads", type=int, default=cores(), help="default: one a physical core")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a killed benchmark ends what it started
    if chosen.short:
        shapes, programs = ["tiny"], find_programs()
        size = Size(24, 2, 400, chosen.threads, chosen.only)
    else:
        shapes, programs = chosen.shapes, build_programs()
        size = Size(chosen.tokens, chosen.rounds, 4000, chosen.threads, chosen.only)

    met = [asyncio.run(measure(shape, size, programs, api_url=chosen.api, has_app=not chosen.no_app)) for shape in shapes]
    return 0 if all(met) or chosen.short else 1


if __name__ == "__main__":
    sys.exit(main())
