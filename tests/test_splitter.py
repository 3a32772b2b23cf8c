"""The splitter gives the same channels wherever the text is cut into tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import BadRequest
from modules.core.events import Delta
from modules.core.loader import Token
from modules.text.reasoning import HARMONY, KIMI, MUSE, SOLAR
from modules.text.splitter import ReasoningMarks, Splitter, detect_marks, starts_inside

THINK = ReasoningMarks("<think>", "</think>")


def tokens_of(text: str, cuts: list[int]) -> list[Token]:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    return [Token(n, text[a:b]) for n, (a, b) in enumerate(pairwise(edges))]


def run(splitter: Splitter, tokens: list[Token]) -> list[Delta]:
    deltas = [delta for token in tokens for delta in splitter.feed(token)]
    return deltas + splitter.flush()


def channels(deltas: list[Delta]) -> tuple[str, str]:
    joined = {"text": "", "reasoning": "", "tool": ""}
    for delta in deltas:
        assert delta.text, "a delta is never empty"
        joined[delta.channel] += delta.text
    return joined["text"], joined["reasoning"]


def split(text: str, stop: tuple[str, ...] = (), marks: ReasoningMarks | None = None, in_reasoning: bool = False,
          ) -> tuple[str, str, str]:
    """(text, reasoning, stop string), the reply coming one character at a time."""
    splitter = Splitter(stop, marks, in_reasoning)
    text_channel, reasoning = channels(run(splitter, [Token(n, char) for n, char in enumerate(text)]))
    return text_channel, reasoning, splitter.stop_string


def expected_stop(text: str, stop: tuple[str, ...]) -> str:
    """The text before the leftmost stop string, found the plain way."""
    starts = [text.find(s) for s in stop if s in text]
    return text[:min(starts)] if starts else text


ALPHABET = st.sampled_from("ab<>/tk\n ")
WORDS = st.lists(st.sampled_from(["<think>", "</think>", "<|end|>", "\n", " ", "a", "b", "ab", "<", "th", "STOP", "ST", "é"]),
                 max_size=14).map("".join)


@given(text=st.text("abc", max_size=30), stop=st.lists(st.text("abc", min_size=1, max_size=5), max_size=4).map(tuple),
       cuts=st.lists(st.integers(0, 30), max_size=12))
@settings(max_examples=400, deadline=None)
def test_the_text_ends_before_the_leftmost_stop_string_at_every_cut(text: str, stop: tuple[str, ...], cuts: list[int]) -> None:
    splitter = Splitter(stop, None)
    joined, _ = channels(run(splitter, tokens_of(text, cuts)))
    assert joined == expected_stop(text, stop)
    assert (splitter.stop_string in stop) == any(s in text for s in stop)


@given(text=WORDS | st.text(ALPHABET, max_size=40), cuts=st.lists(st.integers(0, 60), max_size=20),
       in_reasoning=st.booleans(), stop=st.sampled_from([(), ("STOP",), ("STOP", "ab"), ("\n", "b<")]),
       marks=st.sampled_from([THINK, None, ReasoningMarks("<think>", "</think>", ("<|end|>",), anywhere=True)]))
@settings(max_examples=1000, deadline=None)
def test_every_cut_gives_the_same_channels(text: str, cuts: list[int], in_reasoning: bool, stop: tuple[str, ...],
                                           marks: ReasoningMarks | None) -> None:
    whole = Splitter(stop, marks, in_reasoning)
    cut = Splitter(stop, marks, in_reasoning)
    assert channels(run(whole, [Token(0, text)])) == channels(run(cut, tokens_of(text, cuts)))
    assert whole.stop_string == cut.stop_string


@given(text=WORDS, cuts=st.lists(st.integers(0, 60), max_size=20), empties=st.integers(0, 3), in_reasoning=st.booleans())
@settings(max_examples=500, deadline=None)
def test_every_token_is_in_exactly_one_delta_in_order(text: str, cuts: list[int], empties: int, in_reasoning: bool) -> None:
    tokens = [*tokens_of(text, cuts), *(Token(1000 + n, "") for n in range(empties))]
    splitter = Splitter(("STOP",), THINK, in_reasoning)
    deltas = run(splitter, tokens)
    assert [t for delta in deltas for t in delta.tokens] + list(splitter.unshown) == tokens


@given(text=st.text("abST", max_size=30), cuts=st.lists(st.integers(0, 30), max_size=12))
@settings(deadline=None)
def test_a_token_belongs_to_the_delta_in_which_its_last_piece_shows(text: str, cuts: list[int]) -> None:
    splitter = Splitter(("STOP",), None)
    shown = fed = 0
    for delta in run(splitter, tokens_of(text, cuts)):
        shown += len(delta.text)
        for token in delta.tokens:
            fed += len(token.text)
        assert fed <= shown
    if not splitter.stop_string:
        assert fed == shown == len(text) and not splitter.unshown


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    splitter = Splitter(("\nUser:",), None)
    assert channels(splitter.feed(Token(1, "Hello\nUs"))) == ("Hello", "")
    assert channels(splitter.feed(Token(2, "ing it"))) == ("\nUsing it", "")
    assert splitter.feed(Token(3, "\nUser: hi")) == []
    assert splitter.stop_string == "\nUser:"
    assert splitter.feed(Token(4, "more")) == [] and splitter.flush() == []
    assert [token.id for token in splitter.unshown] == [3, 4]


def test_a_shorter_stop_inside_a_longer_one_waits_until_the_longer_cannot_come() -> None:
    assert split("xabcdx", ("abcd", "bc")) == ("x", "", "abcd")
    assert split("xabcex", ("abcd", "bc")) == ("xa", "", "bc")
    assert split("xabc", ("abcd", "bc")) == ("xa", "", "bc")


@pytest.mark.parametrize(("reply", "inside", "text", "reasoning"), [
    ("<think>\nhmm\n\nyes\n</think>\n\nHello", False, "Hello", "hmm\n\nyes"),
    ("\n\n<think>hmm</think>Hello", False, "Hello", "hmm"),
    ("hmm\n</think>\n\n  Hello", True, "  Hello", "hmm"),
    ("<think>hmm</think>", True, "", "hmm"),
    ("<think></think>Hi", False, "Hi", ""),
    ("  Hello <think>no</think>", False, "  Hello <think>no</think>", ""),
    ("<think>a</think>\n<think>b</think>c", False, "c", "ab"),
    ("<think>cut off\n", False, "", "cut off\n"),
    ("<thin", False, "<thin", ""),
    ("plain </think> text", False, "plain </think> text", ""),
])
def test_reasoning_is_parted_from_the_text(reply: str, inside: bool, text: str, reasoning: str) -> None:
    assert split(reply, marks=THINK, in_reasoning=inside)[:2] == (text, reasoning)


def test_harmony_marks_never_show() -> None:
    reply = ("<|channel|>analysis<|message|>think<|end|><|start|>assistant<|channel|>commentary<|message|>Look.<|end|>"
             "<|start|>assistant<|channel|>analysis<|message|>more<|end|><|start|>assistant<|channel|>final<|message|>Done.")
    assert split(reply, marks=HARMONY)[:2] == ("Look.Done.", "thinkmore")


def test_marks_of_other_families_never_show() -> None:
    reply = " to=self<|message|>hmm<|eom|><|start|>assistant to=user<|message|>Hello."
    assert split(reply, marks=MUSE)[:2] == ("Hello.", "hmm")
    reply = "hmm<|close|>think<|sep|><|open|>response<|sep|>Hello.<|close|>response<|sep|>"
    assert split(reply, marks=KIMI, in_reasoning=True)[:2] == ("Hello.", "hmm")
    reply = "<|think|>hmm<|end|><|begin|>assistant<|content|>Hello."
    assert split(reply, marks=SOLAR)[:2] == ("Hello.", "hmm")


def test_stop_strings_do_not_apply_to_reasoning_nor_to_the_break_after_it() -> None:
    assert split("<think>a\n\nSTOP</think>\n\nhello\n\nSTOP", ("\n\n", "STOP"), THINK) == ("hello", "a\n\nSTOP", "\n\n")


def test_a_token_costs_the_same_in_a_long_reply_and_in_endless_white_space() -> None:
    """Held state stays bounded: that is what keeps the cost flat."""
    for reply, marks in (("a b " * 50_000, None), (" " * 100_000, THINK), ("<think>" + "\n" * 100_000, THINK)):
        splitter = Splitter(("STOP", "a b c"), marks)
        for start in range(0, len(reply), 4):
            splitter.feed(Token(0, reply[start:start + 4]))
        assert len(splitter._lead) < 2000 and len(splitter._stops.held) < 10


def test_white_space_past_the_lead_is_cut_the_same_everywhere() -> None:
    for reply in ("<think>" + "\n" * 3000 + "x</think>" + " \n" * 3000 + "<think>y", "\n" * 1025 + "<think>"):
        splitter = Splitter((), THINK)
        assert channels(run(splitter, [Token(0, reply)])) == split(reply, marks=THINK)[:2]


def test_a_huge_stop_string_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="4096"):
        Splitter(("x" * 5000,), None)


@pytest.mark.parametrize(("template", "special", "opening"), [
    ("{% if '</think>' in content %}", (), "<think>"),
    ("<|channel|>analysis<|message|>", (), "<|channel|>analysis<|message|>"),
    ("[THINK]x[/THINK]", (), "[THINK]"),
    ("plain", ("<think>", "</think>"), "<think>"),
    ("plain", ("<|channel|>", "<|message|>", "<|end|>"), "<|channel|>analysis<|message|>"),
])
def test_marks_are_found_in_the_template_or_the_special_tokens(template: str, special: tuple[str, ...], opening: str) -> None:
    marks = detect_marks(template, special)
    assert marks is not None and marks.open == opening


def test_a_model_without_marks_has_none() -> None:
    assert detect_marks("{{ messages[0].content }} think", ("<|im_end|>",)) is None


def test_a_prompt_that_ends_with_the_open_mark_starts_inside() -> None:
    assert starts_inside("<|im_start|>assistant\n<think>\n", THINK)
    assert not starts_inside("assistant\n<think>\n\n</think>\n\n", THINK)
    assert not starts_inside("what is <think>?\nassistant\n", THINK)
    assert not starts_inside("x", None)
