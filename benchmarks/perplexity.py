"""Perplexity of every variant of the starter through our loader's `logits`, beside the same computed by the library alone.

    python -m benchmarks.perplexity       all variants, each side in a process of its own; ends with 1 where they differ

The text is the first held-out chats of the starter's corpus, each evaluated by itself and cut at 512 tokens. Only what the
assistant says is scored, as in training: what a person will say next the starter was never taught. Transformers is asked by
from_pretrained() and one forward pass a chat, llama.cpp by the class Llama.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gguf_quantize import gguf_of

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "models" / "starter"
WINDOW = 512
N_DOCUMENTS = 40
BAR = 1e-3  # of the library's perplexity
# Both sides alike: as the sums of the two must be the same, not as fast as they can be.
THREADS = 1


@dataclass(frozen=True)
class Variant:
    """A form of the starter: the loader with its options, or a GGUF type. gguf: "" for the safetensors folder."""

    loader: str
    options: dict[str, Any] = field(default_factory=dict)
    gguf: str = ""


GGUF_OPTIONS = {"context": 2 * WINDOW, "flash_attention": "off"}
VARIANTS = {
    "float32": Variant("transformers", {"dtype": "float32"}),
    "bfloat16": Variant("transformers", {"dtype": "bfloat16"}),
    "8bit": Variant("transformers", {"dtype": "float32", "quantization": "8bit"}),
    "4bit": Variant("transformers", {"dtype": "float32", "quantization": "4bit"}),
    "F16": Variant("llama_cpp", GGUF_OPTIONS, "F16"),
    "Q8_0": Variant("llama_cpp", GGUF_OPTIONS, "Q8_0"),
    "Q4_K_M": Variant("llama_cpp", GGUF_OPTIONS, "Q4_K_M"),
    "Q2_K": Variant("llama_cpp", GGUF_OPTIONS, "Q2_K")}


@dataclass(frozen=True)
class Text:
    """A chat's ids, at most WINDOW, and the places, from 1 on, of those that are scored."""

    ids: list[int]
    scored: list[int]


def windows() -> list[Text]:
    """The chats as the starter's template writes them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(STARTER / "tokenizer.json"))
    texts = []
    for chat in chats():
        ids: list[int] = []
        scored: list[int] = []
        for said in chat:
            begins = tokenizer.encode(f"<|im_start|>{said['role']}\n", add_special_tokens=False).ids
            content = tokenizer.encode(f"{said['content']}<|im_end|>", add_special_tokens=False).ids
            ids += begins
            if said["role"] == "assistant":
                scored += range(len(ids), len(ids) + len(content))
            ids += [*content, *tokenizer.encode("\n").ids]
        texts.append(Text(ids[:WINDOW], [place for place in scored if place < WINDOW]))
    return texts


def chats() -> list[list[dict[str, str]]]:
    """Messages of the corpus' first held-out chats; free texts among them are left out."""
    command = [sys.executable, "-m", "starter.corpus", "--split", "held_out", "--count", str(N_DOCUMENTS)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [body for body in map(json.loads, printed.splitlines()) if isinstance(body, list)]


def model_path(variant: Variant, folder: Path) -> Path:
    """The variant's model; a GGUF that does not ship is written into the folder."""
    if not variant.gguf:
        return STARTER
    shipped = STARTER / f"starter-{variant.gguf}.gguf"
    return shipped if shipped.exists() else gguf_of(STARTER, folder / shipped.name, variant.gguf)


def surprise(rows: np.ndarray, text: Text) -> float:
    """Summed -log p of the scored ids, from the (len(ids) - 1 or more, vocab) logits that stand before each."""
    import numpy as np

    places = np.array(text.scored)
    wide = rows[places - 1].astype(np.float64)
    highest = wide.max(1)
    log_sums = highest + np.log(np.exp(wide - highest[:, None]).sum(1))
    return float((log_sums - wide[np.arange(len(places)), np.array(text.ids)[places]]).sum())


def ours(variant: Variant, path: Path, texts: list[Text]) -> float:
    from modules.registry import find_loaders

    spec = find_loaders()[variant.loader]
    options = {**{name: knob.default for name, knob in spec.options.items()}, "threads": THREADS, **variant.options}
    loader = spec.load(str(path), options, lambda fraction, what: None)
    return sum(surprise(loader.logits(text.ids, 0, len(text.ids) - 1), text) for text in texts)


def transformers_alone(variant: Variant, path: Path, texts: list[Text]) -> float:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    torch.set_num_threads(THREADS)
    kinds = {"8bit": {"load_in_8bit": True}, "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                                      "bnb_4bit_use_double_quant": True}}
    asked: dict[str, Any] = {"dtype": getattr(torch, variant.options["dtype"])}
    if "quantization" in variant.options:
        asked["quantization_config"] = BitsAndBytesConfig(**kinds[variant.options["quantization"]])
    model = AutoModelForCausalLM.from_pretrained(str(path), local_files_only=True, **asked).eval()
    with torch.inference_mode():
        return sum(surprise(model(torch.tensor([text.ids])).logits[0].float().numpy(), text) for text in texts)


def llama_alone(variant: Variant, path: Path, texts: list[Text]) -> float:
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=WINDOW, n_batch=WINDOW, n_threads=THREADS, n_threads_batch=THREADS, logits_all=True,
                  verbose=False)
    total = 0.0
    for text in texts:
        model.reset()
        model.eval(text.ids)
        total += surprise(model.scores[:len(text.ids)], text)
    return total


SIDES = {"ours": {"transformers": ours, "llama_cpp": ours},
         "library": {"transformers": transformers_alone, "llama_cpp": llama_alone}}


def measure(name: str, side: str, path: Path, texts: list[Text]) -> float:
    """The variant's perplexity by one side, in a process of its own; raises RuntimeError where that fails."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.perplexity", "--one", name, side, str(path)], cwd=ROOT,
                          input=json.dumps([(text.ids, text.scored) for text in texts]), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}, {side}: {done.stderr[-2000:]}")
    total = float(done.stdout.splitlines()[-1])
    return math.exp(total / sum(len(text.scored) for text in texts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("VARIANT", "SIDE", "PATH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, side, path = given.one
        variant = VARIANTS[name]
        print(repr(SIDES[side][variant.loader](variant, Path(path), [Text(*both) for both in json.load(sys.stdin)])))
        return 0
    texts = windows()
    print(f"{len(texts)} chats, {sum(len(text.ids) for text in texts)} tokens, {sum(len(text.scored) for text in texts)} scored")
    print(f"{'':12}{'ours':>12}{'library':>12}{'ours / library - 1':>22}")
    is_equal = True
    with tempfile.TemporaryDirectory() as folder:
        for name, variant in VARIANTS.items():
            path = model_path(variant, Path(folder))
            mine, theirs = (measure(name, side, path, texts) for side in SIDES)
            print(f"{name:12}{mine:12.5f}{theirs:12.5f}{mine / theirs - 1:22.1e}", flush=True)
            is_equal = is_equal and abs(mine / theirs - 1) <= BAR
    if not is_equal:
        print(f"a variant differs by more than {BAR:g} of the library's perplexity")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
