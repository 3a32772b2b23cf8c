"""Candidates: the tokens that may still be drawn, with their logits; what every sampling step takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Candidates:
    """logits: (n,) float32, n >= 1. ids: (n,) int64, or None where the row number is the id. is_sorted: best first.

    A step returns new candidates and leaves those it was given as they were; only the penalties write into `logits`, and
    they come first, while the row still belongs to the sampler alone.
    """

    logits: NDArray[np.float32]
    ids: NDArray[np.int64] | None = None
    is_sorted: bool = False

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: NDArray[np.int64], *, is_sorted: bool | None = None) -> Candidates:
        """The candidates at these rows, in that order; rows in rising order keep the order they had."""
        ids = rows if self.ids is None else self.ids[rows]
        return Candidates(self.logits[rows], ids, self.is_sorted if is_sorted is None else is_sorted)

    def where(self, mask: NDArray[np.bool_]) -> Candidates:
        """The candidates whose mask is true; never none of them: if all are false they all stay."""
        rows = mask.nonzero()[0]
        return self if len(rows) in (0, len(self)) else self.take(rows)

    def first(self, count: int) -> Candidates:
        """The first `count` of sorted candidates, at least one."""
        count = max(count, 1)
        if count >= len(self):
            return self
        ids = None if self.ids is None else self.ids[:count]
        return Candidates(self.logits[:count], ids, self.is_sorted)

    def id_at(self, row: int) -> int:
        return row if self.ids is None else int(self.ids[row])

    def id_array(self) -> NDArray[np.int64]:
        """(n,) int64 token ids."""
        import numpy as np

        return np.arange(len(self.logits)) if self.ids is None else self.ids


def weights_of(candidates: Candidates) -> NDArray[np.float32]:
    """(n,) float32: probabilities up to a common factor, the best one's weight is 1."""
    import numpy as np

    weights: NDArray[np.float32] = np.exp(candidates.logits - candidates.logits.max())
    return weights


def probabilities(candidates: Candidates) -> NDArray[np.float32]:
    """(n,) float32 that add up to 1."""
    import numpy as np

    weights = weights_of(candidates)
    found: NDArray[np.float32] = weights / np.float32(weights.sum(dtype=np.float64))
    return found


def best_rows(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Rows of the `count` highest values, highest first."""
    import numpy as np

    n = len(values)
    if count >= n or n < 4096 or count > n // 16:
        return np.argsort(-values)[:count]
    # The count-th highest of many groups' maxima is a lower bound of the count-th highest value: 20 us where a partition of the
    # whole 32k row takes 160.
    groups = max(1024, 4 * count)
    maxima = values[: n // groups * groups].reshape(-1, groups).max(axis=0)
    rows = (values >= np.partition(maxima, groups - count)[groups - count]).nonzero()[0]
    found: NDArray[np.int64] = rows[np.argsort(-values[rows])[:count]]
    return found


def rows_reaching(keys: NDArray[np.float32], masses: NDArray[np.float32], wanted: float, bounds: tuple[float, ...], *,
                  beyond: bool = False) -> NDArray[np.int64]:
    """The fewest rows, lowest key first, whose masses add up to `wanted` (or, if `beyond`, to more than it); at least one.

    bounds: rising keys under which to look first, since sorting a whole row takes a hundred times longer than sorting a head
    of it. Where the masses never reach `wanted`, all rows.
    """
    import numpy as np

    rows = np.arange(len(keys))
    for bound in bounds:
        head = (keys <= bound).nonzero()[0]
        if float(masses[head].sum(dtype=np.float64)) > wanted:
            rows = head
            break
    rows = rows[np.argsort(keys[rows])]
    reached = np.searchsorted(np.cumsum(masses[rows], dtype=np.float64), wanted, side="right" if beyond else "left")
    return rows[: int(reached) + 1]


def sort(candidates: Candidates) -> Candidates:
    """Best first."""
    if candidates.is_sorted:
        return candidates
    return candidates.take(best_rows(candidates.logits, len(candidates)), is_sorted=True)
