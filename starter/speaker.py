"""Speakers: what evaluation talks to; today the Hugging Face folder through Transformers, later the app's own engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Reply:
    """What a model said; has_stopped is False where the length limit ended it."""

    text: str
    has_stopped: bool


class Speaker(Protocol):
    """The seam to a chat path.

    The caller gives chats as role and content dicts that end with a user's message, or plain texts to be continued. The speaker
    renders the model's own template,
and returns the replies in the same order. temperature 0 is greedy; equal seeds give equal text.     """

    def reply(self, chats: Sequence[list[dict[str, str]]], *, max_tokens: int = 200, temperature: float = 0.0,
        seed: int = 0) -> list[Reply]:
        """One reply to each chat."""
        ...


class TransformersSpeaker:
    """Speaks through Transformers' own generate, float32 on the CPU, chats of about one length together."""

    BATCH = 24

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def reply(self, chats: Sequence[list[dict[str, str]]], *, max_tokens: int = 200, temperature: float = 0.0,
        seed: int = 0) -> list[Reply]:
        """One reply to each chat, as Speaker says."""
        prompts = [self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, Reply] = {}
        for start in range(0, len(order), self.BATCH):
            group = order[start:start + self.BATCH]
            found.update(zip(group, self._generate([prompts[i] for i in group], max_tokens, temperature, seed), strict=True))
        return [found[i] for i in range(len(prompts))]

    def _generate(self, prompts: list[str], max_tokens: int, temperature: float, seed: int) -> list[Reply]:
        import torch

        torch.manual_seed(seed)
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        chance = {"do_sample": True, "temperature": temperature, "top_k": 0,
            "top_p": 1.0} if temperature else {"do_sample": False}
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=max_tokens, **chance)
        ends = set(self.model.generation_config.eos_token_id)
        replies = []
        for row in output[:, inputs["input_ids"].shape[1]:].tolist():
            stop = next((i for i, token in enumerate(row) if token in ends), None)
            replies.append(Reply(self.tokenizer.decode(row[:stop]), stop is not None))
        return replies
