"""The files of a hub's repository as a person chooses among them: one choice is all that one model needs, and never a pickle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from ..core.loader import ModelFile
from ..store.files import refusal
from .explain import quantization, size_words
from .forecast import forecast
from .hub import Hub, HubFailed
from .hub_search import Card
from .naming import decode

MAX_PAGES = 40
MAX_FILES = 20_000
MAX_SIZE = 1 << 50
MAX_DEPTH = 4           # folders above a file that is offered
CHAT_CONTEXT = 4096     # tokens that a model must have room for to count as fitting
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HIDDEN = re.compile(r"\.[\w-][\w.-]*")
_GIT_ID = re.compile(r"[0-9a-f]{40}")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".ot")
_NOT_MODELS = re.compile(r"(?<![a-z])(mmproj|imatrix|adapter|lora)(?![a-z])", re.IGNORECASE)
_TOKENIZERS = {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "tokenizer_config.json"}  # one is enough
_BESIDE = {*_TOKENIZERS, "config.json", "generation_config.json", "merges.txt", "vocab.txt", "added_tokens.json",
           "special_tokens_map.json", "chat_template.jinja", "chat_template.json", "quantize_config.json", "quant_config.json",
           "model.safetensors.index.json", "preprocessor_config.json", "sentencepiece.bpe.model"}
_LICENCE = re.compile(r"(licen[cs]e|notice|use_policy)(\.(md|txt))?", re.IGNORECASE)


@dataclass(frozen=True)
class HubFile:
    """One file: its path in the repository, its length, and what its bytes must hash to: SHA-256 if large, Git's if small."""

    path: str
    size: int
    sha256: str = ""
    git_id: str = ""

    @property
    def name(self) -> str:
        """The last part of its path; a choice's files have different ones."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Choice:
    """What is fetched as one. name: unique in its repository; folder: where it comes to lie within the model folder.

    is_folder: the files fill `folder`, which does not exist before; else the one file is put into it. problem: why it cannot be
    used; "" where nothing speaks against it.
    """

    name: str
    format: Literal["gguf", "safetensors"]
    files: tuple[HubFile, ...]
    folder: str
    is_folder: bool
    quantization: str = ""
    problem: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Listing:
    """A repository's choices, the largest first, and what was left out and why, in sentences."""

    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = field(default=())


async def read_listing(hub: Hub, card: Card) -> Listing:
    """The choices at the card's revision. Raises HubFailed, NotFound."""
    found: list[Any] = []
    address = f"/api/models/{card.repo}/tree/{card.revision}"
    query: dict[str, Any] | None = {"recursive": "true"}
    for _ in range(MAX_PAGES):
        page, address = await hub.json(address, query)
        query = None  # the next page's address has it
        found += page if isinstance(page, list) else []
        if len(found) > MAX_FILES:
            raise HubFailed(f"{card.repo} has more than {MAX_FILES:,} files; choose a repository of one model.")
        if not address:
            break
    return choices(card.repo, found)


def choices(repo: str, entries: Sequence[Any]) -> Listing:
    """The choices among the entries of a repository's tree, as the hub's JSON has them."""
    read = [_file(entry) for entry in entries if isinstance(entry, dict) and entry.get("type") == "file"]
    read = [file for file in read if file is None or not _is_hidden(file.path)]
    files = [file for file in read if file is not None and _is_safe(file.path)]
    notes = []
    if len(files) < len(read):
        notes.append(f"Left out: {len(read) - len(files)} of its files, whose names or sizes cannot be used on a disk.")
    pickles = sum(file.size for file in files if file.path.lower().endswith(_PICKLES))
    if pickles:
        notes.append(f"Left out: {size_words(pickles)} of pickle files and formats that are never fetched; opening a pickle "
                     "can run any code.")
    apart = [file.path for file in files if file.path.lower().endswith(".gguf") and _NOT_MODELS.search(file.name)]
    if apart:
        notes.append(f"Left out: {len(apart)} GGUF files that are no models by themselves, such as {apart[0][:80]}.")
    gguf = _gguf_choices(repo, [file for file in files if file.path.lower().endswith(".gguf") and file.path not in apart])
    folder, why = _folder_choice(repo, [file for file in files if "/" not in file.path])
    notes += [why] if why else []
    found = sorted([*gguf, *folder], key=lambda choice: -choice.size)
    if not found:
        notes.append("It holds neither GGUF files nor safetensors that can be loaded here; search for a GGUF of the model.")
    return Listing(tuple(found), tuple(notes))


def _gguf_choices(repo: str, files: list[HubFile]) -> list[Choice]:
    groups: dict[str, list[HubFile]] = {}
    for file in files:
        split = _SPLIT.fullmatch(file.path)
        groups.setdefault(f"{split[1]}-of-{split[3]}" if split else file.path, []).append(file)
    found: dict[str, Choice] = {}
    for parts in groups.values():
        parts.sort(key=lambda file: file.path)
        split = _SPLIT.fullmatch(parts[0].path)
        path = PurePosixPath(split[1] if split else parts[0].path)
        name = str(path) if split else str(path.with_suffix(""))
        above = PurePosixPath(repo, *path.parts[:-1])
        # A split's parts get a folder of their own, so that they come to be there all at once.
        folder = above / path.name if split and above.name.lower() != path.name.lower() else above
        present = {part[2] for file in parts if (part := _SPLIT.fullmatch(file.path))}
        missing = int(split[3]) - len(present) if split else 0
        problem = f"{missing} of its {split[3]} parts are missing on the hub." if split and missing else ""
        said = decode(path.name).quantization
        found.setdefault(name, Choice(name, "gguf", tuple(parts), str(folder), bool(split), said, problem))
    return list(found.values())


