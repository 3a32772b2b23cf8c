"""The loaded model and its runs: one token for each decoding run and one prompt chunk a step, on the worker's one thread."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modules.core.errors import AppError, BadRequest, Busy, ContextTooLong
from modules.core.loader import FinishReason, ModelFacts, Prefilled, RunFailed, StepResult, Token
from modules.core.params import GenerationParams
from modules.sampling.chain import Sampler, alternatives, log_probabilities
from modules.sampling.speculation import Guesses, Speculation
from modules.sampling.vocabulary import Vocabulary

from .adapters import Adapters
from .cache import cut
from .forward import Forward
from .idle import IdleCaches
from .model import translate
from .pace import Pace
from .text import TokenText, incomplete_tail

if TYPE_CHECKING:
    import numpy as np

MAX_LOGITS_BYTES = 32 << 20


@dataclass
class Run:
    """One run's state. ids: prompt and sampled tokens; n_evaluated: how many of them `cache` holds, n_ahead: guesses after them;
    all but `sampler`, `decoder`, `guesses` and the numbers stay as they are. Changed only by TransformersLoader.step."""

    name: str
    cache_key: str
    params: GenerationParams
    ids: list[int]
    n_prompt: int
    n_cached: int
    cache: Any
    n_evaluated: int
    sampler: Sampler
    decoder: codecs.IncrementalDecoder
    guesses: Guesses | None = None
    n_ahead: int = 0

    @property
    def is_decoding(self) -> bool:
        """Whether only the newest token is still to be evaluated."""
        return len(self.ids) > self.n_prompt and self.n_evaluated == len(self.ids) - 1

    def room(self, context: int) -> int:
        """How many guesses may be checked with the next token."""
        left = context - len(self.ids) - 1
        most = self.params.max_tokens
        return max(0, min(left, self.n_prompt + most - len(self.ids) - 1) if most else left)


class TransformersLoader:
    """A loaded Transformers model; implements core.loader.Loader.

    Equal seeds give equal text, from a cold and a warm cache, as far as float sums allow: evaluating a prompt in other chunks
    changes the last bits of the logits (about 1e-6 in float32, 1e-2 in bfloat16), and the draw is made so that such a change
    alters a token as seldom as it alters the distribution. In float32 that is about one token in a hundred thousand.
    """

    def __init__(self, forward: Forward, text: TokenText, facts: ModelFacts, speculation: Speculation, *,
                 on_close: Callable[[], None] | None = None) -> None:
        self.facts = facts
        self._on_close = on_close
        self._speculation = speculation
        self._forward, self._text = forward, text
        self._vocabulary: Vocabulary = text.vocabulary()
        self._idle = IdleCaches(facts.slots, forward.run_cache)
        self._adapters = Adapters(forward.model)
        self._runs: dict[str, Run] = {}
        self._pace = Pace()

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        return self._text.tokenize(text, control=control, first=first)

    def detokenize(self, ids: Sequence[int]) -> bytes:
        return self._text.detokenize(ids)

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams, cache_key: str) -> int:
        ids = list(prompt)
        self._check_ids(ids)
        unknown = next((id_ for id_ in params.logit_bias if id_ >= self.facts.vocab_size), None)
        if unknown is not None:
            raise BadRequest(f"logit_bias names token {unknown}; the model's ids go from 0 to {self.facts.vocab_size - 1}.",
                             param="logit_bias")
        if len(ids) >= self.facts.context:
            raise ContextTooLong(f"The prompt has {len(ids)} tokens and the context {self.facts.context}; shorten the prompt.")
        if len(self._runs) >= self.facts.slots:
            raise Busy(f"All {self.facts.slots} slots are in use; the run waits for one of them.")
        seed = params.seed if params.seed >= 0 else secrets.randbits(32)
        sampler = Sampler(params, ids, seed=seed, vocabulary=self._vocabulary, vocab_size=self.facts.vocab_size,
                          context=self.facts.context, eog_ids=self.facts.eog_ids)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # A reply that was cut inside a character goes on with its last bytes.
        decoder.decode(incomplete_tail(self._text.detokenize(ids[-4:])))
        cache_key = self._adapters.signature + cache_key
        reusable = self._forward.takes_chunks  # else what follows a prefix cannot be evaluated apart from it
        cache, n_held = self._idle.take(cache_key if reusable else None, ids, len(self._runs))
        self._runs[run] = Run(run, cache_key, params, ids, len(ids), n_held, cache, n_held, sampler, decoder,
                              self._speculation.guesses(ids))
        return n_held

    def step(self) -> list[tuple[str, StepResult]]:
        results: list[tuple[str, StepResult]] = []
        decoding = [run for run in self._runs.values() if run.is_decoding]
        started = time.perf_counter()
        for run in decoding:
            self._attempt(run, self._decode, results)
        if decoding:
            self._learn(decoding, time.perf_counter() - started)
        filling = next((run for run in self._runs.values() if not run.is_decoding), None)
        if filling is not None:
            self._attempt(filling, lambda run: self._prefill(run, alone=not decoding), results)
        return results

    def _learn(self, decoding: list[Run], seconds: float) -> None:
        guesses = decoding[0].guesses
        if len(decoding) == 1 and guesses is not None:
            guesses.lasted(seconds)
            if guesses.n_last:
                return
        self._pace.decoded(seconds)

    def remove(self, run: str) -> None:
        ended = self._runs.pop(run, None)
        if ended is not None and ended.cache is not None and self._took_back(ended):
            self._idle.put(ended.cache_key, ended.ids[: ended.n_evaluated], ended.cache)

    def score(self, ids: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._check_length(ids)
        scores = np.full(len(ids), np.nan, dtype=np.float32)
        rows = max(1, MAX_LOGITS_BYTES // (4 * self.facts.vocab_size))
        for start in range(0, len(ids) - 1, rows):
            stop = min(start + rows, len(ids) - 1)
            scores[start + 1: stop + 1] = self._forward.log_chances(ids[:stop], start, ids[start + 1: stop + 1])
        return scores

    def logits(self, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
        self._check_length(ids)
        most = max(1, MAX_LOGITS_BYTES // (4 * self.facts.vocab_size))
        if not 0 <= start < stop <= len(ids) or stop - start > most:
            raise BadRequest(f"Ask for 1 to {most} positions from 0 to {len(ids)} at a time; got {start} to {stop}.")
        return self._forward.rows(ids[:stop], start)

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """The mean of the last hidden states over all tokens."""
        self._check_length(ids)
        return self._forward.mean_hidden(ids)

    def set_adapters(self, adapters: Sequence[tuple[str, float]]) -> None:
        """Attach exactly these PEFT adapters (core.adapters.TakesAdapters)."""
        try:
            self._adapters.set(adapters)
        except Exception as error:
            known = translate(error)
            if known is None or known is error:
                raise
            raise known from error
        finally:
            self._forward.forget()

    def close(self) -> None:
        self._runs.clear()
        self._idle.clear()
        self._adapters.close()
        self._forward.close()
        if self._on_close is not None:
            self._on_close()

    def _check_ids(self, ids: Sequence[int]) -> None:
        if not ids:
            raise BadRequest("No tokens were given; give at least one.")
        if min(ids) < 0 or max(ids) >= self.facts.vocab_size:
            raise self._text.unknown_id(ids)

    def _check_length(self, ids: Sequence[int]) -> None:
        self._check_ids(ids)
        if len(ids) > self.facts.context:
            raise ContextTooLong(f"{len(ids)} tokens were given and the context is {self.facts.context}; give fewer.")

    def _attempt(self, run: Run, work: Callable[[Run], list[StepResult]], results: list[tuple[str, StepResult]]) -> None:
        """Do one run's part of a step; its error ends that run alone, and memory is looked for once before it does."""
        try:
            results += [(run.name, result) for result in work(run)]
        except Exception as error:  # noqa: BLE001 - whatever torch raises for one run, the others go on
            known = translate(error)
            # Some layers of its cache may hold the failed tokens and others not, so the cache is of no more use.
            if known is not None and known.code == "out_of_memory" and self._idle.clear():
                self._forward.free_memory()
                run.cache, run.n_evaluated, run.n_ahead = self._forward.run_cache(), 0, 0
                return
            self._runs.pop(run.name, None)
            words = " ".join(str(error).split())[:400] or type(error).__name__
            results.append((run.name, RunFailed(known or AppError(f"The model failed in this reply: {words}. Try again; if it "
                                                                  "stays so, load the model anew."))))

    def _prefill(self, run: Run, *, alone: bool) -> list[StepResult]:
        """Evaluate the next chunk; after the last one the first token comes in the same step."""
        total = len(run.ids)
        left = total - run.n_evaluated
        size = min(left, self._pace.size(alone=alone)) if self._forward.takes_chunks else left
        started = time.perf_counter()
        logits = self._forward.last_row(run.ids[run.n_evaluated: run.n_evaluated + size], run.n_evaluated, run.cache)
        self._pace.prefilled(size, time.perf_counter() - started, alone=alone)
        run.n_evaluated += size
        told: list[StepResult] = [Prefilled(min(run.n_evaluated, run.n_prompt), run.n_prompt, run.n_cached)]
        return told if run.n_evaluated < total else [*told, self._next(run, logits)]

    def _decode(self, run: Run) -> list[StepResult]:
        guessed = run.guesses.next(run.room(self.facts.context)) if run.guesses and len(self._runs) == 1 else []
        if guessed:
            return self._check(run, guessed)
        logits = self._forward.last_row(run.ids[-1:], run.n_evaluated, run.cache)
        run.n_evaluated += 1
        return [self._next(run, logits)]

    def _check(self, run: Run, guessed: list[int]) -> list[StepResult]:
        """The next token, and those after it for which the guesses were right; what was wrong is taken back."""
        rows = self._forward.rows_after([run.ids[-1], *guessed], run.n_evaluated, run.cache)
        run.n_evaluated, run.n_ahead = run.n_evaluated + 1, len(guessed)
        tokens: list[Token] = []
        for row, guess in zip(rows, [*guessed, None], strict=True):
            try:
                token = self._sample(run, row)
            except AppError:
                if not tokens:
                    raise
                # What was sampled before it is told first; the next step looks at the last token again, and meets the fault.
                run.n_evaluated, run.n_ahead = run.n_evaluated - 1, run.n_ahead + 1
                break
            tokens.append(token)
            if token.finish is not None or token.id != guess:
                break
            run.n_evaluated, run.n_ahead = run.n_evaluated + 1, run.n_ahead - 1
        if run.name in self._runs and not self._took_back(run):
            run.cache, run.n_evaluated = self._forward.run_cache(), 0  # it is read again
        assert run.guesses is not None
        run.guesses.took(guessed, [token.id for token in tokens])
        return list(tokens)

    def _took_back(self, run: Run) -> bool:
        """Cut the guesses off the cache that were not right; False where it is of no more use."""
        n_wrong, run.n_ahead = run.n_ahead, 0
        return not n_wrong or cut(run.cache, run.n_evaluated + n_wrong, run.n_evaluated)

    def _next(self, run: Run, logits: np.ndarray) -> Token:
        """The next token of a step without guesses."""
        token = self._sample(run, logits)
        if run.guesses is not None:
            run.guesses.took((), (token.id,))
        return token

    def _sample(self, run: Run, logits: np.ndarray) -> Token:
        """Draw the next token and make its text; the run is over and its cache idle when the token has `finish`."""
        if not logits.max() < float("inf"):
            raise AppError("The model computed no usable numbers (NaN or infinity). Load it with dtype float32 or bfloat16.")
        chances = log_probabilities(logits) if run.params.top_logprobs else None
        id_ = run.sampler.choose(logits)
        run.ids.append(id_)
        finish = self._finish(run, id_)
        text = "" if finish == "stop" else run.decoder.decode(self._text.pieces[id_])
        if finish is not None:
            self.remove(run.name)
        if chances is None:
            return Token(id_, text, finish=finish)
        told = alternatives(chances, id_, run.params.top_logprobs)
        top = tuple((other, self._text.pieces[other].decode("utf-8", "replace"), value) for other, value in told.top)
        return Token(id_, text, told.logprob, top, finish)

    def _finish(self, run: Run, id_: int) -> FinishReason | None:
        if id_ in self.facts.eog_ids:
            return "stop"
        n_sampled = len(run.ids) - run.n_prompt
        is_full = n_sampled == run.params.max_tokens or len(run.ids) >= self.facts.context
        return "length" if is_full else None
