"""One instance a data folder, tried with real processes; and ports, tried with real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modules.core.errors import BadRequest, Conflict
from modules.instance import LOCK_FILE, STATE_FILE, AlreadyRunning, Instance, listening_socket

ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import subprocess, sys
from pathlib import Path
from modules.instance import Instance
instance = Instance.hold(Path(sys.argv[1]))
if sys.argv[2]:
    instance.announce(sys.argv[2])
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print("held", child.pid, flush=True)
sys.stdin.read()
child.stdin.close()
child.wait()
"""


@contextmanager
def holder(data_dir: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder, and has a child of its own, until its standard input ends."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(data_dir), url], cwd=ROOT, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("held")
        yield process
        if process.poll() is None:
            process.communicate()


def test_a_second_start_learns_the_url_of_the_running_one(tmp_path: Path) -> None:
    with holder(tmp_path, "http://127.0.0.1:7860"):
        with pytest.raises(AlreadyRunning, match=r"http://127\.0\.0\.1:7860") as caught:
            Instance.hold(tmp_path)
        assert caught.value.url == "http://127.0.0.1:7860"


def test_a_second_start_says_when_the_first_is_still_starting(tmp_path: Path) -> None:
    with holder(tmp_path, ""):
        with pytest.raises(AlreadyRunning, match="still starting") as caught:
            Instance.hold(tmp_path, wait_seconds=0.1)
        assert caught.value.url == ""


def test_the_folder_is_free_after_an_ordinary_end(tmp_path: Path) -> None:
    with holder(tmp_path, "http://127.0.0.1:1"):
        pass
    Instance.hold(tmp_path).close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_folder_is_free_after_kill_9_while_the_holders_child_lives(tmp_path: Path) -> None:
    with holder(tmp_path, "http://127.0.0.1:1") as process:
        os.kill(process.pid, 9)
        process.wait()
        instance = Instance.hold(tmp_path)
        assert not (tmp_path / STATE_FILE).exists(), "the dead instance's URL must not be offered"
        instance.close()


def test_a_process_number_in_a_stale_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_bytes(str(os.getpid()).encode())
    (tmp_path / STATE_FILE).write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    Instance.hold(tmp_path).close()


def test_the_same_process_cannot_hold_it_twice_and_close_is_harmless_twice(tmp_path: Path) -> None:
    instance = Instance.hold(tmp_path)
    instance.announce("http://127.0.0.1:7")
    with pytest.raises(AlreadyRunning, match=":7"):
        Instance.hold(tmp_path)
    with pytest.raises(AlreadyRunning):
        Instance.hold(tmp_path)
    instance.close()
    instance.close()
    Instance.hold(tmp_path).close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 3}', '{"url": "javascript:alert(1)"}', "x" * 10_000])
def test_a_damaged_state_file_is_no_url(tmp_path: Path, content: str) -> None:
    with holder(tmp_path, ""):
        (tmp_path / STATE_FILE).write_text(content)
        with pytest.raises(AlreadyRunning) as caught:
            Instance.hold(tmp_path)
        assert caught.value.url == ""


def test_a_taken_port_is_refused_with_the_next_free_one_named() -> None:
    with listening_socket("127.0.0.1", 0) as first:
        taken = first.getsockname()[1]
        with pytest.raises(Conflict, match=f"Port {taken} .* is taken.*--port [0-9]+") as caught:
            listening_socket("127.0.0.1", taken)
        named = int(caught.value.message.rsplit(" ", 1)[1].rstrip("."))
        assert named > taken
        with listening_socket("127.0.0.1", named) as second:
            assert second.getsockname()[1] == named


def test_a_socket_accepts_connections_as_soon_as_it_is_returned() -> None:
    with listening_socket("127.0.0.1", 0) as server, socket.create_connection(server.getsockname(), timeout=5):
        server.accept()[0].close()


def test_an_address_of_another_machine_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match=r"203\.0\.113\.7"):
        listening_socket("203.0.113.7", 0)
