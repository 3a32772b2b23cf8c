"""What a model can be made into, how large the result will be, and why some models cannot be made into some of it."""

from __future__ import annotations

import importlib.util
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import AppError, BadRequest
from ..core.loader import ModelFile
from ..store.gguf_header import BadHeader, GgufHeader, read_gguf
from . import explain, naming
from .architectures import ARCHITECTURES
from .weights import sources

Via = Literal["gguf", "bnb", "gptq"]
OUTPUT_BITS = 6.5625     # the output matrix is Q6_K in every smaller type
ROW = 256                # weights in a row must be a multiple, or llama.cpp takes the next wider type
GPTQ_GROUP = 128
WHOLE = {"F32": 32, "F16": 16, "BF16": 16, "Q8_0": 8.5}
PIECE_BYTES = 60         # of a header, for each piece of the vocabulary with its merge, about
GPTQ_COMMAND = "pip install -r requirements-gptq.txt"


@dataclass(frozen=True)
class Target:
    """bits a weight of the layers' matrices, scales counted, as llama.cpp mixes them over 32 layers; embedding: of that matrix.

    uneven: bits where rows are no multiple of 256. words: what stands beside its name.
    """

    name: str
    via: Via
    bits: float
    embedding: float
    uneven: float
    words: str

    @property
    def is_whole(self) -> bool:
        """Whether our converter writes it by itself."""
        return self.name in WHOLE


def _gguf(name: str, bits: float, embedding: float, uneven: float = 0) -> Target:
    found = explain.quantization(name)
    return Target(name, "gguf", bits, embedding, uneven or bits, f"{found.words}{', ' if found.loss else ''}{found.loss}")


_ALL = (
    _gguf("Q4_K_M", 4.791, 4.5, 5.7), _gguf("Q8_0", 8.5, 8.5), _gguf("Q6_K", 6.5625, 6.5625, 8.5),
    _gguf("Q5_K_M", 5.65, 5.5, 6.4), _gguf("Q5_K_S", 5.5, 5.5, 6.0),
    _gguf("Q5_1", 6.0, 6.0), _gguf("Q5_0", 5.5, 5.5), _gguf("Q4_K_S", 4.535, 4.5, 5.5),
    _gguf("Q4_1", 5.0, 5.0), _gguf("Q4_0", 4.5, 4.5), _gguf("IQ4_NL", 4.554, 4.5), _gguf("IQ4_XS", 4.318, 4.25, 4.6),
    _gguf("Q3_K_L", 4.2, 3.4375, 4.9), _gguf("Q3_K_M", 3.848, 3.4375, 4.8), _gguf("Q3_K_S", 3.438, 3.4375, 4.5),
    _gguf("IQ3_M", 3.588, 3.4375, 4.6), _gguf("IQ3_S", 3.461, 3.4375, 4.5), _gguf("Q2_K", 2.948, 2.625, 4.5),
    _gguf("BF16", 16, 16), _gguf("F16", 16, 16), _gguf("F32", 32, 32),
    Target("NF4", "bnb", 4.127, 16, 4.127, "4-bit bitsandbytes, small loss; for Transformers"),
    Target("GPTQ-4", "gptq", 4.25, 16, 4.25, "4-bit GPTQ in groups of 128, small loss; for GPUs; takes long"))
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}


def find_target(name: str) -> Target:
    """By its name in any case; raises BadRequest naming them all, or why llama.cpp's type is none of them."""
    wanted = name.strip().upper().replace("-", "_")
    for target in _ALL:
        if target.name.replace("-", "_") == wanted:
            return target
    reason = ""
    if re.fullmatch(r"IQ[12]_\w+|IQ3_(XXS|XS)|Q2_K_S", wanted):
        reason = f" {wanted} needs an importance matrix, which Colloquy does not make."
    elif wanted.startswith("TQ"):
        reason = f" {wanted} is for models that were trained with three values a weight."
    raise BadRequest(f"There is no type {name[:40]!r} to convert to; choose one of {', '.join(TARGETS)}.{reason}", param="type")


def refusal(file: ModelFile, target: Target | None = None) -> str:
    """Why this model cannot be made into the target, or into anything; "" where nothing is known to speak against it."""
    if file.problem or file.format not in ("gguf", "safetensors"):
        return file.problem or f"{file.name} is a {file.format} model; GGUF files and folders with safetensors can be converted."
    if file.format == "gguf":
        if file.quantization not in WHOLE:
            return (f"{file.name} is quantized to {file.quantization or 'an unknown type'} already. Quantizing it again would "
                    "lose more than the name of the result tells: take F32, F16, BF16 or Q8_0, or the model's own folder.")
        if target is not None and target.via != "gguf":
            return f"{target.name} is made from the model's own folder with safetensors, not from a GGUF file."
        if target is not None and target.bits >= WHOLE[file.quantization]:
            return f"{file.name} is {file.quantization}: as {target.name} it would be no smaller, and no better."
        return ""
    if file.quantization not in ("F64", "F32", "F16", "BF16"):
        return (f"{file.name} is quantized ({file.quantization or 'unknown'}) already, so it cannot be converted; take the "
                "folder that it was made from.")
    if target is not None and target.via == "gguf" and file.architecture not in ARCHITECTURES:
        return (f"{file.name} is a {file.architecture}; these become GGUF files: {', '.join(ARCHITECTURES)}. Load the folder "
                "with Transformers instead.")
    return ""


