"""Conversions as the app does them: in a child, with progress, cancel, checks before, and nothing half written left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from modules.conversions import Conversions, convertible, targets, usual_name, why_not
from modules.core.errors import BadRequest, Conflict
from modules.core.loader import ModelFile
from modules.jobs import Jobs
from modules.models.catalog import Catalog
from modules.models.convert_command import make
from modules.models.quantize import TYPES, UNFINISHED, quantize
from modules.store.gguf_header import read_gguf
from tests.running_app import ROOT
from tests.tiny_models import tiny_gguf, tiny_hf

pytest.importorskip("llama_cpp")


def nothing(done: int, total: int) -> None:
    return


class Bench:
    """A models folder with a whole model as a folder and as GGUF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog([folder])
        self.changes = 0
        self.jobs = Jobs(changed=self._changed)
        self.conversions = Conversions(self.jobs, folder)
        self.seen: list[tuple[int, int, str]] = []

    def _changed(self) -> None:
        self.seen += [(job.done, job.total, job.what) for job in self.jobs.list()[:1]]

    def file(self, name: str) -> ModelFile:
        return self.catalog.find(name)

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    folder = tmp_path / "models"
    tiny_hf(folder / "tiny")
    tiny_gguf(tmp_path / "tiny-F16.gguf", kind="f16").rename(folder / "tiny-F16.gguf")
    made = Bench(folder)
    yield made
    await made.jobs.close()
    assert not psutil.Process().children(recursive=True)


@pytest.mark.parametrize(("source", "kind", "phases"), [
    ("tiny", "F16", {"Converting"}), ("tiny", "Q4_K_M", {"Converting", "Quantizing"}), ("tiny-F16", "Q2_K", {"Quantizing"}),
    ("tiny-F16", "IQ4_XS", {"Quantizing"})])
async def test_a_conversion_tells_its_progress_and_ends_in_the_list(bench: Bench, source: str, kind: str,
                                                                    phases: set[str]) -> None:
    file = bench.file(source)
    name = "made-" + kind
    ended = await bench.jobs.wait(bench.conversions.start(file, kind, name))
    assert ended.status == "done", ended.what
    made = bench.file(name)
    assert made.quantization == kind and not made.problem and made.n_params == file.n_params
    assert bench.names == {"tiny", "tiny-F16.gguf", f"{name}.gguf"}
    assert {what for _, total, what in bench.seen if total and name not in what} == phases
    assert max(done for done, _, _ in bench.seen) > 10 and bench.conversions.finished == 1


async def test_a_folder_saved_in_nf4_computes_what_one_shrunk_while_loading_does(bench: Bench) -> None:
    pytest.importorskip("bitsandbytes")
    import numpy as np

    from loaders.transformers_hf import SPEC

    ended = await bench.jobs.wait(bench.conversions.start(bench.file("tiny"), "nf4", "tiny-nf4"))
    assert ended.status == "done", ended.what
    made = bench.file("tiny-nf4")
    assert not made.problem and made.format == "safetensors" and "4-bit" in made.quantization
    assert bench.names == {"tiny", "tiny-F16.gguf", "tiny-nf4"}
    found = []
    for name, quantization in (("tiny-nf4", "none"), ("tiny", "4bit")):
        options = {**{key: knob.default for key, knob in SPEC.options.items()}, "threads": 1, "dtype": "bfloat16",
                   "quantization": quantization}
        loader = SPEC.load(bench.file(name).path, options, lambda fraction, what: None)
        found.append(loader.logits(list(range(5, 40)), 0, 35))
        loader.close()
    assert float(np.abs(found[0] - found[1]).max()) < 0.02 * float(found[1].std()) + 1e-3
    assert float(found[1].std()) > 0.1


