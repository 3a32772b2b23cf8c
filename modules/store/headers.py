"""What a model file or folder is, read from its headers alone; whatever is broken becomes a sentence, never an exception."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import NotFound
from ..core.loader import FileFormat, ModelFile
from .gguf_header import FILE_TYPES, BadHeader, GgufHeader, read_gguf
from .hf_folder import PICKLE_PROBLEM, PICKLE_SUFFIXES, read_adapter, read_folder, read_loose_safetensors
from .safetensors_header import LFS_PROBLEM, LFS_START

_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
MAX_PARTS = 1000


def read_model(path: Path | str, name: str = "") -> ModelFile:
    """The model at `path`: a GGUF file (any part of a split one), a Hugging Face folder, or something recognised with a problem.

    Reads headers only, bounded by the file's size; for blocking use in a thread. Raises NotFound where nothing is there.
    """
    path = Path(path)
    name = name or path.name
    try:
        if path.is_dir():
            return _read_dir(path, name)
        if not path.exists():
            raise NotFound(f"There is no model at {path}.")
        return _read_file(path, name)
    except OSError as error:
        return ModelFile(name, str(path), "unknown", problem=f"It cannot be read: {error.strerror or error}.")


def split_parts(path: Path) -> list[Path]:
    """All parts of the split GGUF that `path` is one of, first to last, present or not; only `path` where it is not split."""
    match = _SPLIT.fullmatch(path.name)
    if match is None or not 1 <= int(match[3]) <= MAX_PARTS:
        return [path]
    return [path.with_name(f"{match[1]}-{n:05d}-of-{match[3]}.gguf") for n in range(1, int(match[3]) + 1)]


def _read_dir(path: Path, name: str) -> ModelFile:
    if (path / "adapter_config.json").is_file():
        return read_adapter(path, name)
    gguf = {split_parts(entry)[0] for entry in path.iterdir() if entry.suffix.lower() == ".gguf" and entry.is_file()}
    if len(gguf) == 1 and not (path / "config.json").is_file():
        return _read_file(gguf.pop(), name)
    return read_folder(path, name)


def _read_file(path: Path, name: str) -> ModelFile:
    if not path.is_file():
        return ModelFile(name, str(path), "unknown", problem="It is neither a file nor a folder.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(256)
    suffix = path.suffix.lower()
    plain = ModelFile(name, str(path), "unknown", size)
    if start.startswith(LFS_START):
        kind: FileFormat = "gguf" if suffix == ".gguf" else "safetensors" if suffix == ".safetensors" else "unknown"
        return replace(plain, format=kind, problem=LFS_PROBLEM)
    if suffix == ".gguf" or start.startswith(b"GGUF"):
        return _read_gguf(path, name)
    if suffix == ".echo":
        return replace(plain, format="echo")
    if suffix == ".safetensors":
        return read_loose_safetensors(path, name)
    if suffix in PICKLE_SUFFIXES:
        return replace(plain, format="pickle", problem=PICKLE_PROBLEM)
    return replace(plain, problem="This is no kind of model file that is known; GGUF files and folders with safetensors are.")


def _read_gguf(path: Path, name: str) -> ModelFile:
    parts = split_parts(path)
    present = [part for part in parts if part.is_file()]
    file = ModelFile(name, str(parts[0]), "gguf", sum(part.stat().st_size for part in present))
    missing = [part.name for part in parts if part not in present]
    if missing:
        return replace(file, problem=f"{len(missing)} of its {len(parts)} parts are missing: {', '.join(missing[:5])}"
                                     f"{' and more' if len(missing) > 5 else ''}. Put them beside the others.")
    if not file.size_bytes:
        return replace(file, problem="The file is empty; download it again.")
    headers = []
    for part in parts:
        try:
            header = read_gguf(part)
        except BadHeader as error:
            return replace(file, problem=f"{part.name}: its header {error}.")
        headers.append(header)
        size = part.stat().st_size
        if header.tensor_end > size:
            return replace(file, **_facts(headers), problem=f"{part.name} is cut off: it has {size:,} of {header.tensor_end:,} "
                                                            "bytes; download it again.")
    kind: FileFormat = "adapter" if _text(headers[0].values, "general.type") == "adapter" else "gguf"
    return replace(file, format=kind, **_facts(headers), problem=_gguf_problem(headers))


def _facts(headers: list[GgufHeader]) -> dict[str, Any]:
    """ModelFile's fields from the parts' headers; the first part has the keys."""
    values = headers[0].values
    architecture = _text(values, "general.architecture")

    def number(key: str) -> int:
        value = values.get(f"{architecture}.{key}", 0)
        value = max((v for v in value if isinstance(v, int)), default=0) if isinstance(value, tuple) else value
        return value if isinstance(value, int) and 0 < value < 1 << 40 else 0

    heads = number("attention.head_count")
    embedding = number("embedding_length")
    types = sum((header.tensor_types for header in headers), start=Counter[str]())
    most = types.most_common(1)[0][0] if types else ""
    return {"architecture": architecture, "n_params": sum(header.n_params for header in headers),
            "trained_context": number("context_length"), "chat_template": _text(values, "tokenizer.chat_template"),
            "quantization": _file_type(values, most), "layers": number("block_count"),
            "kv_heads": number("attention.head_count_kv") or heads,
            "heads": heads, "hidden_size": embedding, "feed_forward": number("feed_forward_length"),
            "head_dim": number("attention.key_length") or (embedding // heads if heads else 0)}


def _file_type(values: dict[str, Any], most: str) -> str:
    """The name in general.file_type, where it agrees with what most weights are stored as; else the latter."""
    named = FILE_TYPES.get(values["general.file_type"], "") if isinstance(values.get("general.file_type"), int) else ""
    return named if named and (not most or named.split("_")[0] == most.split("_")[0] or named.startswith("IQ")) else most


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key, "")
    return value if isinstance(value, str) else ""


def _gguf_problem(headers: list[GgufHeader]) -> str:
    values = headers[0].values
    kind = _text(values, "general.type")
    architecture = _text(values, "general.architecture")
    if kind == "adapter":
        return "This is a LoRA adapter, not a model; load the model that it was made for."
    if kind == "mmproj" or architecture == "clip":
        return "This is the part of a model that sees pictures (mmproj); load the model itself."
    if not architecture:
        return "Its header does not say which architecture it is; convert the model again."
    if not sum(header.n_tensors for header in headers):
        return "This file holds only a vocabulary, no weights."
    count, total = values.get("split.count", 1), values.get("split.tensors.count")
    if count != len(headers) and not (count == 0 and len(headers) == 1):
        return f"Its header says that it has {count} parts, but its name says {len(headers)}; give the parts their names back."
    if len(headers) > 1 and total is not None and total != sum(header.n_tensors for header in headers):
        return "Its parts do not belong together: the number of tensors is not the one in the first part; download them again."
    if headers[0].missing_bytes:
        return (f"Its vocabulary has no piece for {headers[0].missing_bytes} of the 256 byte values, so llama.cpp would crash at "
                "the first of them; convert the model again with byte pieces.")
    return ""

