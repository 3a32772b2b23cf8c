"""The token for a hub's gated and private models: where it comes from, and its file in the data folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import AppError, BadRequest
from ..store.files import read_bounded, write_atomic

TOKEN_FILE = "hub_token"
MAX_TOKEN = 512
_TOKEN = re.compile(r"[!-~]{1,512}")


@dataclass(frozen=True)
class HubToken:
    """The setting goes before what was saved on the page, that before HF_TOKEN. The token is in no representation and no error.

    Any thread may call.
    """

    path: Path
    setting: str = field(default="", repr=False)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def get(self) -> str:
        """The token, "" without one. What cannot be a header's value counts as none."""
        return next((token for token, _ in self._found() if token), "")

    def source(self) -> str:
        """Where the token comes from, in words; "" without one."""
        return next((words for token, words in self._found() if token), "")

    def save(self, text: str) -> None:
        """Keep it for its owner alone (0600); raises BadRequest for what is no token."""
        token = text.strip()
        if not _TOKEN.fullmatch(token):
            raise BadRequest(f"A token is one line of at most {MAX_TOKEN} printable characters without spaces; copy it again "
                             "from the hub's settings page.", param="hub_token")
        write_atomic(self.path, token.encode() + b"\n", private=True)

    def forget(self) -> None:
        """Delete the saved one."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise AppError(f"{self.path} cannot be deleted ({error.strerror}); delete it by hand.") from error

    def _found(self) -> list[tuple[str, str]]:
        return [(_checked(self.setting), "the setting hub_token"),
                (self._saved(), f"{TOKEN_FILE} in the data folder, saved here"),
                (_checked(self.environ.get("HF_TOKEN", "")), "the environment variable HF_TOKEN")]

    def _saved(self) -> str:
        try:
            return _checked(read_bounded(self.path, MAX_TOKEN * 2).decode("utf-8", "replace"))
        except AppError:
            return ""  # none saved, or not ours to read


def _checked(text: str) -> str:
    token = text.strip()
    return token if _TOKEN.fullmatch(token) else ""
