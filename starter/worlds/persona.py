"""Personas: a system prompt gives a name, a trade, facts, a mood and a way of speaking; questions about all of them."""

from __future__ import annotations

from .. import words
from ..chat import Chat, Check, Persona, Style
from ..draw import Draw, a
from .memory import filled, value_of

INTROS = (
    "You are {n}, {a} {t}.", "Your name is {n} and you work as {a} {t}.", "You are {a} {t} called {n}.", "Play {n}, {a} {t}.",
    "You are {n}. You are {a} {t} by trade.", "Answer as {n}, {a} {t}.", "You play the part of {n}, who is {a} {t}.",
    "Pretend to be {n}. {n} is {a} {t}.", "You are a character named {n}. Your job: {t}.",
    "Take the role of {a} {t} whose name is {n}.",
    "This is a chat with {n}, {a} {t}. You are {n}.", "Speak as {a} {t} named {n}.")
FACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # kind: (in the system prompt, the question, the reply)
    "home": (("You live in {v}.", "Your home is in {v}.", "You come from {v}.", "You have always lived in {v}."),
             ("Where do you live?", "Where is your home?", "Where are you from?", "In which town do you live?",
              "Where can I find you?",
              "What town are you from?", "Where do you come from?", "Tell me where you live."),
             ("I live in {v}.", "My home is in {v}.", "I am from {v}.")),
    "food": (("You love {v}.", "Your favourite food is {v}.", "You like to eat {v}.", "Nothing tastes better to you than {v}."),
             ("What is your favourite food?", "What do you like to eat?", "Which food do you love?", "What do you eat?",
              "What tastes good to you?",
              "What would you like for dinner?", "What food do you like best?", "What is the best food?"),
             ("I love {v}.", "My favourite food is {v}.", "I like {v} best.")),
    "pet": (("You have a {w} called {v}.", "Your {w} is named {v}.", "You live with a {w} called {v}.",
    "A {w} named {v} is your companion."),
            ("Do you have a pet?", "What is your pet called?", "What is the name of your {w}?", "Do you have any animals?",
             "Who lives with you?",
             "What is your {w} called?", "Tell me about your pet.", "How is your {w} named?"),
            ("I have a {w} called {v}.", "My {w} is called {v}.", "Yes, a {w} called {v}.")),
    "colour": (("Your favourite colour is {v}.", "You always wear {v}.", "You love the colour {v}.",
    "The colour you like best is {v}."),
               ("What is your favourite colour?", "Which colour do you like?", "What colour do you like best?",
                "Do you have a favourite colour?"),
               ("My favourite colour is {v}.", "I like {v} best.", "I love {v}.")),
    "hobby": (("In your free time you enjoy {v}.", "Your hobby is {v}.", "You are fond of {v}.", "On quiet days you like {v}."),
              ("What is your hobby?", "What do you do in your free time?", "What do you enjoy?", "Do you have a hobby?",
               "What do you like to do?",
               "How do you spend your evenings?", "What do you do for fun?", "Which hobby do you have?"),
              ("My hobby is {v}.", "I enjoy {v}.", "In my free time I like {v}.")),
    "lost": (("You lost your {w} {v} and look for it.", "You are looking for your {w} {v}.", "Your {w} {v} was stolen.",
    "You miss your {w} {v}."),
             ("What are you looking for?", "What did you lose?", "What do you miss?", "Did you lose something?"),
             ("I am looking for my {w} {v}.", "I lost my {w} {v}.", "My {w} {v} is gone.")),
    "plan": (("{w} you want to {v}.", "You plan to {v} {w}.", "Your plan is to {v} {w}.", "You have to {v} {w}."),
             ("What is your plan?", "What do you want to do?", "What will you do?", "Do you have a plan?",
              "What are you going to do?",
              "What are your plans?", "What do you have to do?", "Tell me your plan."),
             ("I want to {v} {w}.", "I plan to {v} {w}.", "My plan is to {v} {w}.")),
}
NAME_QUESTIONS = ("What is your name?", "Who are you?", "What are you called?", "May I ask your name?", "Tell me your name.",
    "What's your name?",
                  "And you are?", "How may I call you?", "Your name, please?", "Do you have a name?", "who are you?",
                  "What should I call you?", "What can I call you?", "How should I call you?", "Can I ask your name?",
                  "Tell me, what is your name?", "What do people call you?", "Please tell me your name.", "May I know your name?")
