"""No model: plays a script, or politely repeats what was said, at a given rate; the demo, and the fake in every test."""

from __future__ import annotations

import codecs
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.errors import BadRequest, Busy, LoadFailed
from modules.core.knobs import knobs_of, setting
from modules.core.loader import FinishReason, LoaderSpec, ModelFacts, ModelFile, Prefilled, Progress, StepResult, Token
from modules.core.params import GenerationParams

from .echo_parts.vocabulary import CONTROL_IDS, END, END_OF_TEXT, START, VOCABULARY, check, decode, encode, piece

if TYPE_CHECKING:
    import numpy as np

MAX_SCRIPT = 4 * 2**20
LINE = 1024  # tokens of a prompt without turns that are looked at for its last line
CHUNK = 256  # prompt tokens a prefill step
NAP_SECONDS = 0.02  # a step sleeps at most this long, so that a cancel is obeyed soon
CATCH_UP_SECONDS = 0.1  # after a pause of the machine no more than this much is played at once
FAILS_AT = 4  # the token of a run at which `fail` strikes

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

_OPENINGS = ("You said: ", "I hear you: ", "As you put it: ", "In your words: ")


class Script:
    """What is played: a text, or for "" the last user message; goes on where the prompt already began it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ids = [*encode(text, control=True), END]  # once: a long script takes a second

    def after(self, prompt: Sequence[int], seed: int) -> list[int]:
        """The reply's ids, the end-of-generation token last."""
        said, begun = _last_turn(prompt)
        text = self._text or random.Random(seed if seed >= 0 else None).choice(_OPENINGS) + said.strip()
        if begun and text.startswith(begun):
            text = text[len(begun):]
        elif self._text:
            return self._ids
        return [*encode(text, control=bool(self._text)), END]


def _last_turn(prompt: Sequence[int]) -> tuple[str, str]:
    """A ChatML prompt's last user message, and what it holds of the reply already; without ChatML, its last line and nothing."""
    starts = [index for index, id_ in enumerate(prompt) if id_ == START]
    if not starts:
        tail = decode(prompt[-LINE:]).decode("utf-8", "ignore")
        return tail.rstrip().rsplit("\n", 1)[-1], ""
    begun = ""
    for start, stop in zip(reversed(starts), [len(prompt), *reversed(starts)], strict=False):
        turn = list(prompt[start + 1:stop])
        is_open = END not in turn
        role, _, body = decode(turn if is_open else turn[:turn.index(END)]).decode("utf-8", "ignore").partition("\n")
        if role == "assistant" and is_open and stop == len(prompt):
            begun = body
        if role == "user":
            return body, begun
    return "", begun


@dataclass
class _Slot:
    """KV of one sequence: the ids evaluated, and whose they are."""

    ids: list[int] = field(default_factory=list)
    cache_key: str = ""
    used_at: float = 0.0


@dataclass
class _Playing:
    """One run. done counts prompt tokens evaluated; due is when the next token may come, in seconds of the monotonic clock."""

    slot: _Slot
    prompt: list[int]
    reply: list[int]
    params: GenerationParams
    reserved: int
    cached: int
    done: int
    due: float = 0.0
    n_played: int = 0
    decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))


