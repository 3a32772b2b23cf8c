"""How a reply reaches the screen: what it costs the server and the wire, and how fast and how late it is seen in Chromium.

    python -m benchmarks.chat_stream            both tables, a few minutes
    python -m benchmarks.chat_stream --short    less text, about a minute, for CI; only ratios and bytes decide

Ends with 1 where a bar is missed. Server seconds are CPU seconds of this process, so other programs do not count.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

VOCABULARY = ("language model attention gradient because therefore several measurement across distribution token between without "
              "certain structure network training reader question answer memory reason large small through another together")
TOKEN = 4  # characters
RATE = 60  # tokens a second


@dataclass(frozen=True)
class Bar:
    """A measured value and what it must reach; `is_met` says whether it does."""

    name: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def is_absolute(self) -> bool:
        """Whether it depends on the machine and on what else it does, as seconds do and ratios and bytes do not."""
        return self.unit not in ("", "MB")

    def line(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"  {self.name:<42}{self.value:>10.3g} {self.unit:<10}{sign} {self.limit:g}  {'ok' if self.is_met else 'MISSED'}"


def words(rng: random.Random, n: int) -> str:
    return " ".join(rng.choice(VOCABULARY.split()) for _ in range(n))


def code(rng: random.Random, n_lines: int) -> str:
    lines = (f"    total_{n} = f(value[{n}], {rng.random():.3f}, \"{words(rng, 2)}\")  # {words(rng, 1)}" for n in range(n_lines))
    return "```python\n" + "\n".join(lines) + "\n```\n\n"


def table(rng: random.Random, n_rows: int) -> str:
    rows = "".join(f"| {words(rng, 3)} | {words(rng, 3)} | {rng.random():.2f} |\n" for _ in range(n_rows))
    return "| One | Two | Three |\n|---|---|--:|\n" + rows + "\n"


def mix(rng: random.Random, n_words: int) -> str:
    """Prose with six code blocks, one of them 300 lines in 4,000 words, two tables and some LaTeX."""
    parts = []
    for n in range(max(8, n_words // 80)):
        parts.append(f"{words(rng, 30)} **{words(rng, 2)}** and `{words(rng, 1)}`, so $x^2$. {words(rng, 44)}.\n\n")
        if n % 8 == 3:
            parts.append(code(rng, n_words * 3 // 40 if n == 11 else 12))
        if n % 24 == 5:
            parts.append(table(rng, 12) + "$$\n\\sum_{i=0}^n \\frac{a_i}{b_i}\n$$\n\n")
    return "".join(parts)


def cases(n_words: int) -> dict[str, str]:
    rng = random.Random(1)
    return {"mix": mix(rng, n_words), "fence": code(rng, n_words // 5),
            "list": "".join(f"- {words(rng, 13)}\n" for _ in range(n_words // 13)), "table": table(rng, n_words // 7),
            "paragraph": words(rng, n_words)}


def wire(n_words: int) -> Iterator[Bar]:
    """CPU and bytes of each case at 60 tokens a second, with the clock injected."""
    from modules.ui.blocks import LiveBlocks

    for name, text in cases(n_words).items():
        live, sent, began = LiveBlocks(), 0, time.process_time()
        frames = 0
        for n, begin in enumerate(range(0, len(text), TOKEN)):
            live.feed(text[begin:begin + TOKEN])
            updates = live.render(n / RATE)
            if updates:
                frames += 1
                frame = {"v": frames, "text": [len(live.blocks), [[u.index, u.keep, u.append] for u in updates]]}
                sent += len(json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode())
        last = live.finish()
        sent += sum(len(u.append.encode()) for u in last)
        share = n_words / 4000
        seconds = time.process_time() - began
        print(f"  {name}: {len(text):,} characters, {frames} frames, HTML {sum(map(len, live.blocks)):,}")
        yield Bar(f"{name}: bytes on the wire", sent / 1e6, (1.0 if name == "mix" else 1.5) * share, "MB")
        yield Bar(f"{name}: server CPU", seconds, (2.0 if name == "mix" else 8.0) * share, "s")


def report(title: str, bars: Iterator[Bar], *, is_short: bool) -> bool:
    """Print every bar; the short mode, which runs on machines that do other things, is decided by ratios and bytes alone."""
    print(title, flush=True)
    is_met = True
    for bar in bars:
        print(bar.line(), flush=True)
        is_met &= bar.is_met or (is_short and bar.is_absolute)
    return is_met


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="How a reply reaches the screen.")
    parser.add_argument("--short", action="store_true", help="less text, about a minute; only ratios and bytes decide")
    parser.add_argument("--only", choices=("wire", "browser"), help="only one of the two tables")
    options = parser.parse_args(arguments)
    tables: list[tuple[str, str, Callable[[], Iterator[Bar]]]] = [
        ("wire", "Server and wire, 60 tokens a second, clock injected", lambda: wire(500 if options.short else 4000))]
    from benchmarks.chat_stream_browser import browser_bars, chromium_path

    if chromium_path():
        tables.append(("browser", "Chromium, the whole app, Echo", lambda: browser_bars(short=options.short)))
    else:
        print("No Chromium here: the browser's table is left out.")
    results = [report(title, make(), is_short=options.short) for name, title, make in tables if options.only in (None, name)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
