"""Any OpenAI-compatible server as a model: vLLM or SGLang on many machines, llama-server, Ollama, OpenRouter, OpenAI.

The server has the vocabulary, the template and the sampler. Its prompts and replies travel as ids of ours all the same
(`openai_server_parts/pieces.py`), whose number is an estimate until the server has counted.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from modules.core.errors import AppError, BadRequest, LoadFailed
from modules.core.knobs import knobs_of, setting
from modules.core.loader import LoaderSpec, ModelFacts, ModelFile, Prefilled, Progress, RunFailed, StepResult, Token
from modules.core.params import GenerationParams

from .openai_server_parts import pieces, turns
from .openai_server_parts.client import Client, End, Heard, Stream
from .openai_server_parts.likely import Likely

if TYPE_CHECKING:
    import numpy as np

    from modules.store.servers import Server

NAP_SECONDS = 0.05  # a step waits at most this long for the server, so that a cancel is obeyed soon
UNKNOWN_CONTEXT = 8192
PATIENCE = 8  # ids of ours for one token of the server's; what goes on longer ignores max_tokens, and is ended here
HELLO = "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"
# Where servers say how long a prompt may be: vLLM and SGLang, OpenRouter, others.
CONTEXT_FIELDS = ("max_model_len", "context_length", "max_context_length", "context_window")


@dataclass
class _Reading:
    """One run: its stream, the number of its prompt's ids, how many ids the reply may still have whatever the server thinks of
    max_tokens, how many alternatives of each token are wanted, and whether it has begun and is in its reasoning.
    held: bytes of a character that is not whole yet."""

    stream: Stream
    n_prompt: int
    room: int
    n_top: int = 0
    held: bytes = b""
    has_begun: bool = False
    is_thinking: bool = False


class RemoteLoader:
    """Passes runs on to a server. A server that goes away fails its runs, not the process: the next run asks again."""

    def __init__(self, server: Server, client: Client, context: int, options: dict[str, Any]) -> None:
        self._model = server.model
        self._client = client
        self._heard: SimpleQueue[tuple[str, Heard]] = SimpleQueue()
        self._runs: dict[str, _Reading] = {}
        self.facts = ModelFacts(
            context=context, vocab_size=pieces.VOCABULARY, slots=options["slots"], chat_template=turns.TEMPLATE,
            eos_text=pieces.CONTROL[pieces.END], eog_ids=(pieces.END,), features=SPEC.features, takes="messages",
            special_tokens=dict(enumerate(pieces.CONTROL)), options={**options, "context": context}, device=server.host)

    def tokenize(self, text: str, *, control: bool, first: bool = True) -> list[int]:
        return pieces.encode(text, control=control)

    def detokenize(self, ids: Sequence[int]) -> bytes:
        return pieces.decode(ids)

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams, cache_key: str) -> int:
        pieces.check(prompt)
        room = max(1, self.facts.context - len(prompt))
        limit = min(params.max_tokens, room) if params.max_tokens else 0
        stream = self._client.open(run, turns.ask(prompt, params, self._model, limit), self._heard)
        self._runs[run] = _Reading(stream, len(prompt), PATIENCE * (limit or room), params.top_logprobs)
        return 0

    def step(self) -> list[tuple[str, StepResult]]:
        results: list[tuple[str, StepResult]] = []
        until = time.monotonic() + NAP_SECONDS
        while not results and (left := until - time.monotonic()) > 0:
            try:
                self._take(*self._heard.get(timeout=left), results)
                while True:
                    self._take(*self._heard.get_nowait(), results)
            except Empty:
                pass
        return results

    def _take(self, run: str, heard: Heard, results: list[tuple[str, StepResult]]) -> None:
        reading = self._runs.get(run)
        if reading is None:
            return  # it was stopped
        if isinstance(heard, AppError):
            self._runs.pop(run)
            results.append((run, RunFailed(heard)))
            return
        if not reading.has_begun:
            reading.has_begun = True
            results.append((run, Prefilled(reading.n_prompt, reading.n_prompt, 0)))
        is_thinking = not isinstance(heard, End) and heard.is_reasoning
        if is_thinking != reading.is_thinking:
            reading.is_thinking = is_thinking
            mark = pieces.THINK if is_thinking else pieces.THOUGHT
            results.append((run, Token(mark, pieces.CONTROL[mark])))
        if isinstance(heard, End):
            self._runs.pop(run)
            results.append((run, Token(pieces.END, "", finish="length" if heard.is_length else "stop", counted=heard.counted)))
            return
        if reading.n_top and not (heard.has_logprobs or is_thinking):
            self.remove(run)
            results.append((run, RunFailed(BadRequest(f"{self.facts.device} sends no log-probabilities with {self._model}; ask "
                                                      "without logprobs.", param="logprobs"))))
            return
        tokens = _with_logprobs(heard.tokens, reading) if reading.n_top and heard.tokens else _tokens(heard.text)
        results += ((run, token) for token in tokens[:reading.room])
        reading.room -= len(tokens)
        if reading.room <= 0:
            self.remove(run)
            results.append((run, Token(pieces.END, "", finish="length")))

    def remove(self, run: str) -> None:
        reading = self._runs.pop(run, None)
        if reading is not None:
            reading.stream.close()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        raise _no("probabilities of a text")

    def logits(self, ids: Sequence[int], start: int, stop: int) -> np.ndarray:
        raise _no("logits")

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        raise _no("embeddings")

    def close(self) -> None:
        for run in list(self._runs):
            self.remove(run)
        self._client.close()


def _tokens(text: str) -> list[Token]:
    """The text as tokens whose texts are whole characters; a character cut between two ids comes with the later one."""
    made: list[Token] = []
    held = b""
    for id_ in pieces.encode(text, control=False):
        held += pieces.piece(id_)
        try:
            made.append(Token(id_, held.decode()))
            held = b""
        except UnicodeDecodeError:
            made.append(Token(id_, ""))
    return made


def _with_logprobs(found: Sequence[Likely], reading: _Reading) -> list[Token]:
    """The server's tokens, each as ids of ours, of which the last has its text and log-probability."""
    made: list[Token] = []
    for one in found:
        text, reading.held = _whole(reading.held + one.raw)
        ids = pieces.encode_bytes(one.raw) or [pieces.END]
        top = tuple((pieces.encode(other, control=False)[-1] if other else pieces.END, other, value)
                    for other, value in one.top[:reading.n_top])
        made += [Token(id_, "") for id_ in ids[:-1]]
        made.append(Token(ids[-1], text, one.logprob, top))
    return made


