"""The tokenizer of a Hugging Face folder, as a GGUF header wants it: pieces, their kinds, merges, and which pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import LoadFailed
from ..store.hf_folder import BadFolder, read_template
from .piece_model import read_pieces
from .pre_tokenizers import pre_tokenizer

MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_VOCABULARY = 1_000_000

# llama.cpp's token types (llama.h, llama_token_type).
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

@dataclass(frozen=True)
class Vocabulary:
    """tokens[i] is the spelling of id i as GGUF stores it; kinds[i] its token type; pre is "" for SentencePiece models."""

    model: str
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    add_bos: bool
    adds_space: bool
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    pad_id: int | None
    chat_template: str


def read_json(path: Path, limit: int = MAX_TOKENIZER_BYTES) -> dict[str, Any]:
    """A JSON object from a file of at most `limit` bytes; raises LoadFailed naming the file."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise LoadFailed(f"{path.name} has {size} bytes; more than {limit} are not read. Is it the right file?")
        body = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadFailed(f"{path} cannot be read as JSON ({error}). The folder must hold a whole Hugging Face model.") from error
    if not isinstance(body, dict):
        raise LoadFailed(f"{path} is not a JSON object. The folder must hold a whole Hugging Face model.")
    return body


def read_vocabulary(folder: Path, padded_size: int) -> Vocabulary:
    """The vocabulary of `folder`, padded with unused tokens to the `padded_size` rows that the embedding has.

    From tokenizer.json, which is what Transformers reads; without one from tokenizer.model. Raises LoadFailed.
    """
    try:
        return _read(folder, padded_size)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise LoadFailed(f"The tokenizer of {folder.name} is broken ({type(error).__name__}: {str(error)[:100]}); fetch it again."
                         ) from error


def _read(folder: Path, padded_size: int) -> Vocabulary:
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    if not (folder / "tokenizer.json").exists() and (folder / "tokenizer.model").exists():
        return _of_pieces(folder, config, padded_size)
    body = read_json(folder / "tokenizer.json")
    model = body.get("model", {})
    if model.get("type") != "BPE":
        raise LoadFailed(f"The tokenizer is of type {model.get('type')!r}; only BPE tokenizers can be converted.")
    tokens, kinds = _pieces(body, padded_size)
    special = _special(config, tokens)
    is_sentencepiece = bool(model.get("byte_fallback"))
    if is_sentencepiece:
        kinds = [BYTE if len(t) == 6 and t.startswith("<0x") else kind for t, kind in zip(tokens, kinds, strict=True)]
    bos = special("bos_token")
    return Vocabulary(
        model="llama" if is_sentencepiece else "gpt2", pre="" if is_sentencepiece else pre_tokenizer(body),
        tokens=tokens, kinds=kinds, merges=[] if is_sentencepiece else _merges(model),
        scores=_scores(model, tokens, kinds) if is_sentencepiece else [],
        add_bos=_adds_bos(body, tokens, bos), adds_space=is_sentencepiece and _adds_space(body),
        bos_id=bos, eos_id=special("eos_token"), unk_id=special("unk_token"),
        pad_id=special("pad_token"), chat_template=_template(folder))


def _of_pieces(folder: Path, config: dict[str, Any], padded_size: int) -> Vocabulary:
    """SentencePiece's own file, with what tokenizer_config.json adds to it."""
    model = read_pieces(folder / "tokenizer.model")
    added = config.get("added_tokens_decoder")
    later = read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").exists() else {}
    items = {int(i): (text, USER_DEFINED) for text, i in later.items()}
    items |= {int(i): (str(item["content"]), CONTROL if item.get("special") else USER_DEFINED)
              for i, item in (added.items() if isinstance(added, dict) else ())}
    size = max(len(model.pieces), max(items, default=-1) + 1)
    if not size <= padded_size <= MAX_VOCABULARY or min(items, default=0) < 0:
        raise LoadFailed(f"The tokenizer has {size} tokens, but the model's embedding {padded_size} rows.")
    tokens = [text for text, _, _ in model.pieces] + [f"[PAD{i}]" for i in range(len(model.pieces), padded_size)]
    kinds = [kind for _, _, kind in model.pieces] + [UNUSED] * (padded_size - len(model.pieces))
    scores = [score for _, score, _ in model.pieces] + [-1e6] * (padded_size - len(model.pieces))
    for i, (text, kind) in items.items():
        tokens[i] = text
        kinds[i] = kinds[i] if kinds[i] == UNKNOWN else kind
    special = _special(config, tokens)

    def named(name: str, usual: int) -> int | None:
        found = special(name)
        return found if found is not None else usual if 0 <= usual < size else None

    return Vocabulary(
        model="llama", pre="", tokens=tokens, kinds=kinds, merges=[], scores=scores,
        add_bos=bool(config.get("add_bos_token", True)),
        adds_space=model.adds_space, bos_id=named("bos_token", model.bos), eos_id=named("eos_token", model.eos),
        unk_id=named("unk_token", model.unk), pad_id=named("pad_token", model.pad), chat_template=_template(folder))


