"""Calls to a loader that are no runs: tokenize, detokenize, score, logits, embed, set_adapters; on the worker's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.adapters import TakesAdapters, check
from ..core.errors import BadRequest
from ..core.loader import Loader
from .frames import MAX_RAW, pack_ids
from .messages import Answer, Call

if TYPE_CHECKING:
    import numpy as np

HEAVY = frozenset({"score", "logits", "embed"})  # these evaluate the model; the others take microseconds
EXCLUSIVE = frozenset({"set_adapters"})  # these change the model, so no run may be active or waiting


def answer(loader: Loader, call: Call) -> Answer:
    """The loader's answer, packed; raises what the loader raises."""
    return _METHODS[call.method](loader, call)


def _tokenize(loader: Loader, call: Call) -> Answer:
    """All ids in a row; the shape is the length of each piece. A piece is (text, control, first)."""
    # JSON can carry a lone surrogate, which no tokenizer takes: it becomes a question mark.
    pieces = [loader.tokenize(text.encode("utf-8", "replace").decode(), control=control, first=first)
              for text, control, first in call.args]
    return Answer(call.id, b"".join(map(pack_ids, pieces)), tuple(map(len, pieces)))


def _detokenize(loader: Loader, call: Call) -> Answer:
    return Answer(call.id, loader.detokenize(call.ids))


def _score(loader: Loader, call: Call) -> Answer:
    return _packed(call, loader.score(call.ids))


def _logits(loader: Loader, call: Call) -> Answer:
    start, stop = call.args
    return _packed(call, loader.logits(call.ids, start, stop))


def _embed(loader: Loader, call: Call) -> Answer:
    return _packed(call, loader.embed(call.ids))


def _set_adapters(loader: Loader, call: Call) -> Answer:
    """args: (path, weight) pairs."""
    if "adapters" not in loader.facts.features or not isinstance(loader, TakesAdapters):
        raise BadRequest("This model takes no adapters; its loader cannot attach any.", param="adapters")
    loader.set_adapters(check(call.args))
    return Answer(call.id)


def _packed(call: Call, array: np.ndarray) -> Answer:
    if array.size * 4 > MAX_RAW:
        raise BadRequest(f"{call.method} gives {array.size * 4} bytes here, more than {MAX_RAW} at once; ask in smaller pieces.")
    return Answer(call.id, array.astype("float32", copy=False).tobytes(), tuple(map(int, array.shape)))


_METHODS: dict[str, Callable[[Loader, Call], Answer]] = {
    "tokenize": _tokenize, "detokenize": _detokenize, "score": _score, "logits": _logits, "embed": _embed,
    "set_adapters": _set_adapters}