async def test_a_cancel_ends_the_process_and_leaves_no_part(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child waits before its first tensor, in the middle of the job."""
    waiting = bench.folder.parent / "waiting.py"
    waiting.write_text("import sys, time\nopen(sys.argv[3] + '.whole.unfinished', 'w').close()\n"
                       "print('1 9 Converting', flush=True)\ntime.sleep(600)\n")
    monkeypatch.setattr("modules.conversions.COMMAND", (str(waiting), "-"))
    id_ = bench.conversions.start(bench.file("tiny"), "Q4_K_M", "never")
    while not any(done == 1 for done, _, _ in bench.seen) or not list(bench.folder.glob("*" + UNFINISHED)):
        await asyncio.sleep(0.01)
    assert bench.conversions.cancel(id_)
    assert (await bench.jobs.wait(id_)).status == "cancelled"
    assert bench.names == {"tiny", "tiny-F16.gguf"} and bench.conversions.finished == 0


async def test_one_that_fails_says_why(bench: Bench) -> None:
    file = bench.file("tiny")
    (bench.folder / "tiny" / "tokenizer.json").write_text("{}")
    ended = await bench.jobs.wait(bench.conversions.start(file, "Q8_0", "x"))
    assert ended.status == "failed" and "only BPE tokenizers can be converted" in ended.what
    assert bench.names == {"tiny", "tiny-F16.gguf"}


async def test_names_types_and_sources_that_will_not_do(bench: Bench) -> None:
    file = bench.file("tiny")
    for name in ("", "../x", "a/b", ".hidden", "x" * 200):
        with pytest.raises(BadRequest, match="no name for a file here"):
            bench.conversions.start(file, "F16", name)
    with pytest.raises(Conflict, match=r"tiny-F16\.gguf is there already"):
        bench.conversions.start(file, "F16", "tiny-F16")
    with pytest.raises(BadRequest, match=r"'Q9'.* it can be as: F32"):
        bench.conversions.start(file, "Q9", "x")
    small = await bench.jobs.wait(bench.conversions.start(file, "Q8_0", "small"))
    assert small.status == "done"
    with pytest.raises(BadRequest, match="quantized already"):
        bench.conversions.start(bench.file("small"), "Q4_K_M", "smaller")
    assert [one.name for one in convertible(bench.catalog.list())] == ["tiny", "tiny-F16"]


async def test_a_full_disk_is_told_before_anything_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1_000_000})())
    ended = await bench.jobs.wait(bench.conversions.start(bench.file("tiny"), "F16", "x"))
    assert ended.status == "failed" and "has 0.0 GB free" in ended.what
    assert bench.names == {"tiny", "tiny-F16.gguf"}


async def test_what_a_killed_app_left_is_deleted_at_the_next_start_but_nothing_that_is_written_to(bench: Bench) -> None:
    old, new = bench.folder / f"a.gguf{UNFINISHED}", bench.folder / f"b.gguf.whole{UNFINISHED}"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 3600,) * 2)
    await bench.conversions.recover()
    assert not old.exists() and new.exists()


def test_the_converter_ends_with_the_program_that_reads_its_progress(tmp_path: Path) -> None:
    folder = tiny_hf(tmp_path / "tiny")
    command = [sys.executable, "-m", "modules.models.convert", str(folder), str(tmp_path / "x.gguf"), "--type", "Q2_K",
               "--progress"]
    child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) == 3 and not (tmp_path / "x.gguf").exists()
    assert child.stdout is not None
    child.stdout.close()


def test_sizes_are_near_what_comes_out(tmp_path: Path) -> None:
    """Of a tiny model with large embeddings: within a third; llama.cpp keeps some matrices larger."""
    file = Catalog([tmp_path]).find
    tiny_gguf(tmp_path / "whole.gguf", kind="f32")
    for target in targets(file("whole")):
        if target.kind in ("Q8_0", "Q4_K_M", "Q2_K"):
            quantize(tmp_path / "whole.gguf", tmp_path / "made.gguf", target.kind, progress=nothing)
            assert 0.6 < target.size_bytes / read_size(tmp_path / "made.gguf") < 1.1, target


def read_size(path: Path) -> int:
    """Bytes of the tensors alone: the vocabulary is a large part of so small a file."""
    return path.stat().st_size - header_bytes(path)


def header_bytes(path: Path) -> int:
    header = read_gguf(path)
    return header.tensor_end - sum(int(n * bits_of(kind) / 8) for kind, n in header.tensor_types.items())


def bits_of(kind: str) -> float:
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return float(8 * size / block)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_made_and_named_so(tmp_path: Path, kind: str) -> None:
    make(tiny_gguf(tmp_path / "whole.gguf", kind="f16"), tmp_path / "made.gguf", kind, told=lambda what: nothing)
    assert Catalog([tmp_path]).find("made").quantization == kind


@pytest.mark.parametrize(("name", "expected"), [
    ("starter/starter-f16", "starter-Q4_K_M"), ("llama-3-8b.BF16", "llama-3-8b-Q4_K_M"), ("naïve model", "na-ve model-Q4_K_M"),
    ("-x", "x-Q4_K_M"), ("a/" + "y" * 200, "y" * 113 + "-Q4_K_M")])
def test_the_usual_name_has_the_type_in_place_of_the_old_one(name: str, expected: str) -> None:
    assert usual_name(ModelFile(name, "", "gguf"), "Q4_K_M") == expected


@pytest.mark.parametrize(("file", "words"), [
    (ModelFile("m", "", "gptq", quantization="GPTQ 4-bit"), "packed"), (ModelFile("m", "", "echo"), "no weights"),
    (ModelFile("m", "", "safetensors", quantization="bnb 4-bit"), "must be whole"),
    (ModelFile("m", "", "safetensors", quantization="BF16", architecture="MambaForCausalLM"), "MambaForCausalLM is not known"),
    (ModelFile("m", "", "safetensors", quantization="BF16", problem="broken."), "broken.")])
def test_why_a_model_cannot_be_converted(file: ModelFile, words: str) -> None:
    assert words in why_not(file)
