"""Guesses ahead: what is looked up, how many are worth checking, and that the numbers are learned from what was seen."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from modules.sampling.speculation import Costs, Guesses, Lookup


def test_what_followed_before_is_guessed_by_three_tokens_before_two() -> None:
    lookup = Lookup([1, 2, 3, 10, 11, 9, 2, 3, 20, 21, 5, 1, 2, 3])
    assert lookup.draft(2) == [10, 11]
    assert Lookup([1, 2, 3, 10, 9, 2, 3, 20, 21, 5, 7, 2, 3]).draft(3) == [20, 21, 5]
    assert Lookup([1, 2, 3, 4]).draft(3) == [] and Lookup([]).draft(3) == [] and Lookup([1, 1]).draft(2) == []


def test_the_latest_place_counts_and_the_last_tokens_are_not_their_own_example() -> None:
    lookup = Lookup([1, 2, 7, 1, 2, 8, 1, 2])
    assert lookup.draft(4) == [8, 1, 2]
    lookup.add(9)
    for token in (1, 2):
        lookup.add(token)
    assert lookup.draft(1) == [9]


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8))
def test_a_guess_is_what_stands_in_the_text_after_equal_tokens(ids: list[int], n: int) -> None:
    guess = Lookup(ids).draft(n)
    if guess:
        places = [i for i in range(2, len(ids)) if ids[i - 2:i] == ids[-2:] and ids[i:i + len(guess)] == guess]
        assert places and len(guess) <= n
    else:
        assert len(ids) < 2 or all(ids[i - 2:i] != ids[-2:] for i in range(2, len(ids)))


class Always:
    """Guesses the token 1 for ever, and remembers how many were asked for. knows: or nothing."""

    def __init__(self, *, is_free: bool = True, knows: bool = True) -> None:
        self.asked: list[int] = []
        self.is_free, self.knows = is_free, knows

    def add(self, token: int) -> None:
        pass

    def draft(self, n: int) -> list[int]:
        self.asked.append(n)
        return [1] * n if self.knows else []


def run(share_right: float, each: float, *, steps: int = 400, most: int = 16) -> tuple[float, Always]:
    """Tokens a plain step's time of a run whose guesses are right so often, each costing so much of a plain step."""
    chance, costs, drafter = random.Random(1), Costs(), Always()
    costs.took(0, 1.0)
    guesses = Guesses(drafter, costs, most=most)
    seconds, tokens = 0.0, 0
    for _ in range(steps):
        guess = guesses.next(most)
        n_right = next((i for i in range(len(guess)) if chance.random() >= share_right), len(guess))
        sampled = [1] * n_right + [2]
        took = 1 + each * len(guess)
        guesses.took(guess, sampled)
        guesses.lasted(took)
        seconds, tokens = seconds + took, tokens + len(sampled)
    return tokens / seconds, drafter


def test_cheap_guesses_that_are_right_are_checked_many_at_once() -> None:
    rate, drafter = run(0.95, 0.05)
    assert rate > 4 and max(drafter.asked) == 16


def test_guesses_that_are_wrong_or_dear_cost_almost_nothing() -> None:
    for share, each in ((0.0, 0.2), (0.2, 0.5), (0.9, 1.5)):
        rate, _ = run(share, each)
        assert rate > 0.95, (share, each)


def test_a_run_that_begins_to_repeat_itself_is_guessed_again() -> None:
    costs, drafter = Costs(), Always()
    costs.took(0, 1.0)
    guesses = Guesses(drafter, costs, most=8)
    for _ in range(200):
        guess = guesses.next(8)
        guesses.took(guess, [2])
    n_wrong = len(drafter.asked)
    for _ in range(300):
        guess = guesses.next(8)
        guesses.took(guess, [*guess, 1])
    assert len(drafter.asked) - n_wrong > 150 and guesses.n_right > 500


def test_a_drafter_that_knows_nothing_is_asked_seldom_unless_asking_is_free() -> None:
    asked = {}
    for is_free in (True, False):
        costs, drafter = Costs(), Always(is_free=is_free, knows=False)
        costs.took(0, 1.0)
        guesses = Guesses(drafter, costs, most=8)
        for _ in range(400):
            n_before = len(drafter.asked)
            guesses.took(guesses.next(8), [2])
            guesses.lasted(1.0 if is_free or len(drafter.asked) == n_before else 1.4)
        asked[is_free] = len(drafter.asked)
    assert asked[True] == 400 and asked[False] < 40


def test_there_is_no_guess_beyond_the_room() -> None:
    costs = Costs()
    assert len(Guesses(Always(), costs, most=8).next(3)) <= 3 and not Guesses(Always(), costs, most=8).next(0)
