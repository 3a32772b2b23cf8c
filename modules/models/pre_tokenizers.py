"""Which of llama.cpp's pre-tokenizers cuts a text into words exactly as a byte-level BPE tokenizer's own steps do.

llama.cpp names them in llama-vocab.cpp (tokenizer_pre). Each entry here is held to its tokenizer by
tests/test_convert_tokenizers.py.
"""

from __future__ import annotations

from typing import Any

from ..core.errors import LoadFailed

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# By the regex, and whether a word that is a piece is taken whole, whatever the merges say (ignore_merges).
BY_REGEX: dict[tuple[str, bool], str] = {
    (_CONTRACTIONS + "|" + _WORD + r"|\p{N}{1,3}" + _TAIL, True): "llama-bpe",
    (_CONTRACTIONS + "|" + _WORD + r"|\p{N}{1,3}" + _TAIL, False): "smaug-bpe",
    (_CONTRACTIONS + "|" + _WORD + r"|\p{N}" + _TAIL, False): "qwen2"}
# Not here: Mistral Nemo's (tekken). llama.cpp cuts scripts with combining marks, such as Devanagari, otherwise than it does.


def pre_tokenizer(body: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer of a tokenizer.json; raises LoadFailed for one it is not known to match."""
    step = body.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = step.get("pretokenizers", [step])
    kinds = [item.get("type") for item in steps]
    takes_whole = bool(body.get("model", {}).get("ignore_merges"))
    # Only a step that takes the text as it comes may be left out: a space put before it would be missing.
    if not any(item.get("add_prefix_space") for item in steps):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not takes_whole:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and not takes_whole:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True) and not steps[0].get("invert"):
            found = BY_REGEX.get((str(steps[0].get("pattern", {}).get("Regex", "")), takes_whole))
            if found:
                return found
    raise LoadFailed(f"The pre-tokenizer ({', '.join(map(str, kinds))}) is none that llama.cpp is known to treat the same way. "
                     "Known are those of GPT-2, SmolLM, Llama 3, Qwen 2 and Qwen 3; load the folder with the Transformers loader "
                     "instead.")
