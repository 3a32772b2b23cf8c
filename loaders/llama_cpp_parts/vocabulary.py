"""The model's vocabulary: text to ids and back, which ids are control tokens, and which end a text."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any

from modules.core.errors import BadRequest, LoadFailed

NONE, SPM = 0, 1  # llama_vocab_type
UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 2, 4, 8, 16, 32  # llama_token_attr, bits
MAX_TEXT_BYTES = 64 * 2**20

# Tokens that a model's maker defined without calling them control tokens: those written like marks (<think>, [TOOL_CALLS]) act as
# such, but some vocabularies have HTML's tags among them, which are plain text.
MARK = re.compile(r"<[^\s<>]{1,64}>|\[/?[A-Z][A-Z_]{1,32}\]")
HTML = re.compile(r"a|abbr|b|blockquote|body|br|caption|code|col|dd|del|div|dl|dt|em|embed|h1|h2|h3|h4|h5|h6|head|hr|"
                  r"html|i|img|input|ins|li|link|meta|ol|option|p|pre|s|script|select|small|source|span|strike|strong|"
                  r"style|sub|sup|table|tbody|td|textarea|tfoot|th|thead|title|tr|track|u|ul|video|audio")


class Vocabulary:
    """Reads through llama.cpp's own tokenizer; on the loader's thread.

    pieces and texts are caches by id: a token's bytes, and its text where those bytes are whole characters, else None.
    """

    def __init__(self, c: Any, model: Any) -> None:
        """Raises LoadFailed for a model without a vocabulary, or with one on which llama.cpp's tokenizer would abort."""
        self._c = c
        self.handle = c.llama_model_get_vocab(model)
        self.size: int = c.llama_vocab_n_tokens(self.handle)
        self.kind: int = c.llama_vocab_type(self.handle)
        if self.kind == NONE or not self.size:
            raise LoadFailed("The file holds no vocabulary, so it cannot turn text into tokens. Get a whole GGUF of the model.")
        self._check_bytes()
        self.pieces: list[bytes | None] = [None] * self.size
        self.texts: list[str | None] = [None] * self.size
        self.eog_ids = tuple(i for i in range(self.size) if c.llama_vocab_is_eog(self.handle, i))
        self.special = self._special()
        marks = sorted((text for i, text in self.special.items() if not self._attribute(i) & (CONTROL | UNKNOWN)), key=len)
        self._marks = re.compile("|".join(map(re.escape, reversed(marks)))) if marks else None
        self._adds_space = self.detokenize(self._tokenize(b"a", control=False)) == b" a"
        self.bos_id = self._named(model, "bos", c.llama_vocab_bos(self.handle))
        self.eos_id = self._named(model, "eos", c.llama_vocab_eos(self.handle))
        self.add_bos = bool(c.llama_vocab_get_add_bos(self.handle)) and self.bos_id is not None

    def text_of(self, token: int | None) -> str:
        """How a token is spelled; "" for None."""
        return "" if token is None else self.piece(token).decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes of one id, control tokens spelled out; looked up at first use: 150,000 at once take a third of a second."""
        known = self.pieces[token]
        if known is not None:
            return known
        room = 128
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self._c.llama_token_to_piece(self.handle, token, buffer, room, 0, True)
            if length >= 0:
                break
            room = -length
        piece = buffer.raw[:length]
        self.pieces[token] = piece
        try:
            self.texts[token] = piece.decode("utf-8")
        except UnicodeDecodeError:
            self.texts[token] = None
        return piece

    def detokenize(self, ids: Sequence[int]) -> bytes:
        """The bytes of these ids; raises BadRequest for an unknown one."""
        self.check(ids)
        return b"".join(map(self.piece, ids))

    def check(self, ids: Sequence[int]) -> None:
        """Raises BadRequest naming the first id outside the vocabulary."""
        if ids and not (min(ids) >= 0 and max(ids) < self.size):
            bad = next(i for i in ids if not 0 <= i < self.size)
            raise BadRequest(f"Token id {bad} is outside the model's vocabulary (0 to {self.size - 1}).")

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        """Ids of `text`, without BOS. Control tokens and marks are recognised only if `control`.

        SentencePiece vocabularies put a space before the text and after each control token; `first=False` says that the text
        goes on after other text, so that it gets none.
        """
        if control or self._marks is None or not self._marks.search(text):
            return self._piece_ids(text, control=control, first=first)
        # llama.cpp finds user-defined tokens even in plain text; a mark that is cut after its first character is none.
        ids: list[int] = []
        start = 0
        for found in self._marks.finditer(text):
            cut = found.start() + 1
            ids += self._piece_ids(text[start:cut], control=False, first=first and start == 0)
            start = cut
        return ids + self._piece_ids(text[start:], control=False, first=False)

    def _piece_ids(self, text: str, *, control: bool, first: bool) -> list[int]:
        raw = text.encode("utf-8", "replace")
        if len(raw) > MAX_TEXT_BYTES:
            raise BadRequest(f"The text has {len(raw)} bytes; at most {MAX_TEXT_BYTES} are tokenized at once. Send it in parts.")
        if first or not self._adds_space or not raw:
            return self._tokenize(raw, control=control)
        # The space goes before a character that merges with nothing, and both are dropped again.
        guard = self._tokenize(b"\x01", control=False)
        ids = self._tokenize(b"\x01" + raw, control=control)
        return ids[len(guard):] if ids[:len(guard)] == guard else self._tokenize(raw, control=control)

    def _tokenize(self, raw: bytes, *, control: bool) -> list[int]:
        if not raw:
            return []
        room = len(raw) + 8
        while True:
            ids = (self._c.llama_token * room)()
            n: int = self._c.llama_tokenize(self.handle, raw, len(raw), ids, room, False, control)
            if n >= 0:
                return list(ids[:n])
            room = -n

    def _named(self, model: Any, name: str, token: int) -> int | None:
        """The token, or None where the header names none: llama.cpp then takes 11, GPT-2's closing bracket, for BPE."""
        is_named = self._c.llama_model_meta_val_str(model, f"tokenizer.ggml.{name}_token_id".encode(), None, 0) >= 0
        return token if token >= 0 and (is_named or self.kind == SPM) else None

    def _attribute(self, token: int) -> int:
        return int(self._c.llama_vocab_get_attr(self.handle, token))

    def _special(self) -> dict[int, str]:
        """Text by id of control tokens and of user-defined tokens that are written like marks."""
        found: dict[int, str] = {}
        for i in range(self.size):
            attribute = self._attribute(i)
            if attribute & (CONTROL | USER_DEFINED):
                text = self.text_of(i)
                if text and (attribute & CONTROL or (MARK.fullmatch(text) and not HTML.fullmatch(text.strip("</>")))):
                    found[i] = text
        return found

    def _check_bytes(self) -> None:
        """A SentencePiece vocabulary without all 256 bytes makes llama.cpp abort the process at the first it lacks."""
        if self.kind != SPM:
            return
        spelled = {self._c.llama_vocab_get_text(self.handle, i) for i in range(self.size)}
        missing = [b for b in range(256) if f"<0x{b:02X}>".encode() not in spelled and bytes([b]) not in spelled]
        if missing:
            raise LoadFailed(f"The file's vocabulary lacks {len(missing)} of the 256 byte tokens, first <0x{missing[0]:02X}>: "
                             "llama.cpp would crash at a text that needs one. Convert the model again with byte fallback.")
