"""The GGUF loader's small parts: broken characters, grammar limits, pace."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.llama_cpp_parts.grammar import MAX_NESTING, check_grammar, nesting
from loaders.llama_cpp_parts.pace import ALONE_SECONDS, BESIDE_PIECES, Pace, piece_seconds
from loaders.llama_cpp_parts.utf8 import Utf8, pending
from modules.core.errors import BadRequest

CHARACTERS = "aé漢🙂👩‍👩‍👧 \n"


@given(st.text(alphabet=CHARACTERS, max_size=12), st.lists(st.integers(0, 60), max_size=8))
def test_text_cut_anywhere_comes_whole(text: str, cuts: list[int]) -> None:
    raw, decoder, found = text.encode(), Utf8(), ""
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for start, stop in itertools.pairwise(places):
        piece = decoder.feed(raw[start:stop])
        assert "�" not in piece
        found += piece
    assert found == text and decoder.is_clean


@given(st.text(alphabet=CHARACTERS, max_size=6), st.integers(0, 30))
def test_a_reply_cut_inside_a_character_goes_on_with_the_whole_one(text: str, cut: int) -> None:
    raw = text.encode()
    cut = min(cut, len(raw))
    before = Utf8().feed(raw[:cut])
    assert before + Utf8(pending(raw[:cut][-16:])).feed(raw[cut:]) == text


def test_impossible_bytes_are_shown_and_do_not_stop_the_text() -> None:
    decoder = Utf8()
    assert decoder.feed(b"a\xff") + decoder.feed(b"b\xc3") + decoder.feed(b"(c") == "a�b�(c"
    assert pending(b"a\xff") == pending(b"\x80\x80\x80\x80") == b""


@pytest.mark.parametrize(("text", "depth"), [
    ("root ::= a", 0), ("root ::= (a (b))", 2),
    ('root ::= "((((" (a)', 1), ('root ::= "\\"(((" (a)', 1), ("root ::= [(((] (a)", 1), ("root ::= [\\](((] (a)", 1),
    ("# ((((\nroot ::= (a)", 1),
    ("root ::= ))) (a)", 0)])
def test_nesting_counts_only_brackets_that_group(text: str, depth: int) -> None:
    assert nesting(text) == depth


@pytest.mark.parametrize(("text", "reason"), [
    ("(" * 60_000, "deep"), ("root ::= " + "(" * (MAX_NESTING + 1) + "a", "deep"), ("x" * 70_000, "bytes"),
    ("root ::= \x00", "NUL"), ("a::=b\n" * 5000, "rules")])
def test_grammars_that_would_crash_the_parser_are_refused(text: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        check_grammar(text)


def seconds(n_decoding: int, n: int, position: int = 0) -> float:
    """A machine: 10 ms a step, 1 ms a token, a little more for each token before it."""
    return 0.010 + 0.001 * (n + n_decoding) * (1 + position / 8000)


def prefill(pace: Pace, total: int, n_decoding: int) -> list[float]:
    """Durations of the steps that evaluate a prompt."""
    done, took = 0, []
    while done < total:
        n = pace.chunk(n_decoding, total - done)
        assert 1 <= n <= total - done
        took.append(seconds(n_decoding, n, done))
        pace.prefilled(n_decoding, n, took[-1])
        done += n
    return took


def test_alone_steps_stay_below_half_a_second_and_are_few() -> None:
    took = prefill(Pace(2048, seconds(1, 0)), 4000, 0)
    assert max(took) <= 0.5 and len(took) < 25
    assert sum(t > 0.8 * ALONE_SECONDS for t in took) > len(took) / 2


@pytest.mark.parametrize("n_decoding", [1, 3, 8])
@pytest.mark.parametrize("speed", [0.2, 1, 3])
def test_beside_streams_gaps_stay_within_three_of_their_pieces(speed: float, n_decoding: int) -> None:
    """The machine above, faster and slower; where one token more takes longer than the aim, nothing can be done."""
    decode = seconds(n_decoding, 0) / speed
    pace = Pace(2048, seconds(1, 0) / speed)
    for _ in range(50):
        pace.decoded(n_decoding, decode)
    took, done = [], 0
    while done < 4000:
        n = pace.chunk(n_decoding, 4000 - done)
        took.append(seconds(n_decoding, n, done) / speed)
        pace.prefilled(n_decoding, n, took[-1])
        done += n
    assert max(took) <= 3 * piece_seconds(decode)
    aim = min(0.14, BESIDE_PIECES * piece_seconds(decode))
    assert sorted(took)[len(took) // 2] == pytest.approx(aim, rel=0.2)


def test_rows_come_by_four_beside_others() -> None:
    pace = Pace(2048, 0.01)
    assert all((n + pace.chunk(n, 1000)) % 4 == 0 and pace.chunk(n, 1000) >= 1 for n in range(1, 20))


def test_one_slow_step_is_forgotten() -> None:
    pace = Pace(2048, seconds(1, 0))
    prefill(pace, 2000, 0)
    pace.prefilled(0, pace.chunk(0, 9000), 30.0)
    assert max(prefill(pace, 4000, 0)) <= 0.5
    pace.decoded(1, 5.0)
    assert max(prefill(pace, 1000, 1)[20:]) < 0.1


@given(st.integers(1, 5000), st.integers(0, 1))
def test_pieces_of_a_prompt_stay_in_one_class_of_kernels(total: int, n_decoding: int) -> None:
    """64 tokens and more are computed by other kernels than fewer: a prompt's rest must not be a small piece after large ones."""
    pace = Pace(2048, 0.001)
    pieces, done = [], 0
    while done < total:
        pieces.append(pace.chunk(n_decoding, total - done))
        done += pieces[-1]
    assert all(n >= 64 for n in pieces) or (all(2 <= n < 64 for n in pieces) and total < 64) or n_decoding or total < 64
    assert total < 2 or min(pieces) >= 2


def test_short_prompts_raise_the_size_too() -> None:
    """Prompts of 30 tokens alone: each fits into a step, and each shows that more would have fitted."""
    pace = Pace(2048, seconds(1, 0))
    before = pace.chunk(0, 5000)
    for _ in range(4):
        n = pace.chunk(0, 30)
        pace.prefilled(0, n, seconds(0, n))
    assert pace.chunk(0, 5000) > before


def test_a_slow_machine_still_moves() -> None:
    pace = Pace(2048, 4.0)
    for _ in range(20):
        n = pace.chunk(0, 1000)
        assert n >= 2
        pace.prefilled(0, n, 4.0 * n)
