"""Who guesses ahead for a Transformers model: what the chat repeats, or a second, smaller model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modules.core.errors import LoadFailed
from modules.sampling.draft_model import DraftModel, other_token
from modules.sampling.speculation import Speculation

from .cache import cut, takes_back
from .forward import Forward
from .text import TokenText

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)
CAPACITY = 256  # tokens of a long chat that the draft model reads in one step


class HfDraft:
    """A draft model with one cache (sampling.draft_model.Evaluator). On the loader's thread."""

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self.forward = Forward(model, device)
        self._tokenizer = tokenizer
        self._cache = self.forward.new_cache()
        self._n_held = 0

    def drafting(self, main: TokenText, *, size: int) -> DraftModel:
        """It for a model with this vocabulary; raises LoadFailed where the ids of the two do not mean the same."""
        vocab_size = len(self.forward.last_row([0], 0, self.forward.new_cache()))
        mine = TokenText(self._tokenizer, vocab_size)
        other = other_token(mine.pieces, main.pieces)
        if other is not None:
            raise LoadFailed(f"The draft model has another vocabulary: its token {other} is {mine.pieces[other]!r}, and the "
                             f"model's is {main.pieces[other]!r}. Choose a smaller model of the same family, or speculation "
                             "prompt_lookup.", param="draft_model")
        return DraftModel(self, size=size, capacity=CAPACITY, n_usable=min(len(mine.pieces), len(main.pieces)))

    def keep(self, length: int) -> int:
        if not length or not cut(self._cache, self._n_held, length):
            self._empty()
        else:
            self._n_held = length
        return self._n_held

    def evaluate(self, ids: Sequence[int], n_held: int) -> np.ndarray | None:
        try:
            row = self.forward.last_row(ids, n_held, self._cache)
        except (RuntimeError, IndexError):  # out of memory, or past what the draft model was trained for: nothing is guessed
            log.exception("The draft model could not go on; this part of the reply is written without guesses")
            self._empty()
            return None
        self._n_held = n_held + len(ids)
        return row

    def _empty(self) -> None:
        self._cache, self._n_held = self.forward.new_cache(), 0


def guessing(forward: Forward, text: TokenText, draft: HfDraft | None, *, most: int) -> Speculation:
    """Raises LoadFailed where the model's or the draft's cache cannot take back what was guessed wrong."""
    for one, what in ((forward, "this model's"), *(((draft.forward, "the draft model's"),) if draft is not None else ())):
        if not takes_back(one.new_cache()):
            raise LoadFailed(f"Guesses that were wrong have to be taken back, which {what} cache cannot: it keeps a running "
                             "state, or only a window of the text. Load it with speculation none.", param="speculation")
    if draft is None:
        return Speculation(most=most)
    trained = getattr(draft.forward.config.get_text_config(), "max_position_embeddings", None)
    return Speculation(most=most, draft=draft.drafting(text, size=int(trained or 2**31)))