def _folder_choice(repo: str, files: list[HubFile]) -> tuple[list[Choice], str]:
    """The safetensors at the repository's top with all that belongs to them; else why there is no such choice, or ""."""
    named = {file.name: file for file in files}
    weights = _weights(named)
    if not weights:
        return [], ""
    if "adapter_config.json" in named and "config.json" not in named:
        return [], "It holds a LoRA adapter, not a model; search for the model that it was made for."
    licences = {name.lower(): name for name in named if _LICENCE.fullmatch(name)}  # some disks know no capitals
    beside = [file for name, file in named.items() if name in _BESIDE or name in licences.values()]
    problem = ""
    if "config.json" not in named:
        problem = "config.json is missing on the hub; Transformers cannot load these weights without it."
    elif not _TOKENIZERS & set(named):
        problem = "The tokenizer is missing on the hub; look for it in the repository of the base model."
    shard = _SHARD.fullmatch(weights[0].name)
    if shard and len(weights) != int(shard[3]):
        problem = f"{int(shard[3]) - len(weights)} of its {shard[3]} weight files are missing on the hub."
    said = decode(repo).quantization
    return [Choice("safetensors", "safetensors", (*beside, *weights), repo, True, said, problem)], ""


def _weights(named: dict[str, HubFile]) -> list[HubFile]:
    """The files that loaders would read: the whole one, else the shards that belong together, else all of them."""
    if "model.safetensors" in named:
        return [named["model.safetensors"]]
    found = sorted(name for name in named if name.endswith(".safetensors") and not name.startswith(("adapter_", "consolidated")))
    shards = [name for name in found if (shard := _SHARD.fullmatch(name)) and shard[1] == "model"]
    return [named[name] for name in shards or found]


def _file(entry: dict[str, Any]) -> HubFile | None:
    path, size, lfs = entry.get("path"), entry.get("size"), entry.get("lfs")
    lfs = lfs if isinstance(lfs, dict) else {}
    size = lfs.get("size", size)
    if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        return None
    sha256, git_id = str(lfs.get("oid") or ""), "" if lfs else str(entry.get("oid") or "")
    return HubFile(path, size, sha256 if _SHA256.fullmatch(sha256) else "", git_id if _GIT_ID.fullmatch(git_id) else "")


def _is_hidden(path: str) -> bool:
    """Git's and other programs' own files, of no interest here."""
    return any(_HIDDEN.fullmatch(part) for part in path.split("/"))


def _is_safe(path: str) -> bool:
    """Whether every part of the path can be a file's name on every system, and it stays below its folder."""
    parts = path.split("/")
    return len(parts) <= MAX_DEPTH + 1 and not any(refusal(part) or part.lower().endswith(".part") for part in parts)


def model_file(choice: Choice, card: Card) -> ModelFile:
    """The choice as a model that is not there yet: what its name and the hub tell."""
    n_params = card.n_params or decode(card.repo).n_params or decode(choice.name).n_params
    return ModelFile(choice.name, "", choice.format, choice.size, n_params=n_params, trained_context=card.context,
                     quantization=choice.quantization)


def needed_bytes(choice: Choice, card: Card) -> int:
    """Memory that the model takes with a context for a chat; layers and heads are not known before the file is here."""
    file = model_file(choice, card)
    return forecast(file, {"context": min(CHAT_CONTEXT, file.trained_context or CHAT_CONTEXT)}).total_bytes


def words(choice: Choice, card: Card, room: int) -> str:
    """`Q4_K_M · 4.9 GB · 4-bit, medium K-quant, small loss · fits`: what a person chooses by. room: bytes of memory free now."""
    meaning = quantization(choice.quantization)
    told = f"{meaning.words}{', ' if meaning.loss and meaning.words else ''}{meaning.loss}"
    count = f"{len(choice.files)} files" if len(choice.files) > 1 else ""
    if choice.problem:
        fit = choice.problem
    else:
        needs = needed_bytes(choice, card)
        fit = "fits" if needs <= room else f"too large: needs about {size_words(needs)} of memory"
    return " · ".join(part for part in (choice.name, size_words(choice.size), told, count, fit) if part)


def suggested(listing: Listing, card: Card, room: int) -> Choice | None:
    """What to take where a person has no wish: Q4_K_M where that fits, else the largest that fits; None where none does."""
    fitting = [choice for choice in listing.choices if not choice.problem and needed_bytes(choice, card) <= room]
    return next((choice for choice in fitting if choice.quantization == "Q4_K_M"), fitting[0] if fitting else None)
