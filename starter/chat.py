"""The nouns of the corpus: a turn with its check, a persona, and a chat that grows turn by turn."""

from __future__ import annotations

from dataclasses import dataclass, field

from .draw import Draw


@dataclass(frozen=True)
class Check:
    """How a reply is judged: kind is the evaluation's key; each group of `wanted` needs one of its words, `unwanted` none.

    turns_ago counts the turns between the telling of a fact and the question (0: not about an earlier turn).
    """

    kind: str
    wanted: tuple[tuple[str, ...], ...] = ()
    unwanted: tuple[str, ...] = ()
    turns_ago: int = 0


@dataclass(frozen=True)
class Turn:
    """What a person says and what a good reply is; without a check the reply is not judged by its words."""

    user: str
    reply: str
    check: Check | None = None


@dataclass(frozen=True)
class Style:
    """A way of speaking: how the system prompt asks for it, and what it puts before or after a reply."""

    instruction: str = ""
    before: tuple[str, ...] = ()
    after: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class Persona:
    """Whom the system prompt makes the model; examples are (said, replied) of its card; facts maps a kind (home, food,
pet) to its     value and second value."""

    name: str
    trade: str
    system: str
    greeting: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    style: Style = field(default_factory=Style)
    facts: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class Chat:
    """A conversation in the making; the worlds append to turns and told, one after the other."""

    draw: Draw
    system: str = ""
    greeting: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    persona: Persona | None = None
    turns: list[Turn] = field(default_factory=list)
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    told_at: dict[str, int] = field(default_factory=dict)

    def say(self, user: str, reply: str, check: Check | None = None) -> None:
        """Append a turn; the reply is spoken in the persona's way."""
        self.turns.append(Turn(user, self._styled(reply), check))

    def _styled(self, reply: str) -> str:
        style = self.persona.style if self.persona else Style()
        if not self.draw.chance(style.share):
            return reply
        if style.before:
            reply = f"{self.draw.any(style.before)} {reply}"
        if style.after:
            reply = f"{reply[:-1]}, {style.after}{reply[-1]}" if reply[-1] in ".!?" else f"{reply} {style.after}."
        return reply

    def messages(self) -> list[dict[str, str]]:
        """The chat as role and content dicts: system prompt, example talk and greeting first where there are any."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for said, replied in self.examples:
            found += [{"role": "user", "content": said}, {"role": "assistant", "content": replied}]
        if self.greeting:
            found.append({"role": "assistant", "content": self.greeting})
        for turn in self.turns:
            found += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.reply}]
        return found
