"""How a person tells each kind of fact, put together from parts; {v} is the value and {w} a second value where there is one."""

from __future__ import annotations

from ..alternatives import expanded

LEADS = ("By the way, ", "You should know: ", "Just so you know, ", "Let me tell you: ", "You know, ", "Guess what: ", "Oh, ",
    "And ", "One more thing: ", "Well, ", "So, ", "Listen: ", "To be honest, ", "Here is something about me: ",
    "Did you know? ",
    "Hm, ", "You see, ", "Yes, ", "As for me, ", "It is like this: ")
TAILS = ("", "", "", "", ", you know", ", by the way", ", in fact", ", really", ", and that is that", ", I must say",
    ", I think")

_COLOUR_AND_FOOD = (
    "I (really |)(like|love|prefer|adore) {{v}} (best|most|the most|more than any other {k}|above all)",
    "Of all {k}s I (like|love|prefer|enjoy) {{v}} (best|most|the most|)",
    "The {k} (that |)I (like|love|prefer|enjoy|adore) (best|most|the most|more than others|above all|) is {{v}}",
    "My (most loved|best loved|favourite|favorite) {k} (is|has always been|is and stays|was always) {{v}}",
    "(No|No other) {k} is (better than|as good as|as nice as|like) {{v}}",
    "There is no (better|nicer|finer) {k} than {{v}}",
    "(When it comes to {k}s|As for {k}s|Among {k}s), I (like|love|choose|take) {{v}}( best|)",
    "If I had to choose a {k}, (it would be|I would take|I would choose) {{v}}",
    "For me it is {{v}}, (of|among) all {k}s",
)
_CALLED = (
    "I have a {w} (called|named|by the name of) {v}", "My {w} is (called|named) {v}", "My {w}'s name is {v}",
    "The name of my {w} is {v}", "{v} is (my {w}|the name of my {w}|my {w}'s name)",
    "(At home |)I live with (a|my) {w} (called|named|whose name is) {v}",
    "My {w} {v} (is at home|is here with me|is in the garden|was here today|makes me happy|is with me|always makes me laugh)",
    "This is (about|for) my {w} {v}", "I (love|miss|think of) my {w} {v}", "Say hello to my {w} {v}", "Meet {v}, my {w}",
    "My {w} has the name {v}", "You should (see|meet) my {w} {v}", "I was out with my {w} {v}")

