"""What every loader built on Transformers has in common: its usual options, and the last steps from a model to a loader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modules.core.knobs import setting
from modules.core.loader import Loader, Progress
from modules.sampling.speculation import Speculation

from .facts import FEATURES, USUAL_CONTEXT, describe

if TYPE_CHECKING:
    from .draft import HfDraft
    from .placement import Placement


AHEAD = ("Guesses tokens ahead and lets the model check several at once: faster where guesses are often right, and not tried "
         "where they are not.")
ALONE = "Used while one reply is written alone. Equal seeds may then give another text."


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
    cache: str = setting("choice", "dynamic", "KV cache", "dynamic: grows with the reply. static: takes its memory for the whole "
                         "context when a reply begins, so that none ends because memory ran out in its middle.",
                         choices=("dynamic", "static"))
    speculation: str = setting("choice", "none", "Speculation", f"{AHEAD} prompt_lookup guesses what the chat repeats. {ALONE}",
                               choices=("none", "prompt_lookup"))
    draft_tokens: int = setting("int", 8, "Draft tokens", "Most tokens guessed at once.", minimum=1, maximum=64)


def set_threads(threads: int) -> None:
    """Tell PyTorch how many threads to use; 0 leaves it its choice."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def finish(model: Any, tokenizer: Any, device: str, chosen: dict[str, Any], progress: Progress,
           features: frozenset[str] = FEATURES, draft: HfDraft | None = None,
           placement: Placement | None = None) -> Loader:
    """The loader of a model in inference mode on its device, tried once. chosen: the options as they came out so far.

    placement is closed with it. Raises LoadFailed where nobody can guess for it as the options say.
    """
    import torch

    from .draft import guessing
    from .forward import Forward
    from .runs import TransformersLoader
    from .text import TokenText

    progress(0.95, "Trying a forward pass")
    forward = Forward(model, device)
    vocab_size = len(forward.last_row([0], 0, forward.new_cache()))
    text = TokenText(tokenizer, vocab_size)
    attention = model.config._attn_implementation or chosen["attention"]
    speculation = Speculation(most=0)
    if chosen["speculation"] != "none":
        features -= {"repeatable"}
        speculation = guessing(forward, text, draft, most=chosen["draft_tokens"])
    options = {**chosen, "device": device, "threads": torch.get_num_threads(), "attention": attention}
    facts = describe(tokenizer, text, forward, options, vocab_size, features)
    forward.room = facts.context if chosen["cache"] == "static" else 0
    progress(1.0, "Ready")
    return TransformersLoader(forward, text, facts, speculation, on_close=placement.close if placement else None)
