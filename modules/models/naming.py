"""What a model's name tells: size, quantization, whether it was taught to chat; what its header says wins over it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_SPLIT = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$|$)", re.IGNORECASE)
_SIZE = re.compile(r"(?<![0-9.])(\d+x)?(\d+(?:\.\d+)?(?=[bm])|\d{3}(?=k))([bmk])(?![a-z0-9])", re.IGNORECASE)  # 16k: a context
_QUANTIZATION = re.compile(
    r"(?<![a-z0-9])(i?q[1-8]_[0-9a-z]+(?:_[a-z]+)?|bf16|f16|f32|mxfp4|nvfp4|tq[12]_0|bnb(?:-[48]bit)?|nf4|gptq|awq|exl[23](?:-[0-9.]+bpw)?|"
    r"\d-?bit(?:-\d+g)?)(?![a-z0-9])", re.IGNORECASE)
QUANTIZATION_AT_END = re.compile(rf"[-_. ]+{_QUANTIZATION.pattern}$", re.IGNORECASE)
_ACT_ORDER = re.compile(r"(?<![a-z0-9])(act-?order|desc-?act|\d+g)(?![a-z0-9])", re.IGNORECASE)
_FORMAT = re.compile(r"(?<![a-z0-9])(gguf|hf|safetensors|imatrix|i1)(?![a-z0-9])", re.IGNORECASE)
_INSTRUCT = re.compile(r"(?<![a-z])(instruct|chat|it|sft|dpo|thinking|reasoning|assistant)(?![a-z])", re.IGNORECASE)
_BASE = re.compile(r"(?<![a-z])(base|pretrained|pt)(?![a-z])", re.IGNORECASE)


# Model families that others are fine-tuned from; a name that begins with one is that family's own.
_FAMILIES = {"llama": "Llama", "mistral": "Mistral", "mixtral": "Mixtral", "qwen": "Qwen", "gemma": "Gemma", "phi": "Phi",
             "deepseek": "DeepSeek", "yi": "Yi", "falcon": "Falcon", "olmo": "OLMo", "granite": "Granite", "command": "Command",
             "smollm": "SmolLM", "glm": "GLM", "mpt": "MPT", "pythia": "Pythia", "stablelm": "StableLM", "solar": "SOLAR"}
_MAKERS = ("", "meta-", "google-", "microsoft-", "ibm-", "c4ai-")  # what may stand before a family's own name
_FAMILY = re.compile(rf"(?<![a-z])({'|'.join(_FAMILIES)})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class NameFacts:
    """n_params is 0, quantization, kind and base are "" where the name does not say.

    kind is instruct or base; base is the family that a fine-tune names after its own name.
    """

    n_params: int
    quantization: str
    kind: str
    base: str = ""


def decode(name: str) -> NameFacts:
    """`CapybaraHermes-2.5-Mistral-7B.Q5_K_M.gguf` -> 7,000,000,000 parameters, Q5_K_M, a fine-tune of Mistral."""
    sizes = _SIZE.findall(name)
    n_params = 0
    if sizes:
        experts, number, unit = sizes[0]
        n_params = int(float(number) * {"b": 1e9, "m": 1e6, "k": 1e3}[unit.lower()]) * int(experts[:-1] or 1 if experts else 1)
    quantization = _QUANTIZATION.search(name)
    kind = "instruct" if _INSTRUCT.search(name) else "base" if _BASE.search(name) else ""
    last = PurePosixPath(name).name.lower()
    named = _FAMILY.search(last)
    base = _FAMILIES[named[1]] if named and last[:named.start()] not in _MAKERS else ""
    return NameFacts(n_params, quantization[1].upper() if quantization else "", kind, base)


def family(name: str) -> str:
    """What variants of one model have in common: the last part of the name without quantization and format, in small letters."""
    last = PurePosixPath(name).name.lower().removesuffix(".gguf")
    kept = _FORMAT.sub("-", _ACT_ORDER.sub("-", _QUANTIZATION.sub("-", last)))
    return re.sub(r"[-_. ]+", "-", kept).strip("-")


def plain_name(relative: PurePosixPath, *, is_file: bool) -> str:
    """A path within a model folder as people call the model: no suffix or part number, no folder that repeats the file's name."""
    if not is_file:
        return str(relative)
    stem = relative.name[:-len(relative.suffix)] if relative.suffix else relative.name
    stem = _SPLIT.sub("", stem)
    folder = relative.parent
    return str(folder) if folder.name.lower() == stem.lower() else str(folder / stem)
