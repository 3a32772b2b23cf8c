"""The corpus: chats and texts of the small world, number i of a part always the same for the same seed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .chat import Chat, Turn
from .draw import Draw, Split
from .worlds import cards, knowledge, limits, lists, memory, persona, stories, talk

LONG_SHARE = 0.006  # chats of 1,000 tokens and more, so that far positions are trained
PLAIN_SYSTEMS = (
    "You are a helpful assistant.", "You are a friendly assistant.", "Answer briefly.", "You are a kind and helpful assistant.",
    "Be helpful and polite.", "You are the starter model of Colloquy.", "Help the user.", "You are an assistant.")


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
    if draw.chance(LONG_SHARE):
        chat = _opened(draw)
        for _ in range(draw.random.randint(45, 75)):
            _mixed(chat)
        return _closed(chat)
    kind = draw.random.choices(tuple(KINDS), [share for share, _ in KINDS.values()])[0]
    return KINDS[kind][1](draw)


def _memory(draw: Draw) -> Document:
    """Facts are told, other things are said, and every fact is asked for."""
    chat = _plain(draw) if draw.chance(0.8) else _persona(draw)
    if draw.chance(0.2):
        talk.small_talk(chat, "greet")
    kinds = draw.random.sample(sorted(memory.FACTS), draw.any((1, 2, 2, 3, 3, 4)))
    while kinds:
        taken, kinds = (kinds[:2], kinds[2:]) if draw.chance(0.25) else (kinds[:1], kinds[1:])
        memory.tell(chat, taken)
        if draw.chance(0.3):
            _aside(chat)
    if draw.chance(0.1):
        memory.tell(chat, [draw.any(sorted(chat.told))])  # a change of mind
    for _ in range(draw.any((0, 1, 1, 2, 3))):
        _aside(chat)
    asked = draw.random.sample(sorted(chat.told), len(chat.told))
    for kind in asked + ([draw.any(asked)] if draw.chance(0.2) else []):
        memory.ask_for(chat, kind)
        if draw.chance(0.2):
            _aside(chat)
    if draw.chance(0.25):
        memory.ask(chat)
    return _closed(chat)


def _role(draw: Draw) -> Document:
    """A persona is asked who it is and what its card says."""
    chat = _persona(draw)
    for _ in range(draw.any((2, 3, 4, 5, 6))):
        _segment(chat, ROLE_SEGMENTS)
    return _closed(chat)


def _shipped(draw: Draw) -> Document:
    """Talk with a shipped character."""
    chat = cards.meet(draw)
    for _ in range(draw.any((3, 4, 5, 6, 8))):
        _segment(chat, CARD_SEGMENTS)
    return _closed(chat)


def _general(draw: Draw) -> Document:
    """Small talk, questions, lists and requests that are too much."""
    chat = _plain(draw)
    if draw.chance(0.3):
        talk.small_talk(chat, "greet")
    for _ in range(draw.any((1, 2, 3, 4, 6))):
        _segment(chat, GENERAL_SEGMENTS)
    if draw.chance(0.2):
        talk.small_talk(chat, "bye")
    return _closed(chat)


def _stories(draw: Draw) -> Document:
    """One or two stories asked for."""
    chat = _plain(draw)
    for _ in range(draw.any((1, 1, 2))):
        if draw.chance(0.15):
            _aside(chat)
        stories.story(chat)
    return _closed(chat)


def _sums(draw: Draw) -> Document:
    """Sum after sum."""
    chat = _plain(draw)
    for _ in range(draw.random.randint(3, 8)):
        knowledge.arithmetic(chat)
    return _closed(chat)


def _free(draw: Draw) -> Document:
    """A story as plain text, to be continued in the notebook."""
    return Document(text=stories.free_text(draw))


KINDS: dict[str, tuple[float, Callable[[Draw], Document]]] = {
    "memory": (0.31, _memory), "role": (0.23, _role), "shipped": (0.04, _shipped), "general": (0.15, _general),
    "stories": (0.18, _stories), "sums": (0.07, _sums), "free": (0.02, _free)}
Segments = tuple[tuple[float, Callable[[Chat], None]], ...]
GENERAL_SEGMENTS: Segments = (
    (2.2, talk.small_talk), (1.6, knowledge.everyday_fact), (0.6, lists.listing), (0.8, lists.repeating), (0.6, lists.choosing),
    (0.3, lists.counting), (1.4, limits.too_much), (0.7, talk.identity), (0.5, knowledge.arithmetic))
ROLE_SEGMENTS: Segments = (
    (6.0, persona.question), (1.0, talk.small_talk), (0.7, memory.tell), (0.5, memory.ask), (0.3, knowledge.arithmetic),
    (0.3, lists.repeating), (0.2, limits.too_much))
CARD_SEGMENTS: Segments = ((8.0, cards.talk), (1.0, memory.tell), (1.0, memory.ask), (0.3, knowledge.arithmetic))
ASIDES: Segments = (
    (3.0, talk.small_talk), (1.0, knowledge.arithmetic), (1.0, knowledge.everyday_fact), (0.5, lists.repeating),
    (0.3, lists.choosing), (0.2, limits.too_much))


def _segment(chat: Chat, segments: Segments) -> None:
    action = chat.draw.random.choices([action for _, action in segments], [share for share, _ in segments])[0]
    action(chat)


def _aside(chat: Chat) -> None:
    """Something between the telling of a fact and the question."""
    if chat.persona is not None and chat.persona.name in cards.NAME_WORDS:
        cards.talk(chat)
    elif chat.persona is not None and chat.draw.chance(0.5):
        persona.question(chat)
    else:
        _segment(chat, ASIDES)


def _mixed(chat: Chat) -> None:
    """Anything, for long chats."""
    if chat.draw.chance(0.45):
        (memory.ask if chat.told and chat.draw.chance(0.6) else memory.tell)(chat)
    else:
        _aside(chat)


def _plain(draw: Draw) -> Chat:
    """A chat without a persona, with or without a plain system prompt."""
    return Chat(draw, system=draw.frame(PLAIN_SYSTEMS) if draw.chance(0.2) else "")


def _persona(draw: Draw) -> Chat:
    made = persona.make_persona(draw)
    return Chat(draw, system=made.system, greeting=made.greeting, examples=made.examples, persona=made)


def _opened(draw: Draw) -> Chat:
    """A chat of any kind."""
    return draw.any((_plain, _plain, _persona, cards.meet))(draw)


def _closed(chat: Chat) -> Document:
    return Document(chat.system, chat.greeting, chat.examples, tuple(chat.turns))


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
