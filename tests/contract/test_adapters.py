"""LoRA adapters where a loader takes them: what they compute is in tests/test_adapters.py, here is what holds for every model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modules.core.adapters import TakesAdapters
from modules.core.errors import BadRequest
from modules.core.loader import Loader, LoaderSpec
from tests.contract.play import Stage, prompt_of


def test_a_loader_that_takes_adapters_names_their_format_and_has_the_method(spec: LoaderSpec, loader: Loader) -> None:
    assert ("adapters" in spec.features) == bool(spec.adapters)
    assert "adapters" in spec.features or "adapters" not in loader.facts.features
    assert "adapters" not in loader.facts.features or isinstance(loader, TakesAdapters)


def test_what_is_no_adapter_is_refused_and_the_model_writes_as_before(stage: Stage, fresh: Callable[..., str],
                                                                       tmp_path: Path) -> None:
    if "adapters" not in stage.loader.facts.features:
        pytest.skip("no adapters: none can be attached here")
    assert isinstance(stage.loader, TakesAdapters)
    before = stage.alone(fresh(), prompt_of(stage.loader)).ids
    (tmp_path / "text.gguf").write_text("no adapter")
    for path in (tmp_path / "absent", tmp_path / "text.gguf", tmp_path):
        with pytest.raises(BadRequest, match="adapter"):
            stage.loader.set_adapters([(str(path), 1.0)])
    stage.loader.set_adapters([])
    assert stage.alone(fresh(), prompt_of(stage.loader)).ids == before
