"""The corpus as batches, always the same ones in the same order, made by processes beside the training where that is the faster.

A GPU asks for more text than one process makes: some 130,000 tokens a second.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from . import drills
from . import tokenizer as tokens
from .corpus import document

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

CONTEXT = 2048
EARLY_CHUNKS = 4  # the first chunks have many drills in copying, the later ones few
EARLY_DRILLS, LATER_DRILLS = 1000, 120  # a chunk
CHUNK = 768  # documents sorted by length together: enough that a batch's rows are almost of one length
Rows = list[tuple[list[int], list[float]]]  # token ids and their weights in the loss, a document each


@dataclass(frozen=True)
class Position:
    """Where in the corpus a run stands: the next batch of the next chunk."""

    chunk: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Source:
    """What decides the batches. seed: the corpus'; batch_tokens: of one batch, padding included."""

    seed: int
    batch_tokens: int


def groups(tokenizer: Tokenizer, source: Source, chunk: int) -> list[Rows]:
    """The batches of a chunk as lists. A row is one whole document and nothing else, as a chat meets the model in use."""
    encoded = [tokens.encode(tokenizer, document(source.seed, chunk * CHUNK + i, "train")) for i in range(CHUNK)]
    n_drills = EARLY_DRILLS if chunk < EARLY_CHUNKS else LATER_DRILLS
    shares = drills.frequencies(encoded, tokenizer.get_vocab_size())
    encoded += drills.drills(f"{source.seed}/{chunk}", n_drills, shares, tokenizer)
    encoded.sort(key=lambda item: len(item[0]))
    made: list[Rows] = [[]]
    for ids, weights in encoded:
        if (len(made[-1]) + 1) * min(len(ids), CONTEXT) > source.batch_tokens and made[-1]:
            made.append([])
        made[-1].append((ids[:CONTEXT], weights[:CONTEXT]))
    random.Random(f"{source.seed}/{chunk}").shuffle(made)
    return made


def batches(tokenizer: Path, source: Source, start: Position, *,
            processes: int = 0) -> Iterator[tuple[Position, torch.Tensor, torch.Tensor]]:
    """Batches of (ids, weights), both (rows, length), and the position after each, without end.

    tokenizer: its file. processes: how many others make chunks ahead; 0 makes them here.
    """
    import torch
    from tokenizers import Tokenizer

    if processes:
        chunks = _ahead(tokenizer, source, start.chunk, processes)
    else:
        here = Tokenizer.from_file(str(tokenizer))
        chunks = (groups(here, source, chunk) for chunk in count(start.chunk))
    for chunk, made in zip(count(start.chunk), chunks, strict=False):
        for number, rows in enumerate(made):
            if chunk == start.chunk and number < start.batch:
                continue
            length = -(-max(len(ids) for ids, _ in rows) // 32) * 32
            ids_rows = [ids + [tokens.END_OF_TEXT] * (length - len(ids)) for ids, _ in rows]
            weight_rows = [weights + [0.0] * (length - len(weights)) for _, weights in rows]
            yield Position(chunk, number + 1), torch.tensor(ids_rows), torch.tensor(weight_rows)


def _ahead(tokenizer: Path, source: Source, first: int, processes: int) -> Iterator[list[Rows]]:
    """The chunks in their order, up to two a process made before they are asked for."""
    with ProcessPoolExecutor(processes, get_context("spawn"), _open, (str(tokenizer),)) as pool:
        waiting: list[Future[list[Rows]]] = []
        try:
            for chunk in count(first):
                waiting.append(pool.submit(_groups, source, chunk))
                if len(waiting) >= 2 * processes:
                    yield waiting.pop(0).result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_opened: list[Tokenizer] = []  # of this process


def _open(path: str) -> None:
    from tokenizers import Tokenizer

    _opened.append(Tokenizer.from_file(path))


def _groups(source: Source, chunk: int) -> list[Rows]:
    return groups(_opened[0], source, chunk)
