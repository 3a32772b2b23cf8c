"""Markdown to HTML: the same in one piece and in any pieces, and nothing hostile gets through."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.ui.blocks import MAX_MARKDOWN, LiveBlocks, Update, diff, render_message

# Pieces that meet in every order; none uses a link or footnote before it is defined, which only the last pass can mend.
PIECES = [
    "plain words\n", "a *b* **c** `d` ~~e~~\n", "\n", "\n\n", "# head\n", "Title\n===\n", "sub\n---\n", "---\n", "- one\n",
    "- two\n\n", "  - deep\n", "1. first\n", "7) seventh\n", "* star\n", "> quote\n", "> more\n\n", "lazy\n",
    "```python\nx = 1\n", "```\n", "~~~~\n", "    indented\n", "| a | b |\n|---|:-:|\n", "| 1 | 2 |\n", "$$\nx^2\n", "$$\n",
    "\\[ y \\]\n", "\\[\n", "\\]\n", "cost $5, $x$ and \\(z\\)\n", "[l]: http://x.example\n", "'title'\n", "<div>\n",
    "</div>\n", "<b>raw</b>\n", "<!-- c\n", "-->\n", "\t tab\n", "\r\n", "\r", "<details>\n<summary>s</summary>\n\n",
    "</details>\n\n", "- [x] task\n", "- ```\n  in list\n", "😀 ünïcode\n", "text without an end", "Letter\n\n", "\\", "`",
    "*", "-", "=", "&amp;\n", "https://x.example/a_b\n", "   \n", "  \n", "x  \ny\n",
]


def streamed(text: str, cuts: list[int], *, finish: bool) -> list[str]:
    """The blocks after feeding `text` cut at `cuts` and drawing after each piece, as a reader rebuilds them from updates."""
    live = LiveBlocks()
    shown: list[str] = []
    for now, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(text)], strict=True)):
        live.feed(text[begin:end])
        apply(shown, live.render(float(now)), len(live.blocks))
        assert shown == live.blocks, "the updates rebuild what the renderer holds"
    if finish:
        apply(shown, live.finish(), len(live.blocks))
    return shown


def apply(shown: list[str], updates: list[Update], n_blocks: int) -> None:
    shown[:] = (shown + [""] * n_blocks)[:n_blocks]
    for update in updates:
        shown[update.index] = shown[update.index][:update.keep] + update.append


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14), st.randoms(use_true_random=False))
def test_text_cut_anywhere_draws_as_the_whole_does(pieces: list[str], rng: random.Random) -> None:
    """Before the last pass too, once a blank line and a fresh paragraph have closed what was open; after it always."""
    text = "".join(pieces)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(12)))
    assert streamed(text, cuts, finish=True) == render_message(text)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from([p for p in PIECES if "[l]" not in p]), max_size=12), st.randoms(use_true_random=False))
def test_closed_blocks_never_need_mending(pieces: list[str], rng: random.Random) -> None:
    """Blocks closed while streaming are those of one whole render: the last pass then only draws the tail again."""
    text = "".join(pieces)
    live = LiveBlocks()
    cuts = sorted({rng.randrange(len(text) + 1) for _ in range(12)} | {len(text)})
    for now, (begin, end) in enumerate(zip([0, *cuts[:-1]], cuts, strict=True)):
        live.feed(text[begin:end])
        live.render(float(now))
    closed = list(live._closed)
    assert closed == render_message(text)[:len(closed)]


def test_only_line_feeds_end_lines() -> None:
    """Other separators used to move the cut: str.splitlines ends lines at them, the parser does not."""
    text = "a\u2028b\x0cc\x85d\n\n# head\n\nnext\n\nend"
    assert streamed(text, [12, 17, 20], finish=False) == render_message(text)


def test_every_cut_of_a_short_mix_draws_the_same() -> None:
    text = "# H\n\na $x$ 😀\r\n\n- 1\n  ```py\n  x\n  ```\n- 2\n\nEnd\n\n```py\nf(1)\n```\n\n$$\na\n$$\n"
    text += "| a |\n|--:|\n| 1 |\n\nref [l]\n\n[l]: /x\n"
    whole = render_message(text)
    for cut in range(len(text) + 1):
        assert streamed(text, [cut], finish=True) == whole


def test_a_link_used_before_its_definition_is_mended_at_the_end() -> None:
    text = "see [l]\n\nmore\n\n[l]: http://x.example\n"
    assert "<a " not in streamed(text, [9], finish=False)[0]
    assert '<a href="http://x.example"' in streamed(text, [9], finish=True)[0]


def test_an_open_fence_is_plain_and_coloured_when_it_closes() -> None:
    live = LiveBlocks()
    live.feed("```python\nreturn 1\n")
    live.render(0)
    assert live.blocks == ['<div class="code" data-lang="python"><pre tabindex="0"><code>return 1\n</code></pre></div>\n']
    live.feed("```\n")
    live.render(1)
    assert '<span class="k">return' in live.blocks[0]
    assert live.blocks == render_message("```python\nreturn 1\n```\n")


def test_appending_to_a_paragraph_sends_only_what_is_new() -> None:
    live = LiveBlocks()
    live.feed("x" * 5000)
    live.render(0)
    live.feed(" and more")
    (update,) = live.render(1)
    assert update.append == " and more</p>\n" and update.index == 0


def test_renders_are_spaced_by_what_drawing_again_costs() -> None:
    """Renders that take 8 ms are followed by 200 ms of rest: 4 % of a core; one that is dearer than its neighbours is not.

    Where half of what is drawn is new, half of the cost counts.
    """
    clock = iter([0.0, 0.008, 0.0, 0.008, 0.0, 0.008, 0.0, 3.0, 0.0, 4.0])
    live = LiveBlocks(cost_clock=lambda: next(clock))
    dues = []
    for now, text in ((10.0, "a" * 500), (11.0, "b" * 500), (12.0, "c"), (13.0, "d"), (14.0, "e")):
        live.feed(text)
        assert live.render(now)
        live.feed("")
        assert not live.render(now + 0.01)
        dues.append(live.due - now)
    assert dues == pytest.approx([1 / 15, 0.1, 0.2, 0.2, 0.5], rel=0.01)


def test_offsets_are_the_same_in_javascript() -> None:
    """No character beyond U+FFFF is left, so Python's code points are JavaScript's UTF-16 units."""
    for block in render_message("😀 *𝕏* `😀`\n\n```\n😀\n```\n"):
        assert max(block) <= "\uffff"


def test_surrogates_and_nul_do_not_break_the_renderer() -> None:
    assert render_message("a\ud83d b\0c") == ["<p>a\ufffd b\ufffdc</p>\n"]


def test_nothing_typed_vanishes() -> None:
    """Tags that are not drawn are shown as text: `Vec<T>` keeps its T."""
    html = "".join(render_message("Vec<T> and <custom-tag a=b>x</custom-tag>\n\n<think>hm</think>\n"))
    for piece in ("Vec&lt;T&gt;", "&lt;custom-tag", "&lt;/custom-tag&gt;", "&lt;think&gt;hm&lt;/think&gt;"):
        assert piece in html


def test_markdown_of_the_dialect_is_drawn() -> None:
    html = "".join(render_message("| a |\n|--:|\n| ~~b~~ |\n\n- [x] c\n\nhttps://x.example\n\ni[^n]\n\n[^n]: note\n\nl1\nl2"))
    for piece in ('<th data-align="right">a', "<s>b</s>", '<span class="task done">', '<a href="https://x.example"',
                  '<sup class="fn"><a href="#fn-n"', '<div class="fn" data-fn="n">', "l1<br>\nl2"):
        assert piece in html


@pytest.mark.parametrize("source", ["$x^2$", "\\(x^2\\)", "$$x^2$$", "\\[x^2\\]", "$$\nx^2\n$$", "\\[\nx^2\n\\]"])
def test_every_way_to_write_math_is_drawn(source: str) -> None:
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in "".join(render_message(source))


@pytest.mark.parametrize("text", ["costs $5 and $6", "US$5 to US$6", "$ x $", "a$b$c"])
def test_money_is_not_math(text: str) -> None:
    assert "<math" not in "".join(render_message(text))


def test_math_that_cannot_be_drawn_shows_its_source() -> None:
    assert '<code class="latex">$\\nosuchcommand{x}$</code>' in render_message("$\\nosuchcommand{x}$")[0]


def test_a_formula_ends_at_a_blank_line() -> None:
    assert "".join(render_message("$$\nx\n\nnext")).endswith("<p>next</p>\n")


def test_a_message_too_long_for_markdown_is_shown_as_plain_text() -> None:
    (block,) = render_message("*a* " * (MAX_MARKDOWN // 4 + 1))
    assert block.startswith("<pre") and "*a*" in block


def test_diff_brings_old_blocks_to_new_ones() -> None:
    old, new = ["ab", "same", "x", ""], ["ac", "same", "", "", "n", ""]
    shown = list(old)
    apply(shown, diff(old, new), len(new))
    assert shown == new
    assert diff(new, new) == []


def test_updates_are_json() -> None:
    assert json.dumps([[u.index, u.keep, u.append] for u in diff([], ["a"])]) == '[[0, 0, "a"]]'
