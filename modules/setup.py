"""What is read and taken before the server starts: settings, data folder, its lock, the API key, the port."""

from __future__ import annotations

import gc
import logging
import secrets
import signal
import socket
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .core.errors import BadRequest, NotFound
from .core.options import read_settings, settings_path
from .core.settings import Settings
from .instance import Instance, listening_socket
from .store.files import private_folder, read_bounded, write_atomic
from .store.yamlfile import read_yaml

KEY_FILE = "api_key"
MAX_KEY_BYTES = 1024


@dataclass(frozen=True)
class Place:
    """What this process has taken for itself. url bears no key."""

    settings: Settings
    instance: Instance
    key: str
    socket: socket.socket
    url: str

    def announce(self) -> None:
        """Say that the page can be opened, here and to a second start, and open it in a browser unless told not to."""
        self.instance.announce(self.url)
        link = f"{self.url}?key={self.key}" if self.key else self.url
        print(f"Colloquy is ready: {link}", flush=True)
        if self.settings.listen:
            others = [link.replace("//127.0.0.1:", f"//{address}:", 1) for address in network_addresses()]
            print("From other devices: " + (", ".join(others) or "this machine has no network address now."), flush=True)
        if not self.settings.no_browser:
            webbrowser.open(link)


def prepare_process() -> None:
    """Say what the app logs, and let a polite signal end it in order."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("colloquy").setLevel(logging.INFO)
    # uvicorn stops in order at a signal and then raises it once more; our own last lines must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def spare_what_stays() -> None:
    """Let Python's search for garbage pass over everything that exists now; to be called once, when the app has been made.

    Half a million objects of the libraries and the page live as long as the process; each full search looked at them again, with
    everything else standing still: 300 to 560 ms in the middle of long replies, on two cores.
    """
    gc.freeze()


def take_place(argv: Sequence[str], environ: Mapping[str, str]) -> Place:
    """Read the settings, hold the data folder, bind the port; raises AppError, AlreadyRunning where another holds the folder."""
    settings = load_settings(argv, environ)
    data_dir = private_folder(Path(settings.data_dir).expanduser())
    instance = Instance.hold(data_dir, wait_seconds=5)
    host = "0.0.0.0" if settings.listen else settings.host
    key = api_key(settings, data_dir)
    bound = listening_socket(host, settings.port)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return Place(settings, instance, key, bound, f"http://{shown}:{bound.getsockname()[1]}{settings.root_path}/")


def network_addresses() -> list[str]:
    """This machine's IPv4 addresses that other devices may reach, in the order of its interfaces."""
    import psutil

    found = (address for addresses in psutil.net_if_addrs().values() for address in addresses)
    return [one.address for one in found if one.family == socket.AF_INET and not one.address.startswith(("127.", "169.254."))]


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Flags, environment and the settings file; raises BadRequest naming the value at fault, NotFound for a named file."""
    path, is_named = settings_path(argv, environ)
    if is_named and not path.is_file():
        raise NotFound(f"There is no settings file {path}; check --settings.", param="settings")
    settings = read_settings(argv, environ, read_yaml(path) if path.is_file() else {})
    prefix = settings.root_path.strip("/")  # `colloquy/` and `/colloquy` mean the same
    return replace(settings, root_path=f"/{prefix}" if prefix else "")


def api_key(settings: Settings, data_dir: Path) -> str:
    """The key requests must carry: the one given, or with --listen the one kept in the data folder, made at first; else ""."""
    if settings.api_key:
        return settings.api_key
    if not settings.listen and _is_loopback(settings.host):
        return ""
    path = data_dir / KEY_FILE
    if path.is_file():
        key = read_bounded(path, MAX_KEY_BYTES).decode("utf-8", "replace").strip()
        if not key:
            raise BadRequest(f"The key file {path} is empty; delete it to have a new key made, or give --api-key.",
                             param="api_key")
        return key
    key = secrets.token_urlsafe(24)
    write_atomic(path, key.encode() + b"\n", private=True)
    return key


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
