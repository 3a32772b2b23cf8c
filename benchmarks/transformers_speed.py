"""Our Transformers loader, through its worker process, beside generate() on the same model: ratios of paired runs.

    python -m benchmarks.transformers_speed            a 125 M Llama, float32
    python -m benchmarks.transformers_speed --short    a 5 M one, under a minute, exits with 1 below the bar

Each pair evaluates a prompt and writes greedily, first one then the other, in turns; a ratio over 1 means ours is faster.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.transformers_hf import SPEC
from modules.core.loader import Prefilled, Token
from modules.core.params import GenerationParams
from modules.worker.client import WorkerClient

VOCAB = 4096
BAR = 0.9  # aim 1.0; the machine alone moves a pair by a tenth


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int


@dataclass(frozen=True)
class Times:
    """Seconds until the first token, and from the first to the last one; tokens counted as they came."""

    first: float
    rest: float
    n_tokens: int

    @property
    def rate(self) -> float:
        return (self.n_tokens - 1) / self.rest


def write_model(folder: Path, shape: Shape, context: int) -> Path:
    """A random Llama of this shape as a Hugging Face folder, float32, with a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=shape.hidden, intermediate_size=shape.feed_forward,
                         num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
                         max_position_embeddings=context, bos_token_id=0, eos_token_id=1, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*alphabet, "th"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h")]))  # llama.cpp loads none without a merge
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


async def ours(worker: WorkerClient, prompt: list[int], n_tokens: int, run: str) -> Times:
    """One run through the worker; its prompt is new to the cache."""
    ended = asyncio.get_running_loop().create_future()
    came: list[float] = []

    def sink(events: list[Any], at: float) -> None:
        now = time.perf_counter()
        for event in events:
            if isinstance(event, Token):
                came.append(now)
            elif not isinstance(event, Prefilled) and hasattr(event, "error"):
                ended.set_exception(event.error)
            if isinstance(event, Token) and event.finish:
                ended.set_result(None)

    started = time.perf_counter()
    worker.add(run, prompt, GenerationParams(temperature=0, max_tokens=n_tokens, ban_eos=True), run, sink)
    await ended
    return Times(came[0] - started, came[-1] - came[0], len(came))


def theirs(model: Any, prompt: list[int], n_tokens: int) -> Times:
    """generate(), with a streamer that takes the times."""
    import torch

    came: list[float] = []

    class Clock:
        def put(self, value: Any) -> None:
            came.append(time.perf_counter())

        def end(self) -> None:
            return

    started = time.perf_counter()
    model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
                   max_new_tokens=n_tokens, min_new_tokens=n_tokens, pad_token_id=0, streamer=Clock())
    came = came[1:]  # the first is the prompt
    return Times(came[0] - started, came[-1] - came[0], len(came))


async def together(worker: WorkerClient, prompts: list[list[int]], n_tokens: int, name: str) -> float:
    """Tokens a second of several runs at once."""
    started = time.perf_counter()
    times = await asyncio.gather(*[ours(worker, prompt, n_tokens, f"{name}-{n}") for n, prompt in enumerate(prompts)])
    return sum(one.n_tokens for one in times) / (time.perf_counter() - started)


def say(name: str, ratios: list[float], ours_told: str, theirs_told: str) -> float:
    middle = statistics.median(ratios)
    print(f"{name:34s} {ours_told:>16s} {theirs_told:>16s} {middle:8.2f}   {min(ratios):.2f} to {max(ratios):.2f}")
    return middle


async def measure(folder: Path, n_pairs: int, n_tokens: int, lengths: tuple[int, ...], threads: int) -> bool:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    if threads:
        torch.set_num_threads(threads)
    options = {**{name: knob.default for name, knob in SPEC.options.items()}, "threads": torch.get_num_threads()}
    worker = await WorkerClient.start(loader=SPEC.name, path=str(folder), options=options, log_path=folder / "worker.log",
                                      on_progress=lambda fraction, text: None)
    model = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True).eval()
    chance = np.random.default_rng(0)

    def prompt(length: int) -> list[int]:
        return [int(id_) for id_ in chance.integers(2, 250, length)]

    print(f"{f'{torch.get_num_threads()} threads':34s} {'ours':>16s} {'generate()':>16s}    ratio   range of {n_pairs} pairs")
    is_fast = True
    for length in lengths:
        await ours(worker, prompt(length), 8, f"warm-{length}")
        theirs(model, prompt(length), 8)
        pairs = []
        for n in range(n_pairs):
            mine = await ours(worker, prompt(length), n_tokens, f"{length}-{n}")
            pairs.append((mine, theirs(model, prompt(length), n_tokens)))
        rates = [f"{statistics.median(times.rate for times in side):.1f} tok/s" for side in zip(*pairs, strict=True)]
        middle = say(f"decode after {length} tokens", [a.rate / b.rate for a, b in pairs], *rates)
        is_fast = is_fast and middle >= BAR
        firsts = [f"{statistics.median(times.first for times in side) * 1e3:.0f} ms" for side in zip(*pairs, strict=True)]
        say(f"first token after {length} tokens", [b.first / a.first for a, b in pairs], *firsts)
    alone = (await ours(worker, prompt(lengths[0]), n_tokens, "alone")).rate
    four = await together(worker, [prompt(lengths[0]) for _ in range(4)], n_tokens, "four")
    print(f"{'four runs at once':34s} {four:10.1f} tok/s, {four / alone:.2f} of one alone")
    await worker.close()
    return is_fast


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a small model and few pairs")
    parser.add_argument("--threads", type=int, default=0, help="for both sides; 0 is PyTorch's choice, in short mode 1")
    given = parser.parse_args()
    shape = Shape(6, 256, 768, 4, 2) if given.short else Shape(12, 768, 2048, 12, 12)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), shape, 4096)
        is_fast = asyncio.run(measure(Path(folder), 5 if given.short else 7, 48 if given.short else 96,
                                      (32, 512) if given.short else (32, 2048), given.threads or int(given.short)))
    if not is_fast:
        print(f"below the bar: decoding must reach {BAR} of generate()'s speed")
    return 0 if is_fast else 1


if __name__ == "__main__":
    sys.exit(main())
