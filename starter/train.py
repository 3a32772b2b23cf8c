"""Trains the starter model from scratch: `python -m starter.train --steps 2400`, resuming from its last checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import forward, head_start
from . import tokenizer as tokens
from .batches import CONTEXT, EARLY_CHUNKS, Position, Source, batches

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

ROOT = Path(__file__).parents[1]
LOG_EVERY = 25
FALL = 0.6  # the share of the steps in which the rate falls
LOOKING = ("q_proj.weight", "k_proj.weight")
LOOKING_SHARE = 0.35  # with the rate of the others attention was one-hot in every layer after 700 steps
# These begin with rows of length 1: from Transformers' 0.02 attention was still uniform after 100 steps.
WIDE = (*LOOKING, "v_proj.weight", "gate_proj.weight", "up_proj.weight")
LAYERS = "model.layers."
ADDING = ("o_proj.weight", "down_proj.weight")  # what a layer adds comes out of these; at zero it adds nothing


@dataclass(frozen=True)
class Plan:
    """What a run is made of; a checkpoint of another plan is not resumed, but steps may change on the way.

    rate is AdamW's, matrix_rate Muon's.
    """

    seed: int = 1
    steps: int = 4000
    batch_tokens: int = 4096
    rate: float = 3e-3
    matrix_rate: float = 0.02
    warmup: int = 80
    hidden: int = 256
    feed_forward: int = 768
    layers: int = 6
    vocabulary: int = tokens.VOCABULARY

    @property
    def source(self) -> Source:
        return Source(self.seed, self.batch_tokens)


def build(plan: Plan) -> LlamaForCausalLM:
    """The model with its first weights in float32, random but for `head_start`; equal plans give equal weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(plan.seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=plan.vocabulary, hidden_size=plan.hidden, intermediate_size=plan.feed_forward, num_hidden_layers=plan.layers,
        num_attention_heads=plan.hidden // 64, num_key_value_heads=plan.hidden // 128, head_dim=64, tie_word_embeddings=True,
        max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, bos_token_id=tokens.END_OF_TEXT, eos_token_id=tokens.END,
        pad_token_id=tokens.END_OF_TEXT))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(WIDE):
                weight.normal_(0.0, plan.hidden ** -0.5)
    common = head_start.quiet(model)
    if plan.layers > 1:
        head_start.heads(model, common)
    return model


