"""A second, smaller GGUF model that guesses how a reply goes on; what it says is only ever a guess (sampling.speculation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modules.core.errors import LoadFailed
from modules.core.loader import Progress
from modules.sampling.speculation import Costs, Guesses, Lookup

from .cells import common_length
from .context import Context
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .context import Settings
    from .library import Library
    from .options import Options

NO_WAY_BACK = ("Guesses that were wrong have to be taken back, which this model's context cannot: it keeps a running state, or "
               "only a window of the text. Load it with speculation none, or with full_swa on where it has a window.")
LEAST_CHANCE = 0.4  # of a guess, by the draft model; less likely ones are not worth the model's look


class Speculation:
    """Who guesses for the runs of a loaded model, as its options say."""

    def __init__(self, options: Options, draft: DraftModel | None, *, most: int) -> None:
        """most: guesses that fit a batch."""
        self.costs = Costs()
        self._is_on = options.speculation != "none"
        self._most = min(options.draft_tokens, most)
        self._draft = draft

    def guesses(self, prompt: Sequence[int]) -> Guesses | None:
        """A run's, or None where nobody guesses."""
        if not self._is_on:
            return None
        drafter = Draft(self._draft, prompt) if self._draft is not None else Lookup(prompt)
        return Guesses(drafter, self.costs, most=self._most)

    def close(self) -> None:
        if self._draft is not None:
            self._draft.close()


def open_speculation(options: Options, library: Library, main: Vocabulary, settings: Settings, *, can_take_back: bool,
                     gpu_layers: int, progress: Progress) -> Speculation:
    """As the options say, the draft model loaded where they name one. can_take_back: the context can forget its last tokens.

    Raises LoadFailed for what cannot be, and what loading the draft model raises.
    """
    if options.speculation != "draft_model":
        if options.draft_model:
            raise LoadFailed(f"draft_model is set and speculation is {options.speculation}; choose speculation draft_model, or "
                             "leave draft_model empty.", param="speculation")
        if options.speculation != "none" and not can_take_back:
            raise LoadFailed(NO_WAY_BACK, param="speculation")
        return Speculation(options, None, most=settings.batch - 1)
    if not options.draft_model:
        raise LoadFailed("speculation is draft_model; choose one in draft_model: a smaller GGUF model of the same family.",
                         param="draft_model")
    if not can_take_back:
        raise LoadFailed(NO_WAY_BACK, param="speculation")
    model = library.load_model(options.draft_model, gpu_layers=gpu_layers, split=(), split_mode="none", main_gpu=options.main_gpu,
                               mmap=options.mmap, mlock=options.mlock, progress=lambda _, what: progress(0.94, f"draft: {what}"))
    try:
        c = library.c
        if c.llama_model_is_recurrent(model) or c.llama_model_is_hybrid(model) or not c.llama_model_has_decoder(model):
            raise LoadFailed("The draft model keeps a running state or does not write token by token; choose another.",
                             param="draft_model")
        context = Context(library, model, replace(settings, n_sequences=1, full_swa=True, rope_scaling="auto", rope_factor=0.0,
                                                  rope_base=0.0, trained=0))
        draft = DraftModel(library, model, context)
    except BaseException:
        c.llama_model_free(model)
        raise
    try:
        draft.check_vocabulary(main)
    except BaseException:
        draft.close()
        raise
    return Speculation(options, draft, most=settings.batch - 1)


class DraftModel:
    """The model with a context of one sequence, which holds the text of the run that asked last. On the loader's thread."""

    def __init__(self, library: Library, model: Any, context: Context) -> None:
        self._library = library
        self._model: Any = model
        self._context = context
        self._held: list[int] = []
        self._owner: Draft | None = None

    def check_vocabulary(self, main: Vocabulary) -> None:
        """Raises LoadFailed where the ids of the two models do not mean the same."""
        mine = Vocabulary(self._library.c, self._model)
        for token in range(min(mine.size, main.size)):
            if mine.piece(token) != main.piece(token):
                raise LoadFailed(f"The draft model has another vocabulary: its token {token} is {mine.text_of(token)!r}, and the "
                                 f"model's is {main.text_of(token)!r}. Choose a smaller model of the same family, or speculation "
                                 "prompt_lookup.", param="draft_model")
        self._n_usable = min(mine.size, main.size)

    def guess(self, draft: Draft, n: int) -> list[int]:
        """Up to n tokens that are likely to follow the draft's ids; [] also while it catches up with a long text."""
        import numpy as np

        context, ids = self._context, draft.ids
        if len(ids) + n > context.size:
            return []
        self._turn_to(draft)
        waiting = ids[len(self._held):][:context.capacity]
        is_behind = len(self._held) + len(waiting) < len(ids)
        found: list[int] = []
        while True:
            if not self._evaluate(waiting) or is_behind:
                return []
            row = context.logits(len(waiting) - 1)[:self._n_usable]
            token = int(row.argmax())
            if 1 / float(np.exp(row - row[token]).sum(dtype=np.float64)) < LEAST_CHANCE:
                return found
            found.append(token)
            if len(found) == n:
                return found
            waiting = [token]

    def _turn_to(self, draft: Draft) -> None:
        """Keep of what is held what the draft's ids begin with, but not the last of them: its logits are wanted."""
        if self._owner is draft:
            n = draft.n_same
            while n < min(len(self._held), len(draft.ids)) and self._held[n] == draft.ids[n]:
                n += 1
        else:
            n = common_length(self._held, draft.ids)
        n = min(n, len(draft.ids) - 1)
        if n < len(self._held):
            n = self._context.keep(0, n)
            del self._held[n:]
        self._owner, draft.n_same = draft, n

    def _evaluate(self, ids: Sequence[int]) -> bool:
        context = self._context
        context.begin()
        context.add_chunk(ids[:-1], len(self._held), 0)
        context.add(ids[-1], len(self._held) + len(ids) - 1, 0)
        if context.decode():
            context.clear()
            self._held = []
            return False
        self._held += ids
        return True

    def close(self) -> None:
        """Free context and model; a second call does nothing."""
        self._context.close()
        if self._model:
            self._library.c.llama_model_free(self._model)
            self._model = None


class Draft:
    """One run's text for the draft model (sampling.speculation.Drafter). n_same: how much of it the model is known to hold."""

    def __init__(self, model: DraftModel, prompt: Sequence[int]) -> None:
        self.ids = list(prompt)
        self.n_same = 0
        self._model = model

    def add(self, token: int) -> None:
        self.ids.append(token)

    def draft(self, n: int) -> list[int]:
        return self._model.guess(self, n)
