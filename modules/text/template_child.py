"""The process in which chat templates of model files render: sandboxed, with little memory, ended by its parent.

Standard input and output carry frames: a length of four bytes, big-endian, then JSON. The first frame out is {"ready": true};
then each request {"template", "chats", "variables", "continue_final_message"} is answered by {"texts": [...]} or
{"refused": "why"}. Templates see what Transformers gives them (utils/chat_template_utils.py): the same globals, filters and tags.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import struct
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, BinaryIO

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

MAX_OUTPUT = 8_000_000  # characters of one rendering
CONTINUE_TAG = "\U000ffffdCONTINUE\U000ffffd "  # its last space tells whether the template trims
HEADER = struct.Struct(">I")


class GenerationTag(jinja2.ext.Extension):
    """`{% generation %}`: marks what the model wrote, for training; for us a plain block."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own shape)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


class TemplateNamespace(jinja2.utils.Namespace):
    """Jinja's namespace without underscore names, which would reach into Python."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        values = dict(*rest, **values)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class TemplateDict:
    """`dict(...)` in a template, without the type's own attributes."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _check_name(name: Any) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace may not hold the underscore name {name!r}")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


@functools.lru_cache(maxsize=16)
def compiled(template: str) -> jinja2.Template:
    """The compiled template; raises TemplateSyntaxError."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols], cache_size=0)
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now, namespace=TemplateNamespace,
                               dict=TemplateDict())
    return environment.from_string(template)


def render(template: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], *, continue_final: bool) -> str:
    """The text of one chat; with continue_final it ends where the last message's content does. Raises what Jinja raises."""
    if continue_final:
        last = messages[-1]
        messages = [*messages[:-1], {**last, "content": last["content"] + CONTINUE_TAG}]
    parts, size = [], 0
    for part in compiled(template).generate(messages=messages, **variables):
        parts.append(part)
        size += len(part)
        if size > MAX_OUTPUT:
            raise jinja2.exceptions.TemplateError(f"it writes more than {MAX_OUTPUT} characters")
    text = "".join(parts)
    if not continue_final:
        return text
    tag = CONTINUE_TAG.rstrip()
    place = text.rfind(tag)
    if place < 0:
        raise jinja2.exceptions.TemplateError("it does not show the last message as it is, so that cannot be continued")
    kept = text[:place]
    return kept if text.startswith(CONTINUE_TAG, place) else kept.rstrip()


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Render every chat of the request; whatever a template does wrong becomes words."""
    try:
        continue_final = request["continue_final_message"]
        return {"texts": [render(request["template"], chat, request["variables"], continue_final=continue_final)
                          for chat in request["chats"]]}
    except MemoryError:
        return {"refused": "it needs too much memory"}
    except RecursionError:
        return {"refused": "it calls itself too deeply"}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"refused": f"line {error.lineno}: {error.message}"}
    except Exception as error:  # noqa: BLE001 (a hostile template raises what it likes; its words travel to the person)
        return {"refused": str(error)[:2000] or type(error).__name__}


def _read_frames(source: BinaryIO, frames: queue.SimpleQueue[dict[str, Any]]) -> None:
    """In a thread of its own, so that the parent's death ends a template that never ends."""
    while True:
        header = source.read(HEADER.size)
        body = source.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
        if not body:
            os._exit(0)
        frames.put(json.loads(body))


def _write_frame(sink: BinaryIO, value: Mapping[str, Any]) -> None:
    body = json.dumps(value).encode("ascii")
    sink.write(HEADER.pack(len(body)) + body)
    sink.flush()


def _limit(memory_bytes: int) -> None:
    """No files, no core dumps, bounded memory; where the system has no such limits (Windows) the deadline remains."""
    try:
        import resource
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_AS, memory_bytes)):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def main() -> None:
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    compiled("{{ messages }}").render(messages=[])  # imports what a first rendering needs, before the limits
    frames: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_frames, args=(sys.stdin.buffer, frames), daemon=True).start()
    _limit(int(sys.argv[1]))
    _write_frame(sink, {"ready": True})
    while True:
        _write_frame(sink, answer(frames.get()))


if __name__ == "__main__":
    main()
