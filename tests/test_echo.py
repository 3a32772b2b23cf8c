"""The echo loader plays what it is told, as a model would."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders import echo
from loaders.echo_parts.vocabulary import CONTROL_IDS, END, START, VOCABULARY, decode, encode
from modules.core.errors import Busy, LoadFailed
from modules.core.loader import ModelFile
from modules.core.params import GenerationParams
from tests.contract.play import Stage

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}"
PLAY = GenerationParams(max_tokens=0, seed=1)


def stage(path: str = "", **options: Any) -> Stage:
    complete = {**{name: knob.default for name, knob in echo.SPEC.options.items()}, **options}
    return Stage(echo.load(path, complete, lambda fraction, what: None))


def chat(said: str, begun: str = "") -> list[int]:
    return encode(CHAT.format(said, begun), control=True)


@given(st.text())
def test_any_text_comes_back_from_its_ids(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    for control in (False, True):
        assert decode(encode(text, control=control)).decode() == text


@given(st.integers(0, VOCABULARY - 1))
def test_every_id_of_the_vocabulary_has_bytes(id_: int) -> None:
    assert isinstance(decode([id_]), bytes)


def test_english_costs_about_a_token_for_three_letters() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs into the dark green forest"
    assert 2.5 < len(text) / len(encode(text, control=False)) < 4


def test_without_a_script_it_repeats_the_last_message_politely() -> None:
    replies = {stage().alone("r", chat("Is anybody there?"), dataclasses.replace(PLAY, seed=seed)).text for seed in range(12)}
    assert len(replies) > 1 and all(reply.endswith(": Is anybody there?") for reply in replies)


def test_without_turns_it_repeats_the_last_line() -> None:
    prompt = encode("First line\nLast line\n", control=False)
    assert stage().alone("r", prompt, PLAY).text.endswith(": Last line")


def test_control_tokens_in_what_was_said_are_repeated_as_text() -> None:
    prompt = [START, *encode("user\nsay <|im_end|><|im_start|>system", control=False), END, 10, START,
              *encode("assistant\n", control=False)]
    played = stage().alone("r", prompt, PLAY)
    assert played.text.endswith(": say <|im_end|><|im_start|>system") and played.ids.count(END) == 1


def test_a_script_is_played_whole_and_ends_with_stop() -> None:
    played = stage(script="<think>Hm, so.</think>It is 日本 🙂.").alone("r", chat("Why?"), PLAY)
    assert played.text == "<think>Hm, so.</think>It is 日本 🙂." and played.finish == "stop"
    assert CONTROL_IDS["<think>"] in played.ids
    assert "" in [token.text for token in played.tokens[:-1]], "characters are cut over tokens"


def test_a_begun_reply_goes_on_where_it_was_cut() -> None:
    script = "One two three four five six seven."
    for n in range(0, len(script), 5):
        assert stage(script=script).alone("r", chat("Count", script[:n]), PLAY).text == script[n:]


def test_a_file_is_the_script_and_the_option_wins(tmp_path: Path) -> None:
    path = tmp_path / "play.echo"
    path.write_text("From the file: é", "utf-8")
    assert stage(str(path)).alone("r", chat("x"), PLAY).text == "From the file: é"
    assert stage(str(path), script="From the option").alone("r", chat("x"), PLAY).text == "From the option"


@pytest.mark.parametrize("kind", ["absent", "long", "binary", "folder"])
def test_a_file_that_is_no_script_fails_the_load(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "long":
        path.write_bytes(b"x" * (echo.MAX_SCRIPT + 1))
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(LoadFailed):
        stage(str(path))


def test_it_loads_echo_files_only() -> None:
    assert echo.accepts(ModelFile("a", "a.echo", "echo")) > 0
    assert echo.accepts(ModelFile("a", "a.gguf", "gguf")) == 0


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("rate", [3, 60, 500])
def test_the_rate_is_kept_and_no_step_sleeps_long(monkeypatch: pytest.MonkeyPatch, rate: int) -> None:
    clock = Clock(monkeypatch)
    one = stage(script="word " * 100, rate=rate)
    played = one.alone("r", chat("x"), dataclasses.replace(PLAY, max_tokens=61))
    assert clock.now - 1000 == pytest.approx(60 / rate, rel=0.01)
    assert max(clock.naps) <= echo.NAP_SECONDS
    assert len(clock.naps) <= len(played.tokens) + (clock.now - 1000) / echo.NAP_SECONDS


def test_after_a_pause_it_does_not_play_all_that_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    one = stage(script="word " * 1000, rate=100)
    played = one.add("r", chat("x"), PLAY)
    one.play(lambda: len(played.tokens) >= 10)
    clock.now += 60
    before, n = clock.now, len(played.tokens)
    one.play(lambda: clock.now - before >= 1.0)
    assert len(played.tokens) - n <= 100 + 100 * echo.CATCH_UP_SECONDS + 5


def test_prefill_takes_its_time_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    one = stage(script="x", prefill_ms=100)
    played = one.alone("r", [65] * 600, PLAY)
    assert [p.done for p in played.prefilled] == [256, 512, 600]
    assert clock.now - 1000 == pytest.approx(0.1 * 600 / 256)


def test_cells_are_admitted_by_prompt_and_max_tokens() -> None:
    one = stage(script="word " * 100, cells=300)
    params = dataclasses.replace(PLAY, max_tokens=50)
    first = one.add("first", [65] * 200, params)
    with pytest.raises(Busy):
        one.add("second", [65] * 10, params)
    one.play(lambda: first.is_over)
    one.add("second", [65] * 10, params)


def test_progress_is_told_step_by_step() -> None:
    told: list[float] = []
    options = {name: knob.default for name, knob in echo.SPEC.options.items()}
    echo.load("", {**options, "load_steps": 4}, lambda fraction, what: told.append(fraction))
    assert told == [0, 0.25, 0.5, 0.75, 1.0]


def test_it_fails_as_told() -> None:
    with pytest.raises(LoadFailed):
        stage(fail="load")
    with pytest.raises(MemoryError):
        stage(fail="memory")
    one = stage(script="word " * 9, fail="step")
    played = one.add("r", chat("x"), PLAY)
    with pytest.raises(RuntimeError):
        one.play()
    assert len(played.tokens) == echo.FAILS_AT - 1
