"""Evaluates the starter model on the held-out part, greedy: `python -m starter.evaluate [--json]`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from modules.models.convert import convert

from . import judge
from .app_speaker import AppSpeaker
from .chat import Check
from .corpus import document
from .speaker import Reply, Speaker

FOLDER = Path(__file__).parents[1] / "models" / "starter"
HANDWRITTEN = Path(__file__).parent / "handwritten.json"
SEED = 1
KINDS = ("facts", "card", "story", "arithmetic")
MORE_KINDS = ("card_facts", "everyday", "unknown", "limits", "repeat", "choose", "short_story", "words")
KEYS = (*KINDS, "stops", "words", "handwritten")
FORMS = ("f16", "q8_0", "nf4")
MIN_TURNS_AGO = 2
MAX_CHARACTERS = 3400  # at most some 1,750 tokens with the marks: a longer chat and its reply may not fit the context
MAX_PER_DOCUMENT = 2  # of a kind, or the few very long chats would be most of the questions


@dataclass(frozen=True)
class Question:
    """A chat up to a person's message, and how the reply is judged."""

    chat: list[dict[str, str]]
    check: Check


def held_out_questions(n_each: int) -> list[Question]:
    """n_each questions of every kind from the held-out part, in its order; facts are MIN_TURNS_AGO turns old or older."""
    found: dict[str, list[Question]] = defaultdict(list)
    for index in count():
        made = document(SEED, index, "held_out")
        messages = made.messages()
        first = len(messages) - 2 * len(made.turns)
        taken: dict[str, int] = defaultdict(int)
        for i, turn in enumerate(made.turns):
            check, chat = turn.check, messages[:first + 2 * i + 1]
            if check is None or (check.kind == "facts" and check.turns_ago < MIN_TURNS_AGO):
                continue
            is_full = len(found[check.kind]) >= n_each or taken[check.kind] >= MAX_PER_DOCUMENT
            if is_full or sum(len(message["content"]) for message in chat) > MAX_CHARACTERS:
                continue
            taken[check.kind] += 1
            found[check.kind].append(Question(chat, check))
        if all(len(found[kind]) >= n_each for kind in (*KINDS, *MORE_KINDS)):
            return [question for kind in (*KINDS, *MORE_KINDS) for question in found[kind]]
    raise AssertionError("the held-out part has no end")


def held_out_scores(speaker: Speaker, n_each: int) -> tuple[dict[str, float], list[str]]:
    """Scores of every kind, of stopping and of whole words, as fractions; and a line for each reply that failed."""
    questions = held_out_questions(n_each)
    replies = speaker.reply([question.chat for question in questions])
    known = judge.lexicon(SEED)
    passed: dict[str, list[bool]] = defaultdict(list)
    failed = []
    for question, reply in zip(questions, replies, strict=True):
        is_right = judge.passes(reply.text, question.check)
        broken = judge.broken_words(reply.text, " ".join(message["content"] for message in question.chat), known)
        # "words" is also the kind of a turn that is judged by nothing else; its key counts whole words in all replies.
        passed[question.check.kind if question.check.kind != "words" else "talk"].append(is_right)
        passed["stops"].append(reply.has_stopped)
        passed["words"].append(not broken)
        if not (is_right and reply.has_stopped and not broken):
            failed.append(f"[{question.check.kind}] {question.chat[-1]['content']!r} -> {reply.text!r}; "
                          f"wanted {question.check.wanted}; broken {sorted(broken)}")
    return {kind: sum(values) / len(values) for kind, values in passed.items()}, failed


def handwritten_score(speaker: Speaker) -> tuple[float, list[str]]:
    """The share of the chats in handwritten.json that pass; the model's own replies stand in the history, as in real use.

    A chat passes when every reply with a rule keeps it, and every reply stops by itself.
    """
    body = json.loads(HANDWRITTEN.read_text("utf-8"))
    n_passed, failed = 0, []
    for chat in body["chats"]:
        messages = [{"role": "system", "content": chat["system"]}] if chat.get("system") else []
        replies: list[Reply] = []
        is_right = True
        for turn in chat["turns"]:
            messages.append({"role": "user", "content": turn["user"]})
            reply = speaker.reply([messages])[0]
            messages.append({"role": "assistant", "content": reply.text})
            replies.append(reply)
            rules = {key: turn[key] for key in ("wanted", "unwanted") if key in turn}
            is_right &= reply.has_stopped and judge.passes(reply.text, judge.check_from(rules, "handwritten"))
        n_passed += is_right
        if not is_right:
            failed.append(f"[handwritten] {chat['name']}: " + " | ".join(reply.text for reply in replies))
    return n_passed / len(body["chats"]), failed


def evaluate(speaker: Speaker, n_each: int) -> tuple[dict[str, float], list[str]]:
    """All scores, and a line for each failure."""
    scores, failed = held_out_scores(speaker, n_each)
    scores["handwritten"], failed_too = handwritten_score(speaker)
    return scores, failed + failed_too


@contextmanager
def speaking(folder: Path, form: str) -> Iterator[AppSpeaker]:
    """The model in one of FORMS, loaded by the app; the GGUF forms are made anew from the folder by the project's converter."""
    with tempfile.TemporaryDirectory() as made:
        path, options = folder, {"quantization": "4bit"}
        if form != "nf4":
            path, options = Path(made) / "starter.gguf", {}
            convert(folder, path, form)
        speaker = AppSpeaker(path, **options)
        try:
            yield speaker
        finally:
            speaker.close()


def table(found: dict[str, dict[str, float]]) -> str:
    """The scores of several forms beside each other."""
    keys = [*KEYS, *sorted({key for scores in found.values() for key in scores} - set(KEYS))]
    rows = ["             " + "".join(f"{form:>8}" for form in found)]
    rows += [f"{key:13}" + "".join(f"{scores[key]:8.1%}" for scores in found.values()) for key in keys]
    return "\n".join(rows)


def main() -> None:
    """Print the scores of the forms as a table, or with --json the seven keys of f16 as one object."""
    parser = argparse.ArgumentParser(description="Evaluate the starter model on the held-out part, greedy, through the app.")
    parser.add_argument("--model", type=Path, default=FOLDER, help="a Hugging Face folder")
    parser.add_argument("--count", type=int, default=100, help="questions of each kind")
    parser.add_argument("--nf4-count", type=int, default=25, help="the same for nf4, which is slow on a CPU; 0 leaves it out")
    parser.add_argument("--json", action="store_true", help="f16 alone, as JSON")
    parser.add_argument("--failures", action="store_true", help="print every reply that failed")
    parser.add_argument("--save", type=Path, help="write all scores there as JSON, for the model card")
    options = parser.parse_args()
    found = {}
    for form in FORMS[:1] if options.json else FORMS:
        n_each = options.nf4_count if form == "nf4" else options.count
        if n_each:
            with speaking(options.model, form) as speaker:
                found[form], failed = evaluate(speaker, n_each)
            for line in failed if options.failures else []:
                print(f"{form} {line}")
    if options.json:
        print(json.dumps({key: round(found["f16"][key], 4) for key in KEYS}))
        return
    print(table(found))
    if options.save is not None:
        options.save.write_text(json.dumps({"count": options.count, "nf4_count": options.nf4_count, "scores": found}), "utf-8")


if __name__ == "__main__":
    main()
