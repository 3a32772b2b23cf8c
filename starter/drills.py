"""Drills in copying: tokens that come again, so that attention learns early to look up what stood before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from .tokenizer import END, END_OF_TEXT, SPECIALS, START

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Row = tuple[list[int], list[float]]  # ids, and each one's weight in the loss


def frequencies(rows: Sequence[Row], vocabulary: int) -> list[float]:
    """How often drills take each token: by the root of its count in the rows, so that rare ones come up too."""
    counts = [1] * vocabulary
    for ids, _ in rows:
        for token in ids:
            counts[token] += 1
    return [0.0] * len(SPECIALS) + [count ** 0.5 for count in counts[len(SPECIALS):]]


def drills(seed: str, count: int, shares: Sequence[float], tokenizer: Tokenizer) -> list[Row]:
    """`count` drills; one half repeats what a person said, the other shows groups of tokens again in another order."""
    chance = random.Random(f"drill/{seed}")
    sums = list(accumulate(shares))
    ask, answer, newline = (tokenizer.encode(text).ids for text in ("user\nRepeat:", "assistant\n", "\n"))

    def group(n_tokens: int) -> list[int]:
        return chance.choices(range(len(sums)), cum_weights=sums, k=n_tokens)

    found = []
    for i in range(count):
        if i % 2:
            said = group(chance.randint(2, 16))
            head = [START, *ask, *said, END, *newline, START, *answer]
            found.append(([*head, *said, END, *newline], [0.0] * len(head) + [1.0] * (len(said) + 1) + [0.0] * len(newline)))
        else:
            found.append(_shuffled([group(chance.randint(2, 6)) for _ in range(chance.choice((2, 3, 4, 6)))], chance))
    return found


def _shuffled(groups: list[list[int]], chance: random.Random) -> Row:
    """The groups, and twice again in another order. The loss counts a repeated group from its second token on, since which
    group comes next cannot be known."""
    ids = [token for group in groups for token in group]
    weights = [0.0] * len(ids)
    for group in chance.sample(groups, len(groups)) + chance.sample(groups, len(groups)):
        ids += group
        weights += [0.0] + [1.0] * (len(group) - 1)
    return [*ids, END_OF_TEXT], [*weights, 0.0]
