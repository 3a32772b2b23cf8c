"""A short list to begin with: well-known GGUF repositories under permissive licences, by what they take in memory."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.loader import ModelFile
from .forecast import forecast
from .hub_files import CHAT_CONTEXT


@dataclass(frozen=True)
class Recommended:
    """One repository. Sizes are reckoned from n_params and bits_per_weight, with no look at the hub.

    What really lies there is asked, and shown, before anything is fetched.
    """

    repo: str
    quantization: str
    n_params: int
    bits_per_weight: float  # of the quantization, its scales and the larger types of some layers included
    licence: str
    about: str

    @property
    def size(self) -> int:
        """Bytes of the file, about."""
        return int(self.n_params * self.bits_per_weight / 8)

    @property
    def needed_bytes(self) -> int:
        """Memory with a context for a chat, about."""
        file = ModelFile(self.repo, "", "gguf", self.size, n_params=self.n_params)
        return forecast(file, {"context": CHAT_CONTEXT}).total_bytes


RECOMMENDED = (
    Recommended("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "Q8_0", 494_000_000, 8.5, "Apache-2.0", "tiny; to try things out"),
    Recommended("Qwen/Qwen3-0.6B-GGUF", "Q8_0", 596_000_000, 8.5, "Apache-2.0", "tiny; thinks before it answers"),
    Recommended("HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "Q4_K_M", 1_710_000_000, 4.9, "Apache-2.0", "small; English"),
    Recommended("Qwen/Qwen3-1.7B-GGUF", "Q8_0", 1_720_000_000, 8.5, "Apache-2.0", "small; many languages"),
    Recommended("ibm-granite/granite-3.3-2b-instruct-GGUF", "Q4_K_M", 2_530_000_000, 4.9, "Apache-2.0", "small; tools"),
    Recommended("Qwen/Qwen3-4B-GGUF", "Q4_K_M", 4_020_000_000, 4.9, "Apache-2.0", "for laptops; many languages"),
    Recommended("allenai/OLMo-2-1124-7B-Instruct-GGUF", "Q4_K_M", 7_300_000_000, 4.9, "Apache-2.0", "open training data"),
    Recommended("Qwen/Qwen3-8B-GGUF", "Q4_K_M", 8_190_000_000, 4.9, "Apache-2.0", "a good middle; many languages"),
    Recommended("Qwen/Qwen3-14B-GGUF", "Q4_K_M", 14_800_000_000, 4.9, "Apache-2.0", "for 16 GB and more"),
    Recommended("ggml-org/gpt-oss-20b-GGUF", "MXFP4", 20_900_000_000, 4.7, "Apache-2.0", "fast for its size"),
    Recommended("Qwen/Qwen3-30B-A3B-GGUF", "Q4_K_M", 30_500_000_000, 4.9, "Apache-2.0", "fast for its size"),
    Recommended("Qwen/Qwen3-32B-GGUF", "Q4_K_M", 32_800_000_000, 4.9, "Apache-2.0", "for 24 GB and more"),
)


def best_first(room: int) -> list[Recommended]:
    """What fits into `room` bytes of memory, the largest first, then what does not, the smallest first."""
    fitting = [one for one in RECOMMENDED if one.needed_bytes <= room]
    return [*reversed(fitting), *(one for one in RECOMMENDED if one not in fitting)]
