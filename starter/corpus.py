"""The corpus: chats and texts of the small world, number i of a part always the same for the same seed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .chat import Chat, Turn
from .draw import Draw, Split
from .worlds import cards, knowledge, limits, lists, memory, persona, stories, talk

LONG_SHARE = 0.015  # chats of 1,000 tokens and more, so that far positions are trained
FREE_TEXT_SHARE = 0.12


@dataclass(frozen=True)
class Document:
    """A chat (system prompt, greeting and example talk empty for none) or, where text is set, a plain text."""

    system: str = ""
    greeting: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    turns: tuple[Turn, ...] = ()
    text: str = ""

    def messages(self) -> list[dict[str, str]]:
        """The chat as role and content dicts."""
        return Chat(Draw("", "train"), system=self.system, greeting=self.greeting, examples=self.examples,
                    turns=list(self.turns)).messages()


def document(seed: int, index: int, split: Split) -> Document:
    """Document number `index` of a part."""
    draw = Draw(f"{seed}/{split}/{index}", split)
    if draw.chance(FREE_TEXT_SHARE):
        return Document(text="\n\n".join(stories.free_text(draw) for _ in range(draw.any((1, 1, 1, 2)))))
    chat = _opened(draw)
    is_long = draw.chance(LONG_SHARE)
    segments = draw.random.randint(35, 60) if is_long else draw.any((1, 2, 2, 3, 3, 4, 4, 5, 6, 8, 10))
    if not chat.greeting and draw.chance(0.3):
        talk.small_talk(chat, "greet")
    for _ in range(segments):
        _segment(chat)
    if draw.chance(0.12):
        talk.small_talk(chat, "bye")
    return Document(chat.system, chat.greeting, chat.examples, tuple(chat.turns))


def _opened(draw: Draw) -> Chat:
    """A chat with its system prompt: none, a plain one, a persona or a shipped character."""
    kind = draw.random.random()
    if kind < 0.38:
        return Chat(draw)
    if kind < 0.5:
        return Chat(draw, system=draw.frame((
            "You are a helpful assistant.", "You are a friendly assistant.", "Answer briefly.",
            "You are a kind and helpful assistant.",
            "Be helpful and polite.", "You are the starter model of Colloquy.", "Help the user.", "You are an assistant.")))
    if kind < 0.9:
        made = persona.make_persona(draw)
        return Chat(draw, system=made.system, greeting=made.greeting, examples=made.examples, persona=made)
    return cards.meet(draw)


def _segment(chat: Chat) -> None:
    """One or two turns of a kind that suits the chat."""
    draw = chat.draw
    table: list[tuple[float, Callable[[Chat], None]]] = [
        (3.0, memory.tell), (3.5 if chat.told else 0.2, memory.ask), (1.6, talk.small_talk), (1.4, knowledge.arithmetic),
        (1.0, knowledge.everyday_fact), (1.1, stories.story), (0.5, lists.listing), (0.5, lists.repeating), (0.4, lists.choosing),
        (0.2, lists.counting), (0.9, limits.too_much)]
    if chat.persona is None:
        table.append((0.4, talk.identity))
    elif chat.persona.name in cards.NAME_WORDS:
        table = [(8.0, cards.talk), (1.0, memory.tell), (1.2 if chat.told else 0.0, memory.ask), (0.3, knowledge.arithmetic)]
    else:
        table.append((5.0, persona.question))
    action = draw.random.choices([action for _, action in table], [weight for weight, _ in table])[0]
    action(chat)


def documents(seed: int, split: Split, start: int = 0) -> Iterator[Document]:
    """The endless row of documents of a part, from number `start`."""
    index = start
    while True:
        yield document(seed, index, split)
        index += 1


def main() -> None:
    """Print some documents as JSON lines, for a person who wants to see them."""
    parser = argparse.ArgumentParser(description="Print documents of the starter model's corpus.")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "held_out"), default="train")
    options = parser.parse_args()
    for _, made in zip(range(options.count), documents(options.seed, options.split), strict=False):
        print(json.dumps({"text": made.text} if made.text else made.messages(), ensure_ascii=False))


if __name__ == "__main__":
    main()