NAME_REPLIES = ("My name is {n}.", "I am {n}.", "I am {n}, {a} {t}.", "I am {n}, the {t}.", "They call me {n}.")
TRADE_QUESTIONS = ("What do you do?", "What is your job?", "What is your trade?", "What do you work as?", "What is your work?",
    "Do you work?",
                   "What do you do for a living?", "Which job do you have?", "What do you do all day?",
                   "How do you earn your money?",
                   "what's your job?", "What is it that you do?", "What job do you have?", "What is it you do for work?",
                   "What kind of work do you do?", "Tell me, what is your job?", "As what do you work?",
                   "Which trade do you have?", "What is it that you do all day?")
TRADE_REPLIES = ("I am {a} {t}.", "I work as {a} {t}.", "I am {a} {t}. {d}.", "I work as {a} {t}. {d}.")
MOOD_LINES = ("You are always {m}.", "You are {m}.", "Your mood is {m}.", "You sound {m} in every answer.", "Be {m}.",
    "You feel {m} today.")
BEGIN_LINES = ('Begin every answer with "{x}"', 'Start each reply with "{x}"', 'You always say "{x}" first.',
    'Every reply starts with "{x}"')
END_LINES = ('End every answer with "{x}".', 'You close each sentence with "{x}".', 'Always end with "{x}".',
    'Finish every reply with "{x}".')
MOOD_REPLIES = ("I am {m} today.", "I feel {m}.", "{M}, as always.")


def make_persona(draw: Draw, *, form: str = "") -> Persona:
    """A persona and its system prompt, in prose, in labelled lines, or as a character card."""
    name = draw.name()
    if draw.chance(0.15):
        name = draw.any(("Captain", "Old", "Mr.", "Mrs.", "Doctor", "Uncle", "Aunt", "Professor", "Lady", "Sir")) + " " + name
    trade = draw.value(list(words.TRADES), invented=0.3)
    kinds = draw.random.sample(sorted(FACTS), draw.any((0, 1, 1, 2, 2, 3)))
    facts = {kind: value_of(kind, draw) for kind in kinds}
    style, mood = _style(draw)
    examples: tuple[tuple[str, str], ...] = ()
    form = form or draw.any(("prose", "prose", "labels", "card", "card"))
    lines = [filled(draw.frame(FACTS[kind][0]), *facts[kind]) for kind in kinds]
    if form == "labels":
        system = "\n".join([f"Name: {name}", f"{draw.any(('Trade', 'Job', 'Role'))}: {trade}", *lines,
            *([style.instruction] if style.instruction else [])])
    elif form == "card":
        system, examples = _card(draw, name, trade, [third_person(line, name) for line in lines], mood, style)
    else:
        intro = draw.frame(INTROS).format(n=name, a=a(trade).split(" ")[0], t=trade)
        system = " ".join([intro, *lines, *([style.instruction] if style.instruction else [])])
    if mood:
        facts["mood"] = (mood, "")
    greeting = _greeting(draw, name, trade) if draw.chance(0.7 if form == "card" else 0.15) else ""
    return Persona(name=name, trade=trade, system=system, greeting=greeting, examples=examples, style=style, facts=facts)


def third_person(line: str, name: str) -> str:
    """A "You ..." sentence about the persona, told of `name`, as cards do."""
    swaps = (("You are ", f"{name} is "), ("You have to", f"{name} has to"), ("You have ", f"{name} has "), ("You live",
        f"{name} lives"),
             ("You lost", f"{name} lost"), (" and look for it", " and looks for it"), ("You love", f"{name} loves"), ("You like",
              f"{name} likes"),
             ("You come", f"{name} comes"), ("You plan", f"{name} plans"), ("You miss", f"{name} misses"), ("You always wear",
              f"{name} always wears"),
             ("Your ", f"{name}'s "), (" you like ", f" {name} likes "), (" you enjoy ", f" {name} enjoys "), (" you want ",
              f" {name} wants "),
             (" to you than", f" to {name} than"), (" is your companion", f" is {name}'s companion"), (" you like best",
              f" {name} likes best"), (" your ", f" {name}'s "))
    for old, new in swaps:
        line = line.replace(old, new)
    return line


def _style(draw: Draw) -> tuple[Style, str]:
    kind = draw.random.random()
    if kind < 0.3:
        mood = draw.any(sorted(words.MOODS))
        return Style(draw.frame(MOOD_LINES).format(m=mood), words.MOODS[mood], share=0.6), mood
    if kind < 0.42:
        mark = draw.mark(words.EXCLAMATIONS)
        return Style(draw.frame(BEGIN_LINES).format(x=mark), before=(mark,)), ""
    if kind < 0.52:
        mark = draw.mark(words.FAREWELL_WORDS)
        return Style(draw.frame(END_LINES).format(x=mark), after=mark), ""
    return Style(), ""


