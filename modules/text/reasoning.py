"""Which marks a model puts around its reasoning, and whether a prompt ends inside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ReasoningMarks:
    """What opens and closes the reasoning channel.

    dropped: other marks that belong to neither channel. anywhere: whether reasoning may open after visible text; else only at
    the reply's start or right after other reasoning, so that a reply that merely mentions the mark stays whole.
    """

    open: str
    close: str
    dropped: tuple[str, ...] = ()
    anywhere: bool = False


HARMONY = ReasoningMarks(
    "<|channel|>analysis<|message|>", "<|end|>", anywhere=True,
    dropped=("<|start|>assistant", "<|channel|>final<|message|>", "<|channel|>commentary<|message|>", "<|end|>"))
SOLAR = ReasoningMarks("<|think|>", "<|end|>", dropped=("<|begin|>assistant", "<|content|>"))
KIMI = ReasoningMarks("<|open|>think<|sep|>", "<|close|>think<|sep|>",
                      dropped=("<|open|>response<|sep|>", "<|close|>response<|sep|>"))
MUSE = ReasoningMarks(" to=self<|message|>", "<|eom|>", anywhere=True,
                      dropped=("<|start|>assistant", " to=user<|message|>", "<|eom|>"))

# Marks, and the strings that must all be in the template. Order matters: what is rarer comes first.
_KNOWN: tuple[tuple[ReasoningMarks, tuple[str, ...]], ...] = (
    (HARMONY, ("<|channel|>", "analysis", "<|message|>")),
    (ReasoningMarks("<|channel>thought\n", "<channel|>"), ("<|channel>thought", "<channel|>")),
    (ReasoningMarks("<seed:think>", "</seed:think>"), ("</seed:think>",)),
    (ReasoningMarks("<mm:think>", "</mm:think>"), ("</mm:think>",)),
    (ReasoningMarks("[THINK]", "[/THINK]"), ("[THINK]", "[/THINK]")),
    (ReasoningMarks("<|START_THINKING|>", "<|END_THINKING|>"), ("<|END_THINKING|>",)),
    (ReasoningMarks("<|inner_prefix|>", "<|inner_suffix|>"), ("<|inner_suffix|>",)),
    (ReasoningMarks("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|end_of_thought|>",)),
    (ReasoningMarks("◁think▷", "◁/think▷"), ("◁/think▷",)),
    (KIMI, ("<|open|>", "<|close|>", "'think'")),
    (MUSE, ("to=self<|message|>", "<|eom|>")),
    (SOLAR, ("<|think|>", "<|content|>", "<|begin|>")),
    (ReasoningMarks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", dropped=("[END FINAL RESPONSE]",)),
     ("[BEGIN FINAL RESPONSE]",)),
    (ReasoningMarks("<think>", "</think>"), ("</think>",)),
    (ReasoningMarks("<thinking>", "</thinking>"), ("</thinking>",)),
    (ReasoningMarks("<reasoning>", "</reasoning>"), ("</reasoning>",)),
    (ReasoningMarks("<thought>", "</thought>"), ("</thought>",)),
)


def detect_marks(template: str, special_texts: Iterable[str]) -> ReasoningMarks | None:
    """The marks this model uses: those its template names, else those among its special tokens; None where it has none."""
    for marks, evidence in _KNOWN:
        if all(text in template for text in evidence):
            return marks
    special = set(special_texts)
    for marks, _ in _KNOWN:
        if marks.open.strip() in special and marks.close in special:
            return marks
    if {"<|channel|>", "<|message|>", "<|end|>"} <= special:
        return HARMONY
    return None


def starts_inside(prompt_text: str, marks: ReasoningMarks | None) -> bool:
    """Whether the prompt ends with the open mark (and white space), so that the reply begins as reasoning."""
    if marks is None:
        return False
    return prompt_text[-len(marks.open) - 64:].rstrip().endswith(marks.open.rstrip())
