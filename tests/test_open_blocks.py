"""Lists and tables while they are written: drawn by their last part, and yet as the whole is drawn."""

from __future__ import annotations

import random
from itertools import pairwise
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from modules.ui.blocks import LiveBlocks
from modules.ui.open_blocks import OpenParts

ITEMS = [
    "- a\n", "- b *c*\n", "- d\n\n", "  more\n", "  - deep\n", "\n", "- e $x$\n", "* f\n", "- ```\n  code\n  ```\n", "lazy\n",
    "- <b>x</ul>\n", "1. g\n", "- [ ] h\n", "    i\n", "End.\n", "- # j\n",
]
ROWS = [
    "| 1 | 2 |\n", "| a | *b* |\n", "| `c` |\n", "d\n", "| e | f | g |\n", "\n", "> h\n", "| i | <b>j |\n", "- k\n",
    "| | |\n",
]


@settings(max_examples=200, deadline=None)
@given(st.booleans(), st.lists(st.integers(0, 100), max_size=14), st.randoms(use_true_random=False))
def test_a_long_list_or_table_previews_as_it_will_be(is_table: bool, picks: list[int], rng: random.Random) -> None:
    """Drawing only the last item or row again shows, after every piece, what drawing the whole block shows."""
    parts, begin = (ROWS, "| x | y |\n|---|--:|\n" + ROWS[0] * 7) if is_table else (ITEMS, ITEMS[0] * 7)
    text = begin + "".join(parts[pick % len(parts)] for pick in picks)
    cuts = [0, *sorted(rng.randrange(len(text) + 1) for _ in range(20)), len(text)]
    quick, whole = LiveBlocks(), LiveBlocks()
    for now, (start, end) in enumerate(pairwise(cuts)):
        quick.feed(text[start:end])
        whole.feed(text[start:end])
        quick.render(float(now))
        with patch.object(OpenParts, "of", return_value=None):
            whole.render(float(now))
        assert quick.blocks == whole.blocks


def test_the_finished_rows_of_a_long_table_are_not_parsed_again() -> None:
    live = LiveBlocks()
    live.feed("| x | y |\n|---|---|\n" + "| 1 | 2 |\n" * 50)
    live.render(0)
    parts = live._parts
    assert parts is not None and len(parts.settled) == 49
    live.feed("| 3 | 4 |\n")
    (update,) = live.render(1)
    assert len(parts.settled) == 50 and update.append.count("<td>") == 2
