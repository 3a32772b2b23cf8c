"""Pages of mapped weights: they go after the load, come back when they are read, and nothing that was written is lost."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from loaders.llama_cpp_parts.library import Library, parts_of
from modules.core.mapped import SMAPS, let_go


@pytest.mark.skipif(not SMAPS.exists(), reason="only Linux says what is mapped")
def test_pages_of_a_mapped_model_go_and_come_back_when_they_are_read(tmp_path: Path) -> None:
    def resident(name: str) -> int:
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        next(line for line in lines if line.endswith(name))
        return int(next(line for line in lines if line.startswith("Rss:")).split()[1])

    path = tmp_path / "blob"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        before = mapped[:]
        assert resident("blob") == 1024
        assert let_go([path]) == 1 << 20 and resident("blob") == 0
        assert mapped[:] == before
    assert let_go([tmp_path / "none"]) == 0


@pytest.mark.skipif(not SMAPS.exists(), reason="only Linux says what is mapped")
def test_a_mapping_that_was_written_into_keeps_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(1 << 20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[100:105] = b"kept!"
        assert let_go([path]) == 0 and mapped[100:105] == b"kept!"


def test_all_parts_of_a_split_file_are_found_whatever_its_name(tmp_path: Path) -> None:
    names = ["a[1]-00001-of-00002.gguf", "a[1]-00002-of-00002.gguf", "a1-00001-of-00002.gguf", "b.gguf"]
    for name in names:
        (tmp_path / name).touch()
    assert sorted(part.name for part in parts_of(tmp_path / names[0])) == names[:2]
    assert [part.name for part in parts_of(tmp_path / "b.gguf")] == ["b.gguf"]


def test_copies_of_mapped_weights_are_seen_in_the_log() -> None:
    pytest.importorskip("llama_cpp")
    library = Library()
    try:
        library.log._learn("load_tensors:   CPU_Mapped model buffer size =   620.02 MiB\n")
        assert not library.log.has_copies
        library.log._learn("llama_kv_cache:        CPU KV buffer size =   84.00 MiB\n")
        assert not library.log.has_copies
        library.log._learn("load_tensors:   CPU_REPACK model buffer size =   425.25 MiB\n")
        assert library.log.has_copies and library.log.buffer_bytes == int(620.02 * 2**20) + 84 * 2**20 + int(425.25 * 2**20)
    finally:
        library.log.close()
