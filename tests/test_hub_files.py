"""Which files of a repository make one choice, what is never among them, and what fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modules.models.hub import Hub, HubFailed
from modules.models.hub_files import Choice, HubFile, choices, needed_bytes, read_listing, suggested, words
from modules.models.hub_search import Card, read_card
from tests.hub_stand_in import Repo, StandIn, folder_files, tree

GIB = 1 << 30
CARD = Card("maker/model-7B-GGUF", "main", "", "", (), 0, 0, "", 7_000_000_000, 8192, "")


def listed(path: str, size: int = 100) -> dict[str, object]:
    lfs = {"oid": "b" * 64, "size": size, "pointerSize": 130}
    return {"type": "file", "path": path, "size": size, "oid": "a" * 40, "lfs": lfs}


def test_each_quantization_is_a_choice_and_a_split_one_is_one_choice_with_a_folder_of_its_own() -> None:
    found = choices("maker/model-GGUF", [listed("model-Q4_K_M.gguf", 4000), listed("Q8_0/model-Q8_0-00002-of-00002.gguf", 4000),
                                         listed("Q8_0/model-Q8_0-00001-of-00002.gguf", 4500), listed("mmproj-model-f16.gguf"),
                                         listed("model.imatrix.gguf"), listed("README.md")])
    assert [(one.name, one.quantization, one.size, one.folder, one.is_folder, one.problem) for one in found.choices] == [
        ("Q8_0/model-Q8_0", "Q8_0", 8500, "maker/model-GGUF/Q8_0/model-Q8_0", True, ""),
        ("model-Q4_K_M", "Q4_K_M", 4000, "maker/model-GGUF", False, "")]
    assert [file.name for file in found.choices[0].files] == ["model-Q8_0-00001-of-00002.gguf", "model-Q8_0-00002-of-00002.gguf"]
    assert any("2 GGUF files" in note for note in found.notes)


def test_a_split_with_a_part_missing_says_so() -> None:
    found = choices("maker/model", [listed("m-00001-of-00003.gguf"), listed("m-00003-of-00003.gguf")])
    assert found.choices[0].problem == "1 of its 00003 parts are missing on the hub."


def test_a_safetensors_repository_is_one_choice_with_all_that_the_loader_needs_and_no_pickle_and_no_code() -> None:
    found = choices("maker/folder", tree(folder_files(3)))
    assert [one.name for one in found.choices] == ["safetensors"] and found.choices[0].problem == ""
    assert {file.name for file in found.choices[0].files} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json", "LICENSE",
        *(f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3))}
    assert (found.choices[0].folder, found.choices[0].is_folder) == ("maker/folder", True)
    assert any("pickle" in note for note in found.notes)


@pytest.mark.parametrize(("gone", "words"), [("config.json", "config.json is missing"), ("tokenizer", "tokenizer is missing"),
                                             ("model-00002", "1 of its 00003 weight files")])
def test_what_is_missing_on_the_hub_is_said_before_anything_is_fetched(gone: str, words: str) -> None:
    files = {path: content for path, content in folder_files(3).items() if not path.startswith(gone)}
    assert words in choices("maker/folder", tree(files)).choices[0].problem


def test_whole_weights_go_before_shards_and_other_copies() -> None:
    files = {**folder_files(2), "model.safetensors": b"x", "consolidated.safetensors": b"y", "model.fp16.safetensors": b"z"}
    weights = [file.name for file in choices("a/b", tree(files)).choices[0].files if file.name.endswith(".safetensors")]
    assert weights == ["model.safetensors"]


def test_adapters_and_repositories_without_a_model_say_what_they_are() -> None:
    adapter = choices("a/b", tree({"adapter_config.json": b"{}", "model.safetensors": b"x"}))
    assert not adapter.choices and "LoRA adapter" in adapter.notes[0]
    nothing = choices("a/b", tree({"pytorch_model.bin": b"x", "config.json": b"{}"}))
    assert not nothing.choices and "neither GGUF" in nothing.notes[-1]


@pytest.mark.parametrize("path", ["../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "..\\evil.gguf", "C:evil.gguf",
                                  "nul.gguf", "COM1.gguf", "evil\0.gguf", "evil\n.gguf", "x" * 300 + ".gguf", "a/b/c/d/e/f.gguf",
                                  "evil.gguf ",
                                  "con/evil.gguf", "./evil.gguf", "a//evil.gguf", "evil.gguf.part", "evil?.gguf", "", "."])
def test_a_hostile_name_is_no_choice_and_is_told_of(path: str) -> None:
    found = choices("maker/model", [listed(path), listed("good.gguf")])
    assert [one.name for one in found.choices] == ["good"] and "Left out: 1 of its files" in found.notes[0]


@pytest.mark.parametrize("entry", [{"type": "file", "path": "x.gguf"}, {"type": "file", "path": "x.gguf", "size": -1},
                                   {"type": "file", "path": "x.gguf", "size": 1 << 60}, {"type": "file", "path": 7, "size": 1},
                                   {"type": "file", "path": "x.gguf", "size": True}, {"type": "directory", "path": "x.gguf"}, 5,
                                   {"type": "file", "path": "x.gguf", "size": 5, "lfs": {"size": "5"}}])
def test_an_entry_that_is_none_is_no_choice(entry: object) -> None:
    assert not choices("maker/model", [entry]).choices


def test_hashes_that_are_none_count_as_not_said() -> None:
    entry = {"type": "file", "path": "x.gguf", "size": 5, "oid": "z" * 40, "lfs": {"oid": "../x", "size": 5}}
    assert choices("a/b", [entry]).choices[0].files == (HubFile("x.gguf", 5),)


def test_what_fits_is_said_and_suggested() -> None:
    found = choices(CARD.repo, [listed("m-F16.gguf", 14 * GIB), listed("m-Q8_0.gguf", 7 * GIB), listed("m-Q4_K_M.gguf", 4 * GIB)])
    small = found.choices[-1]
    assert 4 * GIB < needed_bytes(small, CARD) < 5.5 * GIB
    assert words(small, CARD, 6 * GIB) == "m-Q4_K_M · 4.3 GB · 4-bit, medium K-quant, small loss · fits"
    assert "too large: needs about" in words(found.choices[0], CARD, 6 * GIB)
    for gib, name in ((6, "m-Q4_K_M"), (64, "m-Q4_K_M"), (1, None)):
        chosen = suggested(found, CARD, gib * GIB)
        assert (chosen and chosen.name) == name
    without = replace(found, choices=found.choices[:2])
    chosen = suggested(without, CARD, 10 * GIB)
    assert chosen is not None and chosen.name == "m-Q8_0"
    broken = Choice("b", "gguf", small.files, "a/b", False, "Q4_K_M", problem="Two parts are missing.")
    assert "Two parts are missing." in words(broken, CARD, 64 * GIB)
    assert suggested(replace(found, choices=(broken,)), CARD, 64 * GIB) is None


async def test_a_repository_with_too_many_files_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn() as stand_in:
        stand_in.repos["a/b"] = Repo(tree=[listed(f"{n}.gguf") for n in range(20_001)])
        hub = Hub(stand_in.url)
        card = await read_card(hub, "a/b")
        with pytest.raises(HubFailed, match="more than 20,000 files"):
            await read_listing(hub, card)
        await hub.close()


async def test_the_list_goes_on_over_pages_of_the_hub_itself(tmp_path: Path) -> None:
    from tests.hub_stand_in import Handler

    def first_page(handler: Handler, content: bytes, start: int) -> bool:
        import json
        link = f'<{handler.stand_in.url}{handler.path}&cursor=2>; rel="next"'
        handler.send(200, json.dumps([listed("one.gguf")]).encode(), {"Link": link})
        return True

    with StandIn() as stand_in:
        stand_in.repos["a/b"] = Repo(tree=[listed("two.gguf")])
        hub = Hub(stand_in.url)
        card = await read_card(hub, "a/b")
        stand_in.fault("api", first_page)
        assert {one.name for one in (await read_listing(hub, card)).choices} == {"one", "two"}
        await hub.close()
