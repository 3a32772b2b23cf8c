"""What each browser tab has open: chat, head, character, model and parameters; kept in memory and saved at each change."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .core.errors import BadRequest
from .core.params import GenerationParams
from .store.sessions import SessionRow, SessionTable


@dataclass(frozen=True)
class Session:
    """One tab's state. params: the changed parameters by name. head: the last message shown, None in an empty chat."""

    id: str
    owner: str = "local"
    conversation: str = ""
    head: int | None = None
    character: str = ""
    preset: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    system_prompt: str = ""
    user_name: str = "You"
    persona: str = ""
    document: str = ""

    def generation_params(self) -> GenerationParams:
        """The parameters as a value; a name this version does not know is left out."""
        return GenerationParams().with_values(self.params)[0]
