"""What leaves the prompt when the context is full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.errors import ContextTooLong
from modules.text.window import choose_cut

HISTORY = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.integers(0, 300)), min_size=1, max_size=40)


@given(history=HISTORY, fixed=st.integers(0, 300), room=st.integers(1, 2000), keep_from=st.integers(0, 50))
def test_what_is_kept_fits_or_the_counts_are_named(history: list[tuple[str, int]], fixed: int, room: int, keep_from: int) -> None:
    roles, tokens = [role for role, _ in history], [size for _, size in history]
    last_user = max((n for n, role in enumerate(roles) if role == "user"), default=len(roles) - 1)
    try:
        cut = choose_cut(tokens, fixed, room, keep_from, roles=roles)
    except ContextTooLong as error:
        assert fixed + sum(tokens[last_user:]) > room and str(room) in error.message and str(fixed) in error.message
        return
    assert 0 <= cut <= last_user
    assert fixed + sum(tokens[cut:]) <= room
    if fixed + sum(tokens[min(keep_from, last_user):]) <= room and fixed + sum(tokens) > 0.75 * room:
        assert cut == min(keep_from, last_user), "the cut stays as long as it fits"


@given(sizes=st.lists(st.integers(1, 60), min_size=2, max_size=200), room=st.integers(200, 1000))
def test_the_cut_only_moves_forward_and_each_move_frees_a_block(sizes: list[int], room: int) -> None:
    """A turn is at most 120 of at least 200 tokens, so each message fits; after a move a quarter of the room must fill again."""
    cut, moved_at_total = 0, 0
    for turn in range(1, len(sizes) + 1, 2):
        roles = [("user", "assistant")[n % 2] for n in range(turn)]
        new = choose_cut(sizes[:turn], 20, room, cut, roles=roles)
        assert new >= cut
        if new > cut:
            total = sum(sizes[:turn])
            last_alone = 20 + sum(sizes[turn - 1:turn]) > 0.5 * room
            assert not moved_at_total or total - moved_at_total > 0.25 * room or last_alone
            assert roles[new] == "user"
            cut, moved_at_total = new, total


@pytest.mark.parametrize("share", [100, 40, 24, 18, 16])
def test_where_a_turn_takes_up_to_a_sixteenth_of_the_room_one_turn_in_eight_moves_the_cut(share: int) -> None:
    """After a cut at most the deepest half stays, so seven turns and more fit behind it; the eighth moves the cut again."""
    room = 1600
    question, answer = room // share // 4, room // share - room // share // 4
    sizes, cut, moves, past = [], 0, 0, 0
    for _ in range(200):
        sizes.append(question)
        new = choose_cut(sizes, 0, room - answer, cut, roles=[("user", "assistant")[n % 2] for n in range(len(sizes))])
        moves, past, cut = moves + (new != cut), past + (new > 0), new
        sizes.append(answer)
    assert past > 60
    assert moves <= past / 8 + 1


def test_a_cut_frees_no_more_than_half_of_the_room_and_a_quarter_where_turns_are_small() -> None:
    roles = [("user", "assistant")[n % 2] for n in range(999)]
    assert sum([2] * 999) - 2 * choose_cut([2] * 999, 0, 1000, 0, roles=roles) in range(745, 751)
    assert sum([50] * 21) - 50 * choose_cut([50] * 21, 0, 1000, 0, roles=roles[:21]) in range(450, 501)


def test_a_history_that_fits_a_larger_context_comes_back() -> None:
    assert choose_cut([100] * 10, 0, 500, 0) == 8, "such large turns take the cut to half of the room"
    assert choose_cut([100] * 10, 0, 2000, 7) == 0


def test_a_message_larger_than_the_context_is_refused_with_its_size() -> None:
    with pytest.raises(ContextTooLong, match=r"900 tokens .* 50; together 950.* 512"):
        choose_cut([10, 900], 50, 512, 0, roles=("user", "user"))


def test_an_empty_history_is_kept() -> None:
    assert choose_cut([], 10, 100, 0) == 0
    with pytest.raises(ContextTooLong):
        choose_cut([], 200, 100, 0)
