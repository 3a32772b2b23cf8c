"""Short stories on a subject with a name, an object and a twist, asked for in a chat or as plain text to be continued."""

from __future__ import annotations

import re

from .. import words
from ..chat import Chat, Check, Turn
from ..draw import Draw, a

# subject: (where it happens, what it looks or sounds like, who lives there)
SUBJECTS: dict[str, tuple[str, str, str]] = {
    "the sea": ("in a small house by the sea", "The waves sang all day long", "an old sailor"),
    "a forest": ("at the edge of a deep forest", "The trees whispered in the wind", "a quiet woodcutter"),
    "winter": ("in a village under thick snow", "Ice flowers grew on every window", "the baker's wife"),
    "a lighthouse": ("in a tall white lighthouse", "The lamp turned round and round", "the lighthouse keeper"),
    "a journey": ("in a town with a long road", "The road went over hill after hill", "a friendly coachman"),
    "friendship": ("in a street of small houses", "Children played there until dark", "a girl from next door"),
    "the stars": ("on a hill far from any town", "At night the sky was full of stars", "an old astronomer"),
    "a market": ("next to a noisy market", "There were apples, fish and a hundred voices", "a woman who sold tea"),
    "a castle": ("in a castle with nine towers", "The wind blew through the long halls", "a tired guard"),
    "a train": ("near a little railway station", "Twice a day a train went by", "the train driver"),
    "courage": ("in a valley with dark mountains around it", "Nobody dared to climb the mountains",
    "a shepherd with a long coat"),
    "rain": ("in a town where it often rained", "The rain drummed on the roofs", "a man with a broken umbrella"),
    "music": ("in a house full of music", "Somebody was always singing", "an old music teacher"),
    "a garden": ("in a cottage with a wild garden", "Bees hummed among the flowers", "the gardener"),
    "a secret": ("in an old house with many doors", "One of the doors was always locked", "a very old aunt"),
    "the moon": ("in a house with a round window", "Every night the moon looked in", "a clockmaker who never slept"),
    "a ship": ("on board an old wooden ship", "The sails cracked in the wind", "the ship's cook"),
    "a dragon": ("in a village below a dragon's mountain", "Sometimes smoke came out of the mountain", "the village smith"),
    "school": ("close to a school with a red door", "A bell rang at eight every morning", "a kind teacher"),
    "a river": ("in a mill beside a slow river", "The water talked to the stones", "the old miller"),
    "a birthday": ("in a house that smelled of cake", "Paper lanterns hung in all the rooms", "a cheerful uncle"),
    "a ghost": ("in a house where the stairs creaked", "At midnight something knocked on the wall", "a pale little ghost"),
    "a robot": ("in a workshop full of wires", "Small lamps blinked on every wall", "a rusty robot"),
    "the desert": ("at the last well before the desert", "The sand was as wide as the sky", "a man with two camels"),
}
# twist: (how it is asked for, the sentences that tell it, the words that show it); {o} is the object, {x} a second thing
TWISTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "dream": (("in which it was all a dream", "that turns out to be a dream", "with a dream as the twist",
    "where in the end it was only a dream", "and in the end it was a dream", "where all was only a dream"),
              ("Then {N} opened {his} eyes. It had all been a dream, but the {o} lay on the pillow.",
               "Suddenly a bell rang, and {N} woke up. It was only a dream. Or was it? The {o} was still warm."), ("dream",)),
    "talks": (("in which the {o} can talk", "where the {o} begins to talk", "with a talking {o}", "in which the {o} speaks",
    "where the {o} speaks to {n}", "with {ao} that speaks"),
              ('"Be careful with me," said the {o}. {N} nearly fell over. The {o} could talk!',
               'At that moment the {o} began to talk. "I have waited for you," it said.'), ("talk", "said the", "speak")),
    "turns_into": (("in which the {o} turns into {ax}", "where the {o} becomes {ax}", "with the {o} turning into {ax}",
    "where the {o} is really {ax}", "in which the {o} really is {ax}", "and really the {o} is {ax}",
    "and the {o} is really {ax}", "and the {o} becomes {ax}", "where really the {o} is {ax}"),
                   ("But when the moon came out, the {o} turned into {ax}. {N} could not believe it.",
                    "{He} touched the {o} once more, and it became {ax}, right there in {his} hands."), ("{x}",)),
    "thief": (("with a thief", "in which a thief comes", "where the {o} is stolen", "with a theft in it",
    "about a theft", "in which there is a theft", "with a theft", "and a theft in it", "and a thief in it",
    "where a theft happens", "and there is a theft"),
              ("That night a thief came and took the {o}. But the thief had a soft heart and brought it back.",
               "In the morning the {o} was gone. The thief was a hungry magpie, and {N} forgave it at once."), ("thief",)),
    "animal": (("with {ax} in it", "in which {ax} helps", "with {ax} that helps", "where {ax} saves the day",
    "in which {ax} saves {n}", "and {ax} saves everybody", "where {ax} helps {n}", "and {ax} brings help",
    "and {ax} saves the day", "where {ax} brings help", "and {ax} helps {n}", "with help from {ax}"),
               ("Just then {ax} came out of the dark and showed {him} the way.",
                "There was {ax} sitting at the door. The {x} knew what to do with the {o}."), ("{x}",)),
    "storm": (("with a storm", "in which a storm comes up", "where a storm breaks out", "with a great storm in it",
    "with a storm in it", "and a great storm"),
              ("Then a storm broke out. {N} held the {o} tight until the wind was gone.",
               "All at once a great storm came. The {o} shone in the dark, and {N} was not afraid."), ("storm",)),
    "gift": (("in which the {o} is given away", "where {n} gives the {o} away", "that ends with a gift",
    "with a gift at the end", "and a gift at the end", "with a gift in it"),
             ("In the end {N} made a gift of the {o} to a child who had nothing.",
              "So {he} wrapped the {o} in paper and gave it away as a gift. That felt better than keeping it."), ("gift",)),
    "lost_friend": (("in which an old friend comes back", "with an old friend", "where an old friend returns",
    "that brings back an old friend"),
                    ("Who stood at the door? It was an old friend, who had lost the {o} many years ago.",
                     '"That {o} was mine," said a voice. It was an old friend, back from far away.'), ("friend",)),
    "happy": (("with a happy ending", "that ends well", "with a good ending", "that has a happy end"),
              ("And so everything ended well: {N} was happy, and so was everyone else.",
               "{N} laughed, and all were happy that day."), ("happy", "well")),
}
OPENINGS = (
    "Once there was {k} called {N} who lived {p}.", "In a time long past, {N} lived {p}.",
    "Once upon a time, {p}, there lived {k} named {N}.",
    "Long ago, {k} by the name of {N} lived {p}.", "There was once {k} whose name was {N}. {He} lived {p}.",
    "Here is the tale of {N}, {k} who lived {p}.",
    "In those days {N} lived {p}.", "Do you know the story of {N}? {He} lived {p}.")
