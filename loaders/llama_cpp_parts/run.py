"""One run of the GGUF loader: what it still has to evaluate, its samplers, and the text of what it samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modules.core.loader import FinishReason, Token

from .utf8 import Utf8, pending

if TYPE_CHECKING:
    from modules.sampling.speculation import Guesses

    from .cells import Seq
    from .chain import Chain
    from .context import Context
    from .vocabulary import Vocabulary

LONGEST_CHARACTER = 4  # bytes, and so at most as many tokens


@dataclass(eq=False, slots=True)
class Run:
    """Changed by the loader alone. next_token is the one to evaluate next once the prompt before it is done.

    A prompt's last token is evaluated by itself, like a sampled one: so its logits come from the same kernels whether the
    prompt before it was just computed or found in the cache. guesses: who guesses ahead, if anybody; guessed: what is checked
    in this step, evaluated after next_token. index: of next_token's output in the batch.
    """

    name: str
    prompt: list[int]
    seq: Seq
    chain: Chain
    n_cached: int
    max_tokens: int
    top_logprobs: int
    utf8: Utf8
    guesses: Guesses | None = None
    guessed: list[int] = field(default_factory=list)
    next_token: int = field(init=False)
    n_sampled: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        self.next_token = self.prompt[-1]

    @property
    def room(self) -> int:
        """How many guesses may be checked with the next token: none with the prompt's last one, nor past what is reserved."""
        left = self.seq.limit - len(self.seq.tokens) - 1
        left = min(left, self.max_tokens - self.n_sampled - 1) if self.max_tokens else left
        return max(0, left) if self.n_sampled else 0

    @property
    def n_to_prefill(self) -> int:
        """Prompt tokens to evaluate before the last one."""
        return 0 if self.n_sampled else len(self.prompt) - 1 - len(self.seq.tokens)


def decoder_after(prompt: Sequence[int], vocabulary: Vocabulary) -> Utf8:
    """A decoder that goes on inside a character where the prompt ends in one: a reply cut there is then continued whole."""
    return Utf8(pending(b"".join(map(vocabulary.piece, prompt[-LONGEST_CHARACTER:]))))


def token_text(token: int, utf8: Utf8, vocabulary: Vocabulary) -> str:
    """The text this token adds."""
    piece = vocabulary.pieces[token]
    if piece is None:
        piece = vocabulary.piece(token)
    if utf8.is_clean:
        text = vocabulary.texts[token]
        if text is not None:
            return text
    return utf8.feed(piece)


def token_with_alternatives(token: int, text: str, finish: FinishReason | None, run: Run, index: int, context: Context,
                            vocabulary: Vocabulary) -> Token:
    """The token with its log-probability and the most likely ones', from the model's logits before any sampler."""
    import numpy as np

    row = context.logits(index)
    highest = float(row.max())
    total = highest + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))
    n = min(run.top_logprobs, vocabulary.size)
    likely = np.argpartition(row, -n)[-n:]
    likely = likely[np.argsort(-row[likely], kind="stable")]
    top = tuple((int(i), vocabulary.text_of(int(i)), float(row[i]) - total) for i in likely)
    return Token(token, text, float(row[token]) - total, top, finish)
