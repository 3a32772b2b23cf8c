"""Who else could write a reply: the loaded models with what each would read of the chat, and those that would be loaded first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .core.errors import AppError, NoModel, NotFound
from .core.events import Request
from .core.loader import ModelFile
from .engine import Engine
from .models import explain


@dataclass(frozen=True)
class Answerer:
    """A model that could answer. words: what it is, for a person who chooses.

    Known of a loaded one only: the tokens of its prompt, the context they are part of, how many messages have no room in it, and
    whether these numbers are estimates. problem: why it cannot answer.
    """

    name: str
    words: str
    is_loaded: bool = False
    prompt_tokens: int = 0
    context: int = 0
    dropped: int = 0
    is_estimate: bool = False
    problem: str = ""


class Answering:
    """On the engine's event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answerers(self, request_for: Callable[[str], Request]) -> list[Answerer]:
        """The loaded models, the one used last first, then the others that could be loaded, as the catalog lists them.

        request_for: what a model of that name would be asked.
        """
        found = [await self._loaded(held.name, held.file, request_for(held.name)) for held in self._engine.models]
        names = {one.name for one in found}
        return found + [Answerer(file.name, explain.sentence(file)) for file in await self._engine.files()
                        if file.name not in names and not file.problem and file.format != "adapter"]

    async def ready(self, name: str) -> None:
        """Load the model where it is not loaded; what has to make room for it writes its replies to their end first.

        Raises NotFound, and all that a load raises.
        """
        try:
            self._engine.held(name)
        except (NoModel, NotFound):
            await self._engine.load(name, is_patient=True)

    async def _loaded(self, name: str, file: ModelFile, request: Request) -> Answerer:
        words, facts = explain.sentence(file), self._engine.held(name).facts
        is_estimate = facts.takes == "messages"
        try:
            prompt = await self._engine.prompt(request)
        except AppError as error:
            return Answerer(name, words, True, context=facts.context, is_estimate=is_estimate, problem=error.message)
        return Answerer(name, words, True, len(prompt.ids), facts.context, prompt.dropped, is_estimate)
