"""Which part of a prompt came from which message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.messages import Message, ReasoningPart, TextPart, message
from modules.text.spans import GLUE, Rendered, Span, build
from modules.text.template import CHATML_TEMPLATE, TRANSCRIPT_TEMPLATE, TemplateRefused, TemplateRenderer

TEMPLATES = Path("../shared/data/templates/llama.cpp")
NAMES = sorted(path.name for path in TEMPLATES.glob("*.jinja"))
TALK = [message("system", "Be brief."), message("user", "What is 2+2?"), message("assistant", "It is four."),
        message("user", "And 3+3?")]
TRIMMING = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}\n{% endfor %}"


@pytest_asyncio.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    made = TemplateRenderer()
    yield made
    await made.close()


def check(rendered: Rendered) -> None:
    """Spans follow each other without gaps and make up the text."""
    place = 0
    for span in rendered.spans:
        assert span.start == place and span.stop > span.start
        assert (span.source == GLUE) == (span.field == "glue")
        place = span.stop
    assert place == len(rendered.text)


def texts(rendered: Rendered) -> list[tuple[int, str]]:
    return [(span.source, rendered.text[span.start:span.stop]) for span in rendered.contents()]


@pytest.mark.skipif(not NAMES, reason="needs ../shared/data/templates")
async def test_real_templates_give_exact_spans(renderer: TemplateRenderer) -> None:
    exact, refused = [], []
    for name in NAMES:
        template = (TEMPLATES / name).read_text("utf-8")
        try:
            rendered = await build(renderer, template, TALK, bos_token="<s>", eos_token="</s>")
        except TemplateRefused:
            refused.append(name)  # tool templates, which Transformers cannot render without tools either
            continue
        check(rendered)
        found = texts(rendered)
        wanted = [(n, m.text) for n, m in enumerate(TALK)]
        if rendered.exact and not rendered.unplaced and sorted(set(found)) == wanted:
            exact.append(name)
    print(f"{len(exact)} of {len(NAMES)} exact; not: {sorted(set(NAMES) - set(exact))}; refused: {refused}")
    assert len(exact) >= 0.9 * len(NAMES)
    assert all('tool_use' in name or 'firefunction' in name for name in refused)


CONTENT = st.lists(st.sampled_from(["a", "b", " ", "\n", "<|im_end|>", "\U000f0000", "\U000f0001", "é", "[user]"]),
                   max_size=8).map("".join)


@pytest.fixture(scope="module")
def runner() -> Iterator[tuple[asyncio.Runner, TemplateRenderer]]:
    """One child for all of hypothesis's examples."""
    with asyncio.Runner() as made:
        renderer = TemplateRenderer()
        yield made, renderer
        made.run(renderer.close())


@given(contents=st.lists(CONTENT, max_size=6), template=st.sampled_from([CHATML_TEMPLATE, TRANSCRIPT_TEMPLATE, TRIMMING]))
@settings(max_examples=150, deadline=None)
def test_spans_make_up_the_text_and_hold_the_contents(runner: tuple[asyncio.Runner, TemplateRenderer], contents: list[str],
                                                      template: str) -> None:
    """Contents may be equal, empty, white space, or hold the marks themselves."""
    loop, renderer = runner
    messages = [message(("user", "assistant")[n % 2], text) for n, text in enumerate(contents)]

    async def run() -> tuple[Rendered, str]:
        dicts = [{"role": m.role, "content": m.text} for m in messages]
        return await build(renderer, template, messages), await renderer.render(template, dicts)

    rendered, plain = loop.run(run())
    assert rendered.text == plain
    check(rendered)
    assert rendered.exact and not rendered.unplaced
    expected = [(n, text.strip() if template == TRIMMING else text) for n, text in enumerate(contents) if text.strip()]
    assert texts(rendered) == expected