FINDS = (
    "One morning {N} found {ao} under the stairs.", "One day {he} found {ao} in the grass.",
    "On {his} way home {N} saw {ao} lying in the road.",
    "On a {d} {he} discovered {ao} behind the house.", "{N} owned only one thing: {ao}.", "From {his} grandmother {N} had {ao}.",
    "One evening {w} gave {him} {ao}.", "{N} bought {ao} from {w} for a single coin.", "In an old chest {N} discovered {ao}.",
    "One night {ao} fell out of a tree, right at {his} feet.", "{W} came by and left {ao} at the door.",
    "Nobody knew why {N} always carried {ao}.")
DETAILS = (
    "It was {c} and a little dusty.", "The {o} was old and {c}.", "It shone as if it were new.",
    "{He} had never seen such a thing before.",
    "It was small enough for a pocket, and it hummed.", "The {o} felt warm in {his} hand.", "Somebody had written a name on it.",
    "It was {c}, like the evening sky.")
TROUBLES = (
    "{N} showed it to {w}.", "{Th} looked at it for a long time.", '"Take good care of it," said {th}.',
    '"Where did you get that {o}?" asked {th}.',
    "{He} wanted to know whose {o} it was.", "All day long {he} carried the {o} through the streets.",
    "{N} hid the {o} under {his} bed.",
    "But nobody could say what it was for.", "{He} asked {w} about it and got only a smile.",
    '"This {o} is more than it seems," said {th}.')
ENDINGS = (
    "From that day on, {N} kept the {o} on the windowsill.", "And whenever {he} saw the {o}, {he} smiled.",
    "{N} never forgot that day.",
    "And that is how {N} learned to look twice.", "The {o} is still there today.",
    "{He} told the story to everyone who wanted to hear it.",
    "After that, {N} slept well every night.", "And {th} came to tea every Sunday.")
REQUESTS = (
    "Tell me a short story about {s} with {n}, {ao}, {tw}.", "Write a short story about {s}. It is about {n} and {ao}, {tw}.",
    "Tell me a story about {s}, with someone called {n} and {ao}, {tw}.",
    "Write a story about {n} and {ao}. The subject is {s}, {tw}.",
    "Please tell a story about {s}. The hero is {n}, who finds {ao}, {tw}.", "I want a story about {s} with {n} and {ao} {tw}.",
    "Make up a short story about {s} {tw}. Use the name {n} and {ao}.", "A story, please: {n}, {ao}, {s}, {tw}.",
    "The subject is {s}. Tell me a story about it with {n} and {ao}, {tw}.", "A story about {n}, {ao} and {s}, please, {tw}.",
    "I would like a story. Its subject is {s}; {n} and {ao} are in it, {tw}.")
