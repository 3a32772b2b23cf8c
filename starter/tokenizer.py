"""The starter model's tokenizer: a byte-level BPE trained on the corpus, with ChatML marks and a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .corpus import Document, document

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 2048  # 8 * 256, so that every quantizer's blocks fit the output rows too
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, START, END = range(3)  # their ids
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def train_tokenizer(seed: int, n_documents: int = 20_000) -> Tokenizer:
    """A BPE of VOCABULARY tokens from the first documents of the training part; cut into words as GPT-2 does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIALS), show_progress=False, min_frequency=2,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    made = (document(seed, i, "train") for i in range(n_documents))
    tokenizer.train_from_iterator(
        (text for item in made for text in ([item.text] if item.text else [message["content"] for message in item.messages()])),
         trainer)
    return tokenizer


def load_tokenizer(path: Path, seed: int) -> Tokenizer:
    """The tokenizer at `path`, trained and written there first where it is missing."""
    from tokenizers import Tokenizer

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train_tokenizer(seed).save(str(path))
    return Tokenizer.from_file(str(path))


def for_transformers(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """The same tokenizer as Transformers saves it; it adds no token of its own to a text."""
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SPECIALS[END_OF_TEXT], eos_token=SPECIALS[END],
                                   pad_token=SPECIALS[END_OF_TEXT], model_max_length=context, clean_up_tokenization_spaces=False)
    made.chat_template = TEMPLATE
    return made


def encode(tokenizer: Tokenizer, made: Document) -> tuple[list[int], list[float]]:
    """Token ids of a document and each one's weight in the loss, which counts replies and free text alone.

    A chat is spelled exactly as TEMPLATE renders it.
    """
    if made.text:
        ids = [*tokenizer.encode(made.text).ids, END_OF_TEXT]
        return ids, [1.0] * len(ids)
    ids, weights = [], []
    newline = tokenizer.encode("\n").ids
    for message in made.messages():
        role = message["role"]
        body = tokenizer.encode(f"{role}\n{message['content']}").ids
        n_head = len(tokenizer.encode(f"{role}\n").ids)
        is_reply = role == "assistant"
        ids += [START, *body, END, *newline]
        weights += [0.0] * (1 + n_head) + [1.0 if is_reply else 0.0] * (len(body) - n_head + 1) + [0.0] * len(newline)
    return ids, weights
