"""Prints chats sampled from the starter model, unpicked, as Markdown: `python -m starter.samples --count 10`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .corpus import Document, document
from .evaluate import FOLDER, SEED
from .speaker import Speaker, TransformersSpeaker

MAX_TURNS = 4


def sample(speaker: Speaker, made: Document, *, temperature: float, seed: int) -> list[dict[str, str]]:
    """The document's opening and the person's first messages, with the model's own replies in between."""
    start = made.messages()
    messages = start[:len(start) - 2 * len(made.turns)]
    for turn in made.turns[:MAX_TURNS]:
        messages = [*messages, {"role": "user", "content": turn.user}]
        reply = speaker.reply([messages], temperature=temperature, seed=seed)[0]
        messages.append({"role": "assistant", "content": reply.text})
    return messages


def main() -> None:
    """Print chat after chat; the seed of each is also the number of its held-out document."""
    parser = argparse.ArgumentParser(description="Print chats sampled from the starter model.")
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--temperature", type=float, default=0.8)
    options = parser.parse_args()
    speaker = TransformersSpeaker(options.model)
    index = n_printed = 0
    while n_printed < options.count:
        made = document(SEED, index, "held_out")
        if made.turns:
            print(f"**Seed {index}**\n")
            for message in sample(speaker, made, temperature=options.temperature, seed=index):
                print(f"- {message['role']}: " + message["content"].replace("\n", " / "))
            print()
            n_printed += 1
        index += 1


if __name__ == "__main__":
    main()
