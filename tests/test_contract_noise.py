"""The contract suite's one tolerance: texts may part at a near tie of the model, and nowhere else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from modules.core.loader import Token
from modules.core.params import GenerationParams
from modules.sampling.chain import Sampler
from modules.sampling.vocabulary import Vocabulary
from tests.contract.play import GREEDY, Played, assert_agree

BEST, SECOND, FAR = 3, 4, 5


class Row:
    """A loader that gives the same logits everywhere: BEST and SECOND are 0.1 apart, FAR is 2 below."""

    class facts:
        takes, context, eog_ids = "ids", 64, (0,)

    @staticmethod
    def logits(ids: list[int], start: int, stop: int) -> np.ndarray:
        row = np.zeros((1, 16), np.float32)
        row[0, [BEST, SECOND, FAR]] = 9.0, 8.9, 7.0
        return row


def played(*ids: int, params: GenerationParams = GREEDY) -> Played:
    return Played(0, [1, 2], params, [Token(id_, "") for id_ in ids])


def agree(one: Played, ids: list[int], noise: float) -> None:
    loader: Any = Row()
    assert_agree(loader, noise, one, ids)


def test_a_near_tie_is_allowed_where_there_is_noise() -> None:
    agree(played(BEST, SECOND, 7), [BEST, BEST, 8, 9], 0.06)
    agree(played(BEST), [BEST], 0.0)


@pytest.mark.parametrize(("one", "ids", "noise"), [
    ((BEST, SECOND), [BEST, BEST], 0.0), ((BEST, SECOND), [BEST, BEST], 0.04), ((BEST, FAR), [BEST, BEST], 0.5),
    ((BEST, 9), [BEST, 10], 0.5), ((BEST,), [BEST, BEST], 0.5)])
def test_anything_else_is_a_difference(one: tuple[int, ...], ids: list[int], noise: float) -> None:
    with pytest.raises(AssertionError):
        agree(played(*one), ids, noise)


def test_the_runs_own_parameters_decide_what_is_near() -> None:
    """A bias of -2 on the best makes SECOND the best, and of +1.9 on FAR a near tie of those two."""
    params = dataclasses.replace(GREEDY, logit_bias={BEST: -2.0, FAR: 1.95})
    agree(played(FAR, params=params), [SECOND], 0.06)
    with pytest.raises(AssertionError):
        agree(played(FAR, params=params), [BEST], 0.06)


@pytest.mark.parametrize("step", [0, 3])
def test_a_draw_is_judged_with_the_noise_of_its_own_step(step: int) -> None:
    """The race of a draw has margins of its own, which are no near ties of a thousandth; moved far enough either token wins."""
    params = GenerationParams(temperature=1.0, seed=4)
    sampler = Sampler(params, [1], seed=4, vocabulary=Vocabulary((), lambda text: []), vocab_size=16, context=64, eog_ids=())
    drawn = [sampler.choose(Row.logits([], 0, 1)[0]) for _ in range(step + 1)]
    other = BEST if drawn[-1] != BEST else SECOND
    agree(played(*drawn, params=params), [*drawn[:-1], other], 20.0)
    with pytest.raises(AssertionError, match="no near tie"):
        agree(played(*drawn, params=params), [*drawn[:-1], other], 0.001)