class EchoLoader:
    """Plays text as a model would: prompt in chunks, tokens when they are due, KV reused by longest common prefix."""

    def __init__(self, script: str, options: dict[str, Any]) -> None:
        self._script = Script(script)
        self._rate = float(options["rate"])
        self._chunk_seconds = options["prefill_ms"] / 1000
        self._fail = options["fail"]
        self._context: int = options["context"]
        self._cells: int = options["cells"] or self._context * options["slots"]
        self._slots = [_Slot() for _ in range(options["slots"])]
        self._runs: dict[str, _Playing] = {}
        self.facts = ModelFacts(
            context=self._context, vocab_size=VOCABULARY, slots=options["slots"], chat_template=TEMPLATE,
            eos_text="<|im_end|>", eog_ids=(END, END_OF_TEXT), special_tokens={id_: text for text, id_ in CONTROL_IDS.items()},
            features=SPEC.features, options=options)

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        return encode(text, control=control)

    def detokenize(self, ids: Sequence[int]) -> bytes:
        return decode(ids)

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams, cache_key: str) -> int:
        ids = list(prompt)
        check(ids)
        wanted = min(len(ids) + (params.max_tokens or self._context), self._context)
        reserved = sum(playing.reserved for playing in self._runs.values())
        if wanted + reserved > self._cells:
            raise Busy(f"{wanted} cells are wanted, {self._cells - reserved} of {self._cells} are free; wait for a run to end.")
        busy = [id(playing.slot) for playing in self._runs.values()]
        free = [slot for slot in self._slots if id(slot) not in busy]
        slot = max(free, key=lambda slot: (_common(slot, ids, cache_key), -slot.used_at))
        cached = min(_common(slot, ids, cache_key), len(ids) - 1)  # the last one is always evaluated: it gives the logits
        slot.ids, slot.cache_key = ids[:cached], cache_key
        self._runs[run] = _Playing(slot, ids, self._script.after(ids, params.seed), params, wanted, cached, cached)
        return cached

    def step(self) -> list[tuple[str, StepResult]]:
        results: list[tuple[str, StepResult]] = []
        filling = next(((run, p) for run, p in self._runs.items() if p.done < len(p.prompt)), None)
        if filling:
            results.append((filling[0], self._prefill(filling[1])))
        decoding = [(run, p) for run, p in self._runs.items() if p.done == len(p.prompt)]
        now = time.monotonic()
        pause = min((p.due for _, p in decoding), default=now) - now
        if pause > 0 and not filling:
            time.sleep(min(NAP_SECONDS, pause))
            now = time.monotonic()
        for run, playing in decoding:
            if playing.due <= now:
                token = self._play(playing, now)
                results.append((run, token))
                if token.finish is not None:
                    self.remove(run)
        return results

    def remove(self, run: str) -> None:
        playing = self._runs.pop(run, None)
        if playing is not None:
            playing.slot.used_at = time.monotonic()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """Without a model every token is as likely as any other."""
        import numpy as np

        decode(ids)
        scores = np.full(len(ids), -np.log(VOCABULARY), np.float32)
        scores[:1] = np.nan
        return scores

    def logits(self, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
        import numpy as np

        decode(ids)
        rows = max(1, 32 * 2**20 // (VOCABULARY * 4))
        if not 0 <= start < stop <= len(ids) or stop - start > rows:
            raise BadRequest(f"Ask for 1 to {rows} positions within 0 to {len(ids)}; got {start} to {stop}.")
        return np.zeros((stop - start, VOCABULARY), np.float32)

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """How often each byte occurs."""
        import numpy as np

        return np.bincount(np.frombuffer(decode(ids), np.uint8), minlength=256).astype(np.float32)

    def close(self) -> None:
        self._runs.clear()

    def _prefill(self, playing: _Playing) -> Prefilled:
        stop = min(playing.done + CHUNK, len(playing.prompt))
        if self._chunk_seconds:
            time.sleep(self._chunk_seconds * (stop - playing.done) / CHUNK)
        playing.slot.ids += playing.prompt[playing.done:stop]
        playing.done = stop
        playing.due = time.monotonic()
        return Prefilled(stop, len(playing.prompt), playing.cached)

    def _play(self, playing: _Playing, now: float) -> Token:
        """The next token. The one before it is now in the cache; the newest never is, as with a real model."""
        n = playing.n_played
        if n:
            playing.slot.ids.append(playing.reply[n - 1])
        if self._fail != "none" and n + 1 == FAILS_AT:
            _strike(self._fail)
        id_ = playing.reply[n]
        playing.n_played = n + 1
        if self._rate:
            playing.due = max(playing.due + 1 / self._rate, now - CATCH_UP_SECONDS)
        if id_ in (END, END_OF_TEXT):
            return _token(id_, "", playing.params, "stop")
        text = playing.decoder.decode(piece(id_))
        is_full = playing.n_played == playing.params.max_tokens or len(playing.prompt) + playing.n_played >= self._context
        return _token(id_, text, playing.params, "length" if is_full else None)


def _token(id_: int, text: str, params: GenerationParams, finish: FinishReason | None) -> Token:
    """The script is certain: each token's probability is 1, and it has no alternatives."""
    if not params.top_logprobs:
        return Token(id_, text, finish=finish)
    return Token(id_, text, 0.0, ((id_, piece(id_).decode("utf-8", "replace"), 0.0),), finish)


def _common(slot: _Slot, ids: Sequence[int], cache_key: str) -> int:
    """How many of the ids the slot holds already, for this key."""
    if slot.cache_key != cache_key:
        return 0
    return next((n for n, (held, asked) in enumerate(zip(slot.ids, ids, strict=False)) if held != asked),
                min(len(slot.ids), len(ids)))


def _strike(fail: str) -> None:
    if fail == "crash":
        os.abort()
    if fail == "step":
        raise RuntimeError("the echo loader was told to fail in a step")


def accepts(file: ModelFile) -> float:
    return 1.0 if file.format == "echo" else 0.0


def load(path: str, options: dict[str, Any], progress: Progress) -> EchoLoader:
    """`path` is a text file to play, or ""; the option `script` wins over it."""
    script = options["script"] or _read(path)
    fail, steps = options["fail"], options["load_steps"]
    for done in range(steps):
        progress(done / steps, "Learning the script")
        time.sleep(options["load_seconds"] / steps)
        if fail == "load" and done >= steps // 2:
            raise LoadFailed("The echo loader was told to fail; load it again with its option fail at none.", param="fail")
        if fail == "memory" and done >= steps // 2:
            raise MemoryError
    progress(1.0, "Ready")
    return EchoLoader(script, options)


def _read(path: str) -> str:
    """The file's text; raises LoadFailed where there is none or it is too long."""
    if not path:
        return ""
    try:
        if Path(path).stat().st_size > MAX_SCRIPT:
            raise LoadFailed(f"{path} is longer than {MAX_SCRIPT} bytes; the echo loader plays short scripts.")
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadFailed(f"The script {path} cannot be read: {error}. Give a text file in UTF-8, or none.") from error


@dataclass(frozen=True)
class Options:
    script: str = setting("text", "", "Script", "What every reply plays; empty plays the file, or repeats the last message.",
                          maximum=MAX_SCRIPT)
    rate: float = setting("float", 0.0, "Rate", "Tokens a second for each reply; 0 is full speed.", minimum=0, maximum=1e6)
    context: int = setting("int", 16_384, "Context", "Tokens of prompt and reply together.", minimum=16, maximum=2**22)
    slots: int = setting("int", 4, "Slots", "How many replies play at once.", minimum=1, maximum=256)
    cells: int = setting("int", 0, "Cells", "Tokens that all running replies share; 0 is a whole context for each.", minimum=0,
                         maximum=2**30)
    prefill_ms: float = setting("float", 0.0, "Prefill time", f"Milliseconds that {CHUNK} prompt tokens take.", minimum=0,
                                maximum=60_000)
    load_seconds: float = setting("float", 0.0, "Load time", "Seconds that loading takes.", minimum=0, maximum=3600)
    load_steps: int = setting("int", 1, "Load steps", "How many times progress is told while loading.", minimum=1, maximum=10_000)
    fail: str = setting("choice", "none", "Fail", f"What goes wrong, for tests: the load, its memory, a reply's token {FAILS_AT} "
                        "(step), or the whole process there (crash).", choices=("none", "load", "memory", "step", "crash"))


SPEC = LoaderSpec(
    name="echo", title="Echo (no model)", accepts=accepts, load=load, options=knobs_of(Options),
    features=frozenset({"tokenize", "logits", "score", "embed", "logprobs", "prefix_reuse", "batching",
                        "repeatable"}))
