"""From a request to prompt ids: template, spans, the cut that makes it fit, spliced ids, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..core.errors import BadRequest, ContextTooLong
from ..core.events import Request
from ..core.loader import ModelFacts
from ..core.messages import Message, TextPart
from ..text import spans as text_spans
from ..text.pieces import pieces
from ..text.template import TRANSCRIPT_STOPS, TRANSCRIPT_TEMPLATE, TemplateRenderer, default_template
from ..text.window import choose_cut
from ..worker.client import WorkerClient


@dataclass(frozen=True)
class Prompt:
    """What the loader is given. keep_from: index of the first message kept after the system messages; dropped: how many went;
    left_out: how many tokens went of the beginning of a raw text, or of the reply that is gone on with."""

    ids: tuple[int, ...]
    text: str
    keep_from: int = 0
    dropped: int = 0
    left_out: int = 0


LEAST_REPLY = 64  # tokens of a reply that is gone on with: with less before it, going on makes no sense


class PromptBuilder:
    """Builds prompts for one worker's model; on the event loop. The worker tokenizes, the template child renders."""

    def __init__(self, renderer: TemplateRenderer, worker: WorkerClient) -> None:
        self._renderer = renderer
        self._worker = worker

    @property
    def template(self) -> str:
        """The model's own template, else one that its control tokens suit, else a plain transcript."""
        return self._facts.chat_template or default_template(tuple(self._facts.special_tokens.values()))

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings that the template needs: a plain transcript has no other end of a turn."""
        return TRANSCRIPT_STOPS if self.template == TRANSCRIPT_TEMPLATE else ()

    @property
    def _facts(self) -> ModelFacts:
        return self._worker.facts

    async def build(self, request: Request) -> Prompt:
        """The prompt; raises ContextTooLong with the counts where it does not fit and may not be cut."""
        if not request.messages:
            return await self._plain(request)
        try:
            return await self._fitting(request)
        except ContextTooLong:
            shorter, left_out = await self._without_the_replys_beginning(request)
            if not left_out:
                raise
        return replace(await self._fitting(shorter), left_out=left_out)

    async def _fitting(self, request: Request) -> Prompt:
        room = self._facts.context - self._reserve(request)
        first = first_after_system(request.messages)
        keep_from = max(request.keep_from, first)
        ids, text = await self._render(request, keep_from)
        # A cut mostly leaves half of the room filled; with less the context may have grown, and older messages fit again.
        if (len(ids) > room and request.truncate) or (keep_from > first and len(ids) < room // 2):
            keep_from, ids, text = await self._cut(request, keep_from, room, ids, text)
        self._check_room(ids, request)
        return Prompt(tuple(ids), text, keep_from=keep_from if keep_from > first else 0, dropped=keep_from - first)

    async def _cut(self, request: Request, keep_from: int, room: int, ids: list[int], text: str) -> tuple[int, list[int], str]:
        """Another first message to keep, and the prompt from it on; `ids` and `text` are the prompt from `keep_from` on."""
        first = first_after_system(request.messages)
        sizes = await self._sizes(request)
        n_rendered = max(1, first + len(request.messages) - keep_from)
        glue = max(0, len(ids) - sum(sizes[:first]) - sum(sizes[keep_from:])) // n_rendered
        sizes = [size + glue for size in sizes]
        fixed = max(0, len(ids) - sum(sizes[keep_from:]))
        roles = [m.role for m in request.messages[first:]]
        if len(ids) <= room:
            earlier = first + choose_cut(sizes[first:], fixed, room, 0, roles=roles)
            if earlier < keep_from:
                keep_from = earlier
                ids, text = await self._render(request, keep_from)
        # What the template puts around each message is known only roughly, and learnt by rendering again.
        while len(ids) > room and request.truncate:
            cut = first + choose_cut(sizes[first:], fixed, room, keep_from - first, roles=roles)
            if cut > keep_from:
                keep_from = cut
                ids, text = await self._render(request, keep_from)
            fixed += max(1, len(ids) - room)
        return keep_from, ids, text

    async def _without_the_replys_beginning(self, request: Request) -> tuple[Request, int]:
        """A request whose last turn fits although its reply, which is gone on with, has filled the context; and how many of the
        reply's first tokens went: 0 where that is not allowed or does not help.

        They go in blocks of a quarter of the room, counted from the reply's beginning, so that the prompt stays the same longer.
        """
        last = len(request.messages) - 1
        anchor = max((i for i, m in enumerate(request.messages) if m.role == "user"), default=last)
        if not (request.truncate and request.continue_last):
            return request, 0
        message = request.messages[last]
        bare = replace(request, messages=(*request.messages[:last], replace(message, content=(TextPart("x"),))), spliced={})
        beside, _ = await self._render(bare, anchor)
        space = self._facts.context - self._reserve(request) - len(beside)
        spliced = request.spliced.get(last, ())
        ids = list(spliced or (await self._worker.tokenize([(message.text, False)]))[0])
        while ids and ids[-1] in self._facts.eog_ids:
            ids.pop()
        if space < LEAST_REPLY or len(ids) <= space:
            return request, 0
        block = space // 4
        n_gone = -(-(len(ids) - space) // block) * block
        text = await self._worker.detokenize(ids[n_gone:])
        while text[:1] and text[0] & 0xC0 == 0x80:  # in the middle of a character
            n_gone += 1
            text = await self._worker.detokenize(ids[n_gone:])
        rest = replace(message, content=(TextPart(text.decode("utf-8", "replace")),))
        known = {index: found for index, found in request.spliced.items() if index != last}
        if spliced:
            known[last] = tuple(ids[n_gone:])
        return replace(request, messages=(*request.messages[:last], rest), spliced=known, keep_from=anchor), n_gone

    async def _plain(self, request: Request) -> Prompt:
        if request.prompt_ids:
            bad = next((i for i in request.prompt_ids if not 0 <= i < self._facts.vocab_size), None)
            if bad is not None:
                raise BadRequest(f"Token id {bad} is outside the model's vocabulary (0 to {self._facts.vocab_size - 1}).",
                                 param="prompt")
            ids = list(request.prompt_ids)
        else:
            ids = (await self._worker.tokenize([(request.text, request.control)]))[0]
            ids = self._with_bos(ids)
        if not ids:
            raise BadRequest("The prompt is empty; write at least one character to continue from.", param="prompt")
        n_whole = len(ids)
        if request.truncate:
            ids = self._newest(ids, self._facts.context - self._reserve(request))
        self._check_room(ids, request)
        return Prompt(tuple(ids), request.text, left_out=n_whole - len(ids))

    def _newest(self, ids: list[int], room: int) -> list[int]:
        """The end of a raw text that is too long, behind its BOS. It goes in blocks of a quarter of the room, counted from the
        text's beginning, so that the prompt's start stays the same while the text grows."""
        if len(ids) <= room:
            return ids
        head = ids[:1] if ids[0] == self._facts.bos_id else []
        block = max(1, room // 4)
        n_blocks = -(-(len(ids) - room) // block)
        return [*head, *ids[len(head) + n_blocks * block:]]

    def _with_bos(self, ids: list[int]) -> list[int]:
        bos = self._facts.bos_id
        if self._facts.add_bos and bos is not None and ids[:1] != [bos]:
            return [bos, *ids]
        return ids

    def _reserve(self, request: Request) -> int:
        """Cells kept free for the reply: what was asked for, but at most a quarter of the context."""
        quarter = self._facts.context // 4
        return min(request.params.max_tokens or quarter, quarter)

    def _check_room(self, ids: Sequence[int], request: Request) -> None:
        context = self._facts.context
        if len(ids) >= context:
            raise ContextTooLong(
                f"The prompt has {len(ids)} tokens and the model's context holds {context}, with at least one for the reply. "
                "Shorten the prompt, or load the model with a larger context.",
                param="messages" if request.messages else "prompt")

    async def _sizes(self, request: Request) -> list[int]:
        """Tokens of each message's content; spliced ids count as they are."""
        texts = [(m.text, False) for m in request.messages]
        counts = [len(ids) for ids in await self._worker.tokenize(texts)]
        return [len(request.spliced.get(index, ())) or count for index, count in enumerate(counts)]

    async def _render(self, request: Request, keep_from: int) -> tuple[list[int], str]:
        """Ids and text of the system messages and of those from keep_from on."""
        first = first_after_system(request.messages)
        special = tuple(self._facts.special_tokens.values())
        indices = [*range(first), *range(keep_from, len(request.messages))]
        rendered = await text_spans.build(
            self._renderer, self.template, [request.messages[i] for i in indices], bos_token=self._facts.bos_text,
            eos_token=self._facts.eos_text, add_generation_prompt=not request.continue_last,
            continue_final_message=request.continue_last, special_texts=special)
        spliced = {place: request.spliced[index] for place, index in enumerate(indices) if request.spliced.get(index)}
        parts = pieces(rendered, special, spliced, eog_ids=self._facts.eog_ids)
        tokenized = iter(await self._worker.tokenize([(p.text, p.control) for p in parts if p.ids is None], joined=True))
        ids: list[int] = []
        for part in parts:
            ids.extend(part.ids if part.ids is not None else next(tokenized))
        return self._with_bos(ids), rendered.text


def first_after_system(messages: Sequence[Message]) -> int:
    """Index of the first message that is not a leading system message: those never go."""
    return next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
