"""What a model file is and what it needs, in sentences for a person who chooses among many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.loader import LoaderSpec, ModelFile
from .forecast import Forecast, forecast
from .memory import default_options
from .naming import decode, family

ALIKE = 0.1  # variants of one model differ by less in their number of parameters: some keep the output matrix twice
_K = re.compile(r"Q(\d)_K(?:_(XS|S|M|L|XL))?")
_I = re.compile(r"IQ(\d)_(XXS|XS|S|M|NL|XL)")
_OLD = re.compile(r"Q(\d)_[01]")
_PACKED = re.compile(r"(GPTQ|AWQ|EXL2|EXL3|bnb) ?([\d.]+)?(?:-bit)?(?: g(\d+))?")
_SIZES = {"XXS": "smallest", "XS": "very small", "S": "small", "M": "medium", "L": "large", "XL": "very large",
          "NL": "evenly spread"}
_PLAIN = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_FLOATS = {"FP8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "MXFP4": 4, "NVFP4": 4, "MXFP4_MOE": 4}
_NAMES = {"bnb": "bitsandbytes"}
# As people who compare models of 7 B parameters and more find it; smaller models lose more. Nothing here has been measured.
_LOSS = {8: "practically no loss", 6: "hardly any loss", 5: "very small loss", 4: "small loss", 3: "noticeable loss",
         2: "strong loss", 1: "very strong loss"}


@dataclass(frozen=True)
class Quantization:
    """bits a weight, 0 where unknown; words for a newcomer; what it costs in quality, "" where nobody can say."""

    bits: float
    words: str
    loss: str


def quantization(name: str) -> Quantization:
    """What a quantization's name means: `Q4_K_M` is 4-bit, medium K-quant, small loss."""
    if name in _PLAIN:
        return Quantization(_PLAIN[name], f"{_PLAIN[name]}-bit, not quantized", "")
    if name in _FLOATS:
        return Quantization(_FLOATS[name], f"{_FLOATS[name]}-bit floating point", _LOSS[_FLOATS[name]])
    if found := _K.fullmatch(name):
        size = f"{_SIZES[found[2]]} " if found[2] else ""
        return Quantization(int(found[1]), f"{found[1]}-bit, {size}K-quant", _LOSS.get(int(found[1]), ""))
    if found := _I.fullmatch(name):
        return Quantization(int(found[1]), f"{found[1]}-bit, {_SIZES[found[2]]} i-quant", _LOSS.get(int(found[1]), ""))
    if found := _OLD.fullmatch(name):
        bits = int(found[1])
        return Quantization(bits, "8-bit" if bits == 8 else f"{bits}-bit, the old kind", _LOSS[8] if bits == 8 else "some loss")
    if name.startswith(("TQ1", "TQ2")):
        return Quantization(2, "ternary, for models trained so", "")
    if (found := _PACKED.fullmatch(name)) and found[2]:
        width, groups = float(found[2]), f", groups of {found[3]}" if found[3] else ""
        return Quantization(width, f"{found[2]}-bit {_NAMES.get(found[1], found[1])}{groups}", _LOSS.get(round(width), ""))
    return Quantization(0, name, "")


def sentence(file: ModelFile) -> str:
    """`4-bit, medium K-quant: 4.9 GB, small loss.`; what speaks against the file where something does."""
    if file.problem:
        return file.problem
    if file.format == "echo":
        return "No model: it plays a text."
    if file.format == "server":
        return f"On the server {file.source}. Numbers of tokens are estimates (≈) until it tells its own."
    found = quantization(file.quantization)
    words = f"{found.words}: " if found.words else ""
    source = f" It belongs to {file.source}." if file.source else ""
    return f"{words}{size_words(file.size_bytes)}{', ' if found.loss else ''}{found.loss}.{source}"


def introduction(file: ModelFile) -> str:
    """`A fine-tune of Mistral with 7.2 billion parameters, made for chat.` The header goes before the name."""
    if file.problem or not file.has_weights:
        return ""
    named = decode(file.name)
    n_params = file.n_params or named.n_params
    count = f"{n_params / 1e9:.1f} billion" if n_params >= 1e9 else f"{n_params / 1e6:.1f} million"
    what = f"A fine-tune of {named.base}" if named.base else "A model"
    if named.kind == "base":
        purpose = ": a base model, which continues text and was not made for chat"
    else:
        purpose = ", made for chat" if file.chat_template or named.kind == "instruct" else ", without a chat template of its own"
    return f"{what}{f' with {count} parameters' if n_params else ''}{purpose}."


def size_words(n_bytes: int) -> str:
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"


def variants(file: ModelFile, files: Sequence[ModelFile]) -> list[ModelFile]:
    """The same model in other formats and quantizations, itself among them, the largest first; broken ones are left out."""
    name = family(file.name)
    found = [other for other in files if not other.problem and family(other.name) == name
             and abs(other.n_params - file.n_params) <= ALIKE * file.n_params]
    return sorted(found, key=lambda other: -other.size_bytes)


def advice(file: ModelFile, files: Sequence[ModelFile], specs: dict[str, LoaderSpec], free_ram: int, free_vram: int) -> str:
    """What loading the file will take beside what is free, and which of its variants is the largest that fits.

    specs: the loader of each file by its name; a file without one is not spoken of.
    """
    if not file.has_weights or file.name not in specs:
        return ""
    needs, context = _needs(file, specs[file.name], free_ram, free_vram)
    parts = [f"Loading it takes about {size_words(needs.total_bytes)}: weights {size_words(needs.weights_bytes)}, a context of "
             f"{context:,} tokens {size_words(needs.kv_bytes)}, computing {size_words(needs.compute_bytes)}."]
    free = f"{size_words(free_ram)} of memory" + (f" and {size_words(free_vram)} on the GPU" if free_vram else "")
    room = max(free_ram, free_vram)
    parts.append(f"{free} {'are' if free_vram else 'is'} free{'' if needs.total_bytes <= room else ': that is too little'}.")
    others = [other for other in variants(file, files) if other.name in specs]
    fitting = [other for other in others if _needs(other, specs[other.name], free_ram, free_vram)[0].total_bytes <= room]
    if len(others) > 1:
        parts.append(f"Of its {len(others)} variants here none fits." if not fitting else
                     f"It is the largest of its {len(others)} variants here that fits." if fitting[0] == file else
                     f"The largest of its {len(others)} variants here that fits is {fitting[0].name}.")
    return " ".join(parts)


def _needs(file: ModelFile, spec: LoaderSpec, free_ram: int, free_vram: int) -> tuple[Forecast, int]:
    """The forecast with the options that the machine would choose, and the context among them."""
    options = {name: knob.default for name, knob in spec.options.items()} | default_options(file, spec, free_ram, free_vram)
    return forecast(file, options), int(options.get("context", 0))
