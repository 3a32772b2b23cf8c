"""What one browser tab has open: chat, head, character, model and parameters."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from .errors import BadRequest
from .params import GenerationParams

log = logging.getLogger(__name__)
LOCAL = "local"  # the owner of everything until there are users


@dataclass(frozen=True)
class Session:
    """One tab's state. params: the changed parameters by name. head: the last message shown, None in an empty chat.

    conversation and document are "" where none is open, and may name one that was purged since. updated: when it was saved,
    in seconds since the epoch; 0 before.
    """

    id: str
    owner: str = LOCAL
    conversation: str = ""
    head: int | None = None
    character: str = ""
    preset: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    system_prompt: str = ""
    user_name: str = ""
    persona: str = ""
    document: str = ""
    updated: float = 0.0

    @property
    def speaker(self) -> str:
        """What the person is called where they gave no name."""
        return self.user_name or "You"

    def generation_params(self) -> GenerationParams:
        """The parameters as a value; a name or a value that this version does not know is left out, and the log says so."""
        params = GenerationParams()
        for name, value in self.params.items():
            try:
                params, unknown = params.with_values({name: value})
            except BadRequest as error:
                unknown = [error.message]
            if unknown:
                log.warning("A saved parameter is left out: %s", unknown[0])
        return params
