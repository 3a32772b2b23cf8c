"""Remembering: facts that a person tells about themselves, asked for turns later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import words
from ..chat import Chat, Check
from ..draw import Draw, a


@dataclass(frozen=True)
class Fact:
    """One kind of fact: how it is told, acknowledged, asked for, recalled, and answered when it was never told.

    {v} is the value and {w} a second value where the kind has one.
    """

    told: tuple[str, ...]
    heard: tuple[str, ...]
    asked: tuple[str, ...]
    recalled: tuple[str, ...]
    clause: str
    unknown: str


FACTS: dict[str, Fact] = {
    "name": Fact(
        ("My name is {v}.", "I'm {v}.", "You can call me {v}.", "I am {v}.", "Hello, I am {v}.", "Hi, my name is {v}!",
         "They call me {v}.",
         "Hi! I'm {v}, by the way.", "People call me {v}.", "The name is {v}.", "my name is {v}", "Hello! My name is {v}."),
        ("Nice to meet you, {v}!", "Hello, {v}! How are you?", "Welcome, {v}! What shall we talk about?",
         "Good to know you, {v}."),
        ("What is my name?", "Do you remember my name?", "Who am I?", "Can you tell me my name?", "What am I called?",
         "Say my name.",
         "Do you still know what I am called?", "What was my name again?", "what's my name?", "Tell me my name, please.",
         "Please tell me who I am."),
        ("Your name is {v}.", "You are {v}.", "Of course, your name is {v}."), "your name is {v}", "your name"),
    "colour": Fact(
        ("My favourite colour is {v}.", "I like the colour {v} best.", "I love the colour {v}.", "The colour I like most is {v}.",
         "Guess what, my favourite colour is {v}.", "Of all colours I like {v} best.", "my favourite color is {v}",
         "I have always loved {v}, it is my colour.",
         "I always loved {v}, that colour is mine.",
         "My colour is {v}.",
         "The colour I love most is {v}.",
         "The colour I want to have everywhere is {v}.",
         "The colour that I like best is {v}.",
         "The colour I like is {v}.",
         "The colour I like more than others is {v}.",
         "For me it is {v}, of all colours.", "I like {v} most of all colours.", "Nothing is as pretty as the colour {v}.",
         "I paint everything {v}, my favourite colour.", "No colour is better than {v}.",
         "There is no better colour than {v}.", "No colour is as nice as {v}.", "No other colour is like {v}."),
        ("I think {v} is a lovely colour.", "Ah, {v}! A fine choice.", "I will remember that you like {v}.",
         "What a pretty colour {v} is."),
        ("What is my favourite colour?", "Which colour do I like best?", "Do you remember my favourite colour?",
         "What colour do I like?",
         "Which colour did I say I love?", "Can you name my favourite colour?", "what is my favorite color?",
         "Tell me which colour is my favourite.",
         "Please tell me my favourite colour.",
         "Which is the colour that I like?",
         "Can you tell me what colour I like best?",
         "Say which colour I love.",
         "Tell me what my favourite colour is.", "Which colour is my favourite?", "Name the colour I like best.",
         "Which of all colours do I like?", "Tell me the colour that I like.",
         "Say what my favourite colour is.", "Say which colour I like best.", "Say which colour is my favourite."),
        ("Your favourite colour is {v}.", "You like {v} best.", "It is {v}."), "your favourite colour is {v}",
         "your favourite colour"),
    "pet": Fact(
        ("I have a {w} called {v}.", "My {w} is named {v}.", "I have a {w}. The name is {v}.", "At home I have a {w} named {v}.",
         "My {w} {v} is sleeping next to me.", "I live with a {w} called {v}.", "I just got a {w}, and I named it {v}.",
         "My pet is a {w} called {v}."),
        ("What a good name, {v}!", "How sweet! Say hello to {v}.", "A {w} called {v}, how nice!",
         "I would like to meet {v}."),
        ("What is my pet called?", "What is the name of my {w}?", "Do you remember the name of my {w}?", "How is my {w} called?",
         "What did I name my {w}?", "What is my {w}'s name?", "Do you know my pet's name?", "Tell me the name of my {w}.",
         "Please tell me what my {w} is called.",
         "Can you tell me my {w}'s name?",
         "How did I say my {w} is called?"),
        ("Your {w} is called {v}.", "The name of your {w} is {v}.", "You have a {w} called {v}."), "you have a {w} called {v}",
         "the name of a pet"),
    "plan": Fact(
        ("{w} I want to {v}.", "I plan to {v} {w}.", "I am going to {v} {w}.", "My plan is to {v} {w}.",
         "I will {v} {w}.", "I have to {v} {w}.", "I hope to {v} {w}.", "{w} I will {v}."),
        ("That sounds like a good plan.", "Have fun! I hope it goes well.", "A good idea. I wish you luck.",
         "Then I hope that all goes well {w}."),
        ("What is my plan?", "What do I want to do?", "Do you remember my plan?", "What am I going to do?", "What did I plan?",
         "What was my plan again?", "What did I say I would do?", "Tell me what I plan to do.",
         "Please tell me my plan.",
         "What was I going to do?",
         "Can you tell me what I want to do?",
         "Say what I am going to do.",
         "What do I plan to do?", "What am I about to do?", "Tell me what I want to do.", "What have I planned?",
         "Tell me what my plan is.", "Say what my plan is.", "Say what I plan to do.", "Say what I want to do."),
        ("You want to {v} {w}.", "You plan to {v} {w}.", "Your plan is to {v} {w}."), "you want to {v} {w}", "a plan"),
    "food": Fact(
        ("My favourite food is {v}.", "I love {v}.", "I like to eat {v}.", "The best food is {v}.", "I could eat {v} every day.",
         "I really like {v}.", "For dinner I like {v} best.", "I enjoy {v} the most.",
         "Most of all I enjoy {v}.",
         "I enjoy eating {v} the most.",
         "I like {v} the most.",
         "The food that I love is {v}.",
         "I love {v} the most.",
         "The food I enjoy the most is {v}.",
         "I enjoy {v} more than any other food.",
         "I would eat {v} at any time.", "What I like to eat is {v}.", "I never say no to {v}.", "The food I like most is {v}.",
         "No food is better than {v}.", "There is no better food than {v}.", "No food is as good as {v}.",
         "No other food is like {v}."),
        ("Mmm, {v}! Good taste.", "I hear that {v} can be very good.", "Now I know: you like {v}.", "Enjoy your {v}!"),
        ("What is my favourite food?", "What do I like to eat?", "Do you remember what I like to eat?",
         "Which food do I like best?",
         "What food do I love?", "Can you say what my favourite food is?", "What did I say I like to eat?",
         "Tell me my favourite food.",
         "Please tell me what I like to eat.",
         "What food do I like best?",
         "Can you tell me my favourite food?",
         "Say which food I love.",
         "Tell me what my favourite food is.", "Which food is my favourite?", "Name my favourite food.",
         "Which of all foods do I like?", "Tell me the food that I like.", "What would I like to eat?",
         "Say what my favourite food is.", "Say which food is my favourite.", "Say which food I like."),
        ("Your favourite food is {v}.", "You like {v}.", "You love {v}."), "you like {v}", "your favourite food"),
    "home": Fact(
        ("I live in {v}.", "My home is in {v}.", "I come from {v}.", "I am from {v}.", "I live in a small house in {v}.",
         "We live in {v}.",
         "I moved to {v} last year.", "My home town is {v}.",
         "The town I live in is {v}.",
         "{v} is my home town."),
        ("I hear that {v} is a nice place.", "I would like to see {v} one day.", "How is life in {v}?",
         "Ah, {v}! Is it quiet there?"),
        ("Where do I live?", "Where is my home?", "Do you remember where I live?", "Where do I come from?",
         "Which town do I live in?",
         "Do you know where I am from?", "Where did I say I live?", "Tell me where I live.",
         "Please tell me where my home is.",
         "Which place do I come from?",
         "Can you tell me where I live?",
         "What place is my home?",
         "What town do I come from?", "Where am I from?", "Tell me where my home is.", "Where did I say my home is?",
         "Tell me which town I live in."),
        ("You live in {v}.", "Your home is in {v}.", "You told me that you live in {v}."), "you live in {v}", "where you live"),
    "hobby": Fact(
        ("My hobby is {v}.", "I like {v} in my free time.", "I enjoy {v}.", "On Sundays I love {v}.",
         "My favourite hobby is {v}.",
         "In the evening I like {v}.", "I spend my free time with {v}.", "I am very fond of {v}.",
         "I am fond of {v} as a hobby.",
         "What I like to do is {v}.", "I love {v}, that is my hobby.", "I do a lot of {v}.", "When I am free I like {v}.",
         "I am a friend of {v}."),
        ("A fine hobby, {v}!", "How nice! Have you done it for long?", "I think {v} is fun.",
         "I will remember that you like {v}."),
        ("What is my hobby?", "What do I do in my free time?", "Do you remember my hobby?", "What do I enjoy?",
         "Which hobby do I have?",
         "What is it that I like to do?", "What did I say my hobby is?", "Tell me my hobby.",
         "Please tell me what I do in my free time.",
         "Can you tell me my hobby?",
         "What is it that I enjoy doing?",
         "What is it that I do for fun?",
         "What do I like to do?", "What do I enjoy doing?", "Tell me what my hobby is.", "What hobby do I have?",
         "What do I do for fun?"),
        ("Your hobby is {v}.", "You like {v}.", "You enjoy {v}."), "your hobby is {v}", "your hobby"),
    "lost": Fact(
        ("I lost my {w} {v} today.", "I cannot find my {w} {v}.", "I am looking for my {w} {v}.", "My {w} {v} is gone.",
         "Somebody took my {w} {v}.", "I left my {w} {v} on the bus.", "I am sad because I lost my {w} {v}.",
         "Have you seen my {w} {v}?",
         "Did you see my {w} {v}? It is gone.",
         "My {w} {v} is lost.",
         "I must have dropped my {w} {v}.", "I miss my {w} {v}.", "Where is my {w} {v}? I lost it.",
         "I forgot my {w} {v} somewhere."),
        ("Oh no! I hope that you find your {v} soon.", "I am sorry about your {w} {v}.", "Where did you see the {v} last?",
         "A {w} {v} should be easy to see. Look under the table."),
        ("What did I lose?", "What am I looking for?", "Do you remember what I lost?", "Which thing is gone?",
         "What was it that I lost?",
         "What can I not find?", "What did I say I was looking for?", "Tell me what I lost.", "Which of my things is gone?",
         "Can you tell me what I lost?",
         "What thing did I lose?",
         "Which thing is it that I miss?",
         "Which thing did I lose?", "What do I miss?", "What is gone?", "Which thing am I looking for?",
         "Which thing is missing?", "Tell me which thing I lost."),
        ("You lost your {w} {v}.", "Your {w} {v}.", "You are looking for your {w} {v}."), "you lost your {w} {v}",
         "anything that you lost"),
    "family": Fact(
        ("My {w} is called {v}.", "I have a {w} called {v}.", "My {w}'s name is {v}.", "I am going to see my {w} {v}.",
         "I live with my {w} {v}.", "This is about my {w}, whose name is {v}.", "My {w} {v} is coming to visit.",
         "You should meet my {w} {v}."),
        ("Say hello to {v} from me!", "How nice! Is your {w} well?", "I would like to meet {v}.",
         "I will remember that your {w} is called {v}."),
        ("What is my {w} called?", "What is the name of my {w}?", "Do you remember my {w}'s name?", "What's my {w}'s name?",
         "Who is my {w}?", "How is my {w} called?", "What did I say my {w} is called?", "Tell me the name of my {w}.",
         "Please tell me my {w}'s name.", "Can you tell me what my {w} is called?", "Do you know my {w}'s name?"),
        ("Your {w} is called {v}.", "The name of your {w} is {v}.", "Your {w}'s name is {v}."), "your {w} is called {v}",
        "that name"),
    "age": Fact(
        ("I am {v} years old.", "I'm {v} years old.", "I just turned {v}.", "My age is {v}.", "I am {v}.",
         "I turned {v} last week.", "Today I am {v} years old.", "By the way, I am {v} years old.",
         "By the way, I'm {v}.",
         "My age is now {v}."),
        ("A good age, {v}!", "Then you have seen many summers.", "I am much younger than that.",
         "I will remember that you are {v}."),
        ("How old am I?", "What is my age?", "Do you remember how old I am?", "Can you tell me my age?",
         "How many years old am I?", "Do you know my age?", "How old did I say I am?", "Tell me how old I am.",
         "Please tell me my age.",
         "Can you tell me how old I am?",
         "What is my age, please?",
         "Say how old I am.",
         "Tell me my age.", "Can you say how old I am?", "What age am I?", "How old am I, again?"),
        ("You are {v} years old.", "You are {v}.", "You told me that you are {v} years old."), "you are {v} years old",
        "your age"),
    "trade": Fact(
        ("I work as a {v}.", "I am a {v}.", "My job is {v}.", "I earn my money as a {v}.", "I have been a {v} for years.",
         "I'm a {v} by trade.",
         "By day I am a {v}.", "They pay me to be a {v}.",
         "I am paid to be a {v}.",
         "My pay is that of a {v}.",
         "I earn money as a {v}.",
         "As for work, I am a {v}.", "I work as a {v} in the town.", "I make my living as a {v}.", "I earn my bread as a {v}."),
        ("A {v}! That must be interesting.", "How nice. Is it hard to be a {v}?", "Good work, I am sure.",
         "I have respect for every {v}."),
        ("What is my job?", "What do I do for work?", "Do you remember my job?", "What do I work as?", "What is my trade?",
         "How do I earn my money?", "What did I say my job is?", "Tell me what my work is.",
         "Please tell me what my job is.",
         "As what do I work?",
         "Can you tell me my job?",
         "Name my trade.",
         "What am I working as?", "What work do I do?", "Tell me my job.", "Which trade do I have?", "What is it I work as?"),
        ("You work as a {v}.", "You are a {v}.", "Your job is {v}."), "you work as a {v}", "your job"),
}
UNKNOWN = ("You have not told me {u} yet.", "I do not know {u}. You have not told me.",
    "I cannot know that: you have not told me {u}.")


def value_of(kind: str, draw: Draw) -> tuple[str, str]:
    """A fresh value for a fact of this kind, and its second value or ""."""
    makers: dict[str, Callable[[], tuple[str, str]]] = {
        "name": lambda: (draw.name(), ""), "colour": lambda: (draw.value(words.COLOURS), ""),
        "food": lambda: (draw.value(words.FOODS), ""),
        "pet": lambda: (draw.name(), draw.value(words.ANIMALS, invented=0.2)),
        "plan": lambda: (draw.plan(), draw.any(words.WHENS)),
        "home": lambda: (draw.place(), ""), "hobby": lambda: (draw.value(words.HOBBIES), ""),
        "lost": lambda: (draw.value(words.OBJECTS), draw.word(words.COLOURS)),
        "trade": lambda: (draw.value(list(words.TRADES)), ""),
        "family": lambda: (draw.name(), draw.any(words.RELATIONS)), "age": lambda: (str(draw.random.randint(6, 99)), "")}
    return makers[kind]()


def filled(frame: str, v: str, w: str) -> str:
    """The frame with its values, its article right and its first letter large."""
    text = frame.replace(" a {w}", " " + a(w) if w else " a {w}").replace(" a {v}", " " + a(v)).format(v=v, w=w)
    if text.startswith("A " + v) or (w and text.startswith("A " + w)):
        article = a(text[2:]).split(" ")[0].capitalize()
        text = f"{article} {text[2:]}"
    return text[0].upper() + text[1:] if frame[0] in "{" else text


def tell(chat: Chat, kinds: list[str] | None = None) -> None:
    """The person tells one fact, or two in one message; a kind told before is corrected by the new value."""
    draw = chat.draw
    kinds = kinds or draw.random.sample(sorted(FACTS), 2 if draw.chance(0.25) else 1)
    said, reply = [], ""
    for kind in kinds:
        v, w = value_of(kind, draw)
        again = "Actually, " if kind in chat.told and draw.chance(0.6) else ""
        sentence = filled(draw.frame(FACTS[kind].told), v, w)
        said.append(again + (sentence[0].lower() + sentence[1:] if again and not sentence.startswith(("I", v)) else sentence))
        reply = filled(draw.any(FACTS[kind].heard), v, w)
        chat.told[kind], chat.told_at[kind] = (v, w), len(chat.turns)
    chat.say(" ".join(said), reply)


def ask(chat: Chat) -> None:
    """The person asks for a fact; where it was never told, the reply says so."""
    draw = chat.draw
    missing = [kind for kind in FACTS if kind not in chat.told]
    if missing and (not chat.told or draw.chance(0.06)):
        kind = draw.any(missing)
        question = filled(draw.frame(FACTS[kind].asked), *value_of(kind, draw))
        chat.say(question, draw.any(UNKNOWN).format(u=FACTS[kind].unknown), Check("unknown", (("not told", "do not know"),)))
        return
    if len(chat.told) > 1 and draw.chance(0.05):
        known = [filled(FACTS[kind].clause, *value) for kind, value in chat.told.items()]
        text = ", ".join(known[:-1]) + " and " + known[-1] + "."
        question = draw.any(("What do you know about me?", "What have I told you about me?", "Tell me what you know about me."))
        chat.say(question, text[0].upper() + text[1:], Check("words", tuple((v,) for v, _ in chat.told.values())))
        return
    kind = draw.any(sorted(chat.told))
    ask_for(chat, kind)


def ask_for(chat: Chat, kind: str) -> None:
    """The person asks for a fact that was told."""
    draw = chat.draw
    v, w = chat.told[kind]
    question = filled(draw.frame(FACTS[kind].asked), v, w)
    ago = len(chat.turns) - chat.told_at[kind]
    chat.say(question, filled(draw.any(FACTS[kind].recalled), v, w), Check("facts", ((v,),), turns_ago=ago))
