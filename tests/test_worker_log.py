"""The worker's log is bounded on disk and in memory; a death is told in words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modules.worker import death
from modules.worker.log import MAX_FILE_BYTES, MAX_LINE, TAIL_LINES, WorkerLog


def test_the_last_lines_are_kept_however_they_arrive(tmp_path: Path) -> None:
    text = "".join(f"line {n} é\r\n" for n in range(100)).encode()
    for size in (1, 7, 10_000):
        log = WorkerLog(tmp_path / f"log {size}")
        for start in range(0, len(text), size):
            log.write(text[start:start + size])
        assert log.tail().split("\n") == [f"line {n} é" for n in range(100 - TAIL_LINES, 100)]
        log.close()
        assert (tmp_path / f"log {size}").read_bytes() == text


def test_an_unfinished_line_and_a_redrawn_one_are_shown(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "log")
    log.write(b"1 %\r2 %\rSegmentation")
    assert log.tail().split("\n") == ["1 %", "2 %", "Segmentation"]
    log.write(b" fault\n")
    assert log.tail().endswith("Segmentation fault")


def test_the_file_and_the_tail_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = WorkerLog(path)
    for n in range(40):
        log.write(b"x" * (MAX_FILE_BYTES // 10) + b"\n" * (n % 2))
    log.write(b"y" * (3 * MAX_FILE_BYTES))
    log.write(b"\nlast words\n")
    log.close()
    total = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert total <= 3 * MAX_FILE_BYTES and len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes().endswith(b"last words\n")
    assert log.tail().endswith("last words") and len(log.tail()) <= TAIL_LINES * (MAX_LINE + 1)


def test_a_second_worker_appends(tmp_path: Path) -> None:
    for name in (b"first\n", b"second\n"):
        log = WorkerLog(tmp_path / "deep" / "log")
        log.write(name)
        log.close()
    assert (tmp_path / "deep" / "log").read_bytes() == b"first\nsecond\n"
    if sys.platform != "win32":
        assert (tmp_path / "deep" / "log").stat().st_mode & 0o077 == 0


def test_a_log_that_cannot_be_written_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    log = WorkerLog(tmp_path / "file" / "log")
    log.write(b"hello\n")
    assert "cannot be written" in log.tail() and "hello" in log.tail()


@pytest.mark.parametrize(("exit_code", "words"), [
    (-9, "killed by SIGKILL"), (-11, "killed by SIGSEGV"), (-6, "killed by SIGABRT"), (-4, "another processor"),
    (1, "exit code 1"), (3221225477, "access violation"), (-1073741819, "access violation"), (-250, "signal 250"),
])
def test_a_death_names_its_cause_and_the_next_step(exit_code: int, words: str) -> None:
    if sys.platform == "win32" and words.startswith("killed by"):
        pytest.skip("signals have no names there")
    sentence = death.sentence("tiny.gguf", exit_code, is_loading=False)
    assert words in sentence and "tiny.gguf" in sentence and sentence.endswith(".")
    assert len(sentence.split(". ")) == 2 or "log" in sentence
