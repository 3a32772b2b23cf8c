"""The list of models: variants together, filtered by words and format, sorted by groups, what cannot be loaded last."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from modules.core.loader import ModelFile
from modules.models.arrange import ORDERS, arranged

GB = 10**9
Q4 = ModelFile("maker/Mistral-7B-Instruct.Q4_K_M", "a", "gguf", 4 * GB, "llama", 7 * GB, quantization="Q4_K_M")
Q8 = ModelFile("other/mistral-7b-instruct-q8_0", "b", "gguf", 8 * GB, "llama", 7 * GB, quantization="Q8_0")
F16 = ModelFile("Mistral-7B-Instruct", "c", "safetensors", 14 * GB, "mistral", 7 * GB, quantization="F16")
TINY = ModelFile("tiny", "d", "gguf", 5_000_000, "llama", 5_000_000, quantization="Q8_0")
TINY_LARGER = ModelFile("tiny-F16", "e", "gguf", 20_000_000, "llama", 10_000_000, quantization="F16")
PLAY = ModelFile("play", "f", "echo")
BROKEN = ModelFile("Zbroken", "g", "unknown", 9 * GB, problem="It is cut short.")
ADAPTER = ModelFile("adapter", "h", "adapter", 1000)
ALL = [BROKEN, TINY, Q8, ADAPTER, F16, PLAY, Q4, TINY_LARGER]


def names(*arguments: str) -> list[str]:
    return [listed.file.name for listed in arranged(ALL, *arguments)]


def test_variants_stand_together_and_what_cannot_be_loaded_is_last() -> None:
    found = arranged(ALL)
    assert [one.file for one in found] == [F16, Q8, Q4, PLAY, TINY, TINY_LARGER, ADAPTER, BROKEN]
    assert [one.group for one in found[:3]] == ["mistral-7b-instruct, 7.0 B, 3 variants"] * 3
    assert not any(one.group for one in found[3:]), "two tiny ones of other sizes are no variants of each other"


def test_every_word_of_the_filter_has_to_be_found() -> None:
    assert names("MISTRAL q8") == [Q8.name]
    assert names("mistral") == [F16.name, Q8.name, Q4.name]
    assert names("llama", "gguf") == [Q8.name, Q4.name, TINY.name, TINY_LARGER.name]
    assert names("", "echo") == [PLAY.name]
    assert names("no such") == []


def test_groups_go_by_the_order_and_stay_together(tmp_path: Path) -> None:
    assert names("", "gguf", "Smallest first") == [TINY.name, TINY_LARGER.name, Q8.name, Q4.name]
    assert names("", "gguf", "Largest first") == [Q8.name, Q4.name, TINY_LARGER.name, TINY.name]
    assert names("", "gguf", "Most parameters")[:2] == [Q8.name, Q4.name]
    files = []
    for age, name in enumerate(("first", "second", "third")):
        path = tmp_path / name
        path.touch()
        os.utime(path, (1000 + age, 1000 + age))
        files.append(ModelFile(name, str(path), "gguf", 1, n_params=1))
    gone = ModelFile("gone", str(tmp_path / "gone"), "gguf", 1, n_params=1)
    assert [one.file.name for one in arranged([*files, gone], "", "", "Newest")] == ["third", "second", "first", "gone"]


FILES = st.builds(
    ModelFile, name=st.text(min_size=1, max_size=12), path=st.just(""),
    format=st.sampled_from(["gguf", "safetensors", "echo", "server"]), size_bytes=st.integers(0, 10**12),
    n_params=st.integers(0, 10**12),
    problem=st.sampled_from(["", "", "broken"]))


@given(files=st.lists(FILES, max_size=12), order=st.sampled_from(list(ORDERS)))
def test_nothing_is_lost_and_nothing_comes_twice(files: list[ModelFile], order: str) -> None:
    found = [one.file for one in arranged(files, "", "", order)]
    assert sorted(map(id, found)) == sorted(map(id, files))
