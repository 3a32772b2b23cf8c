"""Requests that are too much: the model says kindly that it is a tiny starter model, and how to get a bigger one."""

from __future__ import annotations

from .. import words
from ..chat import Chat, Check
from ..draw import Draw

TOO_MUCH = (
    "Explain {t} to me.", "Can you explain {t}?", "What do you know about {t}?", "Teach me {t}.", "Write an essay about {t}.",
    "How does {t} work?",
    "I need help with {t}.", "Tell me everything about {t}.", "Give me a lecture on {t}.", "Help me understand {t}.",
    "What is {t}?",
    "Please write a report on {t}.")
TRANSLATE = ("Translate this into {l}.", "How do you say good morning in {l}?", "Do you speak {l}?", "Say something in {l}.",
    "Can you translate to {l}?",
             "Write that in {l}.", "Say hello in {l}.", "Speak {l} with me.", "Tell me something in {l}.", "Answer in {l}.")
CODE = ("Write a program in {c}.", "Can you code in {c}?", "Help me with {c}.", "Write me {c}.", "I need code for {c}.",
    "Fix my {c}.")
BIG_SUMS = ("What is {x} times {y}?", "How much is {x} times {y}?", "What is {x} divided by {y}?", "Calculate {x} * {y}.",
    "{x} * {y} = ?", "What is {x} + {y}?")
LIVE = ("What time is it?", "What is the date today?", "What is the weather like?", "Search the web for me.", "Open my e-mail.",
    "Play some music.",
        "Send a message to my boss.", "What happened in the news today?", "Look at this picture.", "Call a taxi.",
        "Read this file.", "Set an alarm for seven.", "Look something up on the internet.", "Search for a shop near me.",
        "Find it on the web.", "Turn on the light.")
BIGGER = ("Can you get better?", "How do I get a better model?", "Where can I find a bigger model?", "Why are you so small?",
    "You are not very smart.",
          "How do I load another model?", "I want a real model.", "Are there better models?", "You don't know much.",
          "How do I download a model?",
          "Is there something smarter than you?", "How do I change the model?", "How can I load a different model?",
          "Are there bigger models?", "Why are you so little?", "Do you know where models come from?",
          "How do I choose another model?",
          "Why do you know so little?", "Is there a better model?", "Can I have a larger model?")
SORRY = ("That is too much for me: I am only a tiny starter model.",
    "I am sorry, I am just a tiny starter model and do not know enough about that.",
         "I wish I could, but I am a very small starter model.", "Such things are beyond me. I am only the tiny starter model.")
WAY_OUT = ("You can get a bigger model in the Model tab.", "Open the Model tab to load a bigger one.",
    "In the Model tab you can get a real model.",
           "A bigger model from the Model tab can help you.")
GET_BIGGER = ("Open the Model tab: there you can choose or download a bigger model.",
    "I am only a tiny starter model. The Model tab has the way to bigger ones.",
              "In the Model tab you can pick another model from your model folder, or download one.")


def _big_sum(draw: Draw) -> str:
    frame = draw.frame(BIG_SUMS)
    lowest = 21 if "+" in frame else 2
    return frame.format(x=draw.random.randint(lowest, draw.any((20, 99, 999)) + 21), y=draw.random.randint(lowest, 99))


def too_much(chat: Chat) -> None:
    """A request beyond the small world."""
    draw = chat.draw
    kind = draw.any(("topic", "topic", "topic", "language", "code", "sum", "live", "bigger"))
    if kind == "bigger":
        chat.say(draw.frame(BIGGER), draw.any(GET_BIGGER), Check("limits", (("Model tab",),)))
        return
    asked = {
        "topic": lambda: draw.frame(TOO_MUCH).format(t=draw.word(words.TOPICS)),
        "language": lambda: draw.frame(TRANSLATE).format(l=draw.word(words.LANGUAGES)),
        "code": lambda: draw.frame(CODE).format(c=draw.word(words.CODE)), "live": lambda: draw.frame(LIVE),
        "sum": lambda: _big_sum(draw),
    }[kind]()
    chat.say(asked, f"{draw.any(SORRY)} {draw.any(WAY_OUT)}", Check("limits", (("Model tab",),)))
