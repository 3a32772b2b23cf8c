"""Drives a loader as the worker does: add runs, step until they end, collect what comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from modules.core.errors import AppError
from modules.core.loader import Loader, Prefilled, RunFailed, Token
from modules.core.params import GenerationParams
from modules.sampling.chain import Sampler
from modules.sampling.vocabulary import Vocabulary

MAX_STEPS = 20_000
GREEDY = GenerationParams(temperature=0.0, max_tokens=16)
STORY = "Once upon a time there was a little girl who lived near the sea"


@dataclass
class Played:
    """One run: what `add` returned and every result. `is_gone`: the worker removed it, so nothing more may come."""

    cached: int
    prompt: list[int]
    params: GenerationParams
    tokens: list[Token] = field(default_factory=list)
    prefilled: list[Prefilled] = field(default_factory=list)
    error: AppError | None = None
    is_gone: bool = False

    @property
    def n_prompt(self) -> int:
        return len(self.prompt)

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def finish(self) -> str | None:
        return self.tokens[-1].finish if self.tokens else None

    @property
    def is_over(self) -> bool:
        return self.is_gone or self.error is not None or self.finish is not None

    @property
    def evaluated(self) -> int:
        """Prompt tokens that were not reused."""
        return self.n_prompt - self.cached


def needs_own_tokens(loader: Loader) -> None:
    """Skips where a server has the vocabulary."""
    if loader.facts.takes == "messages":
        pytest.skip("the server has the vocabulary: its tokens are not the ids that are counted here")


class Stage:
    """A loader and its runs. Every result is checked against what holds always. noise: see subjects.Subject."""

    def __init__(self, loader: Loader, noise: float = 0.0) -> None:
        self.loader, self.noise = loader, noise
        self.runs: dict[str, Played] = {}

    def add(self, run: str, prompt: Sequence[int], params: GenerationParams = GREEDY, key: str = "") -> Played:
        cached = self.loader.add(run, prompt, params, key or run)
        assert 0 <= cached < len(prompt), "the last prompt token is always evaluated: its logits give the first token"
        self.runs[run] = Played(cached, list(prompt), params)
        return self.runs[run]

    def remove(self, run: str) -> None:
        self.loader.remove(run)
        if run in self.runs:
            self.runs[run].is_gone = True

    def step(self) -> None:
        for run, result in self.loader.step():
            assert run in self.runs, f"a result for {run!r}, which was never added"
            played = self.runs[run]
            assert not played.is_over, f"{result} came after the end of {run!r}"
            if isinstance(result, Token):
                assert played.prefilled and played.prefilled[-1].done == played.n_prompt, "a token before the prompt's end"
                played.tokens.append(result)
            elif isinstance(result, Prefilled):
                assert not played.tokens, "no prefill after the first token"
                assert result.total == played.n_prompt and result.cached == played.cached
                before = played.prefilled[-1].done if played.prefilled else played.cached
                assert before < result.done <= result.total, "progress goes forward and not too far"
                played.prefilled.append(result)
            else:
                assert isinstance(result, RunFailed)
                played.error = result.error

    def play(self, until: Callable[[], bool] | None = None) -> None:
        """Step until the condition, or until every run is over."""
        for _ in range(MAX_STEPS):
            if until() if until else all(played.is_over for played in self.runs.values()):
                return
            self.step()
        raise AssertionError(f"not over after {MAX_STEPS} steps")

    def alone(self, run: str, prompt: Sequence[int], params: GenerationParams = GREEDY, key: str = "") -> Played:
        """One run from its start to its end."""
        played = self.add(run, prompt, params, key)
        self.play(lambda: played.is_over)
        assert played.error is None, played.error
        return played

    def agree(self, one: Played, other: Played) -> None:
        """Two runs of one prompt wrote the same, or parted where the model's own noise decides between their two tokens."""
        assert_agree(self.loader, self.noise, one, other.ids)


def assert_agree(loader: Loader, noise: float, one: Played, ids: Sequence[int]) -> None:
    """The run's ids are these ids. With noise they may part at a near tie, after which the two texts are no longer comparable:
    at the first different token logits that are moved by the noise must lead the run's sampler to either of the two.
    A server's texts are compared as text: how it was cut into ids of ours depends on how the stream came."""
    if loader.facts.takes == "messages":
        assert loader.detokenize(one.ids) == loader.detokenize(ids)
        return
    if not noise or one.ids == list(ids):
        assert one.ids == list(ids)
        return
    place = next((n for n, (a, b) in enumerate(zip(one.ids, ids, strict=False)) if a != b), None)
    assert place is not None, f"{one.ids} and {ids} are equal but for their lengths"
    before = [*one.prompt, *one.ids[:place]]
    row = loader.logits(before, len(before) - 1, len(before))[0]
    for winner, loser in ((one.ids[place], ids[place]), (ids[place], one.ids[place])):
        moved = row.copy()
        moved[winner] += noise
        moved[loser] -= noise
        sampler = Sampler(one.params, before, seed=max(one.params.seed, 0), vocabulary=Vocabulary((), lambda text: []),
                          vocab_size=len(row), context=loader.facts.context, eog_ids=loader.facts.eog_ids)
        sampler.draw.step = place - 1  # the noise of a draw belongs to its place in the reply
        assert sampler.choose(moved) == winner, f"token {place}: {one.ids[place]} or {ids[place]} is no near tie within {noise:g}"


def prompt_of(loader: Loader, text: str = STORY, *, n_tokens: int = 0) -> list[int]:
    """Ids of the text, BOS first where the model wants it; repeated and cut to n_tokens where that is given."""
    facts = loader.facts
    head = [facts.bos_id] if facts.add_bos and facts.bos_id is not None else []
    ids = loader.tokenize(text, control=False)
    if n_tokens:
        ids = (ids * (n_tokens // len(ids) + 1))[:n_tokens - len(head)]
    return head + ids
