"""Whole texts evaluated beside the runs: log-probabilities, logits, embeddings, in a sequence of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from modules.core.errors import AppError, BadRequest, Busy

from .cells import Cells, NoRoom

if TYPE_CHECKING:
    import numpy as np

    from .context import Context

MAX_ANSWER_BYTES = 32 * 2**20
SCORE_KEY = "\x00score"  # no cache_key of a run: those come from owners and chats
POOLING = {"2": "first", "3": "last"}  # llama_pooling_type in a model's header; others are the mean


class Evaluator:
    """Evaluates ids in a spare sequence of the same context; between two steps, on the loader's thread.

    Runs keep their cells; a text that does not fit beside them raises Busy. A prefix evaluated by an earlier call is reused.
    """

    def __init__(self, context: Context, cells: Cells, n_vocab: int, signature: str = "") -> None:
        """signature: of the adapters that act (core.adapters)."""
        self._key = signature + SCORE_KEY
        self._context = context
        self._cells = cells
        self._n_rows = max(1, min(256, MAX_ANSWER_BYTES // (4 * n_vocab), context.capacity))
        self._n_vocab = n_vocab

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """(n,) float32: log p of each id given those before it; the first is nan."""
        import numpy as np

        scores = np.full(len(ids), np.nan, np.float32)

        def take(position: int, index: int) -> None:
            row = self._context.logits(index)
            highest = float(row.max())
            scores[position + 1] = float(row[ids[position + 1]]) - highest - np.log(np.exp(row - highest).sum(dtype=np.float64))

        if len(ids) > 1:
            self._evaluate(ids[:-1], 0, take)
        return scores

    def logits(self, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
        """(stop - start, vocab) float32 logits after each of these positions."""
        import numpy as np

        size = (stop - start) * self._n_vocab * 4
        if not 0 <= start < stop <= len(ids):
            raise BadRequest(f"Positions {start} to {stop} are not within the {len(ids)} tokens.")
        if size > MAX_ANSWER_BYTES:
            raise BadRequest(f"{stop - start} rows of logits are {size} bytes; ask for at most "
                             f"{MAX_ANSWER_BYTES // (4 * self._n_vocab)} rows at once.")
        rows = np.empty((stop - start, self._n_vocab), np.float32)

        def take(position: int, index: int) -> None:
            rows[position - start] = self._context.logits(index)

        self._evaluate(ids[:stop], start, take)
        return rows

    def embed(self, ids: Sequence[int], pooling: str) -> np.ndarray:
        """(dimension,) float32: the last hidden states' mean, or the first's or last's where the model was trained so."""
        import numpy as np

        total: np.ndarray | None = None
        n = 0

        def take(position: int, index: int) -> None:
            nonlocal total, n
            if (pooling == "first" and position) or (pooling == "last" and position < len(ids) - 1):
                return
            row = self._context.embedding(index).astype(np.float64)
            total, n = row if total is None else total + row, n + 1

        self._context.set_embeddings(True)
        try:
            self._evaluate(ids, 0, take)
        finally:
            self._context.set_embeddings(False)
        assert total is not None, "every text has a first and a last token"
        return np.asarray(total / n, np.float32)

    def _evaluate(self, ids: Sequence[int], first: int, take: Callable[[int, int], None]) -> None:
        """Evaluate ids; calls take(position, index of its output) for every position from `first` on."""
        cells, context = self._cells, self._context
        if not ids or len(ids) > cells.total:
            raise BadRequest(f"The text has {len(ids)} tokens; between 1 and {cells.total} can be evaluated.")
        try:
            seq, n_cached = cells.admit(ids, self._key, 1)
        except NoRoom as error:
            raise Busy(f"{len(ids)} tokens do not fit beside the replies that are being written; try again when they are "
                       "done.") from error
        try:
            if n_cached > first:
                cells.cut(seq, first)
            done = len(seq.tokens)
            while done < len(ids):
                wants = done >= first
                stop = min(len(ids), done + (self._n_rows if wants else context.capacity), len(ids) if wants else first)
                cells.extend(seq, ids[done:stop])
                context.begin()
                index = context.add_chunk(ids[done:stop], done, seq.id, outputs=wants)
                code = context.decode()
                if code:
                    cells.cut(seq, 0)
                    raise AppError(f"llama.cpp could not evaluate the text (code {code}); see the model's log.")
                if wants:
                    for place in range(stop - done):
                        take(done + place, index + place)
                done = stop
        finally:
            cells.release(seq)
