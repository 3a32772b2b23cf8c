"""Frames and what is in them come out as they went in, wherever the stream is cut."""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.core import errors
from modules.core.errors import AppError, BadRequest, OutOfMemory
from modules.core.loader import ModelFacts, Prefilled, RunFailed, Token
from modules.core.params import PARAM_KNOBS, GenerationParams
from modules.worker import frames, messages
from modules.worker.frames import Admitted, Frame, FrameError, FrameReader, Waiting
from modules.worker.messages import Add, Answer, Call, Close, Events, Load, LoadError, Progress, Ready, Remove

SEVERAL = [Frame({"op": "close"}, b""), Frame({"a": "é\ud800\n", "b": [1, 2.5, None]}, b"\x00\xff raw"), Frame({}, b"x" * 300)]
STREAM = b"".join(frames.encode_frame(frame.header, frame.raw) for frame in SEVERAL)


def test_frames_survive_every_cut_in_two() -> None:
    for cut in range(len(STREAM) + 1):
        reader = FrameReader()
        assert reader.feed(STREAM[:cut]) + reader.feed(STREAM[cut:]) == SEVERAL


def test_frames_survive_byte_by_byte() -> None:
    reader = FrameReader()
    assert [frame for byte in STREAM for frame in reader.feed(bytes((byte,)))] == SEVERAL


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_survive_any_cuts(cuts: list[int]) -> None:
    reader = FrameReader()
    places = [0, *sorted(cuts), len(STREAM)]
    found = [f for start, stop in pairwise(places) for f in reader.feed(STREAM[start:stop])]
    assert found == SEVERAL


@pytest.mark.parametrize("lengths", [(frames.MAX_HEADER + 1, 0), (2, frames.MAX_RAW + 1), (2**32 - 1, 2**32 - 1)])
def test_a_length_over_its_limit_is_refused_before_anything_is_read(lengths: tuple[int, int]) -> None:
    with pytest.raises(FrameError, match="limits"):
        FrameReader().feed(struct.pack("<II", *lengths))


@pytest.mark.parametrize("header", [b"not json", b"[1]", b"\xff\xfe{", b"[" * 100_000])
def test_a_header_that_is_no_object_is_a_frame_error(header: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(struct.pack("<II", len(header), 0) + header)


def test_a_frame_too_large_to_read_is_not_written() -> None:
    with pytest.raises(FrameError):
        frames.encode_frame({}, bytes(frames.MAX_RAW + 1))


def through(command: messages.Command) -> messages.Command:
    (frame,) = FrameReader().feed(messages.encode(command))
    return messages.decode_command(frame)


def back(reply: messages.Reply) -> messages.Reply:
    (frame,) = FrameReader().feed(messages.encode(reply))
    return messages.decode_reply(frame)


CHANGED = GenerationParams(
    temperature=0.1 + 0.2, top_k=40, seed=2**32 - 2, stop=("\n", "é", ""), logit_bias={5: -100.0, 2**30: math.inf},
    dry_sequence_breakers=(), grammar='root ::= "x"', ban_eos=True, max_tokens=0)


@pytest.mark.parametrize("params", [GenerationParams(), CHANGED])
def test_params_travel_exactly(params: GenerationParams) -> None:
    command = through(Add("run", [1, 2**31 - 1, 0], params, "key\u2028"))
    assert command == Add("run", [1, 2**31 - 1, 0], params, "key\u2028")
    assert isinstance(command, Add)
    for name in PARAM_KNOBS:
        assert type(getattr(command.params, name)) is type(getattr(params, name)), name


def test_ids_that_are_none_are_refused() -> None:
    for wrong in (2**31, -(2**31) - 1):
        with pytest.raises(OverflowError):
            messages.encode(Add("run", [wrong], GenerationParams(), ""))


@pytest.mark.parametrize("command", [
    Load("echo", "/models/a b.gguf", {"context": 8, "rate": 1.5, "list": ("a", "b"), "map": {1: 2.0}, "none": None, "on": True}),
    Remove("run"), Close(),
    Call(3, "tokenize", (("<|im_end|>", True), ("", False)), []),
    Call(4, "logits", (0, 5), [1, 2, 3]), Call(5, "detokenize", (), []),
])
def test_commands_travel_exactly(command: messages.Command) -> None:
    assert through(command) == command


FACTS = ModelFacts(
    context=4096, vocab_size=32000, slots=4, chat_template="{{ x }}\n", bos_id=1, bos_text="<s>", eos_text="</s>", add_bos=True,
    eog_ids=(2, 7), special_tokens={1: "<s>", 2: "</s>"}, features=frozenset({"logits", "score"}),
    options={"a": (1,), "b": {2: "c"}}, memory_bytes=2**40, device="cpu")


@pytest.mark.parametrize("reply", [
    Progress(0.25, "Reading é"), Ready(FACTS), Ready(ModelFacts(context=1, vocab_size=1, slots=1)),
    Answer(7, b"\x00\x01", (2, 3)), Answer(8, b"", ()), Events(()), Events((), 12345.678901),
])
def test_replies_travel_exactly(reply: messages.Reply) -> None:
    assert back(reply) == reply


TOKENS = st.builds(
    Token, st.integers(0, 2**31 - 1), st.text(max_size=8), st.none() | st.floats(max_value=0, allow_nan=False),
    st.lists(st.tuples(st.integers(0, 9), st.text(max_size=3), st.floats(-9, 0)), max_size=3).map(tuple),
    st.sampled_from([None, "stop", "length"]))
EVENTS = TOKENS | st.builds(Waiting, st.integers(1, 99)) | st.builds(Admitted, st.integers(0, 99)) | st.builds(
    Prefilled, st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))


