"""The messages of the worker's conversation: commands from the engine's side, replies from the child's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import AppError, error_from_json
from ..core.loader import ModelFacts
from ..core.params import GenerationParams
from . import frames
from .frames import Frame, FrameError, WorkerEvent

Method = Literal["tokenize", "detokenize", "score", "logits", "embed", "set_adapters"]


@dataclass(frozen=True)
class Load:
    """Always the first command. options: any of the loader's options by name; the child parses them."""

    loader: str
    path: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Add:
    run: str
    prompt: Sequence[int]
    params: GenerationParams
    cache_key: str


@dataclass(frozen=True)
class Remove:
    run: str


@dataclass(frozen=True)
class Call:
    """A question answered between steps by one Answer with the same id. ids are the token ids it is about, if any."""

    id: int
    method: Method
    args: tuple[Any, ...] = ()
    ids: Sequence[int] = ()


@dataclass(frozen=True)
class Close:
    """The last command: free everything and end."""


@dataclass(frozen=True)
class Progress:
    """fraction 0..1 of the load, and what is being done."""

    fraction: float
    what: str


@dataclass(frozen=True)
class Ready:
    facts: ModelFacts


@dataclass(frozen=True)
class LoadError:
    """The load failed; the child ends after this."""

    error: AppError


@dataclass(frozen=True)
class Events:
    """What happened, in order within each run. at: when the newest of it did, in seconds of the worker's monotonic clock: first
    tokens and ends are sent at once, so the time between two of these is exact, however long they waited in the pipe."""

    runs: tuple[tuple[str, list[WorkerEvent]], ...]
    at: float = 0.0


@dataclass(frozen=True)
class Answer:
    """`raw` is what the method gives, packed as `calls` says; `shape` tells how to unpack it; `error` is set where it failed."""

    id: int
    raw: bytes = b""
    shape: tuple[int, ...] = ()
    error: AppError | None = None


Command = Load | Add | Remove | Call | Close
Reply = Progress | Ready | LoadError | Events | Answer


def encode(message: Command | Reply) -> bytes:
    """The message as one frame; raises FrameError where it is too large."""
    if isinstance(message, Events):
        runs = [[run, frames.events_to_json(events)] for run, events in message.runs]
        return frames.encode_frame({"op": "events", "runs": runs, "at": message.at})
    header, raw = _header(message)
    return frames.encode_frame(header, raw)


def _header(message: Command | Reply) -> tuple[dict[str, Any], bytes]:
    match message:
        case Load(loader, path, options):
            return {"op": "load", "loader": loader, "path": path, "options": frames.plain(options)}, b""
        case Add(run, prompt, params, cache_key):
            header = {"op": "add", "run": run, "params": frames.params_to_json(params), "key": cache_key}
            return header, frames.pack_ids(prompt)
        case Remove(run):
            return {"op": "remove", "run": run}, b""
        case Call(id_, method, args, ids):
            return {"op": "call", "id": id_, "method": method, "args": frames.plain(args)}, frames.pack_ids(ids)
        case Close():
            return {"op": "close"}, b""
        case Progress(fraction, what):
            return {"op": "progress", "fraction": fraction, "what": what}, b""
        case Ready(facts):
            return {"op": "ready", "facts": frames.facts_to_json(facts)}, b""
        case LoadError(error):
            return {"op": "load_error", "error": error.to_json()}, b""
        case Answer(id_, raw, shape, failure):
            return {"op": "answer", "id": id_, "shape": shape, "error": failure.to_json() if failure else None}, raw
    raise AssertionError(f"no frame for {message!r}")


def decode_command(frame: Frame) -> Command:
    """The command in a frame; raises FrameError where it is none."""
    header, raw = frame
    try:
        match header["op"]:
            case "add":
                return Add(header["run"], frames.unpack_ids(raw), frames.params_from_json(header["params"]), header["key"])
            case "remove":
                return Remove(header["run"])
            case "call":
                return Call(header["id"], header["method"], frames.exact(header["args"]), frames.unpack_ids(raw))
            case "load":
                return Load(header["loader"], header["path"], frames.exact(header["options"]))
            case "close":
                return Close()
        raise FrameError(f"no command is called {header['op']!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FrameError(f"A frame holds no command: {error!r}") from error


def decode_reply(frame: Frame) -> Reply:
    """The reply in a frame; raises FrameError where it is none."""
    header, raw = frame
    try:
        match header["op"]:
            case "events":
                return Events(tuple((run, frames.events_from_json(events)) for run, events in header["runs"]), header["at"])
            case "answer":
                error = error_from_json(header["error"]) if header["error"] else None
                return Answer(header["id"], raw, tuple(header["shape"]), error)
            case "progress":
                return Progress(header["fraction"], header["what"])
            case "ready":
                return Ready(frames.facts_from_json(header["facts"]))
            case "load_error":
                return LoadError(error_from_json(header["error"]))
        raise FrameError(f"no reply is called {header['op']!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FrameError(f"A frame holds no reply: {error!r}") from error
