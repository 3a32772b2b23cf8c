"""The numbers of every variant of the starter model are the library's own: perplexities through our `logits` and without us."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import perplexity

PACKAGES = {"transformers": ("torch", "transformers", "bitsandbytes"), "llama_cpp": ("llama_cpp",)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600),
              pytest.mark.skipif(not (perplexity.STARTER / "model.safetensors").exists(), reason="the starter is not here")]


@pytest.fixture(scope="module")
def texts() -> list[perplexity.Text]:
    return perplexity.windows()


@pytest.mark.parametrize("name", perplexity.VARIANTS)
def test_the_perplexity_is_what_the_library_alone_computes(name: str, texts: list[perplexity.Text], tmp_path: Path) -> None:
    """To a thousandth of it; over 2,000 tokens are scored, and a starter that was broken would be surprised by them."""
    variant = perplexity.VARIANTS[name]
    for package in PACKAGES[variant.loader]:
        pytest.importorskip(package)
    path = perplexity.model_path(variant, tmp_path)
    ours, library = (perplexity.measure(name, side, path, texts) for side in perplexity.SIDES)
    assert ours == pytest.approx(library, rel=perplexity.BAR)
    assert 1 < library < 10


def test_over_two_thousand_tokens_are_scored(texts: list[perplexity.Text]) -> None:
    assert sum(len(text.scored) for text in texts) >= 2000
    assert all(len(text.ids) <= perplexity.WINDOW and min(text.scored) > 0 for text in texts)
