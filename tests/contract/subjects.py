"""The loaders and quantizations that the suite runs on: one line each; what is absent is skipped by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gguf_quantize import gguf_of
from tests.gptq_play import Style, pack_model
from tests.running_app import RunningApp
from tests.server_play import servers_file
from tests.tiny_models import tiny_hf

SCRIPT = "Once there was a café — naïve, 日本語, 🙂👩‍👩‍👧 — where the old cat slept all day long.\n" * 200
Make = Callable[[Path], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Subject:
    """A loader and a model for it. make(folder) writes the model there, once a package; its path is good within the block.

    options: the loader's options beside `context` and `slots`, which the suite sets itself. what: the row's words in the docs.
    noise: how far one logit moves when the same ids are evaluated in other pieces: about 1.5 times the most that was seen at 192
    positions. Texts may part where that decides between two tokens, and nowhere else (play.assert_agree); 0 allows no difference.
    """

    name: str
    loader: str
    what: str
    make: Make
    options: dict[str, Any] = field(default_factory=dict)
    noise: float = 0.0


def _script(folder: Path) -> AbstractContextManager[Path]:
    path = folder / "script.echo"
    path.write_text(SCRIPT, "utf-8")
    return nullcontext(path)


def _hf(folder: Path) -> AbstractContextManager[Path]:
    return nullcontext(tiny_hf(folder / "tiny"))


def _gguf(kind: str) -> Make:
    return lambda folder: nullcontext(gguf_of(tiny_hf(folder / "tiny"), folder / f"tiny-{kind}.gguf", kind))


def _packed(style: Style) -> Make:
    def make(folder: Path) -> AbstractContextManager[Path]:
        pack_model(tiny_hf(folder / "tiny"), folder / "packed", folder / "unpacked", style)
        return nullcontext(folder / "packed")

    return make


@contextmanager
def _served(folder: Path) -> Iterator[Path]:
    """The tiny GGUF in another Colloquy, and the entry of the servers file that leads there."""
    models = folder / "models"
    models.mkdir()
    gguf_of(tiny_hf(folder / "tiny"), models / "tiny.gguf", "F32")
    with RunningApp(folder / "far", models, "--model", "none") as far:
        far.load("tiny", context=4096, **PLAIN_GGUF)
        file = servers_file(folder, {"name": "far", "base_url": f"{far.url}v1", "model": "tiny", "context": 1024})
        yield Path(f"{file}#far")


# llama.cpp's flash attention differs by 2e-3 between batch sizes, float32 without it by 2e-6: the suite compares texts that
# were written alone with texts written together.
PLAIN_GGUF = {"flash_attention": "off", "kv_type_k": "f32", "kv_type_v": "f32", "threads": 1}
# One thread: two of torch's wait for each other whenever another test has a core.
PLAIN = {"threads": 1, "dtype": "float32"}
DENSE = {**PLAIN, "kernel": "dense"}
# The int4 kernel takes its inputs as bfloat16: another last bit of a float32 sum may round to another number.
INT4 = 0.09

SUBJECTS = [
    Subject("echo", "echo", "no model", _script),
    Subject("gguf", "llama_cpp", "GGUF F32", _gguf("F32"), PLAIN_GGUF),
    Subject("gguf-f16", "llama_cpp", "GGUF F16", _gguf("F16"), PLAIN_GGUF, noise=0.01),
    # Each block of inputs is rounded to 8 bits: another last bit of a sum may move a whole step.
    Subject("gguf-q8_0", "llama_cpp", "GGUF Q8_0", _gguf("Q8_0"), PLAIN_GGUF, noise=0.1),
    Subject("gguf-q4_k_m", "llama_cpp", "GGUF Q4_K_M", _gguf("Q4_K_M"), PLAIN_GGUF, noise=0.3),
    Subject("gguf-q2_k", "llama_cpp", "GGUF Q2_K", _gguf("Q2_K"), PLAIN_GGUF, noise=0.3),
    Subject("safetensors", "transformers", "float32", _hf, PLAIN),
    Subject("safetensors-bf16", "transformers", "bfloat16", _hf, {**PLAIN, "dtype": "bfloat16"}, noise=0.15),
    Subject("safetensors-8bit", "transformers", "bitsandbytes 8-bit", _hf, {**PLAIN, "quantization": "8bit"}, noise=0.35),
    Subject("safetensors-nf4", "transformers", "bitsandbytes nf4, double quantization", _hf, {**PLAIN, "quantization": "4bit"},
            noise=0.06),
    Subject("safetensors-int8", "transformers", "torchao int8", _hf, {**PLAIN, "quantization": "int8"}),
    Subject("gptq", "gptq", "GPTQ 4-bit, asymmetric, act-order; config.json",
            _packed(Style(is_symmetric=False, act_order=True)), PLAIN, noise=INT4),
    Subject("gptq-autogptq", "gptq", "GPTQ 4-bit, symmetric; quantize_config.json, file gptq_model-4bit-32g.safetensors",
            _packed(Style(where="quantize_config.json", weights="gptq_model-4bit-32g.safetensors")), PLAIN, noise=INT4),
    Subject("gptq-no-g_idx", "gptq", "GPTQ 4-bit, asymmetric; GPTQ-for-LLaMa, without g_idx",
            _packed(Style(is_symmetric=False, has_g_idx=False)), PLAIN, noise=INT4),
    Subject("gptq-v2", "gptq", "GPTQ 4-bit, asymmetric; gptq_v2", _packed(Style(is_symmetric=False, version="gptq_v2")), PLAIN,
            noise=INT4),
    Subject("gptq-2bit", "gptq", "GPTQ 2-bit, kernel dense", _packed(Style(bits=2, is_symmetric=False)), DENSE),
    Subject("gptq-3bit", "gptq", "GPTQ 3-bit, kernel dense", _packed(Style(bits=3, is_symmetric=False)), DENSE),
    Subject("gptq-8bit", "gptq", "GPTQ 8-bit, act-order, kernel dense", _packed(Style(bits=8, act_order=True)), DENSE),
    Subject("awq", "gptq", "AWQ 4-bit; config.json", _packed(Style(method="awq", version="gemm", is_symmetric=False)), PLAIN,
            noise=INT4),
    Subject("awq-autoawq", "gptq", "AWQ 4-bit; quant_config.json",
            _packed(Style(method="awq", version="gemm", is_symmetric=False, where="quant_config.json")), PLAIN, noise=INT4),
    Subject("openai_server", "openai_server", "a GGUF F32 on a server (another Colloquy)", _served),
]

# What the suite has no machine or package for, in the docs' table.
NOT_RUN = [
    ("gptq", "GPTQ and AWQ, kernel gptqmodel on a CPU", "needs requirements-gptq.txt"),
    ("gptq", "GPTQ and AWQ, kernel gptqmodel on CUDA", "needs an NVIDIA GPU"),
    ("transformers", "float32, bfloat16, bitsandbytes 8-bit and nf4 on CUDA", "needs an NVIDIA GPU"),
    ("transformers", "float32 on Metal", "needs a Mac"),
    ("llama_cpp", "GGUF on CUDA, Metal or Vulkan", "needs a GPU and a llama.cpp built for it"),
]
