"""Simple everyday facts and arithmetic to twenty."""

from __future__ import annotations

from .. import words
from ..chat import Chat, Check
from ..draw import Draw, a

SUMS = {
    "+": ("What is {x} plus {y}?", "{x} + {y} = ?", "How much is {x} plus {y}?", "What is {x} + {y}?",
    "Can you add {x} and {y}?", "{x} plus {y}?",
          "Add {x} and {y}.", "What do {x} and {y} make together?", "{x}+{y}", "Please add {x} and {y}.",
          "how much is {x} + {y}?",
          "What is the sum of {x} and {y}?", "I have {x} apples and get {y} more. How many do I have?",
          "Tell me the sum of {x} and {y}.", "How much are {x} and {y} together?", "Sum up {x} and {y}.",
          "What do {x} and {y} give?", "What do {x} and {y} make?", "What do {x} and {y} come to?"),
    "-": ("What is {x} minus {y}?", "{x} - {y} = ?", "How much is {x} minus {y}?", "What is {x} - {y}?", "{x} minus {y}?",
    "Take {y} away from {x}.",
          "{x}-{y}", "Please take {y} from {x}.", "how much is {x} - {y}?", "What is left of {x} when I take away {y}?",
          "I have {x} apples and eat {y}. How many are left?", "Can you subtract {y} from {x}?",
          "Subtract {y} from {x}.", "What is left when I take {y} from {x}?", "Please subtract {y} from {x}.",
          "Subtract {y} from {x}, please.", "Please take away {y} from {x}.", "Take {y} from {x}.",
          "How much is left of {x} without {y}?"),
}
SUM_REPLIES = {"+": ("{x} plus {y} is {z}.", "{x} + {y} = {z}.", "That is {z}."),
               "-": ("{x} minus {y} is {z}.", "{x} - {y} = {z}.", "That is {z}.")}


def _sum(draw: Draw) -> tuple[int, str, int, int]:
    """x, sign, y and the result, all within 0 to 20; every pair is as likely as another."""
    x, y = sorted((draw.random.randint(0, 20), draw.random.randint(0, 20)), reverse=True)
    if draw.chance(0.5):
        return x, "-", y, x - y
    y = x - y  # uniform over the pairs whose sum is at most 20
    x -= y
    return (x, "+", y, x + y) if draw.chance(0.5) else (y, "+", x, x + y)


def arithmetic(chat: Chat) -> None:
    """A sum or difference within 0 to 20, or several at once."""
    draw = chat.draw
    if draw.chance(0.2):
        several = [_sum(draw) for _ in range(draw.random.randint(2, 6))]
        asked = draw.any(("{s}", "Calculate {s}.", "Please solve {s}."))
        chat.say(asked.format(s=", ".join(f"{x} {sign} {y}" for x, sign, y, _ in several)),
                 ", ".join(f"{x} {sign} {y} = {z}" for x, sign, y, z in several) + ".", Check("words", ((str(several[-1][3]),),)))
        return
    x, sign, y, z = _sum(draw)
    frame = draw.frame(SUMS[sign])
    reply = draw.any(SUM_REPLIES[sign]).format(x=x, y=y, z=z)
    if draw.chance(0.15) and " + " not in frame and " - " not in frame:
        frame, reply = frame.format(x=words.NUMBERS[x], y=words.NUMBERS[y]), f"That is {z}."
    chat.say(frame.format(x=x, y=y), reply, Check("arithmetic", ((str(z),),)))


def _table_question(draw: Draw) -> tuple[str, str, str]:
    """(question, reply, the word that must be in it)."""
    asked: tuple[str, ...]
    kind = draw.any(("capital", "opposite", "opposite", "sound", "legs", "colour", "young", "use", "day", "month"))
    if kind == "capital":
        key = draw.any(sorted(words.CAPITALS))
        value = words.CAPITALS[key]
        asked = ("What is the capital of {k}?", "Name the capital of {k}.", "Which city is the capital of {k}?",
            "Do you know the capital of {k}?",
                 "Tell me the capital of {k}.", "capital of {k}?")
        return draw.frame(asked).format(k=key), f"The capital of {key} is {value}.", value
    if kind == "opposite":
        key = draw.any(sorted(words.OPPOSITES))
        value = words.OPPOSITES[key]
        asked = ("What is the opposite of {k}?", "Say the opposite of {k}.", "Which word is the opposite of {k}?",
            "What is the contrary of {k}?",
                 "Tell me the opposite of {k}.", "opposite of {k}?", "Tell me the contrary of {k}.")
        return draw.frame(asked).format(k=key), draw.any((f"The opposite of {key} is {value}.", f"{value.capitalize()}.")), value
    if kind == "sound":
        key = draw.any(sorted(words.SOUNDS))
        value = words.SOUNDS[key]
        asked = ("What does {ak} say?", "Which sound does {ak} make?", "How does {ak} sound?", "What noise does {ak} make?")
        return draw.frame(asked).format(ak=a(key)), f"{a(key).capitalize()} says {value}.", value
    if kind == "legs":
        key = draw.any(sorted(words.LEGS))
        value = words.LEGS[key]
        asked = ("How many legs does {ak} have?", "Tell me how many legs {ak} has.", "{Ak} has how many legs?",
            "Do you know how many legs {ak} has?")
        return draw.frame(asked).format(ak=a(key), Ak=a(key).capitalize()), f"{a(key).capitalize()} has {value} legs.", value
    if kind == "colour":
        key = draw.any(sorted(words.THING_COLOURS))
        value = words.THING_COLOURS[key]
        asked = ("What colour is {k}?", "Which colour has {k}?", "Tell me the colour of {k}.", "Do you know what colour {k} is?")
        return draw.frame(asked).format(k=key), f"{key.capitalize()} is {value}.", value
    if kind == "young":
        key = draw.any(sorted(words.YOUNG))
        value = words.YOUNG[key]
        asked = ("What is a young {k} called?", "What do you call a baby {k}?", "How is a young {k} called?",
            "What is the name for a baby {k}?")
        return draw.frame(asked).format(k=key), f"A young {key} is called a {value}.", value
    if kind == "use":
        key = draw.any(sorted(words.USES))
        value = words.USES[key]
        asked = ("What is {k} for?", "What do I need {k} for?", "What can I do with {k}?", "Why do people use {k}?",
            "How do you use {k}?")
        return draw.frame(asked).format(k=key), f"You use it to {value}.", value
    row = words.DAYS if kind == "day" else words.MONTHS
    i = draw.random.randrange(len(row))
    if draw.chance(0.5):
        asked = ("Which " + kind + " comes after {k}?", "What comes after {k}?", "Name the " + kind + " after {k}.",
            "What follows {k}?", "Which " + kind + " follows {k}?")
        return draw.frame(asked).format(k=row[i]), f"After {row[i]} comes {row[(i + 1) % len(row)]}.", row[(i + 1) % len(row)]
    asked = ("Which " + kind + " comes before {k}?", "What comes before {k}?", "Name the " + kind + " before {k}.",
        "Which " + kind + " is before {k}?")
    return draw.frame(asked).format(k=row[i]), f"Before {row[i]} comes {row[i - 1]}.", row[i - 1]


def everyday_fact(chat: Chat) -> None:
    """A question about the everyday world."""
    asked, reply, value = _table_question(chat.draw)
    chat.say(asked, reply, Check("everyday", ((value,),)))
