"""How a person asks for each kind of fact, put together from parts; {w} is the second value where the kind has one."""

from __future__ import annotations

from ..alternatives import expanded

LEADS = ("And ", "So, ", "Now, ", "By the way, ", "One question: ", "Hey, ", "Tell me: ", "Let us see: ", "Oh, ", "Quick: ",
    "Well then, ", "Just to see: ", "Hm, ", "And now, ", "Say, ", "Well, ")
# A wrapped question keeps the order of a sentence ("what my name is"); a noun ("my name") can be asked for by itself.
_WRAPPED = ("(Please |Now |)(tell me|say) {e}", "(Tell me|Say) {e}, please",
    "(Can|Could|Will|Would) you (please |)(tell me|say) {e}",
    "(Can|Could) you (tell me|say) {e}, please",
    "Do you (still |)(remember|know|recall) {e}", "(I forgot|I do not remember|I want to hear|I want to know) {e}",
    "Remind me {e}(, please|)", "Do you (happen to |)know {e}", "Have you (kept in mind|remembered|not forgotten) {e}",
    "Let me hear {e}",
    "(You know|You remember) {e}, do you not", "Did you remember {e}", "(Let us see|Show me) if you know {e}")
_NOUNS = ("What is {n}(, please|, again|)", "What was {n}( again|)", "(Please |)(name|tell me|say) {n}",
    "(Name|Tell me|Say) {n}, please",
    "Do you (still |)(remember|know|recall) {n}", "(Can|Could|Will) you (name|tell me|say|remember) {n}",
    "What did I say is {n}",
    "What did I say {n} is", "What did I call {n}", "{n}, please", "Remind me of {n}", "What do you know about {n}",
    "Have you forgotten {n}")
_QUESTIONS = ("{d}(, please|, again|)", "{d}, do you (know|remember)", "{d}, can you tell me")

_WHICH = "(what|which thing|which of my things)"
_COLOUR_AND_FOOD = ("my (favourite|favorite|best loved) {k}",
    "the {k} (that |)I (like|love|prefer|enjoy) (best|most|the most|)")


def _liked(kind: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"(which|what) {kind} do I (like|love|prefer|enjoy) (best|most|)",
        f"(which|what) {kind} I (like|love|prefer|enjoy) (best|most|)"),
        (f"(which|what) {kind} is my favourite", f"(which|what) {kind} is my favourite"),
        (f"which of all {kind}s (do I (like|love)|is my favourite)", f"which of all {kind}s (I (like|love)|is my favourite)"),
        (f"(which|what) {kind} did I (say|tell you) I (like|love)", f"(which|what) {kind} I (said|told you) I (like|love)"))


def _called(*nouns: str) -> tuple[tuple[str, str], ...]:
    which = "(" + "|".join(nouns) + ")"
    return ((f"(what|how) is {which} (called|named)", f"(what|how) {which} is (called|named)"),
            (f"what do I call {which}", f"what I call {which}"), (f"which name does {which} have", f"which name {which} has"),
            (f"what did I say {which} is called", f"what I said {which} is called"))


