"""The Transformers loader's text: bytes come back exactly, control tokens stay text unless meant, streams are never broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.transformers_parts.text import TokenText, byte_alphabet, incomplete_tail
from modules.core.loader import Loader
from modules.core.params import GenerationParams

from .hf_play import FOREIGN, MARKS, SHARED, ids_of, load, needs_shared, reply
from .tiny_models import tiny_hf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Loader]:
    loaded = load(folder)
    yield loaded
    loaded.close()


def test_spelled_control_tokens_stay_text_unless_they_are_meant(model: Loader) -> None:
    control = set(model.facts.special_tokens)
    assert len(control) == 5, "two marks of reasoning are control tokens although the tokenizer does not call them special"
    assert control.isdisjoint(model.tokenize(MARKS, control=False))
    assert control <= set(model.tokenize(MARKS, control=True))
    for how in (True, False):
        assert model.detokenize(model.tokenize(MARKS, control=how)) == MARKS.encode()


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back_byte_for_byte(model: Loader, text: str) -> None:
    assert model.detokenize(model.tokenize(text, control=False)) == text.encode()


@needs_shared
@pytest.mark.parametrize("name", ["models/stories260K-hf-f32", "models/babyllama-tok361-chatml-hf-f32"])
def test_sentencepiece_text_comes_back_byte_for_byte(name: str) -> None:
    loaded = load(SHARED / name)
    for text in ("Once upon a time", "a", " b", "", "  two", FOREIGN, MARKS, "</s><s><unk>", "tail "):
        ids = loaded.tokenize(text, control=False)
        assert loaded.detokenize(ids) == text.encode()
        assert set(loaded.facts.special_tokens).isdisjoint(ids)
    loaded.close()


@needs_shared
def test_a_real_tokenizer_of_a_chat_model_is_read_as_its_authors_meant() -> None:
    """minimind: ChatML, tool and think marks, of which the tokenizer calls some special and others not."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(SHARED / "vocab" / "minimind-hf"), local_files_only=True)
    text = TokenText(tokenizer, len(tokenizer))
    chat = "<|im_start|>user\nWhat is 12 × 7? 你好<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert text.tokenize(chat, control=True) == tokenizer(chat, add_special_tokens=False).input_ids
    assert {"<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"} <= set(text.control.values())
    plain = text.tokenize(chat, control=False)
    assert text.control.keys().isdisjoint(plain) and text.detokenize(plain) == chat.encode()


def streamed_equals_detokenized(loaded: Loader, prompt: list[int], n: int) -> None:
    tokens = reply(loaded, prompt, GenerationParams(seed=3, temperature=1.5, max_tokens=n, ban_eos=True))
    text = "".join(token.text for token in tokens)
    whole = loaded.detokenize([*prompt, *ids_of(tokens)])[len(loaded.detokenize(prompt)):]
    assert whole.decode("utf-8", "replace").startswith(text)
    assert len(whole) - len(text.encode()) <= 3 or "\ufffd" in text, "at most an incomplete character is held back"


def test_streamed_text_is_what_detokenizing_the_whole_gives(model: Loader) -> None:
    streamed_equals_detokenized(model, model.tokenize("Once upon", control=False), 300)


@needs_shared
def test_streamed_text_of_a_sentencepiece_model_keeps_its_leading_space() -> None:
    loaded = load(SHARED / "models" / "stories260K-hf-f32")
    prompt = [1, *loaded.tokenize("Once upon a time there was", control=False)]
    assert reply(loaded, prompt, GenerationParams(temperature=0, max_tokens=1))[0].text.startswith(" ")
    streamed_equals_detokenized(loaded, prompt, 200)
    loaded.close()


def test_a_reply_that_goes_on_inside_a_character_completes_it(model: Loader) -> None:
    ids = [model.tokenize(chr(0x1F642), control=False)]
    single = [id_ for id_ in range(model.facts.vocab_size) if len(model.detokenize([id_])) == 1]
    by_byte = {model.detokenize([id_])[0]: id_ for id_ in single}
    prompt = [5, *[by_byte[byte] for byte in "🙂".encode()[:3]]]
    last = by_byte["🙂".encode()[3]]
    token, = reply(model, prompt, GenerationParams(logit_bias={last: 1000.0}, max_tokens=1))
    assert (token.id, token.text) == (last, "🙂"), ids


@given(st.text(min_size=1, max_size=6))
def test_the_incomplete_tail_is_what_the_cut_character_has_so_far(text: str) -> None:
    whole = text.encode("utf-8", "ignore")
    for cut in range(len(whole) + 1):
        complete = whole[:cut].decode("utf-8", "ignore").encode()
        assert incomplete_tail(whole[:cut]) == whole[len(complete): cut]


def test_the_byte_alphabet_names_each_byte_once() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_a_template_in_a_file_of_its_own_is_found(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").write_text("{{ messages }}!")
    loaded = load(copy)
    assert loaded.facts.chat_template == "{{ messages }}!"
    loaded.close()


@pytest.mark.parametrize("how", ["Prepend", "Metaspace"])
def test_text_that_goes_on_gets_no_space_before_it(how: str) -> None:
    """A SentencePiece vocabulary's two ways to put a space first; the parts of a prompt must spell the whole, no more."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = {piece: id_ for id_, piece in enumerate(["<unk>", "▁", "a", "b", "▁a", "▁b"])}
    inner = Tokenizer(models.BPE(words, [("▁", "a"), ("▁", "b")], unk_token="<unk>"))
    if how == "Prepend":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)])
    text = TokenText(type("Fast", (), {"backend_tokenizer": inner})(), len(words))
    assert text.tokenize("a b", control=False) == [words["▁a"], words["▁b"]]
    assert text.tokenize("a b", control=False, first=False) == [words["a"], words["▁b"]]
    joined = text.tokenize("a", control=False) + text.tokenize(" b", control=False, first=False)
    assert joined == text.tokenize("a b", control=False)
