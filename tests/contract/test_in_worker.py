"""The same loader in its own process gives the same text, and stops when told."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modules.core.errors import BadRequest, LoadFailed
from modules.core.loader import Loader, LoaderSpec, Prefilled, RunFailed, Token
from modules.worker.client import WorkerClient
from modules.worker.frames import Admitted, WorkerEvent
from tests.contract.play import GREEDY, Stage, assert_agree, prompt_of


class Heard:
    """One run's events, and a future for its end."""

    def __init__(self) -> None:
        self.events: list[WorkerEvent] = []
        self._more = asyncio.Event()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, events: list[WorkerEvent], at: float) -> None:
        self.events += events
        self._more.set()
        last = events[-1]
        if isinstance(last, RunFailed) or (isinstance(last, Token) and last.finish is not None):
            self.over.set_result(None)

    async def at_least(self, n_tokens: int) -> None:
        while len(self.ids) < n_tokens:
            self._more.clear()
            await self._more.wait()

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events if isinstance(event, Token)]


pytestmark = pytest.mark.asyncio(loop_scope="module")  # one worker for all tests: a backend takes seconds to import
Options = Callable[..., dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(spec: LoaderSpec, path: Path, options: Options,
                 tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerClient]:
    log = tmp_path_factory.mktemp("worker") / "log"
    client = await WorkerClient.start(loader=spec.name, path=str(path), options=options(), log_path=log,
                                      on_progress=lambda fraction, what: None)
    yield client
    await client.close()
    await client.close()


async def test_runs_in_a_worker_write_what_they_write_alone(client: WorkerClient, loader: Loader, noise: float) -> None:
    texts = ["The quick brown fox", "Once upon a time", "def add(a, b):"]
    prompts = [prompt_of(loader, text) for text in texts]
    right = [Stage(loader).alone(f"alone {n}", prompt) for n, prompt in enumerate(prompts)]
    assert client.facts == loader.facts or client.facts.vocab_size == loader.facts.vocab_size
    assert await client.tokenize([("a\ud800b", False)]), "JSON can carry a lone surrogate; no tokenizer can"
    assert await client.tokenize([(text, False) for text in texts]) == [loader.tokenize(text, control=False) for text in texts]
    heard = [Heard() for _ in prompts]
    for n, prompt in enumerate(prompts):
        client.add(f"run {n}", prompt, GREEDY, "key", heard[n])
    await asyncio.wait_for(asyncio.gather(*(one.over for one in heard)), 60)
    for one, alone in zip(heard, right, strict=True):
        assert_agree(loader, noise, alone, one.ids)
    for one, prompt in zip(heard, prompts, strict=True):
        admitted = next(event for event in one.events if isinstance(event, Admitted))
        last = [event for event in one.events if isinstance(event, Prefilled)][-1]
        assert (last.done, last.total, last.cached) == (len(prompt), len(prompt), admitted.cached)


async def test_a_cancel_in_prefill_and_in_decode_is_obeyed(client: WorkerClient, loader: Loader) -> None:
    prompt = prompt_of(loader, n_tokens=500)
    for n_wanted in (0, 3):
        heard, params = Heard(), dataclasses.replace(GREEDY, max_tokens=0, ban_eos=True)
        client.add(f"run {n_wanted}", prompt, params, "key", heard)
        await asyncio.wait_for(heard.at_least(n_wanted), 60)
        client.remove(f"run {n_wanted}")
        n = len(heard.events)
        after = Heard()
        client.add(f"after {n_wanted}", prompt_of(loader), GREEDY, "other", after)
        await asyncio.wait_for(after.over, 60)
        assert len(heard.events) == n


async def test_a_wrong_id_is_a_bad_request(client: WorkerClient, loader: Loader) -> None:
    heard = Heard()
    client.add("wrong", [loader.facts.vocab_size], GREEDY, "key", heard)
    await asyncio.wait_for(heard.over, 60)
    (failed,) = heard.events
    assert isinstance(failed, RunFailed) and isinstance(failed.error, BadRequest)


async def test_a_model_that_is_none_fails_the_load_with_a_sentence(spec: LoaderSpec, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        await WorkerClient.start(loader=spec.name, path=str(tmp_path / "none"), options={}, log_path=tmp_path / "log",
                                 on_progress=lambda fraction, what: None)
    assert len(caught.value.message) > 20
