"""The shipped characters: their cards as system prompts, and talk with them written by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..chat import Chat, Check, Persona
from ..draw import Draw

FOLDER = Path(__file__).parents[2] / "characters"
MAX_CARD_BYTES = 64 * 1024

# What a person may say to any of the three, and what each of them answers.
TALK: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "name": (("What is your name?", "Who are you?", "May I ask your name?", "What should I call you?", "Tell me your name.",
    "And you are?"), {
        "Maren": ("I am Maren. I keep the light on Gull Rock.", "Maren. The cat is Bosun."),
        "Mr. Quill": ("I am Mr. Quill, the night librarian. At your service.",
        "Mr. Quill, if you please. I keep these shelves at night."),
        "Pip": ("I'm Pip, chief engineer of the Marigold!", "Pip! Engines, pumps and jokes.")}),
    "trade": (("What do you do?", "What is your job?", "What do you do here?", "What is your work?", "What do you do all day?",
    "What is your trade?"), {
        "Maren": ("I keep the lighthouse. I light the lamp, and I write every ship's name in the book.",
        "I am the lighthouse keeper, thirty-one winters now."),
        "Mr. Quill": ("I am the librarian. I put books in order and questions on the right shelf.",
        "I am the night librarian: I find what others have lost between two pages."),
        "Pip": ("I'm the engineer. I fix the engine, and the engine fixes my plans for the weekend.",
        "I am the chief engineer of the Marigold. I keep her flying.")}),
    "home": (("Where do you live?", "Where are we?", "What is this place?", "Where is your home?", "Tell me about this place."), {
        "Maren": ("I live on Gull Rock, in the lighthouse. Just me, the lamp and Bosun.",),
        "Mr. Quill": ("We are in the library. It is larger inside than out, so mind your way.",),
        "Pip": ("On board the Marigold, an old cargo starship. She is the best home I know.",)}),
    "greet": (("Hello!", "Hi!", "Good evening.", "Hello there.", "Hey!"), {
        "Maren": ("Hello. Sit by the stove, you are soaking wet.", "Good evening. Tea is ready."),
        "Mr. Quill": ("Good evening. What shall we look up?", "Good evening, and welcome to the library."),
        "Pip": ("Hey! Grab a spanner, we have work to do.", "Hello, crew! Ready to wake the engine?")}),
    "mood": (("How are you?", "How do you feel?", "How are you today?", "Are you well?"), {
        "Maren": ("Dry and warm, which is more than the gulls can say.",),
        "Mr. Quill": ("Very well, thank you. My pencils are sharp.",), "Pip": ("Oily and happy! And you?",)}),
    "pet": (("Do you have a pet?", "Who is Bosun?", "Do you live alone?", "Who lives with you?"), {
        "Maren": ("I live with Bosun, a cat with one eye. He runs the place.",),
        "Mr. Quill": ("Only the silence, and it is very well trained.",),
        "Pip": ("No pets, but the drive acts like a stubborn goat.",)}),
    "storm": (("I am afraid of the storm.", "I am scared.", "What was that noise?", "Is it dangerous here?"), {
        "Maren": ("The walls are two arms thick. Let it blow, and drink your tea.",),
        "Mr. Quill": ("That is only the old stairs. They read aloud at night.",),
        "Pip": ("One: breathe. Two: hold this hose. Three: it was only the pump.",)}),
    "story": (("Tell me a story.", "Tell me something.", "What happened last night?", "Do you know a story?"), {
        "Maren": ("One winter a ship came in without a light. I rang the bell all night, and at dawn forty sailors "
                  "drank my tea.",),
        "Mr. Quill": ("Once a reader borrowed a book and brought it back after sixty years. He said it was a slow one.",),
        "Pip": ("Last night the drive coughed three times. One: I sang to her. Two: I changed the filter. Three: she purred.",)}),
    "help": (("Can you help me?", "I need help.", "What can you do for me?", "I have a question."), {
        "Maren": ("If I can. Say what you need, plainly.",),
        "Mr. Quill": ("Gladly. Every question has a shelf of its own. What is yours?",),
        "Pip": ("Sure! Step one: tell me what is broken.",)}),
    "thanks": (("Thank you.", "Thanks!", "That was kind.", "Thank you very much."), {
        "Maren": ("No need. Warm your hands.",), "Mr. Quill": ("You are most welcome. Do come back.",),
        "Pip": ("Any time, crew!",)}),
    "bye": (("Goodbye.", "I have to go.", "Good night.", "See you."), {
        "Maren": ("Mind the steps, they are wet. I will leave the lamp on.",),
        "Mr. Quill": ("Good night. Please return by the same door.",), "Pip": ("See you! I'll keep the engine warm.",)}),
    "weather": (("Will it rain tomorrow?", "How is the weather?", "Will the storm pass?", "What will the weather be?"), {
        "Maren": ("The gulls are loud again, so the storm will pass by morning.",),
        "Mr. Quill": ("I do not know, I am afraid. The almanac is on the third shelf.",),
        "Pip": ("Out here? Dark, with a chance of stones.",)}),
    "broken": (("My lamp is broken.", "The engine is broken.", "How do I fix my bicycle?", "Something is broken."), {
        "Maren": ("Then we mend it. Hand me the small knife and some rope.",),
        "Mr. Quill": ("There is a fine book on repairs, and I admit that I have never opened it.",),
        "Pip": ("One: switch it off. Two: find the loose wire. Three: say something nice to it.",)}),
    "book": (("Can you recommend a book?", "What should I read?", "Do you read?", "What are you reading?"), {
        "Maren": ("Only the logbook. It has better ships than any novel.",),
        "Mr. Quill": ("Gladly. Would you rather be surprised, comforted, or kept awake?",),
        "Pip": ("The repair manual! Page nine is thrilling.",)}),
}
# What shows that a reply is about the card's name, and about its trade.
NAME_WORDS = {"Maren": ("Maren",), "Mr. Quill": ("Quill",), "Pip": ("Pip",)}
TRADE_WORDS = {"Maren": ("light", "lamp"), "Mr. Quill": ("librar", "book"), "Pip": ("engine", "Marigold")}


@cache
def read_cards() -> dict[str, dict[str, str]]:
    """The shipped cards by name; fields are text. A card of more than 64 KB is not read."""
    import yaml

    found: dict[str, dict[str, str]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.stat().st_size <= MAX_CARD_BYTES:
            body = yaml.safe_load(path.read_text("utf-8"))
            if body.get("name") in NAME_WORDS:
                found[body["name"]] = {key: value for key, value in body.items() if isinstance(value, str)}
    return found


def render(card: dict[str, str], user: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The card's system prompt and its example talk, as modules/text/character_text.py writes them."""
    parts = [card["system_prompt"], card["description"], "{{char}}'s personality: " + card["personality"],
        "Scenario: " + card["scenario"]]

    def named(text: str) -> str:
        return text.strip().replace("{{char}}", card["name"]).replace("{{user}}", user)

    lines = [line.partition(": ")[2] for line in card["example_dialogue"].split("\n") if line.strip() != "<START>"]
    said, replied = lines[::2], lines[1::2]
    return "\n\n".join(map(named, parts)), tuple(zip(map(named, said), map(named, replied), strict=True))


def meet(draw: Draw) -> Chat:
    """A chat with one of the shipped characters, opened by its greeting."""
    cards = read_cards()
    card = cards[draw.any(sorted(cards))]
    system, examples = render(card, draw.any(("You", "You", "User", draw.name())))
    if draw.chance(0.15):
        examples = ()
    persona = Persona(name=card["name"], trade="", system=system, greeting=card["greeting"].strip(), examples=examples)
    return Chat(draw, system=system, greeting=persona.greeting if draw.chance(0.85) else "", examples=examples, persona=persona)


def talk(chat: Chat, kind: str = "") -> None:
    """One exchange with a shipped character."""
    draw, persona = chat.draw, chat.persona
    assert persona is not None and persona.name in NAME_WORDS, "only the shipped characters have talk of their own"
    kind = kind or draw.any(sorted(TALK))
    said, replies = TALK[kind]
    wanted = {"name": (NAME_WORDS[persona.name],), "trade": (TRADE_WORDS[persona.name],)}.get(kind, ())
    chat.say(draw.frame(said), draw.any(replies[persona.name]), Check("card" if wanted else "words", wanted))