def _whole(raw: bytes) -> tuple[str, bytes]:
    """The whole characters of the bytes, and what is left of one that is cut at the end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(raw)
    return text, decoder.getstate()[0]


def _no(what: str) -> BadRequest:
    return BadRequest(f"A model on a server gives no {what} here; load one of this machine's for that.")


def accepts(file: ModelFile) -> float:
    return 1.0 if file.format == "server" else 0.0


def load(path: str, options: dict[str, Any], progress: Progress) -> RemoteLoader:
    """`path` is the servers file with # and the entry's name. A model that the server does not list is asked for one token: some
    load models that they do not list."""
    from modules.store.servers import find_server

    progress(0.0, "Asking the server")
    listed: list[dict[str, Any]] | None = None
    try:
        server = find_server(path)
        client = Client(f"{server.name} ({server.host})", server.base_url, server.api_key, timeout=options["timeout"])
        listed = client.models()
        entry = next((item for item in listed or () if item.get("id") == server.model), None)
        if entry is None:
            progress(0.5, "Asking the model for a token")
            for _ in client.read(turns.ask(pieces.encode(HELLO, control=True), GenerationParams(), server.model, 1)):
                pass
    except LoadFailed:
        raise
    except AppError as error:
        names = ", ".join(str(item.get("id", ""))[:100] for item in (listed or ())[:20])
        hint = f" It lists these models: {names}." if names else ""
        raise LoadFailed(error.message + hint) from error
    progress(1.0, "Ready")
    return RemoteLoader(server, client, options["context"] or server.context or _context(entry or {}), options)


def _context(entry: dict[str, Any]) -> int:
    """Tokens of context as the server's list says, else UNKNOWN_CONTEXT."""
    meta = entry.get("meta")  # llama-server's; its n_ctx_train may be more than what it was started with
    told = [entry.get(name) for name in CONTEXT_FIELDS]
    told += [meta.get("n_ctx")] if isinstance(meta, dict) else []
    return next((size for size in told if isinstance(size, int) and 256 <= size <= 2**24), UNKNOWN_CONTEXT)


@dataclass(frozen=True)
class Options:
    context: int = setting("int", 0, "Context", f"Tokens of prompt and reply together, by which prompts are cut. 0 takes what "
                           f"the servers file or the server says, else {UNKNOWN_CONTEXT:,}.", minimum=0, maximum=2**24)
    slots: int = setting("int", 8, "Slots", "How many replies are asked for at once; more wait here.", minimum=1, maximum=256)
    timeout: float = setting("float", 600.0, "Time-out", "Seconds that the server may be silent.", minimum=1, maximum=86_400)


SPEC = LoaderSpec(
    name="openai_server", title="OpenAI-compatible server", accepts=accepts, load=load, options=knobs_of(Options),
    requires=("httpx",), install="pip install -r requirements.txt", params=turns.PARAMS,
    features=frozenset({"batching", "logprobs"}))
