"""How likely a model finds a given text, token by token: what evaluation harnesses ask for."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import BadRequest
from ..core.loader import Token
from ..worker.client import WorkerClient

if TYPE_CHECKING:
    import numpy as np

LOGITS_BYTES = 32 << 20  # of one answer of the worker
Alternatives = list[list[tuple[int, float]]]


async def score_tokens(worker: WorkerClient, ids: Sequence[int], *, top: int) -> list[Token]:
    """Each id as a Token with its log-probability given those before it, None for the first, and the `top` likeliest, best first.

    The texts joined are the text of the ids; a character in several tokens comes with its last. Raises BadRequest where the
    loader cannot score.
    """
    needed = "logits" if top else "score"
    if needed not in worker.facts.features:
        raise BadRequest("The loaded model's loader does not give the log-probabilities of a prompt; leave out echo or logprobs.",
                         param="logprobs")
    if top:
        scores, alternatives = await _from_logits(worker, ids, top)
    else:
        scores = [float(score) for score in await worker.score(ids)]
        alternatives = [[] for _ in ids]
    texts = await token_texts(worker, {*ids, *(id_ for row in alternatives for id_, _ in row)})
    shown = {id_: text.decode("utf-8", "replace") for id_, text in texts.items()}
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [Token(id_, decoder.decode(texts[id_], final=place == len(ids) - 1), scores[place] if place else None,
                  tuple((other, shown[other], score) for other, score in alternatives[place]))
            for place, id_ in enumerate(ids)]


async def token_texts(worker: WorkerClient, ids: set[int]) -> dict[int, bytes]:
    """The bytes of each id as they stand within a text."""
    # A SentencePiece vocabulary drops the space at a text's beginning: of two in a row the second is whole.
    order = sorted(ids)
    twice = await asyncio.gather(*(worker.detokenize([id_, id_]) for id_ in order))
    return {id_: both[len(both) // 2:] for id_, both in zip(order, twice, strict=True)}


async def _from_logits(worker: WorkerClient, ids: Sequence[int], top: int) -> tuple[list[float], Alternatives]:
    """Log-probability of each id and the likeliest at each place, first of them empty; in pieces of LOGITS_BYTES."""
    rows = max(1, LOGITS_BYTES // (4 * worker.facts.vocab_size))
    scores, alternatives = [0.0], [[]]  # type: list[float], Alternatives
    for start in range(0, len(ids) - 1, rows):
        stop = min(start + rows, len(ids) - 1)
        logits = await worker.logits(ids, start, stop)
        found, likeliest = await asyncio.to_thread(_read, logits, ids[start + 1:stop + 1], top)
        scores += found
        alternatives += likeliest
    return scores, alternatives


def _read(logits: np.ndarray, chosen: Sequence[int], top: int) -> tuple[list[float], Alternatives]:
    """logits: (n, vocab) float32; chosen: the n ids that came."""
    import numpy as np

    highest = logits.max(axis=1, keepdims=True)
    logprobs = logits - highest - np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    k = min(top, logits.shape[1])
    best = np.argpartition(-logprobs, k - 1, axis=1)[:, :k]
    likeliest = [sorted(((int(i), float(row[i])) for i in ids), key=lambda pair: -pair[1])
                 for row, ids in zip(logprobs, best, strict=True)]
    return [float(row[id_]) for row, id_ in zip(logprobs, chosen, strict=True)], likeliest
