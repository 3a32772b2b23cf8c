"""The starter model: its corpus is the same for everybody, its shipped forms agree, and it talks and stops."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from modules.core.character import Character
from modules.text.character_text import character_messages
from starter import judge, words
from starter import tokenizer as tokens
from starter.chat import Check
from starter.corpus import document, documents
from starter.draw import Draw, is_held_out_name
from starter.evaluate import HANDWRITTEN, KEYS, evaluate, held_out_questions, speaking
from starter.speaker import Reply, TransformersSpeaker
from starter.worlds import cards, limits, memory, stories

FOLDER = Path(__file__).parents[1] / "models" / "starter"
GGUF = FOLDER / "starter-Q8_0.gguf"
TEXTS = ["Hello!", "  two  spaces\n\n\nlines\tand tabs ", "Zörgő naïve 今日は 🙂👩‍👩‍👧", "don't we'll I'm 1234567890 3+4=7",
         "a<|im_start|>b<|im_end|>\n<|endoftext|>",
         "Kelvorin has a crimson thimble, hasn't he?", "...!?\"'()[]{}*_~", "UPPER lower MiXeD"]


def test_equal_seeds_give_equal_documents_and_other_seeds_others() -> None:
    first = list(islice(documents(7, "train"), 50))
    assert first == list(islice(documents(7, "train"), 50))
    assert first[20:] == list(islice(documents(7, "train", start=20), 30))
    assert first != list(islice(documents(8, "train"), 50))


def test_words_of_the_training_part_and_the_held_out_part_never_meet() -> None:
    wide = [value for value in vars(words).values() if isinstance(value, tuple) and value and isinstance(value[0], str)]
    assert len(wide) > 10
    train_draw, held_draw = Draw("a", "train"), Draw("b", "held_out")
    for values in (item for item in wide if len(item) >= 8):
        trained = {train_draw.word(values) for _ in range(20 * len(values))}
        held = {held_draw.word(values) for _ in range(20 * len(values))}
        assert held and not trained & held
        assert set(values) == trained | held, "20 draws a word miss one with a chance of e^-17"


def test_a_quarter_of_every_list_of_phrasings_is_held_out() -> None:
    lists: list[Sequence[str]] = [fact.asked for fact in memory.FACTS.values()] + [fact.told for fact in memory.FACTS.values()]
    lists += [stories.REQUESTS, stories.OPENINGS, stories.FINDS, stories.ENDINGS, limits.TOO_MUCH, limits.BIGGER]
    for frames in lists:
        trained = {Draw(str(i), "train").frame(frames) for i in range(40 * len(frames))}
        held = {Draw(str(i), "held_out").frame(frames) for i in range(40 * len(frames))}
        assert not trained & held and len(held) == len(frames) // 4 and trained | held == set(frames)


def test_invented_names_of_the_held_out_part_are_never_trained() -> None:
    draw, held_draw = Draw("1", "train"), Draw("2", "held_out")
    assert not any(is_held_out_name(draw.person(invented=1)[0]) for _ in range(500))
    assert all(is_held_out_name(held_draw.person(invented=1)[0]) for _ in range(100))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_corpus_own_replies_pass_their_checks(split: Any) -> None:
    judged = 0
    for made in islice(documents(3, split), 600):
        for turn in made.turns:
            if turn.check is not None:
                judged += 1
                assert judge.passes(turn.reply, turn.check), turn
    assert judged > 500


def test_no_chat_written_by_hand_is_in_the_training_part() -> None:
    """Neither a system prompt written by hand, nor what is said in a chat without one, from beginning to end."""
    chats = json.loads(HANDWRITTEN.read_text("utf-8"))["chats"]
    assert len(chats) == 60
    systems = {chat["system"] for chat in chats if "system" in chat}
    written = {tuple(turn["user"] for turn in chat["turns"]) for chat in chats if "system" not in chat}
    lengths = {len(said) for said in written}
    for made in islice(documents(1, "train"), 6000):
        assert made.system not in systems
        said = tuple(turn.user for turn in made.turns)
        assert not any(said[i:i + length] in written for length in lengths for i in range(len(said) - length + 1))


def test_every_rule_written_by_hand_can_be_read() -> None:
    for chat in json.loads(HANDWRITTEN.read_text("utf-8"))["chats"]:
        assert chat["name"] and any(turn.get("wanted") for turn in chat["turns"])
        for turn in chat["turns"]:
            assert set(turn) <= {"user", "wanted", "unwanted"}


def test_the_shipped_cards_are_trained_as_the_app_renders_them() -> None:
    assert set(cards.read_cards()) == set(cards.NAME_WORDS)
    for card in cards.read_cards().values():
        system, examples = cards.render(card, "You")
        rendered = [message.text for message in character_messages(Character(**card))]
        assert rendered == [system, *(text for pair in examples for text in pair)]


@pytest.mark.parametrize(("text", "check", "is_right"), [
    ("Your name is Ann.", Check("x", (("ann",),)), True),
    ("Your name is Joanne.", Check("x", (("Ann",),)), False),
    ("That is 13.", Check("x", (("3",),)), False),
    ("That is 3.", Check("x", (("3",),)), True),
    ("Ann and Bob", Check("x", (("Bob",),), ("Ann",)), False),
    ("By my beard! Yes.", Check("x", (("by my beard!",), ("yes",))), True),
])
def test_a_reply_is_judged_from_the_start_of_words(text: str, check: Check, is_right: bool) -> None:
    assert judge.passes(text, check) is is_right


def test_a_broken_word_is_found_and_a_word_of_the_prompt_is_not_broken() -> None:
    known = frozenset({"your", "name", "is"})
    assert judge.broken_words("Your name is Zorvikk", "I am Zorvik", known) == {"zorvikk"}
    assert not judge.broken_words("Your name is Zorvik's", "I am Zorvik", known)


@pytest.fixture(scope="module")
def hf_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


def test_training_spells_a_chat_exactly_as_the_template_renders_it(hf_tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for made in islice(documents(5, "held_out"), 60):
        if not made.text:
            ids, weights = tokens.encode(raw, made)
            assert ids == hf_tokenizer.apply_chat_template(made.messages(), tokenize=True, return_dict=False)
            assert len(weights) == len(ids)


def test_the_shipped_forms_weigh_at_most_25_megabytes_together() -> None:
    assert (FOLDER / "README.md").exists()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 25_000_000


def test_the_catalog_lists_both_forms() -> None:
    from modules.models.catalog import Catalog

    found = {file.name: file for file in Catalog([FOLDER.parent]).list() if file.name.startswith("starter")}
    assert {name: file.format for name, file in found.items()} == {"starter": "safetensors", "starter/starter-Q8_0": "gguf"}
    assert not any(file.problem for file in found.values())


def test_template_and_token_ids_agree_between_the_forms(hf_tokenizer: Any) -> None:
    import llama_cpp

    gguf = llama_cpp.Llama(str(GGUF), vocab_only=True, verbose=False)
    assert gguf.metadata["tokenizer.chat_template"] == hf_tokenizer.chat_template == tokens.TEMPLATE
    chats = [made.messages() for made in islice(documents(4, "held_out"), 40) if not made.text]
    rendered = [hf_tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    for text in TEXTS + rendered:
        expected = hf_tokenizer(text, add_special_tokens=True)["input_ids"]
        assert gguf.tokenize(text.encode(), add_bos=False, special=True) == expected
        assert gguf.detokenize(expected, special=True) == text.encode()
    assert gguf.token_eos() == hf_tokenizer.eos_token_id == tokens.END


@pytest.fixture(scope="module")
def speaker() -> TransformersSpeaker:
    return TransformersSpeaker(FOLDER, threads=1)


def ask(speaker: TransformersSpeaker, *said: str, system: str = "") -> list[Reply]:
    messages = [{"role": "system", "content": system}] if system else []
    replies = []
    for text in said:
        messages = [*messages, {"role": "user", "content": text}]
        replies.append(speaker.reply([messages], max_tokens=150)[0])
        messages.append({"role": "assistant", "content": replies[-1].text})
    return replies


def test_it_greets(speaker: TransformersSpeaker) -> None:
    reply = ask(speaker, "Hello!")[0]
    assert reply.has_stopped
    assert judge.passes(reply.text, Check("greet", (("hello", "hi", "good"),))), reply.text


def test_replies_stop_by_themselves(speaker: TransformersSpeaker) -> None:
    said = ("How are you?", "What is 2 plus 3?",
            "Tell me a story about Anna and a key.", "Name three animals.", "Explain genetics.")
    replies = [ask(speaker, text)[0] for text in said]
    assert all(reply.has_stopped and reply.text for reply in replies), replies


def test_it_answers_to_the_name_that_the_system_prompt_gives(speaker: TransformersSpeaker) -> None:
    reply = ask(speaker, "What is your name?", system="You are Clara, a baker.")[0]
    assert "Clara" in reply.text


def test_no_question_of_the_evaluation_is_longer_than_the_context(hf_tokenizer: Any) -> None:
    for question in held_out_questions(20):
        ids = hf_tokenizer.apply_chat_template(question.chat, tokenize=True, return_dict=False, add_generation_prompt=True)
        assert len(ids) + 200 <= 2048


def test_the_gguf_form_greets_and_stops() -> None:
    import llama_cpp

    gguf = llama_cpp.Llama(str(GGUF), n_ctx=256, n_threads=1, verbose=False)
    prompt = gguf.tokenize(b"<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", add_bos=False, special=True)
    done = gguf.create_completion(prompt, max_tokens=60, temperature=0)
    assert done["choices"][0]["finish_reason"] == "stop"
    assert judge.passes(done["choices"][0]["text"], Check("greet", (("hello", "hi", "good"),)))


def test_document_numbers_are_stable() -> None:
    """The shipped weights were trained on this very corpus; another one needs new weights or a new seed. Update with both."""
    import hashlib

    spelled = json.dumps([[made.text, made.messages()] for made in (document(1, i, "train") for i in range(200))])
    assert hashlib.sha256(spelled.encode()).hexdigest() == "da09be2b03c4757e598bcb820da3a0e1fd5b2de487d75ce2e295dd12251cae63"


@pytest.mark.slow
def test_the_shipped_weights_do_what_their_card_says() -> None:
    """Measured on fewer questions than the card's, so up to a tenth below it is chance."""
    rows = re.findall(r"^\| (\w+) \| ([\d.]+)% \|", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    promised = {key: float(value) / 100 for key, value in rows if key in KEYS}
    assert set(promised) == set(KEYS)
    with speaking(FOLDER, "f16") as speaker:
        scores, failed = evaluate(speaker, 30)
    below = {key: (round(scores[key], 3), value) for key, value in promised.items() if scores[key] < value - 0.1}
    assert not below, "\n".join(failed[:20])
