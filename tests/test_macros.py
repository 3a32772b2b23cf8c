"""Macros in cards, and a card as the messages that open a chat."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core.character import Character
from modules.core.messages import message
from modules.text.character_text import DEFAULT_SYSTEM, character_messages, greetings
from modules.text.macros import Names, expand

NAMES = Names("Ada", "Sam", "a {{char}} fan", datetime(2026, 3, 4, 5, 6), seed=7)


@pytest.mark.parametrize(("text", "expected"), [
    ("{{char}} and {{user}}, <BOT> and <USER>", "Ada and Sam, Ada and Sam"),
    ("{{ Char }}{{USER}}", "AdaSam"),
    ("{{time}} {{date}} {{weekday}}", "05:06 2026-03-04 Wednesday"),
    ("a{{// a note: x}}b{{comment: c}}{{hidden_key:k}}", "ab"),
    ("{{reverse:abc}}", "cba"),
    ("{{random:x}}{{pick:y}}{{roll:d1}}{{roll:3d1}}{{roll:1}}", "xy131"),
    ("{{random:a\\,b}}{{random::q}}", "a,bq"),
    ("{{unknown}} {{roll:x}} {{roll:9999d6}} {{roll:d0}} {char}", "{{unknown}} {{roll:x}} {{roll:9999d6}} {{roll:d0}} {char}"),
    ("{{persona}}", "a {{char}} fan"),
])
def test_macros_stand_for_their_values(text: str, expected: str) -> None:
    assert expand(text, NAMES) == expected


def test_chance_follows_the_seed() -> None:
    text = "{{random:a,b,c,d}} {{roll:d20}} {{pick:a,b,c,d}} {{pick:a,b,c,d}}"
    assert expand(text, NAMES) == expand(text, NAMES)
    many = {expand("{{random:a,b}}{{pick:a,b}}", Names("A", "B", seed=seed)) for seed in range(64)}
    assert len({m[0] for m in many}) == 2, "64 draws of two miss one with probability 2**-63"
    assert len({m[1] for m in many}) == 1, "a pick stays for the chat"
    assert len({expand("{{pick:a,b}}", Names("A", "B", pick_seed=seed)) for seed in range(64)}) == 2


@given(st.text(st.sampled_from("{}<>:/abUSER,\\ ")))
def test_any_text_expands_to_text(text: str) -> None:
    expand(text, NAMES)


ADA = Character(
    "Ada", description="{{char}} counts.", personality="dry", scenario="A study in {{user}}'s house.",
    greeting="Good evening, {{user}}.", alternate_greetings=("Hm?", "  "),
    example_dialogue="<START>\n{{user}}: Hello?\n{{char}}: Two things:\nfirst, hello.\n<START>\nSam: Sums?\nAda: Always.")


def test_a_card_opens_a_chat() -> None:
    made = character_messages(ADA, user="Sam", persona="likes {{char}}")
    assert made[0].role == "system"
    assert made[0].text.split("\n\n") == [
        DEFAULT_SYSTEM.replace("{{char}}", "Ada").replace("{{user}}", "Sam"), "Ada counts.", "Ada's personality: dry",
        "Scenario: A study in Sam's house.", "About Sam: likes Ada"]
    assert made[1:] == [message("user", "Hello?"), message("assistant", "Two things:\nfirst, hello."),
                        message("user", "Sums?"), message("assistant", "Always.")]
    assert greetings(ADA, user="Sam") == ["Good evening, Sam.", "Hm?"]


def test_the_cards_system_prompt_wins_and_may_hold_the_persons() -> None:
    card = Character("Ada", system_prompt="First. {{original}}")
    assert character_messages(card, system_prompt="Second, \\1 {{user}}.")[0].text == "First. Second, \\1 You."
    assert character_messages(Character("Ada"), system_prompt="Only.")[0].text == "Only."


def test_a_nickname_is_what_the_character_is_called() -> None:
    card = Character("Ada Lovelace", greeting="{{char}} here.", raw={"data": {"nickname": "Ada"}})
    assert greetings(card) == ["Ada here."]
    assert greetings(Character("Ada Lovelace", greeting="{{char}} here.", raw={"data": 3})) == ["Ada Lovelace here."]
