"""Bytes that come token by token, as text that never holds a broken character."""

from __future__ import annotations

import codecs


class Utf8:
    """An incremental decoder: an incomplete character waits for its last byte, an impossible byte becomes U+FFFD.

    is_clean: nothing waits, so whole text may be appended without asking. What still waits at a run's end is no character yet
    and is left out; `pending` hands it to the run that goes on.
    """

    def __init__(self, pending: bytes = b"") -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder.decode(pending)
        self.is_clean = not pending

    def feed(self, piece: bytes) -> str:
        """The text that this piece completes, maybe none."""
        text = self._decoder.decode(piece)
        self.is_clean = not self._decoder.getstate()[0]
        return text


def pending(tail: bytes) -> bytes:
    """The incomplete character at the end of `tail`, or b"": what a reply that was cut inside a character starts with."""
    for n in range(1, min(4, len(tail) + 1)):
        lead = tail[-n]
        if lead & 0xC0 == 0x80:  # a continuation byte: look further back
            continue
        length = 2 if 0xC2 <= lead <= 0xDF else 3 if 0xE0 <= lead <= 0xEF else 4 if 0xF0 <= lead <= 0xF4 else 1
        return tail[-n:] if length > n and not Utf8().feed(tail[-n:]) else b""
    return b""
