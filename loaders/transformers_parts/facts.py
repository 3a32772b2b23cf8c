"""What a loaded Transformers model says of itself: context, template, the tokens that end a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modules.core.loader import ModelFacts

from .placement import where

if TYPE_CHECKING:
    from .forward import Forward
    from .text import TokenText

USUAL_CONTEXT = 16_384
UNKNOWN_CONTEXT = 2_048
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
FEATURES = frozenset({"tokenize", "logits", "score", "embed", "logprobs", "prefix_reuse", "batching", "repeatable"})


def describe(tokenizer: Any, text: TokenText, forward: Forward, options: dict[str, Any], vocab_size: int,
             features: frozenset[str]) -> ModelFacts:
    """The facts of a loaded model; `options` hold what was really chosen, and the context is filled in here."""
    config = forward.config.get_text_config()
    trained = next((int(value) for name in CONTEXT_NAMES if (value := getattr(config, name, None))), 0)
    context = min(trained or options["context"] or UNKNOWN_CONTEXT, options["context"] or USUAL_CONTEXT)
    template = tokenizer.chat_template
    template = template.get("default", "") if isinstance(template, dict) else template or ""
    bos_id = tokenizer.bos_token_id
    return ModelFacts(
        context=context, vocab_size=vocab_size, slots=options["slots"], chat_template=template, bos_id=bos_id,
        bos_text=tokenizer.bos_token or "", eos_text=tokenizer.eos_token or "", add_bos=text.adds_bos(bos_id),
        eog_ids=end_ids(tokenizer, text, forward.model, template, vocab_size),
        special_tokens={id_: spelling for id_, spelling in text.control.items() if id_ < vocab_size}, features=features,
        options={**options, "context": context}, memory_bytes=_held_bytes(forward.model),
        device=where(forward.model, options["device"]))


def _held_bytes(model: Any) -> int:
    """Bytes of weights and buffers, without what is on disk. What torchao packs says the size of the numbers it stands for, so
    its parts are counted."""
    def size(tensor: Any) -> int:
        if hasattr(tensor, "__tensor_flatten__"):
            return sum(size(getattr(tensor, part)) for part in tensor.__tensor_flatten__()[0])
        return 0 if tensor.device.type == "meta" else int(tensor.nbytes)

    return sum(size(tensor) for tensor in (*model.parameters(), *model.buffers()))


def end_ids(tokenizer: Any, text: TokenText, model: Any, template: str, vocab_size: int) -> tuple[int, ...]:
    """Every token that ends a reply: of generation_config, config and tokenizer, and those its chat template ends a turn with."""
    found: set[int] = set(text.ends_of_turn(template))
    for source in (model.generation_config, model.config, model.config.get_text_config(), tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids])
    return tuple(sorted(id_ for id_ in found if 0 <= id_ < vocab_size))