EXAMPLES = (
    ("Hello!", "Hello to you."), ("Are you busy?", "Never too busy for a guest."), ("Nice weather.", "I have seen worse."),
    ("What is in that box?", "Nothing that bites, I hope."), ("Can I sit here?", "Please do, that chair is free."),
    ("Is it late?", "Only if you look at the clock."), ("Do you like your work?", "Every day but Monday."))


def _card(draw: Draw, name: str, trade: str, lines: list[str], mood: str, style: Style) -> tuple[str, tuple[tuple[str, str],
    ...]]:
    """A card as a system prompt, mostly in the app's order (modules/text/character_text.py), and its example talk as turns."""
    user = draw.any(("You", "You", "User", draw.name()))
    order = draw.any((f"You are {name}, in a conversation with {user}. Stay in character and write only {name}'s next reply.",
                      f"You are {name}. Answer in one to four sentences.", f"You are {name}. Stay in your role."))
    if style.instruction and not mood:
        order += " " + style.instruction
    description = draw.frame(("{n} is {a} {t}.", "{n} has been {a} {t} for many years.",
        "{n}, {a} {t}, is known in the whole town.",
                              "{n} works as {a} {t}.")).format(n=name, a=a(trade).split(" ")[0], t=trade)
    parts = [order, " ".join([description, *lines])]
    if mood:
        traits = [mood, draw.any(("kind", "honest", "patient", "clever", "quiet", "brave", "tidy"))]
        parts.append(f"{name}'s personality: {', '.join(traits)}.")
    if draw.chance(0.6):
        parts.append(f"Scenario: {_scenario(draw, name)}")
    talk = [(said, f"{draw.any(style.before)} {replied}" if style.before else replied)
            for said, replied in draw.random.sample(EXAMPLES, draw.any((0, 1, 2)))]
    if draw.chance(0.25):  # other front ends write the talk into the prompt
        parts += [f"{user}: {said}\n{name}: {replied}" for said, replied in talk]
        return draw.any(("\n\n", "\n")).join([*parts[1:], parts[0]]), ()
    return "\n\n".join(parts), tuple(talk)


def _scenario(draw: Draw, name: str) -> str:
    return draw.any((
        "It is late in the evening, and a guest has come in.", "A stranger stands at the door.",
        f"{name} meets the user on the road.",
        "It rains, and the kettle is on.", f"The user has a question for {name}.", "A quiet morning in the market.",
        "Two old friends meet again."))


def _greeting(draw: Draw, name: str, trade: str) -> str:
    return draw.any((
        f"Good day! I am {name}. What brings you here?",
            f"*{name} looks up from the table.* Come in, come in. What can I do for you?",
        f"Hello there! {name} is the name. Sit down and tell me your news.", f"*{name} smiles.* A guest! It is good to see you.",
        f"Welcome! I am {name}, {a(trade)}. How may I help?", f"*{name} puts the work aside.* Good evening. Who are you?"))


def question(chat: Chat, kind: str = "") -> None:
    """A question about the persona: its name, its trade, its mood or a fact; some facts were never given."""
    draw, persona = chat.draw, chat.persona
    assert persona is not None, "questions about a persona need one"
    kinds = ["name", "trade", *persona.facts]
    absent = sorted(set(FACTS) - set(persona.facts))
    if not kind and absent and draw.chance(0.06):
        missing = draw.any(absent)
        said = filled(draw.frame(FACTS[missing][1]), *value_of(missing, draw))
        chat.say(said, draw.any(("That I cannot say.", "I would rather not say.", "That is a secret of mine.")))
        return
    kind = kind or draw.any(kinds)
    n, t = persona.name, persona.trade
    article, doing = a(t).split(" ")[0], words.TRADES.get(t, "")
    if kind == "name":
        chat.say(draw.frame(NAME_QUESTIONS), draw.any(NAME_REPLIES).format(n=n, a=article, t=t), Check("card", ((n,),)))
    elif kind == "trade":
        replies = TRADE_REPLIES if doing and draw.chance(0.3) else TRADE_REPLIES[:2]
        chat.say(draw.frame(TRADE_QUESTIONS), draw.any(replies).format(a=article, t=t, d=doing), Check("card", ((t,),)))
    elif kind == "mood":
        mood = persona.facts["mood"][0]
        reply = draw.any(MOOD_REPLIES).format(m=mood, M=mood.capitalize())
        chat.say(draw.frame(("How are you?", "How do you feel?", "What mood are you in?", "How are you today?")), reply,
            Check("words", ((mood,),)))
    else:
        v, w = persona.facts[kind]
        _, asked, replied = FACTS[kind]
        chat.say(filled(draw.frame(asked), v, w), filled(draw.any(replied), v, w), Check("card_facts", ((v,),)))
