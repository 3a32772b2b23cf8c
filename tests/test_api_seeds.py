"""Seeds over the API: what the answer says of them is so, on each loader."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from modules import registry
from modules.engine import Engine
from modules.models.catalog import Catalog

from .test_api_openai import serving

MODELS = Path(__file__).resolve().parent.parent / "models"


@pytest.mark.parametrize(("loader", "slots", "repeats"), [
    ("transformers", 4, "always"), ("llama_cpp", 4, "alone"), ("llama_cpp", 1, "always")])
async def test_the_answer_says_when_its_seed_repeats_and_it_does(
        tmp_path: Path, loader: str, slots: int, repeats: str) -> None:
    """A seed repeats only at a fixed batch composition where kernels differ by batch size (ggml-org/llama.cpp#7052)."""
    name = "starter-Q8_0.gguf" if loader == "llama_cpp" else "starter"
    engine = Engine(Catalog([MODELS]), registry.find_loaders(), log_dir=tmp_path)
    try:
        await engine.load(name, loader=loader, options={"slots": slots, "threads": 1, "context": 512})
        async with serving(engine) as url, httpx.AsyncClient(base_url=url, timeout=60) as plain:
            async def one(seed: int) -> httpx.Response:
                body = {"prompt": "Once upon a time", "seed": seed, "max_tokens": 24, "temperature": 1.2}
                return await plain.post("/v1/completions", json=body)

            first, again = await one(7), await one(7)
            assert first.headers["x-colloquy-seed"] == "7"
            assert first.headers["x-colloquy-seed-repeats"] == repeats
            assert first.json()["choices"][0]["text"] == again.json()["choices"][0]["text"]
            beside = await asyncio.gather(one(7), one(8), one(9))
            if repeats == "always":
                assert beside[0].json()["choices"][0]["text"] == first.json()["choices"][0]["text"]
    finally:
        await engine.close()
