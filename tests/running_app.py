"""A whole app in a process of its own, as a person starts it, for tests that go through HTTP, signals and restarts."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
SESSION = "running-app-session-01"
START_SECONDS = 120.0  # a deadline for machines with much else to do; a start takes a few seconds
MARK = "RUNNING_APP_TEST"  # an environment variable that every process of one app inherits


def wait_until(condition: Callable[[], Any], *, seconds: float = 60.0, what: str = "the condition") -> Any:
    """The condition's first true value; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.02)
    return found


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of the app, and with `extra`; models of other programs are not listed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COLLOQUY_")}
    return {**kept, "COLLOQUY_OWN_MODELS_ONLY": "true", **(extra or {})}


def start_and_end(*flags: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the app where it is expected to end by itself."""
    return subprocess.run([sys.executable, "app.py", "--no-browser", *flags], cwd=ROOT, env=clean_environment(environment),
                          capture_output=True, text=True, timeout=START_SECONDS)


class RunningApp:
    """Started and ready when made; killed at the end of its `with`, where it still runs.

    `link` is the printed one, with the key where there is one; `url` is without it and ends in "/".
    """

    def __init__(self, data_dir: Path, models_dir: Path | None, *flags: str, port: int | None = 0,
                 environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.mark = secrets.token_hex(8)
        self.output = data_dir.parent / f"{data_dir.name}-{self.mark}.out"
        command = [sys.executable, "app.py", "--no-browser", "--data-dir", str(data_dir)]
        command += ["--port", str(port)] if port is not None else []
        command += ["--models-dir", str(models_dir)] if models_dir is not None else []
        with self.output.open("wb") as output:
            self.process = subprocess.Popen([*command, *flags], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
                                            env=clean_environment({MARK: self.mark, **(environment or {})}))
        try:
            self.link: str = wait_until(self._announced, seconds=START_SECONDS, what="the ready line")
        except BaseException:
            self.kill()
            raise
        self.url = self.link.partition("?")[0]
        self.client = httpx.Client(base_url=self.url, timeout=60, headers={"X-Session": SESSION})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        self.client.close()

    # Talking to it

    def get(self, path: str, *, session: str = SESSION, **query: Any) -> Any:
        answer = self.client.get(path, params=query, headers={"X-Session": session})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any] | None = None, *, session: str = SESSION) -> Any:
        answer = self.client.post(path, json=body or {}, headers={"X-Session": session})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def load(self, name: str, **options: Any) -> None:
        self.post("v1/internal/model/load", {"model_name": name, "options": options})

    def wait_for_model(self) -> str:
        """The name of the model that is loaded at the start."""
        found = wait_until(lambda: self.get("health")["models"], what="a loaded model")
        assert isinstance(found[0], str)
        return found[0]

    def send(self, text: str, *, session: str = SESSION) -> tuple[dict[str, Any], dict[str, Any]]:
        """Say something at the end of the session's chat; the message and the reply's beginning."""
        view = self.view(session=session)
        body = {"text": text, "conversation": view["conversation"], "under": view["head"]}
        said, reply = self.post("ui-api/send", body, session=session)["messages"][-2:]
        return said, reply

    def view(self, *, session: str = SESSION) -> Any:
        return self.get("ui-api/view", session=session)

    def text(self, node: int, *, session: str = SESSION) -> str:
        """A message as far as it is written."""
        text = self.get("ui-api/text", session=session, node=node)["text"]
        assert isinstance(text, str)
        return text

    def ended(self, node: int, *, session: str = SESSION) -> dict[str, Any]:
        """The last message once it is this node and no longer streams."""
        def over() -> dict[str, Any] | None:
            last: dict[str, Any] = self.view(session=session)["messages"][-1]
            return last if last["id"] == node and last["status"] != "streaming" else None

        found: dict[str, Any] = wait_until(over, what=f"the end of message {node}")
        return found

    def follow(self, run: str, **headers: str) -> ClientConnection:
        """The WebSocket on which a page follows a run."""
        address = re.sub("^http", "ws", self.url) + f"ui-api/runs/{run}"
        return connect(address, additional_headers=headers, open_timeout=30)

    # Its processes

    def family(self) -> list[psutil.Process]:
        """Its processes that still run, itself included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def worker(self) -> psutil.Process:
        """The process of the loaded model."""
        return next(p for p in self.family() if "modules.worker.main" in p.cmdline())

    def kill(self) -> None:
        """As `kill -9` does; its children are left to end by themselves."""
        self.process.kill()
        self.process.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, as service managers do or Ctrl-C does; its exit status."""
        self.process.send_signal(how)
        return self.process.wait(timeout=START_SECONDS)

    def _announced(self) -> str:
        printed = self.output.read_text("utf-8", "replace")
        assert self.process.poll() is None, f"the app ended at its start:\n{printed[-4000:]}"
        found = re.search(r"^Colloquy is ready: (\S+)$", printed, re.MULTILINE)
        return found[1] if found else ""


def write_script(models_dir: Path, name: str, text: str) -> Path:
    """An Echo model that plays this text; "" repeats what was said."""
    models_dir.mkdir(exist_ok=True)
    path = models_dir / f"{name}.echo"
    path.write_text(text, encoding="utf-8")
    return path
