"""Writes the starter model's card: what it is, how it was made and measured, its limits, and chats nobody picked."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .evaluate import FOLDER, KEYS, speaking
from .samples import TEMPERATURE, samples

AIMS = {"facts": 90, "card": 95, "story": 85, "arithmetic": 95, "stops": 99, "words": 98, "handwritten": 80}
N_CHATS = 50
HEAD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# Starter, the model that ships with Colloquy

A model to load and talk to in the first minute, on any machine, offline. It is **tiny** ({parameters:,} parameters) and lives
in a small world of its own: greetings and small talk, remembering what you told it in this chat, playing a role that a system
prompt or a character's card gives it, sums up to 20, short stories with a name, an object and a twist, lists and choices. To
anything larger it says that it is a tiny starter model, and that the Model tab has the way to a real one. What of this it does
well, and what not, the table below says.

| | |
|---|---|
| Architecture | Llama: hidden {hidden_size}, feed-forward {intermediate_size}, {num_hidden_layers} layers, \
{num_attention_heads} heads and {num_key_value_heads} key/value heads of {head_dim}, tied embeddings, RoPE |
| Context | {max_position_embeddings:,} tokens; most training chats are shorter than 450, six in a thousand longer than 1,000 |
| Tokenizer | byte-level BPE of our own, {vocab_size:,} tokens, cut as GPT-2 does; no BOS; `<\\|im_end\\|>` ends a reply |
| Template | ChatML with a system role |
| Forms | `starter` (this folder, safetensors float16) and `starter-Q8_0.gguf` (made by `python -m modules.models.convert`) |
| Licence | Apache-2.0, weights and corpus generator alike |

## How it was made

No foreign weights and no foreign text: every sentence comes from the generator in `starter/` (`python -m starter.corpus`
prints some), which was written for this project. Document number *i* of a seed is always the same. An eighth of every wide
list of words and of the invented names, and a quarter of every list of phrasings (of four or more) are held out of training.
Sums are few, so only the ways to ask for them are held out, not their numbers. Replies are not held out: in evaluation the
model writes its own.

    python -m starter.train            # resumes from build/starter/checkpoint.pt, writes build/starter/model
    python -m modules.models.convert build/starter/model build/starter/model/starter-Q8_0.gguf --type q8_0

The first weights are random, but for one pair of attention heads that can already copy what followed a token before
(`starter/head_start.py`): left to chance, that takes more text than two CPU cores can train on. One document a row, batches
of about {batch_tokens:,} tokens, loss on replies and free text alone, drills in copying random tokens (many at first), Muon for
the matrices and AdamW for the rest, float32 on the CPU through torch.compile. These weights: {steps:,} steps, {millions:.1f}
million tokens, {minutes:.0f} minutes with two threads on two CPU cores that had other work now and then. {note}

## What is measured

`python -m starter.evaluate --count {count}`: greedy, through the app's own loader, template and prompt building, on held-out
names, words and phrasings; nf4 with {nf4_count} questions of each kind.

"""
MEANING = """
- **facts**: the reply holds a fact that the person told two or more turns earlier. **card**: the reply holds the name or the
  trade of the system prompt or card. **story**: the story holds the name, the object and the twist asked for. **arithmetic**:
  sums and differences within 0 to 20. In these four the chat before the question is the generator's.
- **stops**: the reply ended by itself within 200 tokens, over all replies. **words**: no word that is neither in the corpus'
  words nor in the prompt. **handwritten**: {n_handwritten} chats in `starter/handwritten.json`, written by hand, judged by the
  words named there.
- Below them more kinds of questions; `limits` is the kind refusal that names the Model tab, `unknown` a fact that was never told.

## Limits

It knows nothing but its small world, understands only English, and little of that, and is easily led astray by a sentence of
another shape. It makes things up. Its refusals are learned phrases, not safety training. Do not rely on anything it says.

## Fifty chats, sampled at temperature {temperature}, unpicked

The seed is also the number of the held-out document that gives the person's part; written by the Q8_0 form.

"""


def score_rows(scores: dict[str, dict[str, float]]) -> str:
    """The scores of all forms as a Markdown table, with the aims."""
    rows = ["| | " + " | ".join(scores) + " | aim |", "|---|" + "---|" * (len(scores) + 1)]
    for key in (*KEYS, *sorted(set(scores["f16"]) - set(KEYS))):
        aim = f"≥ {AIMS[key]} %" if key in AIMS else ""
        rows.append(f"| {key} | " + " | ".join(f"{form[key]:.1%}" for form in scores.values()) + f" | {aim} |")
    return "\n".join(rows) + "\n"


def card(config: dict[str, Any], training: dict[str, Any], measured: dict[str, Any], *, n_handwritten: int, note: str,
         chats: str) -> str:
    """The card's text; training is what `starter.train` wrote down, measured what `starter.evaluate --save` did."""
    facts = {**config, **training, **measured, "millions": training["tokens"] / 1e6, "minutes": training["seconds"] / 60,
             "note": note, "n_handwritten": n_handwritten, "temperature": TEMPERATURE}
    return (HEAD.format(**facts) + score_rows(measured["scores"]) + MEANING.format(**facts) + chats).rstrip() + "\n"


def main() -> None:
    """Write the card into the model's folder."""
    parser = argparse.ArgumentParser(description="Write the starter model's card from its training and its scores.")
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--training", type=Path, required=True, help="training.json beside the checkpoint")
    parser.add_argument("--scores", type=Path, required=True, help="what evaluate --save wrote")
    parser.add_argument("--note", default="", help="a sentence about this run")
    options = parser.parse_args()
    with speaking(options.model, "q8_0") as speaker:
        chats = samples(speaker, N_CHATS)
    handwritten = json.loads((Path(__file__).parent / "handwritten.json").read_text("utf-8"))
    read = {name: json.loads(path.read_text("utf-8")) for name, path in (
        ("config", options.model / "config.json"), ("training", options.training), ("measured", options.scores))}
    text = card(**read, n_handwritten=len(handwritten["chats"]), note=options.note, chats=chats)
    (options.model / "README.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
