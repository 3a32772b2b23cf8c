"""Text to token ids and back to the exact bytes, with control tokens recognised only where they are meant."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from typing import Any

from modules.core.errors import BadRequest, LoadFailed
from modules.sampling.vocabulary import Vocabulary

SPACE = "▁"
# Ends of a turn that many chat models use although their configuration names only the end of a text.
ENDS_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endofturn|>", "<|return|>",
                "<|end_of_text|>")
_MARK = re.compile(r"[<\[{|].*[>\]}|]", re.DOTALL)
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies, after GPT-2's encoder: visible Latin-1 characters for
    themselves, the other bytes from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {**{chr(byte): byte for byte in visible}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


def incomplete_tail(text: bytes) -> bytes:
    """The first bytes of a character whose last ones are still to come, or b""."""
    for start in range(max(0, len(text) - 3), len(text)):
        if text[start] >= 0xC0:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            decoder.decode(text[start:])
            return bytes(decoder.getstate()[0])
    return b""


def is_control(added: dict[str, Any]) -> bool:
    """Whether an added token steers the model: special ones, and marks such as <think> that are not called special.

    Added tokens that are plain text (runs of white space, words of a fine-tune) are text also in people's messages.
    """
    content = str(added["content"])
    return bool(added["special"]) or (bool(content.strip()) and _MARK.fullmatch(content.strip()) is not None)


def without_prefix(tokenizer: Any) -> Any:
    """The tokenizer as it treats text that goes on after other text: without SentencePiece's space at the start.

    The same object where it adds none. The space comes from a `Prepend` normalizer or a `Metaspace` pre-tokenizer.
    """
    description = json.loads(tokenizer.to_str())
    before = json.dumps(description)
    normalizer = description.get("normalizer") or {}
    if normalizer.get("type") == "Prepend":
        description["normalizer"] = None
    elif normalizer.get("type") == "Sequence":
        normalizer["normalizers"] = [step for step in normalizer["normalizers"] if step["type"] != "Prepend"]
    splitter = description.get("pre_tokenizer") or {}
    for step in [splitter, *splitter.get("pretokenizers", ())]:
        if step.get("type") == "Metaspace":
            step["prepend_scheme"] = "never"
    if json.dumps(description) == before:
        return tokenizer
    return type(tokenizer).from_str(json.dumps(description))


class TokenText:
    """A model's tokenizer, on the level of ids and bytes.

    Made from a Transformers tokenizer with a fast backend. pieces: each id's bytes, (vocab_size,); control: spelling by id.
    """

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise LoadFailed(f"Its tokenizer ({type(tokenizer).__name__}) has no fast version (tokenizer.json), which this "
                             "loader needs. Add tokenizer.json to the folder, or use a GGUF version of the model.")
        backend.no_truncation()
        backend.no_padding()
        description = json.loads(backend.to_str())
        added = description["added_tokens"]
        self.control: dict[int, str] = {int(token["id"]): str(token["content"]) for token in added if is_control(token)}
        self._with_control = backend
        # Taking the control tokens out is the only way that holds for all of them: `split_special_tokens` of Transformers
        # splits special ones alone, so that a person's "<think>" or "<tool_call>" would still become the token.
        description["added_tokens"] = [token for token in added if not is_control(token)]
        self._plain = Tokenizer.from_str(json.dumps(description))
        self._plain.encode_special_tokens = False
        self._with_control.encode_special_tokens = False
        self._going_on = (without_prefix(self._with_control), without_prefix(self._plain))
        self.pieces = self._all_pieces(backend, vocab_size, json.dumps(description["decoder"], ensure_ascii=False))
        self._strips_space = self.tokenize("a", control=False)[:1] != [] and self._piece_of("a").startswith(b" ")

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        """Ids of the text; first=False: it goes on after other text, so it gets no space before it."""
        text = text.encode("utf-8", "replace").decode()  # JSON can carry half a surrogate pair, which no tokenizer takes
        whole = (self._with_control, self._plain) if first else self._going_on
        if control:
            return list(whole[0].encode(text, add_special_tokens=False).ids)
        ids = list(whole[1].encode(text, add_special_tokens=False).ids)
        if self.control.keys().isdisjoint(ids):
            return ids
        # A Unigram vocabulary can hold a control token's spelling as a piece of its own.
        return [part for id_ in ids for part in (self._spell(self.control[id_]) if id_ in self.control else (id_,))]

    def detokenize(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids; the space that a SentencePiece tokenizer puts before a text is not part of it."""
        try:
            text = b"".join([self.pieces[id_] if id_ >= 0 else self.pieces[len(self.pieces)] for id_ in ids])
        except IndexError as error:
            raise self.unknown_id(ids) from error
        starts_with_space = self._strips_space and len(ids) > 0 and ids[0] not in self.control and text.startswith(b" ")
        return text[1:] if starts_with_space else text

    def unknown_id(self, ids: Sequence[int]) -> BadRequest:
        wrong = next(id_ for id_ in ids if not 0 <= id_ < len(self.pieces))
        return BadRequest(f"Token id {wrong} is not in the model's vocabulary; ids go from 0 to {len(self.pieces) - 1}.")

    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.pieces, lambda text: self.tokenize(text, control=False))

    def adds_bos(self, bos_id: int | None) -> bool:
        """Whether the tokenizer itself starts a text with BOS."""
        return bos_id is not None and self._with_control.encode("a").ids[:1] == [bos_id]

    def ends_of_turn(self, template: str) -> list[int]:
        """Control tokens that the chat template itself uses to end a turn."""
        return [id_ for id_, text in self.control.items() if text in ENDS_OF_TURN and text in template]

    def _piece_of(self, text: str) -> bytes:
        return self.pieces[self._plain.encode(text, add_special_tokens=False).ids[0]]

    def _spell(self, text: str) -> list[int]:
        """Ids of single characters or bytes that make up the text."""
        ids: list[int] = []
        for character in text:
            whole = self._plain.token_to_id(character)
            names = [f"<0x{byte:02X}>" for byte in character.encode()]
            ids += [whole] if whole is not None else [id_ for name in names if (id_ := self._plain.token_to_id(name)) is not None]
        return ids

    def _all_pieces(self, backend: Any, vocab_size: int, decoder: str) -> list[bytes]:
        """Each id's bytes; ids that the tokenizer does not know (padding of the embedding) have none."""
        alphabet = byte_alphabet() if '"ByteLevel"' in decoder else None
        by_byte = '"ByteFallback"' in decoder
        spaced = SPACE in decoder
        pieces = []
        for id_ in range(vocab_size):
            name = self.control.get(id_) or backend.id_to_token(id_) or ""
            if id_ in self.control:
                pieces.append(name.encode())
            elif alphabet is not None:
                known = [alphabet.get(character, -1) for character in name]
                pieces.append(name.encode() if -1 in known else bytes(known))
            elif by_byte and (found := _BYTE.fullmatch(name)):
                pieces.append(bytes([int(found[1], 16)]))
            else:
                pieces.append((name.replace(SPACE, " ") if spaced else name).encode())
        return pieces
