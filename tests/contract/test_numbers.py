"""Scores, logits and embeddings: their shapes, that they agree with each other, and that they disturb no reply."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from modules.core.errors import BadRequest
from modules.core.loader import Loader
from tests.contract.play import GREEDY, Stage, prompt_of

Name = Callable[..., str]
MAX_BYTES = 32 * 2**20


def needs(loader: Loader, *features: str) -> None:
    lacking = [name for name in features if name not in loader.facts.features]
    if lacking:
        pytest.skip(f"this loader has no {', '.join(lacking)}")


def test_scores_are_the_logits_log_softmax(loader: Loader, noise: float) -> None:
    needs(loader, "score", "logits")
    ids = prompt_of(loader)[:8]
    scores = loader.score(ids)
    assert scores.shape == (len(ids),) and scores.dtype == np.float32
    assert np.isnan(scores[0]) and np.all(scores[1:] <= 1e-5)
    for index in range(1, len(ids)):
        row = loader.logits(ids, index - 1, index)
        assert row.shape == (1, loader.facts.vocab_size) and row.dtype == np.float32
        wide = row[0].astype(np.float64)
        expected = wide[ids[index]] - wide.max() - np.log(np.exp(wide - wide.max()).sum())
        assert scores[index] == pytest.approx(expected, abs=max(2e-3, noise))


def test_logits_in_pieces_are_the_logits_at_once(loader: Loader, noise: float) -> None:
    needs(loader, "logits")
    ids = prompt_of(loader)[:4]
    whole = loader.logits(ids, 1, 4)
    assert whole.shape == (3, loader.facts.vocab_size)
    pieces = np.concatenate([loader.logits(ids, 1, 2), loader.logits(ids, 2, 4)])
    assert np.allclose(whole, pieces, atol=max(2e-3, noise))


def test_the_most_likely_token_is_what_greedy_takes(stage: Stage, fresh: Name, spec: object) -> None:
    needs(stage.loader, "logits")
    if "temperature" not in getattr(spec, "params", ()):
        pytest.skip("its replies do not come from its logits")
    prompt = prompt_of(stage.loader)
    played = stage.alone(fresh(), prompt)
    ids = [*prompt, *played.ids]
    for index in range(len(prompt), min(len(ids), len(prompt) + 6)):
        row = stage.loader.logits(ids, index - 1, index)[0]
        assert int(row.argmax()) == ids[index] or row.max() - row[ids[index]] < stage.noise


def test_more_logits_than_32_megabytes_or_outside_the_prompt_are_refused(loader: Loader) -> None:
    needs(loader, "logits")
    ids = prompt_of(loader, n_tokens=64)
    rows = MAX_BYTES // (4 * loader.facts.vocab_size) + 1
    wrong = [(0, len(ids) + 1), (-1, 2), (3, 3), (5, 2)]
    if rows <= len(ids):
        wrong.append((0, rows))
    for start, stop in wrong:
        with pytest.raises(BadRequest):
            loader.logits(ids, start, stop)


def test_embeddings_are_vectors_that_repeat(loader: Loader) -> None:
    needs(loader, "embed")
    ids = prompt_of(loader)
    first, second = loader.embed(ids), loader.embed(ids)
    assert first.ndim == 1 and first.dtype == np.float32 and np.all(np.isfinite(first)) and np.any(first)
    assert np.allclose(first, second, atol=1e-5)


def test_questions_between_steps_disturb_no_reply(stage: Stage, fresh: Name) -> None:
    loader, prompt = stage.loader, prompt_of(stage.loader)
    right = stage.alone(fresh(), prompt)
    played = stage.add(fresh(), prompt, GREEDY)
    other = prompt_of(loader, "def add(a, b):")
    asked = 0
    while not played.is_over:
        stage.step()
        loader.tokenize("something else", control=False)
        if asked < 3 and "score" in loader.facts.features:
            loader.score(other)
        if asked < 3 and "embed" in loader.facts.features:
            loader.embed(other)
        asked += 1
    stage.agree(played, right)
