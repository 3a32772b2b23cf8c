"""What travels between the engine and a worker: length-prefixed frames of JSON and raw bytes, and the values inside them.

A frame is two unsigned 32-bit little-endian lengths, a JSON object of the first length, and raw bytes of the second.
Raw bytes hold token ids (int32) or arrays (float32) in the machine's own order: both ends run on the same machine.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..core.errors import error_from_json
from ..core.loader import ModelFacts, Prefilled, RunFailed, Token
from ..core.params import GenerationParams

MAX_HEADER = 64 * 2**20  # a prompt's text of tens of megabytes; its ids travel raw
MAX_RAW = 64 * 2**20  # a loader gives at most 32 MB of logits a call
_LENGTHS = struct.Struct("<II")


@dataclass(frozen=True)
class Waiting:
    """The run waits in the worker's queue; position 1 is next."""

    position: int


@dataclass(frozen=True)
class Admitted:
    """The loader took the run; `cached` prompt tokens are reused, not evaluated."""

    cached: int


WorkerEvent = Waiting | Admitted | Prefilled | Token | RunFailed


class FrameError(ValueError):
    """The stream is no sequence of frames, or a length is over its limit; the other side is broken or hostile."""


class Frame(NamedTuple):
    header: dict[str, Any]
    raw: bytes


def encode_frame(header: dict[str, Any], raw: bytes = b"") -> bytes:
    """The frame's bytes; raises FrameError where a part is over its limit. ASCII JSON carries even a lone surrogate."""
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    if len(text) > MAX_HEADER or len(raw) > MAX_RAW:
        raise FrameError(f"A frame of {len(text)} + {len(raw)} bytes is over the limits of {MAX_HEADER} + {MAX_RAW}.")
    return _LENGTHS.pack(len(text), len(raw)) + text + raw


class FrameReader:
    """Cuts a byte stream, fed in pieces of any size, into frames. Holds at most one unfinished frame beside the newest piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = _LENGTHS.size  # bytes without which nothing new can be cut

    def feed(self, piece: bytes) -> list[Frame]:
        """The frames that this piece completes; raises FrameError, after which the stream cannot be read on."""
        buffer = self._buffer
        buffer += piece
        if len(buffer) < self._needed:
            return []
        frames = []
        start = 0
        while True:
            if len(buffer) - start < _LENGTHS.size:
                self._needed = _LENGTHS.size
                break
            n_header, n_raw = _LENGTHS.unpack_from(buffer, start)
            if n_header > MAX_HEADER or n_raw > MAX_RAW:
                raise FrameError(f"A frame claims {n_header} + {n_raw} bytes; the limits are {MAX_HEADER} + {MAX_RAW}.")
            middle = start + _LENGTHS.size + n_header
            if len(buffer) < middle + n_raw:
                self._needed = middle + n_raw - start
                break
            frames.append(Frame(_object(buffer[start + _LENGTHS.size:middle]), bytes(buffer[middle:middle + n_raw])))
            start = middle + n_raw
        del buffer[:start]
        return frames


def _object(text: bytearray) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"A frame's header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FrameError("A frame's header is not a JSON object.")
    return header


# Values. JSON has no tuples, sets or integer keys; these wrap what it lacks, so that what comes out equals what went in.


def plain(value: Any) -> Any:
    """A JSON-ready form of a value made of scalars, lists, tuples, sets and dicts, from which `exact` makes an equal one."""
    if isinstance(value, tuple):
        return {"t": [plain(item) for item in value]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"s": [plain(item) for item in value]}
    if isinstance(value, dict):
        return {"d": [[plain(key), plain(item)] for key, item in value.items()]}
    return value


def exact(value: Any) -> Any:
    """The value that `plain` wrote; sets come back frozen."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, dict):
        (kind, items), = value.items()
        return _MAKERS[kind](items)
    return value


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "t": lambda items: tuple(map(exact, items)),
    "s": lambda items: frozenset(map(exact, items)),
    "d": lambda items: {exact(key): exact(item) for key, item in items},
}


def params_to_json(params: GenerationParams) -> Any:
    return plain({name: getattr(params, name) for name in params.changed()})


def params_from_json(body: Any) -> GenerationParams:
    return GenerationParams(**exact(body))


def facts_to_json(facts: ModelFacts) -> Any:
    return plain(vars(facts))


def facts_from_json(body: Any) -> ModelFacts:
    return ModelFacts(**exact(body))


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as int32; raises OverflowError or TypeError for what is no token id."""
    return array("i", ids).tobytes()


def unpack_ids(raw: bytes) -> list[int]:
    ids = array("i")
    ids.frombytes(raw)
    return ids.tolist()


# Events, as lists, for they are most of what travels: [id, text] is a token; a first item that is a string names another kind.


def events_to_json(events: Sequence[WorkerEvent]) -> list[Any]:
    return [_event_to_json(event) for event in events]


def _event_to_json(event: WorkerEvent) -> list[Any]:
    if isinstance(event, Token):
        if event.logprob is None and event.finish is None and not event.top:
            return [event.id, event.text]
        return [event.id, event.text, event.logprob, event.top, event.finish, event.counted]
    if isinstance(event, Prefilled):
        return ["prefilled", event.done, event.total, event.cached]
    if isinstance(event, Admitted):
        return ["admitted", event.cached]
    if isinstance(event, Waiting):
        return ["waiting", event.position]
    return ["failed", event.error.to_json()]


def events_from_json(items: Sequence[Any]) -> list[WorkerEvent]:
    """The events that `events_to_json` wrote; raises FrameError for anything else."""
    try:
        return [_event_from_json(item) for item in items]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise FrameError(f"This is no worker event: {error!r}") from error


def _event_from_json(item: list[Any]) -> WorkerEvent:
    if len(item) == 2 and not isinstance(item[0], str):
        return _plain_token(item[0], item[1])
    if not isinstance(item[0], str):
        id_, text, logprob, top, finish, counted = item
        return Token(id_, text, logprob, tuple(tuple(entry) for entry in top), finish, tuple(counted) if counted else None)
    kind = _KINDS.get(item[0])
    if kind is not None:
        return kind(*item[1:])
    if item[0] == "failed":
        return RunFailed(error_from_json(item[1]))
    raise ValueError(f"unknown kind {item[0]!r}")


@lru_cache(maxsize=2**15)
def _plain_token(id_: int, text: str) -> Token:
    """One and the same token wherever it occurs: text is made of few different ones, and whoever keeps a reply keeps these."""
    return Token(id_, text)


_KINDS: dict[str, type[Waiting] | type[Admitted] | type[Prefilled]] = {
    "waiting": Waiting, "admitted": Admitted, "prefilled": Prefilled}