def missing(target: Target) -> str:
    """Which package is not installed that making this needs, with the command; "" where nothing lacks."""
    packages, command = {"gguf": (("llama_cpp", "gguf"), "python3 start.py install"),
                         "bnb": (("torch", "transformers", "bitsandbytes"), "pip install -r requirements.txt"),
                         "gptq": (("gptqmodel", "optimum"), GPTQ_COMMAND)}[target.via]
    lacking = [name for name in packages if importlib.util.find_spec(name) is None
               and not (name == "llama_cpp" and target.is_whole)]
    return f"{target.name} needs {' and '.join(lacking)}, which is not installed. Run: {command}" if lacking else ""


@dataclass(frozen=True)
class Amounts:
    """Numbers of weights: in matrices of the layers, in the embedding, in an output matrix of its own (0 where tied), in vectors.

    vocabulary: pieces. stored: bits of most weights as they are.
    """

    layers: int
    embedding: int
    output: int
    vectors: int
    vocabulary: int
    is_even: bool
    stored: float


def amounts(file: ModelFile) -> Amounts:
    """Read from headers only. Raises AppError where they are broken."""
    if file.format == "gguf":
        try:
            return _of_header(read_gguf(Path(file.path)), file)
        except (BadHeader, OSError) as error:
            raise AppError(f"{file.name} cannot be read: {error}.") from error
    layers = embedding = output = vectors = vocabulary = 0
    is_even, stored = True, 16.0
    for source in sources(Path(file.path)):
        n = math.prod(source.shape)
        if len(source.shape) < 2:
            vectors += n
        elif "embed_tokens" in source.name:
            embedding += n
            vocabulary = source.shape[0]
        elif source.name.startswith("lm_head"):
            output += n
        else:
            layers += n
            is_even = is_even and source.shape[-1] % ROW == 0
        stored = max(stored, {"F32": 32.0, "F64": 32.0}.get(source.dtype, 16.0) if len(source.shape) > 1 else 16.0)
    return Amounts(layers, embedding, output, vectors, vocabulary, is_even, stored)


def _of_header(header: GgufHeader, file: ModelFile) -> Amounts:
    def number(key: str) -> int:
        value = header.values.get(f"{file.architecture}.{key}", 0)
        return value if isinstance(value, int) and 0 < value < 1 << 31 else 0

    tokens = header.values.get("tokenizer.ggml.tokens", 0)
    vocabulary = number("vocab_size") or (tokens if isinstance(tokens, int) else len(tokens))
    hidden, feed_forward = number("embedding_length"), number("feed_forward_length")
    embedding = hidden * vocabulary
    rest = max(file.n_params - embedding, 0)
    heads, kv_heads, head = number("attention.head_count"), number("attention.head_count_kv"), number("attention.key_length")
    head = head or (hidden // heads if heads else 0)
    inside = file.layers * hidden * (2 * heads * head + 2 * (kv_heads or heads) * head + 3 * feed_forward)
    output = embedding if rest - inside > embedding // 2 else 0
    is_even = hidden % ROW == 0 and (heads * head) % ROW == 0 and feed_forward % ROW == 0
    return Amounts(max(rest - output, 0), min(embedding, file.n_params), output, 0, vocabulary, is_even,
                   WHOLE.get(file.quantization, 16))


def forecast_bytes(found: Amounts, target: Target) -> int:
    """About how large the result will be; within a tenth for models of usual proportions."""
    layer_bits = target.bits if found.is_even else target.uneven
    if target.via != "gguf":
        return int((found.layers * layer_bits + (found.embedding + found.output + found.vectors) * 16) / 8)
    head_bits = max(target.bits, OUTPUT_BITS) if not target.is_whole else target.bits
    embedding_bits = target.embedding if found.output else head_bits
    bits = found.layers * layer_bits + found.embedding * embedding_bits + found.output * head_bits + found.vectors * 32
    return int(bits / 8) + found.vocabulary * PIECE_BYTES


def scratch_bytes(file: ModelFile, found: Amounts, target: Target) -> int:
    """What lies on the disk beside the result while it is made: the whole GGUF file between a folder and a smaller type."""
    if file.format == "gguf" or target.via != "gguf" or target.is_whole:
        return 0
    return forecast_bytes(found, TARGETS["F32" if found.stored == 32 else "F16"])


def result_name(file: ModelFile, target: Target) -> str:
    """`model-F16` and `model` become `model-Q4_K_M`; without a suffix."""
    last = Path(file.path).name
    stem = last[:-5] if file.format == "gguf" and last.lower().endswith(".gguf") else last
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", stem)
    plain = re.sub(r"[-_.](bf16|f16|f32|fp16|fp32|q8_0)(?![a-z0-9])", "", stem, flags=re.IGNORECASE)
    plain = plain if naming.family(plain) == naming.family(stem) else stem
    return f"{plain}-{ {'bnb': 'bnb-4bit', 'gptq': 'GPTQ-4bit'}.get(target.via, target.name)}"
