"""What a loader is: one file that turns prompts and parameters into tokens, in a process of its own.

A file in `loaders/` is a loader when it has a module-level `SPEC: LoaderSpec` whose `load` returns a `Loader`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from .adapters import AdapterFormat
from .errors import AppError
from .knobs import Knob
from .params import GenerationParams

if TYPE_CHECKING:
    import numpy as np

FinishReason = Literal["stop", "length", "cancelled"]
Feature = Literal["tokenize", "logits", "score", "embed", "grammar", "logprobs", "prefix_reuse", "batching", "repeatable",
                  "adapters"]
FileFormat = Literal["gguf", "safetensors", "gptq", "awq", "exl2", "exl3", "pickle", "adapter", "echo", "server", "unknown"]


@dataclass(frozen=True)
class Token:
    """One sampled token.

    text: what this token adds; may be empty while a character is incomplete, and the next token then brings the whole one.
    logprob: natural log, None where not asked for. top: the most likely (id, text, logprob), best first.
    finish: set on a run's last token only: "stop" at an end-of-generation token (whose own text is empty), "length" at
    max_tokens or the context's end. Stop strings are the engine's business, not the loader's.
    counted: on the last token, (prompt, completion) tokens as the server that wrote the reply counted them, where our ids are
    an estimate.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()
    finish: FinishReason | None = None
    counted: tuple[int, int] | None = None


@dataclass(frozen=True)
class Prefilled:
    """How far the prompt is evaluated: `done` of `total` prompt tokens, of which `cached` were reused, not evaluated."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True)
class RunFailed:
    """This run ended by an error; other runs go on."""

    error: AppError


StepResult = Token | Prefilled | RunFailed


@dataclass(frozen=True)
class ModelFile:
    """A model on disk, read from its headers only, every count bounded by the file's size.

    name: how people and API clients call it; unique in a catalog. path: the file, the folder, or a split's first file.
    n_params, trained_context, quantization, chat_template are 0 or "" where the headers do not say.
    layers, kv_heads, head_dim: what the KV cache's size follows from; heads, hidden_size, feed_forward: what computing takes
    follows from these; 0 where unknown. n_outside: parameters outside of the layers (embeddings, the output), which quantizing
    while loading leaves as they are; 0 where unknown.
    problem: why it cannot be loaded, with the way out; empty where nothing speaks against it.
    source: the other program on this machine that it belongs to, or the host of a server's model; "" for what is in the folders.
    """

    name: str
    path: str
    format: FileFormat
    size_bytes: int = 0
    architecture: str = ""
    n_params: int = 0
    trained_context: int = 0
    quantization: str = ""
    chat_template: str = ""
    layers: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    heads: int = 0
    hidden_size: int = 0
    feed_forward: int = 0
    n_outside: int = 0
    problem: str = ""
    source: str = ""

    @property
    def has_weights(self) -> bool:
        """Whether there are weights on this machine, which take memory here; echo has none, a server's are elsewhere."""
        return self.format not in ("echo", "server")


@dataclass(frozen=True)
class ModelFacts:
    """What a loaded model says of itself; travels once from the worker to the engine.

    eog_ids: tokens that end a generation. special_tokens: text of each control token by id, for templates (bos_token,
    eos_token) and for finding reasoning marks. options: the loader's options as they came out (context, threads...).
    chat_template is "" where the model has none. add_bos: whether a prompt starts with BOS unless it already does.
    base_bytes: what the process took before the weights, set by the worker; 0 where unknown.
    takes: "ids" for models whose prompt we build; "messages" where a remote server does, and the numbers of tokens are estimates.
    """

    context: int
    vocab_size: int
    slots: int
    chat_template: str = ""
    bos_id: int | None = None
    bos_text: str = ""
    eos_text: str = ""
    add_bos: bool = False
    eog_ids: tuple[int, ...] = ()
    special_tokens: dict[int, str] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    takes: Literal["ids", "messages"] = "ids"
    options: dict[str, Any] = field(default_factory=dict)
    memory_bytes: int = 0
    device: str = "cpu"
    base_bytes: int = 0


@runtime_checkable
class Loader(Protocol):
    """A loaded model. One thread of the worker calls every method; nothing here needs a lock.

    The caller promises: run ids are unique while they run; `prompt` is not empty and len(prompt) < facts.context;
    at most facts.slots runs at once; `step` is called while runs are active; `close` is last.
    """

    facts: ModelFacts

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        """Ids of `text`; adds no BOS. Control tokens are recognised only if `control`; else their spelling is plain text.

        first=False: the text goes on after other text, so a SentencePiece vocabulary puts no space before it.
        """

    def detokenize(self, ids: Sequence[int]) -> bytes:
        """The bytes of these ids; control tokens give their spelling."""

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams, cache_key: str) -> int:
        """Begin a run; returns how many prompt tokens are reused from the cache.

        KV is reused only under the same cache_key and only for the longest common prefix of exact ids. Raises BadRequest
        for a bad grammar or an unknown token id; Busy when admission (prompt + max_tokens) cannot be granted now although it
        could be later: the worker then queues the run and tries again after another one ends.
        """

    def step(self) -> list[tuple[str, StepResult]]:
        """One decode step for all decoding runs and at most one prefill chunk; results in the order they happened.

        A chunk lasts at most about 150 ms while others decode and 500 ms alone. A run's last Token has `finish` and the run
        is then gone; so it is after RunFailed.
        """

    def remove(self, run: str) -> None:
        """End a run early; its KV may stay as an idle prefix. Unknown or finished runs are ignored: stop races with the end."""

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """(n,) float32: the log-probability of each id given those before it; the first is nan."""

    def logits(self, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
        """(stop - start, vocab_size) float32 logits after each position; at most 32 MB a call."""

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """(dimension,) float32, not normalised."""

    def close(self) -> None:
        """Free everything; a second call does nothing."""


Progress = Callable[[float, str], None]
"""progress(fraction 0..1, what is being done); raises errors.Cancelled when the person cancelled: let it through.

Below WEIGHTS_FROM the loader's libraries are started and no weight is read yet: what the process takes then is its own.
"""
WEIGHTS_FROM = 0.02


@dataclass(frozen=True)
class LoaderSpec:
    """How a loader file presents itself, without importing its backend.

    accepts(file) is 0 where it cannot load the file, else a score: the highest wins. requires: importable module names;
    install: the command that brings them. options: knobs by name. params: the sampler parameters it honours. adapters: the
    format of the LoRA adapters that its models take (adapters.TakesAdapters), "" for none; it then has the feature "adapters".
    load(path, options, progress) -> Loader raises LoadFailed or OutOfMemory; `options` are parsed and complete.
    """

    name: str
    title: str
    accepts: Callable[[ModelFile], float]
    load: Callable[[str, dict[str, Any], Progress], Loader]
    requires: tuple[str, ...] = ()
    install: str = ""
    options: dict[str, Knob] = field(default_factory=dict)
    params: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    adapters: AdapterFormat | Literal[""] = ""