@given(st.lists(st.tuples(st.text(max_size=4), st.lists(EVENTS, min_size=1, max_size=6)), max_size=4))
def test_events_travel_exactly(runs: list[tuple[str, list[frames.WorkerEvent]]]) -> None:
    assert back(Events(tuple(runs), 0.25)) == Events(tuple(runs), 0.25)


def test_a_plain_token_costs_little_more_than_its_text() -> None:
    assert len(messages.encode(Events((("r", [Token(12345, " the")] * 101),)))) - len(
        messages.encode(Events((("r", [Token(12345, " the")]),)))) == 100 * len('[12345," the"],')


@pytest.mark.parametrize("kind", [kind for kind in errors._all_kinds(AppError) if kind.__module__ == AppError.__module__])
def test_every_error_keeps_its_kind(kind: type[AppError]) -> None:
    error = kind("What happened; what to do.", param="top_k", log="line\nline")
    reply = back(Events((("r", [RunFailed(error)]),)))
    assert isinstance(reply, Events)
    (event,) = reply.runs[0][1]
    assert isinstance(event, RunFailed)
    assert type(event.error) is kind and event.error.to_json() == error.to_json()


def test_load_and_call_errors_keep_their_kind() -> None:
    failed, answered = back(LoadError(OutOfMemory("Too large."))), back(Answer(1, error=BadRequest("No.", param="ids")))
    assert isinstance(failed, LoadError) and isinstance(failed.error, OutOfMemory)
    assert isinstance(answered, Answer) and isinstance(answered.error, BadRequest) and answered.error.param == "ids"


def test_equal_tokens_are_one_object_however_often_they_come() -> None:
    """Long replies used to be so many objects that Python's search for garbage stood in the way of the next one."""
    sent = frames.events_to_json([Token(5, " a"), Token(6, "b"), Token(5, " a"), Token(5, "a"), Token(5, " a", finish="stop")])
    one, two, three, other, last = frames.events_from_json(json.loads(json.dumps(sent)))
    assert one is three and one != two and other == Token(5, "a") and last == Token(5, " a", finish="stop")


def test_arrays_travel_bit_by_bit() -> None:
    sent = np.array([[math.nan, -math.inf, 1e-45], [0.1, -0.0, 3e38]], np.float32)
    answer = back(Answer(1, sent.tobytes(), sent.shape))
    assert isinstance(answer, Answer)
    assert np.frombuffer(answer.raw, np.float32).reshape(answer.shape).tobytes() == sent.tobytes()


@pytest.mark.parametrize("header", [
    {}, {"op": "unheard"}, {"op": 3}, {"op": "events"},
    {"op": "events", "runs": [["r", [[]]]]}, {"op": "events", "runs": [["r", 5]]},
    {"op": "events", "runs": [["r", [["unheard", 1]]]]}, {"op": "ready", "facts": {"d": [["unheard", 1]]}},
    {"op": "ready", "facts": {"x": []}}, {"op": "progress"}, {"op": "load_error", "error": 5}])
def test_what_is_no_reply_is_a_frame_error(header: dict[str, object]) -> None:
    with pytest.raises(FrameError):
        messages.decode_reply(Frame(header, b""))


@pytest.mark.parametrize(("header", "raw"), [
    ({"op": "events", "runs": []}, b""), ({"op": "add", "run": "r"}, b""), ({"op": "remove"}, b""),
    ({"op": "add", "run": "r", "params": {"d": []}, "key": ""}, b"123"),
    ({"op": "add", "run": "r", "params": {"d": [["unheard", 1]]}, "key": ""}, b""), ({"op": "load", "loader": "echo"}, b"")])
def test_what_is_no_command_is_a_frame_error(header: dict[str, object], raw: bytes) -> None:
    with pytest.raises(FrameError):
        messages.decode_command(Frame(header, raw))
