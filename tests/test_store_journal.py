"""What the journal was given is on disk a moment later, and whatever became of the file, what can be read comes back."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import BadRequest, Conflict
from modules.store import journal as journal_file
from modules.store.journal import Journal

ROOT = Path(__file__).parents[1]
HEADER = {"instance": "i", "conversation": "c", "node": 1}


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def written(folder: Path, pieces: list[tuple[str, str, list[int]]]) -> bytes:
    """A closed journal of these (channel, text, ids), one line each; returns the file's bytes."""
    journal = Journal(folder)
    writer = journal.open("run", HEADER)
    for channel, text, ids in pieces:
        writer.append(text, channel, ids)  # type: ignore[arg-type]
        writer.flush()
    journal.close()
    return (folder / "run.journal").read_bytes()


PIECES = [("reasoning", "höm ", [1]), ("text", "日本", [2, 3]), ("text", "\n\"quoted\" \\", [4]),
          ("text", "\ud83d", []), ("tool", "{}", [5])]


def test_what_was_appended_comes_back_by_channel_with_ids(tmp_path: Path) -> None:
    written(tmp_path, PIECES)
    [entry] = Journal(tmp_path).recover()
    assert entry.channels == {"reasoning": "höm ", "text": "日本\n\"quoted\" \\\ud83d", "tool": "{}"}
    assert (entry.run, entry.header, entry.ids, entry.damaged) == ("run", HEADER, (1, 2, 3, 4, 5), False)


def test_text_reaches_the_disk_by_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    writers = [journal.open(f"run{n}", HEADER) for n in range(8)]
    for n, writer in enumerate(writers):
        writer.append(f"text of {n}")
    wait_until(lambda: all(f"text of {n}".encode() in writer.path.read_bytes() for n, writer in enumerate(writers)))
    journal.close()


def test_nothing_appended_while_the_file_is_written_is_lost_or_reordered(tmp_path: Path) -> None:
    """Appends without a pause while another thread flushes without a pause."""
    journal = Journal(tmp_path)
    writer = journal.open("run", HEADER)
    for n in range(20_000):
        writer.append(f"{n} ", ids=[n])
        if n % 100 == 0:
            journal.flush()
    journal.close()
    [entry] = Journal(tmp_path).recover()
    assert entry.ids == tuple(range(20_000)) and entry.channels["text"] == "".join(f"{n} " for n in range(20_000))


def test_a_file_cut_anywhere_gives_the_text_up_to_its_last_whole_line(tmp_path: Path) -> None:
    whole = written(tmp_path, PIECES)
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole) + 1):
        (tmp_path / "run.journal").write_bytes(whole[:cut])
        [entry] = Journal(tmp_path).recover()
        n_lines = whole[:cut].count(b"\n")
        assert entry.header == (HEADER if n_lines else {})
        assert sum(map(len, entry.channels.values())) == sum(len(text) for _, text, _ in PIECES[:max(0, n_lines - 1)])
        assert len(lines) == len(PIECES) + 1


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), garbage=st.binary(min_size=1, max_size=40))
def test_garbage_anywhere_hides_no_other_line(tmp_path_factory: pytest.TempPathFactory, place: int, garbage: bytes) -> None:
    folder = tmp_path_factory.mktemp("journal")
    whole = written(folder, PIECES)
    place %= len(whole)
    (folder / "run.journal").write_bytes(whole[:place] + garbage + whole[place + len(garbage):])
    [entry] = Journal(folder).recover()
    untouched = [line for n, line in enumerate(whole.split(b"\n")[:-1])
                 if not (line_start(whole, n) <= place + len(garbage) and place <= line_start(whole, n) + len(line))]
    for line in untouched[1:]:
        piece = journal_file._parse(line)
        assert piece is not None
        if "c" in piece:
            assert piece["t"] in entry.channels[piece["c"]]


def line_start(whole: bytes, n: int) -> int:
    return sum(len(line) + 1 for line in whole.split(b"\n")[:n])


def test_one_unreadable_file_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "MAX_FILE", 10_000)
    journal = Journal(tmp_path)
    for name in ("a", "b"):
        journal.open(name, HEADER).append(name)
    journal.close()
    (tmp_path / "big.journal").write_bytes(b"x" * 20_000)
    (tmp_path / "deep.journal").write_bytes(b"[" * 5_000 + b"\n")
    (tmp_path / "empty.journal").touch()
    (tmp_path / "folder.journal").mkdir()
    os.mkfifo(tmp_path / "pipe.journal")
    (tmp_path / "a link.journal").symlink_to(tmp_path / "nowhere")
    found = {entry.run: entry for entry in Journal(tmp_path).recover()}
    assert {run: found[run].channels["text"] for run in ("a", "b")} == {"a": "a", "b": "b"}
    assert not {"big", "folder", "pipe", "a link"} & set(found) and found["deep"].header == found["empty"].header == {}


def test_a_run_has_one_journal_and_its_name_stays_in_the_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open("run", HEADER)
    with pytest.raises(Conflict):
        journal.open("run", HEADER)
    with pytest.raises(BadRequest):
        journal.open("../run", HEADER)
    assert journal.recover() == []
    journal.close()


def test_a_saved_run_leaves_no_file_and_late_appends_are_harmless(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    writer = journal.open("run", HEADER)
    writer.append("x")
    writer.close(delete=True)
    writer.append("late")
    journal.flush()
    writer.close(delete=True)
    journal.close()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_nothing_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    writer = journal.open("run", HEADER)
    real = os.write

    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        writer.append("while it was full ")
        writer.flush()
        assert "No space left" in writer.error
    monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:7]))   # and slow afterwards
    writer.append("and then")
    writer.flush()
    assert writer.error == ""
    journal.close()
    [entry] = Journal(tmp_path).recover()
    assert entry.channels["text"] == "while it was full and then" and not entry.damaged


CHILD = """
import sys, time
from pathlib import Path
from modules.store.journal import Journal
writer = Journal(Path(sys.argv[1])).open("run", {"conversation": "c", "node": 1})
for n in range(100_000):
    writer.append(f"{n} ", ids=[n])
    print(n, flush=True)
    time.sleep(0.002)
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_process_killed_at_any_moment_loses_only_what_was_not_yet_due(tmp_path: Path, seed: int) -> None:
    """What was on disk before the kill is recovered, whole and in order; and it gets there while the child appends."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    path, wanted = tmp_path / "run.journal", random.Random(seed).randrange(1, 300)
    try:
        wait_until(lambda: path.exists() and f"{wanted} ".encode() in path.read_bytes())
        on_disk = path.read_bytes()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.stdout
    appended = [int(line) for line in child.stdout.read().splitlines() if line.strip().isdigit()]
    [entry] = Journal(tmp_path).recover()
    assert entry.ids == tuple(range(len(entry.ids))) and entry.channels["text"] == "".join(f"{n} " for n in entry.ids)
    assert path.read_bytes().startswith(on_disk) and len(entry.ids) > wanted
    assert len(entry.ids) <= len(appended) + 1
    assert select.select([child.stdout], [], [], 0)[0], "the pipe is at its end"
    child.stdout.close()