def _special(config: dict[str, Any], tokens: list[str]) -> Callable[[str], int | None]:
    ids = {text: i for i, text in enumerate(tokens)}

    def find(name: str) -> int | None:
        value = config.get(name)
        return ids.get(value["content"] if isinstance(value, dict) else value) if value else None

    return find


def _pieces(body: dict[str, Any], padded_size: int) -> tuple[list[str], list[int]]:
    vocab: dict[str, int] = body["model"].get("vocab", {})
    added: list[dict[str, Any]] = body.get("added_tokens", [])
    ids = [*vocab.values(), *(int(item["id"]) for item in added)]
    highest = max(ids, default=-1)
    if min(ids, default=-1) < 0 or max(highest + 1, padded_size) > MAX_VOCABULARY:
        raise LoadFailed(f"The vocabulary has ids up to {highest}; between 1 and {MAX_VOCABULARY} tokens can be converted.")
    if highest >= padded_size:
        raise LoadFailed(f"The tokenizer has {highest + 1} tokens, but the model's embedding only {padded_size} rows.")
    tokens = [f"[PAD{i}]" for i in range(padded_size)]
    kinds = [UNUSED] * padded_size
    for text, i in vocab.items():
        tokens[i], kinds[i] = text, NORMAL
    for item in added:
        i = int(item["id"])
        tokens[i], kinds[i] = item["content"], CONTROL if item.get("special") else USER_DEFINED
    unknown = body["model"].get("unk_token")
    if unknown in vocab:
        kinds[vocab[unknown]] = UNKNOWN
    return tokens, kinds


def _merges(model: dict[str, Any]) -> list[str]:
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges", [])]


def _scores(model: dict[str, Any], tokens: list[str], kinds: list[int]) -> list[float]:
    """SentencePiece merges the pair of the highest score first, so a piece's score is minus the rank of its merge.

    It merges any two neighbours that make a piece together, so the merges must name all of them; raises LoadFailed otherwise.
    """
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model.get("merges", [])]
    ranks = {left + right: rank for rank, (left, right) in enumerate(pairs)}
    known, normal = set(pairs), {text for text, kind in zip(tokens, kinds, strict=True) if kind == NORMAL}
    apart = len(ranks) - sum(left + right != "".join(before) for before, (left, right) in zip([(), *pairs], pairs, strict=False))
    lacking = next(((text[:i], text[i:]) for text in normal for i in range(1, len(text))
                    if text[:i] in normal and text[i:] in normal and (text[:i], text[i:]) not in known), None)
    if lacking or apart:
        example = f": it never joins {lacking[0]!r} and {lacking[1]!r}" if lacking else ""
        raise LoadFailed("The tokenizer falls back to bytes but merges otherwise than SentencePiece does, which llama.cpp would "
                         f"follow{example}. Load the folder with the Transformers loader instead.")
    return [-float(ranks[text]) if text in ranks else -1e6 for text in tokens]


def _adds_bos(body: dict[str, Any], tokens: list[str], bos: int | None) -> bool:
    processor = body.get("post_processor") or {}
    found: list[dict[str, Any]] = processor.get("processors", [processor])
    firsts = [item["single"][0].get("SpecialToken", {}).get("id") for item in found
              if item.get("type") == "TemplateProcessing" and item.get("single")]
    return bos is not None and tokens[bos] in firsts


def _adds_space(body: dict[str, Any]) -> bool:
    """Whether a space is put before a text, as SentencePiece's dummy prefix does."""
    normalizer = body.get("normalizer") or {}
    steps: list[dict[str, Any]] = normalizer.get("normalizers", [normalizer])
    cutter = body.get("pre_tokenizer") or {}
    scheme = cutter.get("prepend_scheme", "always" if cutter.get("add_prefix_space") else "never")
    return any(step.get("type") == "Prepend" for step in steps) or (cutter.get("type") == "Metaspace" and scheme != "never")


def _template(folder: Path) -> str:
    try:
        return read_template(folder, sorted(path.name for path in folder.iterdir()))
    except (BadFolder, OSError) as error:
        raise LoadFailed(f"The chat template cannot be read: {error}") from error
