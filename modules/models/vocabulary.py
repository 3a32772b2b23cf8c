"""The tokenizer of a Hugging Face folder, as a GGUF header wants it: pieces, their kinds, merges, and which pre-tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import LoadFailed

MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_VOCABULARY = 1_000_000

# llama.cpp's token types (llama.h, llama_token_type).
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# llama.cpp names a byte-level BPE by the regex that cuts text into words (llama-vocab.cpp, tokenizer_pre).
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_BY_REGEX = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + _WORD + r"|\p{N}{1,3}" + _TAIL: "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + _WORD + r"|\p{N}" + _TAIL: "qwen2",
}


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
    except (OSError, ValueError) as error:
        raise LoadFailed(f"{path} cannot be read as JSON ({error}). The folder must hold a whole Hugging Face model.") from error
    if not isinstance(body, dict):
        raise LoadFailed(f"{path} is not a JSON object. The folder must hold a whole Hugging Face model.")
    return body


def read_vocabulary(folder: Path, padded_size: int) -> Vocabulary:
    """The vocabulary of `folder`, padded with unused tokens to the `padded_size` rows that the embedding has."""
    body = read_json(folder / "tokenizer.json")
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    model = body.get("model", {})
    if model.get("type") != "BPE":
        raise LoadFailed(f"The tokenizer is of type {model.get('type')!r}; only BPE tokenizers can be converted.")
    tokens, kinds = _pieces(body, padded_size)
    ids = {text: i for i, text in enumerate(tokens)}

    def special(name: str) -> int | None:
        value = config.get(name)
        return ids.get(value["content"] if isinstance(value, dict) else value) if value else None

    is_sentencepiece = bool(model.get("byte_fallback"))
    if is_sentencepiece:
        kinds = [BYTE if len(t) == 6 and t.startswith("<0x") else kind for t, kind in zip(tokens, kinds, strict=True)]
    bos = special("bos_token")
    return Vocabulary(
        model="llama" if is_sentencepiece else "gpt2", pre="" if is_sentencepiece else _pre_tokenizer(body),
        tokens=tokens, kinds=kinds, merges=[] if is_sentencepiece else _merges(model),
        scores=_scores(model, tokens) if is_sentencepiece else [],
        add_bos=_adds_bos(body, tokens, bos), adds_space=is_sentencepiece and _adds_space(body),
        bos_id=bos, eos_id=special("eos_token"), unk_id=special("unk_token"),
        pad_id=special("pad_token"), chat_template=_template(folder, config))


def _pieces(body: dict[str, Any], padded_size: int) -> tuple[list[str], list[int]]:
    vocab: dict[str, int] = body["model"].get("vocab", {})
    added: list[dict[str, Any]] = body.get("added_tokens", [])
    highest = max([*vocab.values(), *(int(item["id"]) for item in added)], default=-1)
    if highest < 0 or max(highest + 1, padded_size) > MAX_VOCABULARY:
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


def _scores(model: dict[str, Any], tokens: list[str]) -> list[float]:
    """SentencePiece merges the pair of the highest score first, so a piece's score is minus the rank of its merge."""
    ranks = {left + right: rank for rank, (left, right) in enumerate(
        pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", []))}
    return [-float(ranks[text]) if text in ranks else -1e6 for text in tokens]


def _pre_tokenizer(body: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer; raises LoadFailed for one it is not known to match."""
    step = body.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = step.get("pretokenizers", [step])
    kinds = [item.get("type") for item in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and not steps[1].get("add_prefix_space"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pre = PRE_BY_REGEX.get(str(steps[0].get("pattern", {}).get("Regex", "")))
        if pre:
            return pre
    raise LoadFailed(f"The pre-tokenizer ({', '.join(map(str, kinds))}) is none that llama.cpp is known to treat the same way. "
                     "Known are GPT-2's, SmolLM's, Llama 3's and Qwen 2's; load the folder with the Transformers loader instead.")


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


def _template(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.exists() and path.stat().st_size <= 2**20:
        return path.read_text("utf-8")
    template = config.get("chat_template", "")
    return template if isinstance(template, str) else ""