def optimizers(model: LlamaForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embedding and norms."""
    import torch

    from .muon import Muon

    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    looking = [weight for name, weight in model.named_parameters() if name.endswith(LOOKING)]
    rest = [weight for weight in matrices if all(weight is not other for other in looking)]
    return [Muon(rest, lr=plan.matrix_rate, weight_decay=0.05),
            Muon(looking, lr=LOOKING_SHARE * plan.matrix_rate, weight_decay=0.05),
            torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0)]


def share_of_rate(plan: Plan, step: int) -> float:
    """Linear warm-up, the full rate, and a linear fall to 2 % over the last part.

    Unlike a cosine it lets a run be made shorter or longer on the way, by resuming with other steps before the fall begins.
    """
    falls_from = plan.steps * (1 - FALL)
    return min(1.0, (step + 1) / plan.warmup, 0.02 + 0.98 * (plan.steps - step) / (plan.steps - falls_from))


def fill(model: LlamaForCausalLM, folder: Path) -> None:
    """Give the model the weights of an exported folder, which may have fewer layers; raises ValueError where the rest differs.

    Layers that the folder lacks are spread among its own, each a copy of the one before it that adds nothing at first (block
    expansion, Wu et al. 2024, "LLaMA Pro"), so that the deeper model begins where the other ended.
    """
    import torch
    from transformers import LlamaForCausalLM

    given = LlamaForCausalLM.from_pretrained(folder, dtype="float32")
    n_given, n_layers = given.config.num_hidden_layers, model.config.num_hidden_layers
    sources = [number * n_given // n_layers for number in range(n_layers)]
    found = given.state_dict()
    wanted = {name: weight.shape for name, weight in model.state_dict().items()}
    filled: dict[str, torch.Tensor] = {}
    for name in wanted:
        head, _, rest = name.removeprefix(LAYERS).partition(".")
        source = f"{LAYERS}{sources[int(head)]}.{rest}" if name.startswith(LAYERS) else name
        is_again = name.startswith(LAYERS) and int(head) > 0 and sources[int(head)] == sources[int(head) - 1]
        if source not in found or found[source].shape != wanted[name] or n_given > n_layers:
            raise ValueError(f"The weights in {folder} are of another shape than the plan's. Repeat the options they were made "
                             "with; only more layers can be added.")
        filled[name] = torch.zeros_like(found[source]) if is_again and rest.endswith(ADDING) else found[source]
    model.load_state_dict(filled)


class Run:
    """A training run: weights, optimizers and how far it is; one thread owns it."""

    def __init__(self, plan: Plan, path: Path, *, weights: Path | None = None, device: str = "cpu",
                 is_compiled: bool = True) -> None:
        """Go on from the checkpoint at `path`, or begin: with the weights of the Hugging Face folder `weights`, or anew.

        device: as torch names it; a checkpoint goes on on any.

        Raises ValueError where the checkpoint or the folder is of another plan.
        """
        import torch

        self.plan, self.path, self.device = plan, path, device
        self.model = build(plan).train().to(device)
        self.weights = forward.weights_of(self.model)
        self.turns = tuple(table.to(device) for table in forward.rotations(self.model.config, CONTEXT))
        self.loss = torch.compile(forward.loss, dynamic=True) if is_compiled else forward.loss
        self.optimizers = optimizers(self.model, plan)
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.step, self.position, self.seconds, self.tokens = 0, Position(), 0.0, 0
        if not path.exists():
            if weights is not None:
                fill(self.model, weights)
                self.position = Position(EARLY_CHUNKS)
            return
        state = torch.load(path, weights_only=True, map_location=device)
        if {**state["plan"], "steps": plan.steps} != asdict(plan):
            raise ValueError(f"{path} belongs to another plan ({state['plan']}). Move it away or repeat its options.")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.position, self.seconds, self.tokens = (
            state["step"], Position(**state["position"]), state["seconds"], state["tokens"])
        print(f"resuming at step {self.step}", flush=True)

    def advance(self, position: Position, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """One step on one batch; returns its loss, a number on the device: reading it waits for the step."""
        import torch

        share = share_of_rate(self.plan, self.step)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * share
        shares = weights[:, 1:].flatten()
        places = shares.nonzero().flatten()
        flat = places // (ids.shape[1] - 1) * ids.shape[1] + places % (ids.shape[1] - 1)  # among all tokens, not all but the last
        given = (each.to(self.device) for each in (ids, flat, ids.flatten()[flat + 1], shares[places]))
        loss = self.loss(self.weights, self.model.config, self.turns, *given)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step, self.position, self.tokens = self.step + 1, position, self.tokens + ids.numel()
        return loss.detach()

    def save(self) -> None:
        """Write the checkpoint so that a kill at any moment leaves the old or the new one whole."""
        import torch

        part = self.path.with_suffix(".part")
        with part.open("wb") as file:
            torch.save({"plan": asdict(self.plan), "model": self.model.state_dict(), "step": self.step, "seconds": self.seconds,
                        "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                        "position": asdict(self.position), "tokens": self.tokens}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)


def train(plan: Plan, work: Path, *, threads: int, save_every: int, weights: Path | None = None, device: str = "cpu",
          processes: int = 0, is_compiled: bool = True) -> Run:
    """Run the plan to its end, or what is left of it; prints the mean loss of the last LOG_EVERY steps, and speed.

    processes: see `batches.batches`. On a GPU matrices are multiplied in TensorFloat-32.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest" if device == "cpu" else "high")
    tokens.load_tokenizer(work / "tokenizer.json", plan.seed)
    run = Run(plan, work / "checkpoint.pt", weights=weights, device=device, is_compiled=is_compiled)
    losses: list[torch.Tensor] = []
    since, tokens_then = time.monotonic(), run.tokens
    for position, ids, shares in batches(work / "tokenizer.json", plan.source, run.position, processes=processes):
        if run.step >= plan.steps:
            break
        losses.append(run.advance(position, ids, shares))
        is_last = run.step == plan.steps
        if run.step % LOG_EVERY == 0 or is_last:
            loss = float(torch.stack(losses).mean())
            passed = time.monotonic() - since
            run.seconds += passed
            print(f"step {run.step}/{plan.steps}  loss {loss:.4f}  "
                  f"{(run.tokens - tokens_then) / passed:.0f} tokens/s  "
                  f"{run.tokens / 1e6:.2f} M tokens  {run.seconds / 60:.1f} min", flush=True)
            losses.clear()
            since, tokens_then = time.monotonic(), run.tokens
        if run.step % save_every == 0 or is_last:
            run.save()
    run.model.cpu().eval()
    return run


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model as a Hugging Face folder in float16, with tokenizer, template and generation settings."""
    import torch
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokens.END_OF_TEXT, eos_token_id=[tokens.END, tokens.END_OF_TEXT], pad_token_id=tokens.END_OF_TEXT)
    model.to(torch.float16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    tokens.for_transformers(tokenizer, CONTEXT).save_pretrained(folder)


def main() -> None:
    """Train, then export to --out."""
    plan = Plan()
    parser = argparse.ArgumentParser(description="Train the starter model from scratch, or go on from its checkpoint.")
    for name, value in asdict(plan).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "starter", help="where tokenizer and checkpoint live")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "starter" / "model", help="the Hugging Face folder to write")
    parser.add_argument("--weights", type=Path, help="a Hugging Face folder to begin with where there is no checkpoint")
    parser.add_argument("--device", default="cpu", help="as PyTorch names it: cpu, cuda, mps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=0, help="make the text in so many processes beside; for GPUs")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    options = parser.parse_args()
    plan = Plan(**{name: getattr(options, name) for name in asdict(plan)})
    if options.weights is not None and not (options.work / "tokenizer.json").exists():
        options.work.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.weights / "tokenizer.json", options.work / "tokenizer.json")
    run = train(plan, options.work, threads=options.threads, save_every=options.save_every, weights=options.weights,
                device=options.device, processes=options.processes)
    export(run.model, tokens.load_tokenizer(options.work / "tokenizer.json", plan.seed), options.out)
    (options.work / "training.json").write_text(json.dumps({
        **asdict(plan), "tokens": run.tokens, "seconds": run.seconds, "parameters": run.model.num_parameters()}), "utf-8")
    print(f"written to {options.out}", flush=True)


if __name__ == "__main__":
    main()
