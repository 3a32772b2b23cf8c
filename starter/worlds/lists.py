"""Listing, repeating, choosing and counting."""

from __future__ import annotations

from .. import words
from ..chat import Chat, Check, Turn
from ..draw import Draw, a

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
CATEGORIES = {"animals": words.ANIMALS, "colours": words.COLOURS, "foods": words.FOODS, "drinks": words.DRINKS,
    "hobbies": words.HOBBIES,
              "days of the week": words.DAYS, "months": words.MONTHS, "names": words.GIRLS + words.BOYS, "things": words.OBJECTS,
              "jobs": tuple(words.TRADES), "cities": tuple(words.CAPITALS.values()), "countries": tuple(words.CAPITALS)}


def _and(items: list[str]) -> str:
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else items[0]


def listing(chat: Chat) -> None:
    """A list of so many things of one kind."""
    draw = chat.draw
    category = draw.any(sorted(CATEGORIES))
    count = draw.random.randint(2, 5)
    items = draw.random.sample(CATEGORIES[category], count)
    asked = draw.frame(("Name {k} {c}.", "Tell me {k} {c}.", "List {k} {c}.", "Can you name {k} {c}?", "Give me {k} {c}.",
        "I need {k} {c}.",
                        "Write a list of {k} {c}.", "Please list {k} {c}."))
    as_rows = "list" in asked.lower() and draw.chance(0.7)
    reply = "\n".join(f"{i}. {item[0].upper() + item[1:]}" for i, item in enumerate(items, 1)) if as_rows else _and(items) + "."
    # Not spoken in the persona's way: a mark before the first row would break the list.
    chat.turns.append(Turn(asked.format(k=NUMBERS[count], c=category), reply[0].upper() + reply[1:], Check("words")))


def phrase(draw: Draw) -> str:
    """A short sentence that nobody has said before, to be repeated."""
    return draw.any((
        f"{draw.name()} has a {draw.value(words.COLOURS)} {draw.value(words.OBJECTS)}",
            f"the {draw.value(words.ANIMALS)} sleeps under the {draw.value(words.OBJECTS)}",
        f"{draw.value(words.FOODS)} and {draw.any(words.DRINKS)}", f"{draw.name()} likes {draw.value(words.HOBBIES)}",
        draw.name(), draw.value(words.OBJECTS),
        f"I will {draw.plan()}", f"{draw.value(words.ANIMALS)}, {draw.value(words.OBJECTS)}, {draw.value(words.FOODS)}",
        f"good night, {draw.name()}", f"we meet in {draw.place()} {draw.any(words.WHENS)}"))


def repeating(chat: Chat) -> None:
    """Say a phrase again, or a word several times."""
    draw = chat.draw
    if draw.chance(0.3):
        word, count = draw.value(words.OBJECTS), draw.random.randint(2, 4)
        asked = draw.frame(("Say {w} {k} times.", "Repeat the word {w} {k} times.", "Write {w} {k} times.",
            "Please say {w} {k} times.", "Please repeat {w} {k} times.", "Can you say {w} {k} times?",
            "Please write {w} {k} times."))
        chat.say(asked.format(w=word, k=NUMBERS[count]), ", ".join([word] * count) + ".", Check("repeat", ((word,),)))
        return
    text = phrase(draw)
    asked = draw.frame(('Repeat after me: {p}', 'Say "{p}".', "Please repeat: {p}", 'Repeat this: "{p}"', "Say this: {p}",
        'Can you say "{p}"?', "Say it after me: {p}", 'Please say "{p}".', 'Repeat: "{p}"', 'Repeat after me: "{p}"'))
    chat.say(asked.format(p=text), text + ".", Check("repeat", ((text,),)))


def choosing(chat: Chat) -> None:
    """One of two or three things."""
    draw = chat.draw
    pool = draw.any((words.FOODS, words.COLOURS, words.ANIMALS, words.HOBBIES, words.OBJECTS, words.DRINKS))
    items = draw.random.sample(pool[7::8] if draw.split == "held_out" and len(pool) > 23 else pool, 2)
    x, y = (a(item) if pool in (words.ANIMALS, words.OBJECTS) else item for item in items)
    asked = draw.frame(("{x} or {y}?", "Which do you like better, {x} or {y}?", "Choose: {x} or {y}?",
        "Should I take {x} or {y}?",
                        "What is better, {x} or {y}?", "Choose one: {x} or {y}.", "Do you prefer {x} or {y}?",
                        "I cannot decide: {x} or {y}?"))
    text = asked.format(x=x, y=y)
    picked = draw.any((x, y))
    reply = draw.any(("I choose {p}.", "I would take {p}.", "I like {p} better.", "{P}, please.")).format(p=picked,
        P=picked[0].upper() + picked[1:])
    chat.say(text[0].upper() + text[1:], reply, Check("choose", ((x, y),)))


def counting(chat: Chat) -> None:
    """Count from one number to another."""
    draw = chat.draw
    first = draw.random.randint(0, 15)
    last = draw.random.randint(first + 2, min(first + 10, 20))
    asked = draw.frame(("Count from {x} to {y}.", "Can you count from {x} to {y}?", "Please count from {x} to {y}.",
        "Say the numbers from {x} to {y}."))
    chat.say(asked.format(x=first, y=last), ", ".join(map(str, range(first, last + 1))) + ".", Check("words", ((str(last),),)))