SHORT_REQUESTS = ("Tell me a story about {n} and {ao}.", "Write a short story about {n}, who has {ao}.",
    "Tell me a story with {n} and {ao} in it.",
                  "Can you write a story about {n} and {ao}?", "Tell me a story about {s}.", "Write a short story about {s}.",
                  "Tell me a story.",
                  "Can you tell me a story about {s}?", "A story about {n}, please.", "Please tell me a short story.")
TITLES = ("The {O} of {N}", "{N} and the {O}", "The {c} {O}", "A Story of {N}", "{N}'s {O}", "The {O}")


class Plot:
    """The chosen parts of one story; `fill` puts them into a frame."""

    def __init__(self, draw: Draw) -> None:
        self.name, pronoun = draw.person()
        self.subject = draw.any(sorted(SUBJECTS))
        self.thing = draw.value(words.OBJECTS)
        self.twist = draw.any(sorted(TWISTS))
        self.second = draw.value(words.ANIMALS if self.twist == "animal" or draw.chance(0.3) else words.OBJECTS)
        place, self.sight, who = SUBJECTS[self.subject]
        his, him = ("her", "her") if pronoun == "she" else ("his", "him")
        kind = draw.any(("a girl", "a young woman", "an old woman") if pronoun == "she" else ("a boy", "a young man",
            "an old man"))
        known = re.sub(r"^an? (very old |pale little |quiet |friendly |tired |kind |cheerful |rusty )?", "the ", who)
        self.slots = {
            "N": self.name, "n": self.name, "he": pronoun, "He": pronoun.capitalize(), "his": his, "him": him, "k": kind,
            "p": place, "w": who,
            "W": who[0].upper() + who[1:], "th": known, "Th": "T" + known[1:], "o": self.thing, "O": self.thing.title(),
            "ao": a(self.thing), "x": self.second, "ax": a(self.second),
            "c": draw.any(words.COLOURS), "s": self.subject, "d": draw.any(words.DAYS)}
        self.slots["tw"] = self.fill(draw.frame(TWISTS[self.twist][0]))

    def fill(self, frame: str) -> str:
        """The frame with this story's parts."""
        return frame.format(**self.slots)


def tell(draw: Draw, plot: Plot, *, has_twist: bool = True) -> str:
    """The story in three to seven sentences."""
    sentences = [draw.frame(OPENINGS)]
    if draw.chance(0.4):
        sentences.append(plot.sight + ".")
    sentences.append(draw.frame(FINDS))
    sentences += [draw.frame(DETAILS)] if draw.chance(0.4) else []
    sentences += [draw.frame(TROUBLES)] if draw.chance(0.4) else []
    if has_twist:
        sentences.append(draw.any(TWISTS[plot.twist][1]))
    sentences.append(draw.frame(ENDINGS))
    text = [plot.fill(sentence) for sentence in sentences]
    if draw.chance(0.15):
        cut = draw.random.randint(1, len(text) - 1)
        return " ".join(text[:cut]) + "\n\n" + " ".join(text[cut:])
    return " ".join(text)


def story(chat: Chat, *, is_full: bool | None = None) -> None:
    """A story asked for in a chat; full requests name subject, name, object and twist. Told plainly, not in the persona's way."""
    draw, plot = chat.draw, Plot(chat.draw)
    is_full = draw.chance(0.6) if is_full is None else is_full
    shown = tuple(plot.fill(word) for word in TWISTS[plot.twist][2])
    if is_full:
        request = plot.fill(draw.frame(REQUESTS))
        check = Check("story", ((plot.name,), (plot.thing,), shown))
    else:
        frame = draw.frame(SHORT_REQUESTS)
        request = plot.fill(frame)
        check = Check("short_story", tuple((value,) for slot, value in (("{n}", plot.name), ("{ao}",
            plot.thing)) if slot in frame))
    chat.turns.append(Turn(request, tell(draw, plot, has_twist=is_full or draw.chance(0.7)), check))


def free_text(draw: Draw) -> str:
    """A story as plain text, sometimes under a title, for the notebook."""
    plot = Plot(draw)
    text = tell(draw, plot, has_twist=draw.chance(0.8))
    if draw.chance(0.3):
        text = plot.fill(draw.frame(TITLES)) + "\n\n" + text
    return text
