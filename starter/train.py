"""Trains the starter model from scratch: `python -m starter.train --steps 2400`, resuming from its last checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import drills, forward, head_start
from . import tokenizer as tokens
from .corpus import document

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

ROOT = Path(__file__).parents[1]
CONTEXT = 2048
LOG_EVERY = 25
FALL = 0.6  # the share of the steps in which the rate falls
LOOKING = ("q_proj.weight", "k_proj.weight")
LOOKING_SHARE = 0.35  # with the rate of the others attention was one-hot in every layer after 700 steps
# These begin with rows of length 1: from Transformers' 0.02 attention was still uniform after 100 steps.
WIDE = (*LOOKING, "v_proj.weight", "gate_proj.weight", "up_proj.weight")
EARLY_CHUNKS = 4  # the first chunks have many drills in copying, the later ones few
EARLY_DRILLS, LATER_DRILLS = 1000, 120  # a chunk
CHUNK = 768  # documents sorted by length together: enough that a batch's rows are almost of one length


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


@dataclass(frozen=True)
class Position:
    """Where in the corpus a run stands: the next batch of the next chunk."""

    chunk: int = 0
    batch: int = 0


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


def batches(tokenizer: Tokenizer, plan: Plan, start: Position) -> Iterator[tuple[Position, torch.Tensor, torch.Tensor]]:
    """Batches of (ids, weights), both (rows, length), and the position after each.

    A row is one whole document and nothing else, as a chat meets the model in use: no text of another is in sight.
    """
    import torch

    chunk = start.chunk
    while True:
        encoded = [tokens.encode(tokenizer, document(plan.seed, chunk * CHUNK + i, "train")) for i in range(CHUNK)]
        n_drills = EARLY_DRILLS if chunk < EARLY_CHUNKS else LATER_DRILLS
        shares = drills.frequencies(encoded, plan.vocabulary)
        encoded += drills.drills(f"{plan.seed}/{chunk}", n_drills, shares, tokenizer)
        encoded.sort(key=lambda item: len(item[0]))
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for ids, weights in encoded:
            if (len(groups[-1]) + 1) * min(len(ids), CONTEXT) > plan.batch_tokens and groups[-1]:
                groups.append([])
            groups[-1].append((ids[:CONTEXT], weights[:CONTEXT]))
        random.Random(f"{plan.seed}/{chunk}").shuffle(groups)
        for number, group in enumerate(groups):
            if chunk == start.chunk and number < start.batch:
                continue
            length = -(-max(len(ids) for ids, _ in group) // 32) * 32
            ids_rows = [ids + [tokens.END_OF_TEXT] * (length - len(ids)) for ids, _ in group]
            weight_rows = [weights + [0.0] * (length - len(weights)) for _, weights in group]
            yield Position(chunk, number + 1), torch.tensor(ids_rows), torch.tensor(weight_rows)
        chunk += 1


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
    """Give the model the weights of an exported folder; raises ValueError where they are of another shape."""
    from transformers import LlamaForCausalLM

    found = LlamaForCausalLM.from_pretrained(folder, dtype="float32").state_dict()
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    if {name: weight.shape for name, weight in found.items()} != shapes:
        raise ValueError(f"The weights in {folder} are of another shape than the plan's. Repeat the options they were made with.")
    model.load_state_dict(found)


class Run:
    """A training run: weights, optimizers and how far it is; one thread owns it."""

    def __init__(self, plan: Plan, path: Path, *, weights: Path | None = None, is_compiled: bool = True) -> None:
        """Go on from the checkpoint at `path`, or begin: with the weights of the Hugging Face folder `weights`, or anew.

        Raises ValueError where the checkpoint or the folder is of another plan.
        """
        import torch

        self.plan, self.path = plan, path
        self.model = build(plan).train()
        self.weights = forward.weights_of(self.model)
        self.turns = forward.rotations(self.model.config, CONTEXT)
        self.loss = torch.compile(forward.loss, dynamic=True) if is_compiled else forward.loss
        self.optimizers = optimizers(self.model, plan)
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.step, self.position, self.seconds, self.tokens = 0, Position(), 0.0, 0
        if not path.exists():
            if weights is not None:
                fill(self.model, weights)
                self.position = Position(EARLY_CHUNKS)
            return
        state = torch.load(path, weights_only=True)
        if {**state["plan"], "steps": plan.steps} != asdict(plan):
            raise ValueError(f"{path} belongs to another plan ({state['plan']}). Move it away or repeat its options.")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.position, self.seconds, self.tokens = (
            state["step"], Position(**state["position"]), state["seconds"], state["tokens"])
        print(f"resuming at step {self.step}", flush=True)

    def advance(self, position: Position, ids: torch.Tensor, weights: torch.Tensor) -> float:
        """One step on one batch; returns its loss."""
        import torch

        share = share_of_rate(self.plan, self.step)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * share
        shares = weights[:, 1:].flatten()
        places = shares.nonzero().flatten()
        flat = places // (ids.shape[1] - 1) * ids.shape[1] + places % (ids.shape[1] - 1)  # among all tokens, not all but the last
        loss = self.loss(self.weights, self.model.config, self.turns, ids, flat, ids.flatten()[flat + 1], shares[places])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step, self.position, self.tokens = self.step + 1, position, self.tokens + ids.numel()
        return float(loss.item())

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


def train(plan: Plan, work: Path, *, threads: int, save_every: int, weights: Path | None = None,
          is_compiled: bool = True) -> Run:
    """Run the plan to its end, or what is left of it; prints the mean loss of the last LOG_EVERY steps, and speed."""
    import torch

    torch.set_num_threads(threads)
    tokenizer = tokens.load_tokenizer(work / "tokenizer.json", plan.seed)
    run = Run(plan, work / "checkpoint.pt", weights=weights, is_compiled=is_compiled)
    losses: list[float] = []
    since, tokens_then = time.monotonic(), run.tokens
    for position, ids, weights in batches(tokenizer, plan, run.position):
        if run.step >= plan.steps:
            break
        losses.append(run.advance(position, ids, weights))
        is_last = run.step == plan.steps
        if run.step % LOG_EVERY == 0 or is_last:
            passed = time.monotonic() - since
            run.seconds += passed
            print(f"step {run.step}/{plan.steps}  loss {sum(losses) / len(losses):.4f}  "
                  f"{(run.tokens - tokens_then) / passed:.0f} tokens/s  "
                  f"{run.tokens / 1e6:.2f} M tokens  {run.seconds / 60:.1f} min", flush=True)
            losses.clear()
            since, tokens_then = time.monotonic(), run.tokens
        if run.step % save_every == 0 or is_last:
            run.save()
    run.model.eval()
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    options = parser.parse_args()
    plan = Plan(**{name: getattr(options, name) for name in asdict(plan)})
    if options.weights is not None and not (options.work / "tokenizer.json").exists():
        options.work.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.weights / "tokenizer.json", options.work / "tokenizer.json")
    run = train(plan, options.work, threads=options.threads, save_every=options.save_every, weights=options.weights)
    export(run.model, tokens.load_tokenizer(options.work / "tokenizer.json", plan.seed), options.out)
    (options.work / "training.json").write_text(json.dumps({
        **asdict(plan), "tokens": run.tokens, "seconds": run.seconds, "parameters": run.model.num_parameters()}), "utf-8")
    print(f"written to {options.out}", flush=True)


if __name__ == "__main__":
    main()
