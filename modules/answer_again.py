"""A reply written again by another model, which is loaded first where it is not: a version beside the reply, which stays."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from . import registry
from .core.conversation import Conversation, Node
from .core.errors import AppError, BadRequest, Cancelled, NotFound
from .core.loader import LoaderSpec, ModelFile
from .core.messages import Message
from .engine import QUANTIZATION, UNQUANTIZED, Engine, Held
from .replies import Replies
from .sessions import Session, Sessions

log = logging.getLogger(__name__)
MAX_ASKED = 32  # of those that ended without a reply and that nobody has sent away
STEP_SECONDS = 0.3  # at least so long between two steps of a load's progress

Status = Literal["loading", "writing", "failed", "cancelled"]


class Turn(Protocol):
    """What chat.Turn is."""

    @property
    def reply(self) -> Node | None: ...


class Chat(Protocol):
    """What is asked of the chat service, whose part this is."""

    async def reading(self, session: str, conversation: str) -> tuple[Session, Conversation]:
        """The session as if it had this chat open, and the chat; raises NotFound."""

    async def opening(self, state: Session) -> list[Message]:
        """What stands before the chat."""

    async def regenerate(self, session: str, node: int, *, conversation: str, by: str, is_shown: bool) -> Turn: ...


@dataclass(frozen=True)
class Choice:
    """A model that could answer. size_bytes: of its weights here. quantizations: to what they can be shrunk while loading.

    chosen: which of these it is loaded with. problem: why it cannot be loaded; "" where nothing speaks against it.
    """

    name: str
    loader: str = ""
    quantization: str = ""
    size_bytes: int = 0
    is_loaded: bool = False
    quantizations: tuple[str, ...] = ()
    chosen: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Forecast:
    """What changes with a loaded model: tokens of the prompt, its context, how many oldest messages would be left out.

    Of one that is not loaded only `makes_room` is known: which model goes for it, "" where none has to.
    """

    is_loaded: bool
    prompt_tokens: int = 0
    context: int = 0
    dropped: int = 0
    is_estimate: bool = False
    makes_room: str = ""


@dataclass
class Asked:
    """One answer that waits for its model, or got none; changed on the event loop by AnswerAgain alone.

    node: the reply to write again; under: the message that it answers; message: why it failed or was cancelled.
    """

    id: str
    conversation: str
    node: int
    under: int
    model: str
    quantization: str = ""
    status: Status = "loading"
    message: str = ""

    @property
    def has_failed(self) -> bool:
        return self.status in ("failed", "cancelled")


class AnswerAgain:
    """Loads the model that was chosen for one answer and has it written. On the event loop.

    A load goes on where the page leaves. It waits for replies that the model which makes room still writes. Who answers the next
    message stays the same, unless that model had to make room.
    """

    def __init__(self, engine: Engine, sessions: Sessions, replies: Replies, chat: Chat) -> None:
        self._engine = engine
        self._sessions = sessions
        self._replies = replies
        self._chat = chat
        self._asked: dict[str, Asked] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # Before

    async def choices(self) -> list[Choice]:
        """The loaded models, the one used last first, then those of the catalog by name."""
        held = self._engine.models
        loaded = {model.name for model in held}
        others = [file for file in await self._engine.files() if file.name not in loaded]
        found = await asyncio.to_thread(lambda: [_choice(file) for file in others])
        return [*map(_loaded, held), *found]

    async def forecast(self, session: str, node: int, *, conversation: str, model: str, quantization: str = "") -> Forecast:
        """What the prompt would be with that model. Raises ContextTooLong where the last message does not fit."""
        held = self._fitting(model, quantization)
        if held is None:
            goes = self._engine.makes_room(model)
            return Forecast(False, makes_room=goes.name if goes else "")
        state, tree = await self._chat.reading(session, conversation)
        request = self._replies.request(state, tree.path(answered(tree, node)), await self._chat.opening(state), by=held.name)
        prompt = await self._engine.prompt(request)
        return Forecast(True, len(prompt.ids), held.facts.context, prompt.dropped, held.facts.takes == "messages")

    # Doing it

    async def start(self, session: str, node: int, *, conversation: str, model: str, quantization: str = "") -> Turn | None:
        """Have a loaded model write at once; of another the load begins, None is returned, and `of` and `follow` tell of it.

        quantization: to what the weights are shrunk while loading, "" as they are or as they come.
        """
        _, tree = await self._chat.reading(session, conversation)
        under = answered(tree, node)
        self._replies.replace(tree, node)  # now: a load that needs its place would wait for it
        self._forget(conversation, under)
        held = self._fitting(model, quantization)
        if held is not None:
            return await self._write(session, node, conversation, held.name, is_shown=True)
        file = await asyncio.to_thread(self._engine.catalog.find, model)
        options = await asyncio.to_thread(_options, file, quantization)
        asked = Asked(secrets.token_hex(8), conversation, node, under, file.name, quantization)
        self._asked[asked.id] = asked
        head = (await self._sessions.get(session)).head
        task = asyncio.create_task(self._load_and_write(asked, session, head, options), name=f"answer again with {file.name}")
        self._tasks[asked.id] = task
        task.add_done_callback(lambda task: self._ended(asked, task))
        return None

    def of(self, conversation: str) -> list[Asked]:
        """The answers of this chat that wait for their model, or that failed and were not sent away yet."""
        return [asked for asked in self._asked.values() if asked.conversation == conversation]

    async def follow(self, id: str) -> AsyncIterator[dict[str, Any]]:
        """How it goes, again at each change, to its end; raises NotFound where it is over or unknown."""
        asked = self._asked.get(id)
        if asked is None:
            raise NotFound("This answer is being written, or was sent away.")
        while True:
            version, state = self._engine.watch.version, self._engine.watch.state
            is_loading = asked.status == "loading" and state.status == "loading"
            yield {"status": asked.status, "message": asked.message, "fraction": state.fraction if is_loading else 0.0,
                   "what": state.what if is_loading else ""}
            if asked.has_failed or self._asked.get(id) is not asked:
                return
            await asyncio.sleep(STEP_SECONDS)
            await self._engine.watch.changed(version)

    def cancel(self, id: str) -> None:
        """Give up the load; what it replaced comes back. One that is over or already writes is left alone."""
        asked, task = self._asked.get(id), self._tasks.get(id)
        if asked is not None and task is not None and asked.status == "loading" and not self._engine.cancel_load(asked_by=id):
            task.cancel()  # it has not come to loading yet

    def dismiss(self, id: str) -> None:
        """Forget one that failed."""
        if id in self._asked and self._asked[id].has_failed:
            del self._asked[id]
            self._engine.watch.touch()

    async def close(self) -> None:
        """At shutdown, after the engine was closed, which ends the load."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # Below

    def _fitting(self, model: str, quantization: str) -> Held | None:
        """The loaded model of that name, where it is loaded as asked."""
        held = next((one for one in self._engine.models if one.name == model), None)
        return held if held and quantization in ("", held.options.get(QUANTIZATION, UNQUANTIZED)) else None

    async def _load_and_write(self, asked: Asked, session: str, head: int | None, options: dict[str, Any] | None) -> None:
        answers = self._engine.answering((await self._sessions.get(session)).model)
        try:
            held = await self._engine.load(asked.model, options=options, is_patient=True, asked_by=asked.id)
            asked.status = "writing"
            now = await self._sessions.get(session)
            is_shown = (now.conversation, now.head) == (asked.conversation, head)  # else the person has gone on without it
            await self._write(session, asked.node, asked.conversation, held.name, is_shown=is_shown,
                              before=answers.name if answers else "")
            del self._asked[asked.id]
        except Cancelled:
            asked.status = "cancelled"
        except AppError as error:
            asked.status, asked.message = "failed", error.message
        except Exception as error:
            log.exception("Answering again with %s failed unexpectedly", asked.model)
            asked.status, asked.message = "failed", f"Colloquy made a mistake here ({error!r}); the server's log says more."

    def _ended(self, asked: Asked, task: asyncio.Task[None]) -> None:
        """The task is over, perhaps cancelled before its first step: what was asked has an end in any case."""
        del self._tasks[asked.id]
        if task.cancelled() or asked.status == "cancelled":
            asked.status, asked.message = "cancelled", f"Loading {asked.model} was cancelled."
        self._engine.watch.touch()
        ended = [id for id, one in self._asked.items() if one.has_failed]
        for id in ended[:-MAX_ASKED]:
            del self._asked[id]

    async def _write(self, session: str, node: int, conversation: str, by: str, *, is_shown: bool,
                     before: str | None = None) -> Turn:
        if before is None:
            answers = self._engine.answering((await self._sessions.get(session)).model)
            before = answers.name if answers else ""
        turn = await self._chat.regenerate(session, node, conversation=conversation, by=by, is_shown=is_shown)
        await self._keep_who_answers(session, before, by)
        return turn

    async def _keep_who_answers(self, session: str, before: str, by: str) -> None:
        """The tab's next message is answered by who answered before, while that model is loaded; else by the one that came."""
        chosen = (await self._sessions.get(session)).model
        loaded = {held.name for held in self._engine.models}
        wanted = before if before in loaded else by
        answers = self._engine.answering(chosen)
        if (chosen and chosen not in loaded) or answers is None or answers.name != wanted:
            await self._sessions.update(session, model=wanted)

    def _forget(self, conversation: str, under: int) -> None:
        """What failed at this place is told no longer: it is tried again."""
        for asked in self.of(conversation):
            if asked.under == under and asked.has_failed:
                self.dismiss(asked.id)


