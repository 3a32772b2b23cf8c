"""GGUF models through llama-cpp-python's low-level API: one thread, one context, many runs decoded together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.errors import AppError, BadRequest, Busy, ContextTooLong, LoadFailed
from modules.core.knobs import knobs_of
from modules.core.loader import (
    WEIGHTS_FROM,
    FinishReason,
    LoaderSpec,
    ModelFacts,
    ModelFile,
    Prefilled,
    Progress,
    RunFailed,
    StepResult,
    Token,
)
from modules.core.params import GenerationParams

from .llama_cpp_parts.adapters import Adapters
from .llama_cpp_parts.cells import Cells, NoRoom
from .llama_cpp_parts.chain import PARAMS, Samplers
from .llama_cpp_parts.context import Context, Settings
from .llama_cpp_parts.drafts import GgufDraft, open_speculation
from .llama_cpp_parts.evaluate import POOLING, Evaluator
from .llama_cpp_parts.library import Library
from .llama_cpp_parts.options import Options, settings_for, split_of
from .llama_cpp_parts.pace import Pace
from .llama_cpp_parts.run import Run, decoder_after, token_text, token_with_alternatives
from .llama_cpp_parts.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np

# What may be copied out of the context between two steps: little where somebody sees the pause (64 MiB take about 20 ms), one
# sequence of any usual size where nobody does.
PARK_BYTES, UNSEEN_PARK_BYTES = 64 << 20, 4 << 30
FEATURES = frozenset({"tokenize", "logits", "score", "embed", "grammar", "logprobs", "prefix_reuse", "batching", "adapters"})


class LlamaCpp:
    """A loaded GGUF model (core.loader.Loader). Whoever loads it calls everything on one thread and closes it.

    Results of a run depend a little on which other runs share its batches, as llama.cpp's kernels differ by batch size; alone,
    with equal chunks before it, equal seeds give equal text.
    """

    def __init__(self, path: str, options: Options, progress: Progress) -> None:
        progress(0.0, "starting llama.cpp")
        self._library = Library()
        self._model: Any = None
        self._context: Context | None = None
        self._draft: GgufDraft | None = None
        self._runs: dict[str, Run] = {}
        try:
            self._open(path, options, progress)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str, options: Options, progress: Progress) -> None:
        library, c = self._library, self._library.c
        progress(WEIGHTS_FROM, "reading the headers")
        gpu_layers = options.gpu_layers if c.llama_supports_gpu_offload() else 0
        self._model = library.load_model(
            path, gpu_layers=gpu_layers, split=split_of(options, int(c.llama_max_devices())), split_mode=options.split_mode,
            main_gpu=options.main_gpu, mmap=options.mmap, mlock=options.mlock, progress=progress)
        model = self._model
        if not c.llama_model_has_decoder(model) or c.llama_model_has_encoder(model) or c.llama_model_is_diffusion(model):
            raise LoadFailed("The model does not write text token by token (it is an encoder or a diffusion model).")
        self.vocabulary = Vocabulary(c, self._model)
        self._eog = frozenset(self.vocabulary.eog_ids)
        progress(0.93, "making the context")
        can_trim = not (c.llama_model_is_recurrent(self._model) or c.llama_model_is_hybrid(self._model))
        # Sequences cost nothing beside the cells they hold, but for recurrent models a whole state each.
        n_sequences = options.slots + 1 if not can_trim else min(2 * options.slots + 2, c.llama_max_parallel_sequences())
        settings = settings_for(options, int(c.llama_model_n_ctx_train(self._model)), n_sequences)
        self._context = Context(library, self._model, settings)
        self._cells = Cells(self._context, self._context.size, n_sequences, is_alone=options.slots == 1, can_trim=can_trim,
                            parking_bytes=options.parking << 20)
        self._adapters = Adapters(library, self._model, path)
        self._samplers = Samplers(c, self.vocabulary, self._context.size)
        self._speculation, self._draft = open_speculation(
            options, library, self.vocabulary, settings, can_take_back=can_trim and not self._context.n_swa,
            gpu_layers=gpu_layers, progress=progress)
        self._pooling = POOLING.get(library.metadata(self._model, "pooling_type"), "mean")
        progress(0.95, "warming up")
        self._pace = Pace(settings.batch - options.slots, self._warm_up())
        library.log.is_loading = False
        self.facts = self._facts(options, settings, gpu_layers)
        progress(1.0, "ready")

    def _warm_up(self) -> float:
        """Touch every weight once; returns the seconds of one decode step."""
        context = self._open_context
        best = 1e9
        for position in range(3):
            started = time.perf_counter()
            context.begin()
            context.add(self.vocabulary.bos_id or 0, position, 0)
            code = context.decode()
            if code:
                raise self._library.failure(f"The first token could not be computed (code {code})", "Try a smaller batch.")
            context.logits(0)
            best = min(best, time.perf_counter() - started)
        context.clear()
        return best

    def _facts(self, options: Options, settings: Settings, gpu_layers: int) -> ModelFacts:
        c, vocabulary, log = self._library.c, self.vocabulary, self._library.log
        template = c.llama_model_chat_template(self._model, None)
        flash = log.flash_attention if options.flash_attention == "auto" and log.flash_attention else options.flash_attention
        return ModelFacts(
            context=self._open_context.size, vocab_size=vocabulary.size, slots=options.slots,
            chat_template=(template or b"").decode("utf-8", "replace"), bos_id=vocabulary.bos_id,
            bos_text=vocabulary.text_of(vocabulary.bos_id), eos_text=vocabulary.text_of(vocabulary.eos_id),
            add_bos=vocabulary.add_bos, eog_ids=vocabulary.eog_ids, special_tokens=dict(vocabulary.special),
            # Kernels differ by batch size, and so do their sums: with others or guesses beside a seed may give another text.
            features=FEATURES | {"repeatable"} if options.slots == 1 and options.speculation == "none" else FEATURES,
            options={**vars(options), "context": settings.context, "threads": settings.threads, "batch": settings.batch,
                     "threads_batch": settings.threads_batch, "ubatch": settings.ubatch, "gpu_layers": gpu_layers,
                     "flash_attention": flash, "draft_model": Path(options.draft_model).name},
            memory_bytes=log.buffer_bytes or int(c.llama_model_size(self._model)), device=log.device or "cpu")

    @property
    def _open_context(self) -> Context:
        if self._context is None:
            raise AppError("The model is closed; load it again.")
        return self._context

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        """first=False: the text goes on after other text, so a SentencePiece model puts no space before it."""
        return self.vocabulary.tokenize(text, control=control, first=first)

    def detokenize(self, ids: Sequence[int]) -> bytes:
        return self.vocabulary.detokenize(ids)

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams, cache_key: str) -> int:
        """Begin a run; how cells are reserved is in cells.Cells."""
        ids = list(prompt)
        self.vocabulary.check(ids)
        if not ids:
            raise BadRequest("The prompt is empty; write at least one character to continue from.", param="prompt")
        if len(ids) >= self._cells.total:
            raise ContextTooLong(f"The prompt has {len(ids)} tokens and the context holds {self._cells.total}, with at least one "
                                 "for the reply. Shorten it, or load the model with a larger context.", param="prompt")
        if len(self._runs) >= self.facts.slots:
            raise Busy(f"All {self.facts.slots} slots are writing; try again when one is done.")
        chain = self._samplers.chain(params, ids)
        try:
            seq, n_cached = self._cells.admit(ids, self._adapters.signature + cache_key, params.max_tokens)
        except NoRoom as error:
            chain.close()
            raise Busy(f"{len(ids)} prompt tokens and {params.max_tokens or 'any number of'} new ones do not fit beside the "
                       "replies that are being written; try again when one is done.") from error
        self._runs[run] = Run(run, ids, seq, chain, n_cached, params.max_tokens, params.top_logprobs,
                              decoder_after(ids, self.vocabulary), self._speculation.guesses(ids))
        return n_cached

    def step(self) -> list[tuple[str, StepResult]]:
        """One llama_decode for all decoding runs and as many tokens of new prompts, the oldest first, as the pace allows."""
        results: list[tuple[str, StepResult]] = []
        if self._runs:
            is_unseen = not any(run.n_sampled for run in self._runs.values())
            self._cells.park(UNSEEN_PARK_BYTES if is_unseen else PARK_BYTES, PARK_BYTES)
        started = time.perf_counter()
        while True:
            decoding, filling = self._fill_batch()
            if not decoding and not filling:
                return results
            code = self._open_context.decode()
            if not code:
                break
            results += self._failed(code, decoding, filling)
        for run in filling:
            results.append((run.name, Prefilled(len(run.seq.tokens), len(run.prompt), run.n_cached)))
        for run in decoding:
            if not run.n_sampled:
                results.append((run.name, Prefilled(len(run.prompt), len(run.prompt), run.n_cached)))
            results += ((run.name, result) for result in self._sample(run))
        seconds = time.perf_counter() - started
        if filling:
            self._pace.prefilled(len(decoding), sum(filling.values()), seconds)
        elif not any(run.guessed for run in decoding):
            self._pace.decoded(len(decoding), seconds)
        if len(decoding) == 1 and not filling and (guesses := decoding[0].guesses):
            guesses.lasted(seconds)
        return results

    def _fill_batch(self) -> tuple[list[Run], dict[Run, int]]:
        """The runs whose next token is in the batch, and those with a chunk of their prompt in it, with its length."""
        context, cells = self._open_context, self._cells
        context.begin()
        decoding: list[Run] = []
        waiting: list[Run] = []
        for run in self._runs.values():
            if run.n_to_prefill:
                waiting.append(run)
                continue
            run.guessed = run.guesses.next(run.room) if run.guesses and len(self._runs) == 1 else []
            checked = (run.next_token, *run.guessed)
            run.index = context.add_chunk(checked, len(run.seq.tokens), run.seq.id, outputs=True)
            cells.extend(run.seq, checked)
            decoding.append(run)
        filling: dict[Run, int] = {}
        left = self._pace.chunk(len(decoding), sum(run.n_to_prefill for run in waiting)) if waiting else 0
        for run in waiting:
            done = len(run.seq.tokens)
            n = min(left, run.n_to_prefill)
            if not n:
                break
            ids = run.prompt[done:done + n]
            cells.extend(run.seq, ids)
            context.add_chunk(ids, done, run.seq.id)
            filling[run] = n
            left -= n
        return decoding, filling

    def _sample(self, run: Run) -> list[StepResult]:
        """The next token, and those after it for which the guesses were right; what was wrong is taken back."""
        results: list[StepResult] = []
        sampled: list[int] = []
        n_before = len(run.seq.tokens) - len(run.guessed)
        for i in range(1 + len(run.guessed)):
            try:
                token = run.chain.sample(self._open_context.handle, run.index + i)
            except AppError as error:
                self.remove(run.name)
                return [*results, RunFailed(error)]
            sampled.append(token)
            is_last = i == len(run.guessed) or token != run.guessed[i]
            if is_last and i < len(run.guessed):
                self._cells.cut(run.seq, n_before + i)
            results.append(self._taken(run, token, run.index + i, n_before + i))
            if is_last or run.name not in self._runs:
                break
        if run.guesses is not None:
            run.guesses.took(run.guessed, sampled)
        return results

    def _taken(self, run: Run, token: int, index: int, n_held: int) -> Token:
        """The run goes on with this token, or ends with it; n_held: how many tokens of the run are evaluated before it."""
        run.n_sampled += 1
        run.next_token = token
        is_end = token in self._eog
        text = "" if is_end else token_text(token, run.utf8, self.vocabulary)
        is_full = run.n_sampled == run.max_tokens or (n_held >= run.seq.limit and not self._cells.grow(run.seq))
        finish: FinishReason | None = "stop" if is_end else "length" if is_full else None
        if run.top_logprobs:
            result = token_with_alternatives(token, text, finish, run, index, self._open_context, self.vocabulary)
        else:
            result = Token(token, text, finish=finish)
        if finish is not None:
            self.remove(run.name)
        return result

    def _failed(self, code: int, decoding: list[Run], filling: dict[Run, int]) -> list[tuple[str, StepResult]]:
        """After llama_decode's code: make room and let the caller try again, or end the one run that came last, or all."""
        runs = [*decoding, *filling]
        for run in runs:
            self._cells.undo(run.seq, filling.get(run, 1 + len(run.guessed)))
        error: AppError
        if code == 1:
            if self._cells.evict_idle():
                return []
            runs = runs[-1:]
            error = Busy("The context has no room for this reply beside the others; try again when they are done.")
        else:
            error = AppError(f"llama.cpp could not compute the next tokens (code {code}); see the model's log.")
        for run in runs:
            self._cells.cut(run.seq, 0)
            self.remove(run.name)
        return [(run.name, RunFailed(error)) for run in runs]

    def remove(self, run: str) -> None:
        gone = self._runs.pop(run, None)
        if gone is not None:
            gone.chain.close()
            self._cells.release(gone.seq)

    def score(self, ids: Sequence[int]) -> np.ndarray:
        return self._evaluate(ids).score(ids)

    def logits(self, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
        return self._evaluate(ids).logits(ids, start, stop)

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        return self._evaluate(ids).embed(ids, self._pooling)

    def _evaluate(self, ids: Sequence[int]) -> Evaluator:
        self.vocabulary.check(ids)
        return Evaluator(self._open_context, self._cells, self.vocabulary.size, self._adapters.signature)

    def set_adapters(self, adapters: Sequence[tuple[str, float]]) -> None:
        """Attach exactly these GGUF adapters (core.adapters.TakesAdapters)."""
        self._adapters.set(self._open_context, adapters)

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        for name in list(self._runs):
            self.remove(name)
        if self._draft is not None:
            self._draft.close()
        if self._context is not None:
            self._samplers.close()
            self._context.close()
            self._context = None
        if self._model:
            self._library.c.llama_model_free(self._model)
            self._model = None
        self._library.log.close()


def _accepts(file: ModelFile) -> float:
    return 1.0 if file.format == "gguf" else 0.0


def load(path: str, options: dict[str, Any], progress: Progress) -> LlamaCpp:
    return LlamaCpp(path, Options(**options), progress)


SPEC = LoaderSpec(
    name="llama_cpp", title="llama.cpp", accepts=_accepts, load=load, requires=("llama_cpp",),
    install="pip install llama-cpp-python==0.3.36", options=knobs_of(Options), params=PARAMS, features=FEATURES,
    adapters="gguf")
