"""The child of benchmarks/loaders.py: loads a model with the bare library, and writes a reply for each line that it reads.

    python -m benchmarks.loaders_bare LIBRARY MODEL OPTIONS

Says "ready" after one token; then, for each {"prompt": ids, "n": tokens}, the seconds to the first and from there to the last.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Takes a prompt and a number of tokens; seconds to the first token, and from there to the last.
Write = Callable[[list[int], int], tuple[float, float]]


def transformers(path: str, options: dict[str, Any]) -> Write:
    """from_pretrained() and generate(); GPTQ and AWQ too, which Transformers loads through GPTQModel where that is installed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    kinds = {"8bit": {"load_in_8bit": True},
             "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
                      "bnb_4bit_compute_dtype": getattr(torch, options["dtype"])}}
    asked: dict[str, Any] = {"dtype": getattr(torch, options["dtype"])}
    if options.get("quantization") in kinds:
        asked["quantization_config"] = BitsAndBytesConfig(**kinds[options["quantization"]])
    AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, **asked).eval()

    def write(prompt: list[int], n: int) -> tuple[float, float]:
        from benchmarks.transformers_speed import theirs

        times = theirs(model, prompt, n)
        return times.first, times.rest

    with torch.inference_mode():
        model(torch.tensor([[0]]))
    return write


def llama_cpp(path: str, options: dict[str, Any]) -> Write:
    """The class Llama and its generate()."""
    from llama_cpp import Llama

    threads = options["threads"] or None
    model = Llama(path, n_ctx=options["context"], n_batch=options["batch"], n_ubatch=options["ubatch"], n_threads=threads,
                  n_threads_batch=threads, flash_attn=options["flash_attention"] != "off", verbose=False)

    def write(prompt: list[int], n: int) -> tuple[float, float]:
        model.reset()
        came: list[float] = []
        started = time.perf_counter()
        for _ in model.generate(prompt, temp=0.0):
            came.append(time.perf_counter())
            if len(came) == n:
                break
        return came[0] - started, came[-1] - came[0]

    model.eval([1])
    return write


LIBRARIES = {"transformers": transformers, "gptq": transformers, "llama_cpp": llama_cpp}


def main() -> None:
    library, path, options = sys.argv[1:]
    write = LIBRARIES[library](path, json.loads(options))
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(write(order["prompt"], order["n"])), flush=True)


if __name__ == "__main__":
    main()