def answered(tree: Conversation, node: int) -> int:
    """The id of the message that `node` answers, or of itself where a person wrote it; raises NotFound and BadRequest."""
    place = tree.path(node)[-1]
    under = place.id if place.message.role == "user" else place.parent
    if under is None:
        raise BadRequest("A greeting cannot be written again; send a message first.")
    return under


def _loaded(held: Held) -> Choice:
    return Choice(held.name, held.spec.title, held.quantization, _size(held.file), True, _shrinkable(held.file, held.spec),
                  str(held.options.get(QUANTIZATION, "")))


def _choice(file: ModelFile) -> Choice:
    try:
        spec = registry.choose(file)
    except AppError as error:
        return Choice(file.name, "", file.quantization, _size(file), problem=file.problem or error.message)
    return Choice(file.name, spec.title, file.quantization, _size(file), quantizations=_shrinkable(file, spec),
                  problem=file.problem)


def _size(file: ModelFile) -> int:
    return file.size_bytes if file.has_weights else 0


def _shrinkable(file: ModelFile, spec: LoaderSpec) -> tuple[str, ...]:
    knob = spec.options.get(QUANTIZATION)
    return tuple(knob.choices) if knob is not None and file.format == "safetensors" else ()


def _options(file: ModelFile, quantization: str) -> dict[str, Any] | None:
    """The options to load with, None for the saved ones; raises BadRequest for a quantization that its loader does not make."""
    if not quantization:
        return None
    choices = _shrinkable(file, registry.choose(file))
    if quantization not in choices:
        raise BadRequest(f"{file.name} cannot be loaded as {quantization!r}; it can be: {', '.join(choices) or 'as it is'}.",
                         param=QUANTIZATION)
    return {QUANTIZATION: quantization}
