"""Renders chat templates, which come from model files and are hostile, in a small child process with a deadline."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import AppError, BadRequest

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

TRANSCRIPT_TEMPLATE = (
    "{% set ns = namespace(me='Assistant') %}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' and message.name %}{% set ns.me = message.name %}{% endif %}"
    "{% if message.role == 'system' %}{{ message.content + '\\n\\n' }}"
    "{% else %}{{ (message.name or message.role.capitalize()) + ': ' + message.content + '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ns.me + ':' }}{% endif %}")
TRANSCRIPT_STOPS = ("\nUser:", "\nSystem:", "\nAssistant:")

DEFAULT_TEMPLATE = CHATML_TEMPLATE

MAX_TEMPLATE = 1_000_000  # characters
MAX_ANSWER = 256_000_000  # bytes of one frame from the child
START_SECONDS = 30.0
_HEADER = struct.Struct(">I")
_ROOT = Path(__file__).resolve().parents[2]
_KEPT_VARIABLES = ("PATH", "SYSTEMROOT", "PYTHONPATH", "LD_LIBRARY_PATH", "TZ", "LANG", "LC_ALL", "LC_TIME")


class TemplateRefused(BadRequest):
    """The template raised: it wants other messages, or it is broken."""


def default_template(special_texts: Iterable[str]) -> str:
    """For a model without a template: ChatML where it has those tokens, else a transcript (end it at TRANSCRIPT_STOPS)."""
    return CHATML_TEMPLATE if "<|im_start|>" in set(special_texts) else TRANSCRIPT_TEMPLATE


class TemplateRenderer:
    """Renders in one child process, started at the first call and again after it was killed. On one event loop."""

    def __init__(self, *, deadline_seconds: float = 5.0, memory_bytes: int = 512 << 20) -> None:
        self._deadline = deadline_seconds
        self._memory_bytes = memory_bytes
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def render(self, template: str, messages: Sequence[dict[str, Any]], *, bos_token: str = "", eos_token: str = "",
                     add_generation_prompt: bool = True, continue_final_message: bool = False, **extra: Any) -> str:
        """The prompt's text. Raises TemplateRefused with the template's own words, BadRequest where it exceeds its limits."""
        variables = {"bos_token": bos_token, "eos_token": eos_token, "add_generation_prompt": add_generation_prompt, **extra}
        return (await self.render_all(template, [messages], variables, continue_final_message=continue_final_message))[0]

    async def render_all(self, template: str, chats: Sequence[Sequence[dict[str, Any]]], variables: dict[str, Any], *,
                         continue_final_message: bool = False) -> list[str]:
        """Several chats by one template within one deadline; JSON values only. With continue_final_message every text ends
        where its last message's content does."""
        if len(template) > MAX_TEMPLATE:
            raise BadRequest(f"The chat template has {len(template)} characters; the limit is {MAX_TEMPLATE}.")
        if continue_final_message and not all(chat and isinstance(chat[-1].get("content"), str) for chat in chats):
            raise BadRequest("There is no message to continue.", param="messages")
        request = {"template": template, "chats": chats, "continue_final_message": continue_final_message,
                   "variables": {"tools": None, "documents": None, "bos_token": "", "eos_token": "", **variables}}
        reply = await self._ask(json.dumps(request).encode("ascii"))
        if "refused" in reply:
            raise TemplateRefused(f"The model's chat template refused these messages: {reply['refused']}", param="messages")
        return [str(text) for text in reply["texts"]]

    async def start(self) -> None:
        """Start the child now, so that the first message does not wait for it."""
        async with self._turn:
            await self._started()

    async def close(self) -> None:
        """End the child; a second call does nothing."""
        self._closed = True
        await self._kill()

    async def _ask(self, body: bytes) -> dict[str, Any]:
        async with self._turn:
            child = await self._started()
            try:
                return await asyncio.wait_for(_exchange(child, body), self._deadline)
            except TimeoutError as error:
                await self._kill()
                raise BadRequest(f"The model's chat template took longer than {self._deadline:g} seconds and was stopped; "
                                 "choose another template.") from error
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                await self._kill()
                raise BadRequest("The model's chat template broke the process it runs in; choose another template.") from error
            except asyncio.CancelledError:
                await self._kill()  # else the answer that nobody waits for would be taken for the next one's
                raise

    async def _started(self) -> asyncio.subprocess.Process:
        if self._closed:
            raise AppError("The template renderer is closed: the app is stopping.")
        if self._child is not None and self._child.returncode is None:
            return self._child
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "modules.text.template_child", str(self._memory_bytes), cwd=_ROOT, env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
        try:
            await asyncio.wait_for(_read(self._child), START_SECONDS)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError) as error:
            await self._kill()
            raise AppError("The process that renders chat templates did not start; is this installation complete? "
                           "Run `python start.py install` again.") from error
        except asyncio.CancelledError:
            await self._kill()
            raise
        return self._child

    async def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        await child.wait()
        if child.stdin is not None:
            child.stdin.close()


async def _exchange(child: asyncio.subprocess.Process, body: bytes) -> dict[str, Any]:
    assert child.stdin is not None, "the child has pipes"
    child.stdin.write(_HEADER.pack(len(body)) + body)
    await child.stdin.drain()
    return await _read(child)


async def _read(child: asyncio.subprocess.Process) -> dict[str, Any]:
    assert child.stdout is not None, "the child has pipes"
    size = _HEADER.unpack(await child.stdout.readexactly(_HEADER.size))[0]
    if size > MAX_ANSWER:
        raise ConnectionError(f"an answer of {size} bytes")
    reply = json.loads(await child.stdout.readexactly(size))
    if not isinstance(reply, dict):
        raise ConnectionError("an answer that is no object")
    return reply
