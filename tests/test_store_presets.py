"""Presets and characters: shipped ones are only read, the person's own are kept whole, and nothing is dropped in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core.character import Character
from modules.core.errors import BadRequest, NotFound
from modules.core.params import GenerationParams
from modules.store.cards import Cards, card_of, character_from, character_from_json, character_to_json
from modules.store.presets import Presets
from modules.store.shelf import Shelf

ROOT = Path(__file__).parents[1]


@pytest.fixture
def presets(tmp_path: Path) -> Presets:
    return Presets(Shelf("preset", ROOT / "presets", tmp_path / "presets"))


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    return Cards(Shelf("character", ROOT / "characters", tmp_path / "characters"))


def put(presets: Presets | Cards, name: str, text: str) -> Path:
    path = presets.shelf.own / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_presets_load_and_change_something(presets: Presets) -> None:
    assert presets.names() == ["Balanced", "Creative", "Precise"]
    for name in presets.names():
        preset = presets.load(name)
        assert preset.shipped and preset.params.changed() and preset.unknown == {}


def test_a_saved_preset_holds_only_what_differs_from_neutral(presets: Presets) -> None:
    params, _ = GenerationParams().with_values({"temperature": 0.5, "stop": ["a", "b"], "logit_bias": {"5": -1.5}, "top_k": 0})
    assert presets.save("Mine", params, unknown={"tfs": 0.9}).params == params
    text = (presets.shelf.own / "Mine.yaml").read_text()
    assert "temperature: 0.5" in text and "top_k" not in text and "tfs: 0.9" in text
    assert "Mine" in presets.names()


def test_unknown_keys_are_reported_and_a_bad_value_is_named(presets: Presets) -> None:
    put(presets, "Old", "temperature: 0.7\ntypical: 0.9\nepsilon_cutoff: 3\nsampler_priority: |\n  a\n  b\n")
    preset = presets.load("Old")
    assert preset.params.changed() == {"temperature": 0.7, "typical_p": 0.9}
    assert preset.unknown == {"epsilon_cutoff": 3, "sampler_priority": "a\nb\n"}
    put(presets, "Bad", "temperature: hot\n")
    with pytest.raises(BadRequest, match="Bad: temperature must be a number from 0 to 5; got 'hot'"):
        presets.load("Bad")
    assert "Bad" in presets.names() and presets.load("Old")


def test_ones_own_file_wins_over_the_shipped_one_until_it_is_deleted(presets: Presets) -> None:
    shipped = presets.load("Precise").params
    presets.save("Precise", GenerationParams(temperature=2.0))
    assert presets.load("Precise").params.temperature == 2.0 and not presets.load("Precise").shipped
    presets.delete("Precise")
    assert presets.load("Precise").params == shipped
    with pytest.raises(BadRequest, match="comes with Colloquy"):
        presets.delete("Precise")
    assert (ROOT / "presets" / "Precise.yaml").exists() and len(list(presets.shelf.trash.iterdir())) == 1
    with pytest.raises(NotFound, match="no preset named 'Nothing'"):
        presets.load("Nothing")
    with pytest.raises(BadRequest):
        presets.load("../characters/Maren")


def test_the_shipped_characters_are_complete_and_short(cards: Cards) -> None:
    assert len(cards.names()) == 3
    for name in cards.names():
        card = cards.load(name)
        assert card.name == name and card.raw == {}
        for field in ("description", "personality", "scenario", "greeting", "example_dialogue", "system_prompt"):
            assert getattr(card, field), (name, field)
        words = sum(len(str(value).split()) for value in card_of(card).values())
        assert words <= 180, "the starter model's context holds 1,000 to 2,000 tokens"


@pytest.mark.parametrize(("text", "expected"), [
    ("name: Ann\ncontext: |-\n  Ann's persona\ngreeting: Hi\n", Character("Ann", "Ann's persona", greeting="Hi")),
    ("bot: Ann\ncontext: p\n", Character("Ann", "p")),
    ("char_name: Ann\nchar_persona: p\nworld_scenario: w\nchar_greeting: g\nexample_dialogue: e\nyour_name: Bob\n",
     Character("Ann", "p", scenario="w", greeting="g", example_dialogue="e", raw={"your_name": "Bob"})),
    ("greeting: Hi\n", Character("file", greeting="Hi")),
    ("name: No\ntags: one\nalternate_greetings: [a, 2]\n", Character("No", tags=("one",), alternate_greetings=("a", "2"))),
])
def test_cards_of_text_generation_webui_are_read(cards: Cards, text: str, expected: Character) -> None:
    put(cards, "file", text)
    assert cards.load("file") == expected


def test_an_edit_keeps_unknown_keys_and_the_files_own_spelling(cards: Cards) -> None:
    path = put(cards, "Ann", "name: Ann\ncontext: old\ngreeting: Hi\nextra:\n  deep: [1, two]\n")
    card = cards.load("Ann")
    cards.save("Ann", Character("Ann", "new\nlines", greeting="Hi", raw=card.raw))
    assert cards.load("Ann") == Character("Ann", "new\nlines", greeting="Hi", raw={"extra": {"deep": [1, "two"]}})
    assert "context: |-" in path.read_text() and "description" not in path.read_text()


def test_a_card_that_cannot_be_read_is_never_written_over(cards: Cards) -> None:
    path = put(cards, "Ann", "name: [unfinished\n")
    with pytest.raises(BadRequest, match=r"Ann\.yaml"):
        cards.save("Ann", Character("Ann"))
    assert path.read_text() == "name: [unfinished\n" and "Ann" in cards.names()


@pytest.mark.parametrize("text", ["name: {a: b}\n", "tags: {a: b}\n", "alternate_greetings: [[a]]\n", "greeting: [a]\n"])
def test_a_key_of_the_wrong_kind_is_named(cards: Cards, text: str) -> None:
    put(cards, "Ann", text)
    with pytest.raises(BadRequest, match=r"Character Ann: (name|tags|alternate_greetings|greeting) must be"):
        cards.load("Ann")


def test_a_character_survives_json() -> None:
    card = character_from({"name": "Ann", "context": "p", "tags": ["t"], "description_extra": 1, "raw": {"x": 1}}, "f")
    assert character_from_json(character_to_json(card)) == card
