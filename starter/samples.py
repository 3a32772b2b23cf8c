"""Chats sampled from the starter model, unpicked: the document's opening and a person's messages, the replies its own."""

from __future__ import annotations

from itertools import count, islice

from .corpus import Document, document
from .evaluate import SEED
from .speaker import Speaker

MAX_TURNS = 4
TEMPERATURE = 0.8


def sample(speaker: Speaker, made: Document, *, seed: int) -> list[dict[str, str]]:
    """The document's opening and the person's first messages, with the model's own replies in between."""
    start = made.messages()
    messages = start[:len(start) - 2 * len(made.turns)]
    for turn in made.turns[:MAX_TURNS]:
        messages = [*messages, {"role": "user", "content": turn.user}]
        reply = speaker.reply([messages], temperature=TEMPERATURE, seed=seed)[0]
        messages.append({"role": "assistant", "content": reply.text})
    return messages


def samples(speaker: Speaker, n_chats: int) -> str:
    """The first held-out chats as Markdown; the seed of each is also the number of its document."""
    numbers = (index for index in count() if document(SEED, index, "held_out").turns)
    lines = []
    for index in islice(numbers, n_chats):
        lines += [f"**Seed {index}**", ""]
        for message in sample(speaker, document(SEED, index, "held_out"), seed=index):
            content = message["content"].replace("\n", " / ").replace("*", "\\*")
            lines.append(f"- {message['role']}: {content}")
        lines.append("")
    return "\n".join(lines)