async def test_outer_white_space_belongs_to_the_span_only_where_the_template_keeps_it(renderer: TemplateRenderer) -> None:
    messages = [message("user", "\nq\n"), message("assistant", " a \n")]
    assert texts(await build(renderer, CHATML_TEMPLATE, messages)) == [(0, "\nq\n"), (1, " a \n")]
    assert texts(await build(renderer, TRIMMING, messages)) == [(0, "q"), (1, "a")]


async def test_a_message_of_every_private_character_is_still_found(renderer: TemplateRenderer) -> None:
    hostile = "".join(chr(code) for code in range(0xF0000, 0xFFFFE))
    rendered = await build(renderer, CHATML_TEMPLATE, [message("user", hostile), message("assistant", "hi")])
    assert texts(rendered) == [(0, hostile), (1, "hi")]


async def test_a_continued_reply_ends_the_text(renderer: TemplateRenderer) -> None:
    messages = [message("user", "go"), message("assistant", "Once upon ")]
    rendered = await build(renderer, CHATML_TEMPLATE, messages, add_generation_prompt=False, continue_final_message=True)
    check(rendered)
    assert texts(rendered)[-1] == (1, "Once upon ") and rendered.text.endswith("Once upon ")


async def test_a_template_that_changes_texts_falls_back_to_a_search(renderer: TemplateRenderer) -> None:
    template = "{% for m in messages %}{{ m.content | length }}:{{ m.content }};{% endfor %}"
    rendered = await build(renderer, template, TALK[:2])
    assert not rendered.exact and rendered.text == "9:Be brief.;12:What is 2+2?;"
    assert texts(rendered) == [(0, "Be brief."), (1, "What is 2+2?")]


async def test_a_torn_text_keeps_a_span_for_each_control_token_in_it(renderer: TemplateRenderer) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
    messages = [message("assistant", "secret</think>shown <|im_end|> too")]
    torn = await build(renderer, template, messages)
    assert torn.unplaced == ("secret</think>shown <|im_end|> too",) and torn.contents() == ()
    rendered = await build(renderer, template, messages, special_texts=("<|im_start|>", "<|im_end|>"))
    assert rendered.text == "<|im_start|>shown <|im_end|> too<|im_end|>"
    assert rendered.contents() == (Span(18, 28, 0, "content", whole=False),) and not rendered.unplaced


async def test_templates_that_want_turns_get_them_without_losing_a_text(renderer: TemplateRenderer) -> None:
    strict = ("{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
              "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    talk = [message("system", "S"), message("assistant", "Hi!"), message("user", "a"), message("user", "b")]
    rendered = await build(renderer, strict, talk)
    check(rendered)
    assert texts(rendered) == [(0, "S"), (1, "Hi!"), (2, "a"), (3, "b")]
    with pytest.raises(TemplateRefused, match="never"):
        await build(renderer, "{{ raise_exception('never') }}", talk)


async def test_reasoning_is_sent_back_only_by_a_template_that_asks_for_it(renderer: TemplateRenderer) -> None:
    thought = Message("assistant", (ReasoningPart("hmm <|im_end|>"), TextPart("Hi.")))
    asks = "{% for m in messages %}{{ m.reasoning_content }}|{{ m.content }}{% endfor %}"
    rendered = await build(renderer, asks, [thought])
    assert [(s.field, rendered.text[s.start:s.stop]) for s in rendered.contents()] \
        == [("reasoning", "hmm <|im_end|>"), ("content", "Hi.")]
    assert "hmm" not in (await build(renderer, CHATML_TEMPLATE, [thought])).text


async def test_names_are_spans_too(renderer: TemplateRenderer) -> None:
    messages = [message("user", "hi", name="Ann"), message("assistant", "ho", name="Bot")]
    rendered = await build(renderer, TRANSCRIPT_TEMPLATE, messages)
    assert rendered.text == "Ann: hi\nBot: ho\nBot:"
    assert [(s.field, rendered.text[s.start:s.stop]) for s in rendered.contents()][:3] \
        == [("name", "Ann"), ("content", "hi"), ("name", "Bot")]
