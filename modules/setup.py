"""What is read and made before the server starts: the settings file, the data folder, the API key."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from .core.errors import BadRequest, NotFound
from .core.options import read_settings, settings_path
from .core.settings import Settings
from .store.files import private_folder, read_bounded, write_atomic
from .store.yamlfile import read_yaml

KEY_FILE = "api_key"
MAX_KEY_BYTES = 1024

__all__ = ["api_key", "load_settings", "private_folder"]


def load_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Flags, environment and the settings file; raises BadRequest naming the value at fault, NotFound for a named file."""
    path, is_named = settings_path(argv, environ)
    if path.is_file():
        return read_settings(argv, environ, read_yaml(path))
    if is_named:
        raise NotFound(f"There is no settings file {path}; check --settings.", param="settings")
    return read_settings(argv, environ, {})


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
