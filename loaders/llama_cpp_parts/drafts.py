"""Who guesses ahead for a GGUF model: what the chat repeats, or a second, smaller model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modules.core.errors import LoadFailed
from modules.core.loader import Progress
from modules.sampling.draft_model import DraftModel, other_token
from modules.sampling.speculation import Speculation

from .context import Context
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np

    from .context import Settings
    from .library import Library
    from .options import Options

NO_WAY_BACK = ("Guesses that were wrong have to be taken back, which this model's context cannot: it keeps a running state, or "
               "only a window of the text. Load it with speculation none, or with full_swa on where it has a window.")


def open_speculation(options: Options, library: Library, main: Vocabulary, settings: Settings, *, can_take_back: bool,
                     gpu_layers: int, progress: Progress) -> tuple[Speculation, GgufDraft | None]:
    """As the options say, with the draft model, for its owner to close, where they name one.

    can_take_back: the context can forget its last tokens.

    Raises LoadFailed for what cannot be, and what loading the draft model raises.
    """
    most = min(options.draft_tokens, settings.batch - 1)
    if options.speculation != "draft_model":
        if options.draft_model:
            raise LoadFailed(f"draft_model is set and speculation is {options.speculation}; choose speculation draft_model, or "
                             "leave draft_model empty.", param="speculation")
        if options.speculation != "none" and not can_take_back:
            raise LoadFailed(NO_WAY_BACK, param="speculation")
        return Speculation(most=most if options.speculation == "prompt_lookup" else 0), None
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
    except BaseException:
        c.llama_model_free(model)
        raise
    draft = GgufDraft(library, model, context)
    try:
        return Speculation(most=most, draft=draft.drafting(main)), draft
    except BaseException:
        draft.close()
        raise


class GgufDraft:
    """The draft model with a context of one sequence (sampling.draft_model.Evaluator). On the loader's thread."""

    def __init__(self, library: Library, model: Any, context: Context) -> None:
        self._library = library
        self._model: Any = model
        self._context = context

    def drafting(self, main: Vocabulary) -> DraftModel:
        """It for a model with this vocabulary; raises LoadFailed where the ids of the two do not mean the same."""
        mine = Vocabulary(self._library.c, self._model)
        n_usable = min(mine.size, main.size)
        other = other_token([mine.piece(i) for i in range(n_usable)], [main.piece(i) for i in range(n_usable)])
        if other is not None:
            raise LoadFailed(f"The draft model has another vocabulary: its token {other} is {mine.text_of(other)!r}, and the "
                             f"model's is {main.text_of(other)!r}. Choose a smaller model of the same family, or speculation "
                             "prompt_lookup.", param="draft_model")
        return DraftModel(self, size=self._context.size, capacity=self._context.capacity, n_usable=n_usable)

    def keep(self, length: int) -> int:
        return self._context.keep(0, length)

    def evaluate(self, ids: Sequence[int], n_held: int) -> np.ndarray | None:
        context = self._context
        context.begin()
        context.add_chunk(ids[:-1], n_held, 0)
        last = context.add(ids[-1], n_held + len(ids) - 1, 0)
        if context.decode():
            context.clear()
            return None
        return context.logits(last)

    def close(self) -> None:
        """Free context and model; a second call does nothing."""
        self._context.close()
        if self._model:
            self._library.c.llama_model_free(self._model)
            self._model = None
