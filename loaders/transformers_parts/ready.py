"""What every loader built on Transformers has in common: its usual options, and the last steps from a model to a loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modules.core.knobs import setting
from modules.core.loader import Loader, Progress

from .facts import FEATURES, USUAL_CONTEXT, describe


@dataclass(frozen=True)
class CommonOptions:
    context: int = setting("int", 0, "Context", "Tokens of prompt and reply together; 0 is what the model was trained for, at "
                           f"most {USUAL_CONTEXT}.", minimum=0, maximum=2**24)
    slots: int = setting("int", 4, "Slots", "How many replies are written at once; each keeps a KV cache of its own.", minimum=1,
                         maximum=64)
    attention: str = setting("choice", "auto", "Attention", "The attention kernel; flash_attention_2 needs the flash-attn "
                             "package and a GPU.", choices=("auto", "sdpa", "eager", "flash_attention_2"))
    threads: int = setting("int", 0, "Threads", "CPU threads; 0 is PyTorch's choice, the physical cores.", minimum=0,
                           maximum=1024)


def set_threads(threads: int) -> None:
    """Tell PyTorch how many threads to use; 0 leaves it its choice."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def finish(model: Any, tokenizer: Any, device: str, chosen: dict[str, Any], progress: Progress,
           features: frozenset[str] = FEATURES) -> Loader:
    """The loader of a model in inference mode on its device, tried once. chosen: the options as they came out so far."""
    import torch

    from .forward import Forward
    from .runs import TransformersLoader
    from .text import TokenText

    progress(0.95, "Trying a forward pass")
    forward = Forward(model, device)
    vocab_size = len(forward.last_row([0], 0, forward.new_cache()))
    text = TokenText(tokenizer, vocab_size)
    attention = model.config._attn_implementation or chosen["attention"]
    options = {**chosen, "device": device, "threads": torch.get_num_threads(), "attention": attention}
    facts = describe(tokenizer, text, forward, options, vocab_size, features)
    progress(1.0, "Ready")
    return TransformersLoader(forward, text, facts)
