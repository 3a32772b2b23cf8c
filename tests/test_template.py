"""Chat templates render as in Transformers, and cannot harm or stall the app."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modules.core.errors import AppError, BadRequest
from modules.text.template import CHATML_TEMPLATE, TRANSCRIPT_TEMPLATE, TemplateRefused, TemplateRenderer, default_template

TEMPLATES = Path("../shared/data/templates/llama.cpp")
NAMES = sorted(path.name for path in TEMPLATES.glob("*.jinja"))
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Héllo 日本\n<b>"},
    {"role": "assistant", "content": "Hi."}, {"role": "user", "content": " and again "}]
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest_asyncio.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    made = TemplateRenderer()
    yield made
    await made.close()


def reference(template: str, messages: list[dict[str, Any]], **flags: Any) -> str | None:
    """What Transformers renders, or None where it raises."""
    from transformers.utils.chat_template_utils import render_jinja_template
    try:
        return str(render_jinja_template([messages], chat_template=template, **VARIABLES, **flags)[0][0])
    except Exception:  # noqa: BLE001 (the templates raise what they like)
        return None


@pytest.mark.skipif(not NAMES, reason="needs ../shared/data/templates")
async def test_real_templates_render_as_in_transformers(renderer: TemplateRenderer) -> None:
    compared = 0
    for name in NAMES:
        template = (TEMPLATES / name).read_text("utf-8")
        for messages in (MESSAGES, MESSAGES[1:], MESSAGES[1:2], [*MESSAGES[1:], {"role": "assistant", "content": "well,"}]):
            for flags in ({"add_generation_prompt": True}, {"add_generation_prompt": False},
                          {"add_generation_prompt": False, "continue_final_message": True}):
                wanted = reference(template, messages, **flags)
                try:
                    got: str | None = await renderer.render(template, messages, **VARIABLES, **flags)
                except TemplateRefused:
                    got = None
                if wanted is not None:
                    assert got == wanted, f"{name} {flags}"
                    compared += 1
    print(f"{compared} renderings of {len(NAMES)} templates agree")
    assert compared > 8 * len(NAMES)


@pytest.mark.parametrize("template", [
    "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "{% generation %}{% set x = 1 %}{{ messages[0].content }}{% endgeneration %}{{ x is defined }}",
    "{{ messages | tojson }}{{ dict(a=1) }}{% set ns = namespace(n=0) %}{% set ns.n = 3 %}{{ ns.n }}",
    "  {% if true %}\n  a\n  {% endif %}\nb {{ tools is none }} {{ strftime_now('%Y')|length }}",
])
async def test_extensions_and_globals_are_those_of_transformers(renderer: TemplateRenderer, template: str) -> None:
    assert await renderer.render(template, MESSAGES, **VARIABLES) == reference(template, MESSAGES, add_generation_prompt=True)


async def test_a_refusal_carries_the_templates_own_words(renderer: TemplateRenderer) -> None:
    with pytest.raises(TemplateRefused, match="roles must alternate!"):
        await renderer.render("{{ raise_exception('roles must alternate!') }}", MESSAGES)
    with pytest.raises(TemplateRefused, match="line 1"):
        await renderer.render("{% if %}", MESSAGES)
    assert await renderer.render("{{ messages|length }}", MESSAGES) == "4"


@pytest.mark.parametrize("template", [
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ messages.append(1) }}",
    "{% set ns = namespace(__class__=1) %}{{ ns }}",
    "{{ lipsum.__globals__.os }}",
    "{{ '%s'.__mod__ }}{{ ''.format.__self__.__class__.__mro__ }}",
    "{% include '/etc/passwd' %}",
])
async def test_the_sandbox_holds(renderer: TemplateRenderer, template: str) -> None:
    with pytest.raises(TemplateRefused):
        await renderer.render(template, MESSAGES)


ENDLESS = ("{% macro f(n) %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endmacro %}"
           "{{ f(1) }}")


async def test_a_template_that_never_ends_is_stopped_and_the_next_one_works() -> None:
    renderer = TemplateRenderer(deadline_seconds=0.5)
    await renderer.start()
    with pytest.raises(BadRequest, match="took longer"):
        await renderer.render(ENDLESS, MESSAGES)
    assert await renderer.render("ok", MESSAGES) == "ok"
    await renderer.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS holds on Linux")
async def test_a_template_that_doubles_strings_runs_out_of_its_own_memory(renderer: TemplateRenderer) -> None:
    doubling = "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
    with pytest.raises(BadRequest, match=r"memory|broke"):
        await renderer.render(doubling, MESSAGES)
    with pytest.raises(BadRequest, match="characters"):
        await renderer.render("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", MESSAGES)
    assert await renderer.render("ok", MESSAGES) == "ok"


async def test_a_cancelled_rendering_leaves_no_answer_for_the_next_one(renderer: TemplateRenderer) -> None:
    await renderer.start()
    task = asyncio.create_task(renderer.render(ENDLESS, MESSAGES))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await renderer.render("mine", MESSAGES) == "mine"


@pytest.mark.skipif(os.name != "posix", reason="looks for a process by its id")
def test_the_child_dies_with_its_parent_in_the_middle_of_an_endless_template() -> None:
    program = f"""
import asyncio, os
from modules.text.template import TemplateRenderer
async def main():
    renderer = TemplateRenderer(deadline_seconds=60)
    await renderer.start()
    asyncio.create_task(renderer.render({ENDLESS!r}, []))
    await asyncio.sleep(0.2)
    print(renderer._child.pid, flush=True)
    os._exit(9)
asyncio.run(main())"""
    pid = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True).stdout)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return  # an init that does not reap
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail(f"template child {pid} outlived its parent")


async def test_a_reply_is_continued_at_its_very_end(renderer: TemplateRenderer) -> None:
    messages = [MESSAGES[1], {"role": "assistant", "content": "Once "}]
    text = await renderer.render(CHATML_TEMPLATE, messages, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nOnce ")
    trimming = "{% for m in messages %}{{ m.content|trim }}.{% endfor %}"
    text = await renderer.render(trimming, messages, continue_final_message=True)
    assert text.endswith(".Once")
    with pytest.raises(BadRequest):
        await renderer.render("nothing", messages, continue_final_message=True)
    with pytest.raises(BadRequest):
        await renderer.render(CHATML_TEMPLATE, [], continue_final_message=True)


async def test_models_without_a_template_get_chatml_or_a_transcript(renderer: TemplateRenderer) -> None:
    assert default_template(["<|im_start|>", "<|im_end|>"]) == CHATML_TEMPLATE
    assert default_template([]) == TRANSCRIPT_TEMPLATE
    assert await renderer.render(TRANSCRIPT_TEMPLATE, MESSAGES[1:3]) == "User: Héllo 日本\n<b>\nAssistant: Hi.\nAssistant:"
    chatml = await renderer.render(CHATML_TEMPLATE, MESSAGES[2:3])
    assert chatml == "<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>assistant\n"


async def test_lone_surrogates_pass_through(renderer: TemplateRenderer) -> None:
    assert await renderer.render("{{ messages[0].content }}", [{"role": "user", "content": "a\ud800b"}]) == "a\ud800b"


async def test_a_closed_renderer_says_so(renderer: TemplateRenderer) -> None:
    await renderer.close()
    await renderer.close()
    with pytest.raises(AppError, match="closed"):
        await renderer.render("x", MESSAGES)