PATTERNS: dict[str, tuple[str, ...]] = {
    "name": (
        "(My name is|I'm|I am|The name is|I am called|I go by|This is|It is me,) {v}", "(Please |)call me {v}",
        "(You can|You may|You could|Do) call me {v}",
        "(People|Friends|My friends|All|They|Everybody|At home they) call me {v}",
        "(My parents named me|They named me|I was named) {v}", "{v} is (my name|what they call me|how I am called|who I am)",
        "(Hello|Hi|Hey|Good day), (I am|I'm|my name is|it is) {v}", "My name? (It is |){v}", "The name I have is {v}"),
    "colour": (*(pattern.format(k="colour") for pattern in _COLOUR_AND_FOOD),
        "I (like|love|adore|prefer) the colour {v}( best| most| a lot| very much|)",
        "(Nothing|No thing) is as (pretty|nice|lovely) as the colour {v}",
        "I (paint|want|wear|buy) everything (in {v}|{v})",
        "I (like|love) it when things are {v}", "My eyes love the colour {v}", "I have always (liked|loved) the colour {v}"),
    "food": (*(pattern.format(k="food") for pattern in _COLOUR_AND_FOOD),
        "(What I like to eat|What I love to eat|What I eat most|My favourite dish|The dish I like) is {v}",
        "I (like|love) (to eat|eating) {v}( best| most| a lot| very much|)",
        "I (could|would|can) eat {v} (every day|all day|at any time|for every meal|day and night)",
        "I (enjoy|like) eating {v}( most| a lot|)",
        "(For breakfast|For lunch|For dinner|In the evening) I (like|love|want|eat) {v}( best|)",
        "I (never|cannot) say no to {v}",
        "Nothing tastes (as good as|better than|like) {v}", "I am always hungry for {v}",
        "Give me {v} and I am happy", "I (like|love) the taste of {v}"),
    "pet": (*_CALLED, "I (got|own|keep|feed|look after) a {w} (called|named|by the name of) {v}", "I (named|call) my {w} {v}",
        "My pet is a {w} (called|named) {v}", "My {w} {v} is (asleep|sleeping|hungry|playing|next to me)",
        "I just fed {v}, my {w}"),
    "family": (*_CALLED, "My {w} {v} is (coming to visit|ill|on a journey|at work)",
    "I (am going to see|am waiting for|visited) my {w} {v}",
        "I got a letter from my {w} {v}"),
    "plan": (
        "{w} I (want to|plan to|hope to|mean to|have to|am going to|would like to|need to|must|will|shall) {v}",
        "I (want to|plan to|hope to|mean to|have to|am going to|would like to|need to|must|will|shall) {v} {w}",
        "(My plan|The plan|My wish|My idea) is to {v} {w}",
        "(I have a plan|I made a plan|Here is my plan): {w} I (will|want to) {v}",
        "What I want to do {w} is (to |){v}", "I have (decided|made up my mind) to {v} {w}", "I am (ready|about) to {v} {w}"),
    "home": (
        "(I|We) live in (a house in|a flat in|a small house in|) {v}",
        "I live in {v} (now|these days|with my family|and I like it)",
        "My (home|home town|house|town) is (in |){v}", "(I|We) come from {v}", "(I am|I'm|We are) from {v}",
        "I moved to {v}( last year| not long ago| in spring| some time ago|)",
        "{v} is (my home town|where I live|the town I live in|my home|my town)",
        "I have a (small|big|old|) (house|flat) in {v}", "The (town|place) (I live in|where I live|that is my home) is {v}",
        "I am at home in {v}",
        "I have (lived|been living) in {v} (for years|for a long time|all my life)", "You can find me in {v}",
        "My bed stands in {v}"),
    "hobby": (
        "My (favourite |)(hobby|pastime) is {v}",
        "I (like|love|enjoy) {v} (in my free time|on Sundays|in the evening|after work|for fun|as a hobby)",
        "(In my free time|On Sundays|In the evening|After work|When I am free) I (like|love|enjoy|do) {v}",
        "I spend my (free time|evenings|Sundays|weekends) (with|on) {v}",
        "What I (like to do|do for fun|enjoy doing|do in my free time) is {v}",
        "The hobby (I have|that I like|I enjoy) is {v}", "I am (very |so |)fond of {v}", "I do a lot of {v}",
        "I am (quite |)good at {v}",
        "I (have|found) a hobby: {v}"),
    "lost": (
        "I (lost|dropped|forgot|have lost|must have lost|must have dropped|left) my {w} {v}( today| on the bus| at the market|)",
        "I (miss|cannot find|can't find|am looking for|am missing|do not find) my {w} {v}( today| any more| anywhere|)",
        "My {w} {v} is (gone|lost|missing|not here|nowhere|not where it was)",
        "(Somebody|Someone|A thief) (took|stole) my {w} {v}",
        "I am (sad|unhappy|angry|upset) because (I lost my {w} {v}|my {w} {v} is (gone|lost|missing))",
        "I (looked|searched) everywhere for my {w} {v}",
        "My {w} {v} (fell out of my bag|was in my bag and is gone|has gone missing|is nowhere to be found)",
        "What I (lost|miss|cannot find) is my {w} {v}"),
    "age": (
        "(I am|I'm) (now |already |only |) {v} (years old|years of age|)",
        "I (turned|became|just turned) {v} (today|last week|yesterday|in spring|)",
        "My age is (now |){v}", "I have lived (for |){v} years", "(Today|This year) I (am|turned|became) {v}( years old|)",
        "(I am|I'm) a person of {v} years", "I was born {v} years ago"),
    "trade": (
        "I work as a {v}( now| in the town| in a small shop| these days|)", "(I am|I'm) a {v} (by trade|by day|and like it|)",
        "My (job|trade|work) is (that of a {v}|to be a {v})", "I earn my (money|bread|living|pay) as a {v}",
        "I make my living as a {v}",
        "I have (been|worked as) a {v} for (years|ten years|a long time)", "(I am paid|I get paid|They pay me) to be a {v}",
        "As for work, I am a {v}", "(For a living|For my work|All day) I (work as|am) a {v}", "People know me as a {v}",
        "I have the job of a {v}"),
}
TOLD: dict[str, tuple[str, ...]] = {
    kind: tuple(sentence + "." for sentence in expanded(patterns)) for kind, patterns in PATTERNS.items()}