# kind: (nouns, pairs of a question and of its order inside another sentence)
PARTS: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "name": (("my (own |)name", "the name I have"),
             (("(what|how) am I called", "(what|how) I am called"), ("who am I", "who I am"),
              ("what (do people|do they|do my friends) call me", "what (people|they|my friends) call me"),
              ("(what|how) (should|can|may) you call me", "(what|how) you (should|can|may) call me"),
              ("who is talking to you", "who is talking to you"), ("which name do I have", "which name I have"))),
    "colour": (tuple(part.format(k="colour") for part in _COLOUR_AND_FOOD), _liked("colour")),
    "food": ((*(part.format(k="food") for part in _COLOUR_AND_FOOD), "my favourite dish", "the dish I like"),
             (*_liked("food"), ("what do I (like|love|want) to eat( best| most|)",
             "what I (like|love|want) to eat( best| most|)"),
              ("what do I enjoy eating", "what I enjoy eating"), ("what tastes (good|best) to me",
              "what tastes (good|best) to me"))),
    "pet": (("the name of my (pet|{w})", "my (pet|{w})'s name"),
            (*_called("my pet", "my {w}"), ("(what|how) did I name my (pet|{w})", "(what|how) I named my (pet|{w})"))),
    "family": (("the name of my {w}", "my {w}'s name"), (*_called("my {w}"), ("who is my {w}", "who my {w} is"))),
    "plan": (("my plan", "the plan I (have|made|told you)"),
             (("what (do I want to|do I plan to|do I hope to|do I mean to|am I going to|am I about to|do I have to) do",
               "what I (want to|plan to|hope to|mean to|am going to|am about to|have to) do"),
              ("what (have I planned|did I plan)( to do|)", "what I (have planned|planned)( to do|)"), ("what will I do",
              "what I will do"),
              ("what (did I say I would|was I going to) do", "what I (said I would|was going to) do"),
              ("what do I have in mind", "what I have in mind"))),
    "home": (("my home( town|)", "my town", "the (town|place) (I live in|where I live|I come from)"),
             (("where do I live", "where I live"), ("where (is my (home|house))", "where (my (home|house)) is"),
              ("where (am I|do I come) from", "where I (am|come) from"), ("where am I at home", "where I am at home"),
              ("(which|what) (town|place) (do I live in|do I come from|am I from|is my home)",
               "(which|what) (town|place) (I live in|I come from|I am from|is my home)"),
              ("in (which|what) (town|place) do I live", "in (which|what) (town|place) I live"),
              ("where did I say (I live|my home is)", "where I said (I live|my home is)"))),
    "hobby": (("my (favourite |)(hobby|pastime)", "the hobby (I have|I enjoy|that I like)"),
              (("what do I (do|like to do|enjoy doing|like doing) (in my free time|for fun|on Sundays|)",
                "what I (like to do|enjoy doing|like doing|do for fun|do in my free time)"),
               ("(which|what) (hobby|pastime) do I (have|enjoy|like)", "(which|what) (hobby|pastime) I (have|enjoy|like)"),
               ("how do I spend my free time", "how I spend my free time"), ("what do I enjoy", "what I enjoy"),
               ("what is it (that |)I (do for fun|like to do|enjoy doing)",
               "what it is (that |)I (do for fun|like to do|enjoy doing)"))),
    "lost": (("the thing (I (lost|miss|am looking for|cannot find)|that is (gone|missing))",),
             ((_WHICH + " (did I lose|have I lost|am I looking for|can I not find|do I miss|did I drop)",
               _WHICH + " I (lost|have lost|am looking for|cannot find|miss|dropped)"),
              (_WHICH + " is (gone|missing|lost)",
              _WHICH + " is (gone|missing|lost)"),
              ("what was it (that |)I (lost|was looking for)", "what it was (that |)I (lost|was looking for)"))),
    "age": (("my age", "the age I (have|am)"),
            (("how old (am I|did I say I am)", "how old I (am|said I am)"), ("how many years old am I",
            "how many years old I am"),
             ("(what|which) age (am I|do I have)", "(what|which) age I (am|have)"), ("how many years have I lived",
             "how many years I have lived"))),
    "trade": (("my (job|trade|work)", "the (job|trade|work) I (have|do)"),
              (("what do I (work as|do for work|do for a living)", "what I (work as|do for work|do for a living)"),
               ("how do I (earn|make) my (money|living|bread)", "how I (earn|make) my (money|living|bread)"),
               ("(which|what) (job|trade|work) do I (have|do)", "(which|what) (job|trade|work) I (have|do)"),
               ("as what do I work", "as what I work"), ("what am I (by trade|working as)",
               "what I am (by trade|working as)"),
               ("what is it (that |)I work as", "what it is (that |)I work as"))),
}


ORDERS = ("tell", "say", "please", "now tell", "now say", "name", "remind", "let", "show", "i ", "you know", "you remember")


def _sentences(kind: str) -> tuple[str, ...]:
    nouns, pairs = PARTS[kind]
    patterns = [frame.replace("{n}", noun) for noun in nouns for frame in _NOUNS]
    patterns += [frame.replace("{d}", direct) for direct, _ in pairs for frame in _QUESTIONS]
    patterns += [frame.replace("{e}", inner) for _, inner in pairs for frame in _WRAPPED]
    return expanded(patterns)


def _ended(sentence: str) -> str:
    """With a large first letter, and a question mark where it asks or a point where it orders."""
    is_order = sentence.lower().startswith(ORDERS) or (sentence.startswith(("my ", "the ")))
    return sentence[0].upper() + sentence[1:] + ("." if is_order else "?")


ASKED: dict[str, tuple[str, ...]] = {kind: tuple(_ended(sentence) for sentence in _sentences(kind)) for kind in PARTS}
