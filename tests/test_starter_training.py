"""Training the starter model: the same run twice gives the same weights, and what it begins with already copies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from starter import drills, forward
from starter import tokenizer as tokens
from starter.batches import Position, batches
from starter.train import Plan, Run, build, train

FOLDER = Path(__file__).parents[1] / "models" / "starter"


@pytest.fixture(scope="module")
def hf_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


def shipped_vocabulary() -> int:
    """Tokens of the model in models/starter, which an earlier version of this code made."""
    return int(json.loads((FOLDER / "config.json").read_text("utf-8"))["vocab_size"])


def test_a_run_that_is_cut_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    import torch

    plan = Plan(steps=4, batch_tokens=256, warmup=2, feed_forward=256, layers=1, vocabulary=shipped_vocabulary())
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        shutil.copy(FOLDER / "tokenizer.json", tmp_path / name)
    whole = train(plan, tmp_path / "whole", threads=1, save_every=100, is_compiled=False)
    run = Run(plan, tmp_path / "cut" / "checkpoint.pt", is_compiled=False)
    for position, ids, weights in islice(batches(tmp_path / "cut" / "tokenizer.json", plan.source, Position()), 2):
        run.advance(position, ids, weights)
    run.save()
    resumed = train(plan, tmp_path / "cut", threads=1, save_every=100, is_compiled=False)
    for (name, expected), (_, got) in zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(expected, got), name


def test_the_training_pass_gives_the_logits_of_transformers() -> None:
    """Two rows of other lengths, padded to the right; float32 sums in another order differ by about 1e-6."""
    import torch

    run = Run(Plan(feed_forward=256, layers=2), Path("none"), is_compiled=False)
    for weight in run.model.parameters():  # the first weights let no layer but two heads add anything
        torch.nn.init.normal_(weight.data, 0.0, 0.05, torch.Generator().manual_seed(weight.numel()))
    ids = torch.randint(3, tokens.VOCABULARY, (2, 33), generator=torch.Generator().manual_seed(1))
    ids[1, 20:] = tokens.END_OF_TEXT
    places = torch.tensor([0, 7, 32, 33, 40, 52])
    with torch.no_grad():
        hidden = forward.states(run.weights, run.model.config, run.turns, ids, places)
        ours = torch.nn.functional.linear(hidden, run.weights["model.embed_tokens.weight"])
        theirs = run.model(input_ids=ids).logits.flatten(0, 1)[places]
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_first_weights_already_look_up_what_followed_before() -> None:
    """Groups of random tokens in another order: the token that followed before is likelier than another token of the row."""
    import torch

    model = build(Plan(feed_forward=256, layers=2)).eval()
    chance = torch.Generator().manual_seed(1)
    groups = torch.randint(3, tokens.VOCABULARY, (20, 4, 5), generator=chance)
    rows = torch.cat([groups.flatten(1), groups[:, [2, 0, 3, 1]].flatten(1)], 1)
    with torch.no_grad():
        logits = model(input_ids=rows).logits
    n_found = 0
    places = [place for place in range(20, 39) if place % 5 != 4]
    for row, scores in zip(rows, logits, strict=True):
        for place in places:
            others = set(row[:20].tolist()) - {int(row[place]), int(row[place + 1])}
            n_found += float(scores[place, row[place + 1]]) > max(float(scores[place, other]) for other in others)
    assert n_found / (len(rows) * len(places)) > 0.6, "by chance it is one in eighteen"


def test_muon_makes_a_step_of_nearly_equal_singular_values() -> None:
    import torch

    from starter.muon import orthogonal

    for shape in ((64, 200), (200, 64)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(2))))
        assert values.min() > 0.5 and values.max() < 1.4, "what five rounds give (Jordan 2024: 0.7 to 1.2 for most)"


def test_a_drill_weighs_only_what_can_be_copied(hf_tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    shares = drills.frequencies([([5, 5, 9], [0.0, 1.0, 1.0])], tokens.VOCABULARY)
    made = drills.drills("1", 40, shares, raw)
    for ids, weights in made[::2]:  # groups again in another order: a weighted token follows the one it followed before
        first = weights.index(1.0)
        shown = set(pairwise(ids[:first]))
        pairs = zip(pairwise(ids), weights[1:], strict=True)
        assert all(pair in shown for pair, weight in pairs if weight)
    for ids, weights in made[1::2]:  # a text said, and repeated
        *said, end = [token for token, weight in zip(ids, weights, strict=True) if weight]
        first = weights.index(1.0)
        assert end == tokens.END and any(ids[i:i + len(said)] == said for i in range(first - len(said)))
    assert drills.drills("1", 3, shares, raw) == made[:3] != drills.drills("2", 3, shares, raw)


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    plan = Plan(feed_forward=256, layers=1)
    Run(plan, tmp_path / "checkpoint.pt", is_compiled=False).save()
    with pytest.raises(ValueError, match="another plan"):
        Run(Plan(feed_forward=256, layers=2), tmp_path / "checkpoint.pt", is_compiled=False)
    assert Run(Plan(feed_forward=256, layers=1, steps=9), tmp_path / "checkpoint.pt", is_compiled=False).step == 0


def test_more_layers_than_the_given_weights_have_change_no_logit_at_first(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    missing = tmp_path / "checkpoint.pt"
    shipped = LlamaForCausalLM.from_pretrained(FOLDER, dtype="float32")
    n_layers = shipped.config.num_hidden_layers
    deeper = Run(Plan(layers=n_layers + 2), missing, weights=FOLDER, is_compiled=False).model
    ids = torch.randint(3, tokens.VOCABULARY, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(deeper(input_ids=ids).logits, shipped(input_ids=ids).logits, atol=1e-4)
    added = [i for i, layer in enumerate(deeper.model.layers) if not layer.mlp.down_proj.weight.any()]
    assert len(added) == 2 and added[0] > 0 and added[1] - added[0] > 1
    assert all(layer.mlp.up_proj.weight.any() for layer in deeper.model.layers)
    for plan in (Plan(layers=n_layers - 1), Plan(layers=n_layers, feed_forward=256)):
        with pytest.raises(ValueError, match="another shape"):
            Run(plan, missing, weights=FOLDER, is_compiled=False)


def test_rows_of_a_batch_are_whole_documents_within_the_context() -> None:
    longest = 0
    for _, ids, weights in islice(batches(FOLDER / "tokenizer.json", Plan().source, Position()), 60):
        assert ids.shape == weights.shape and ids.shape[1] <= 2048
        assert ids.shape[0] == 1 or ids.numel() <= Plan().batch_tokens + 32 * ids.shape[0]
        longest = max(longest, ids.shape[1])
    assert longest > 1024, "far positions must be trained"


COMPARE = """
import sys
from itertools import islice
from pathlib import Path
import torch
from starter.batches import Position, Source, batches

if __name__ == "__main__":
    tokenizer, source, start = Path(sys.argv[1]), Source(seed=1, batch_tokens=2048), Position(chunk=5, batch=3)
    here = islice(batches(tokenizer, source, start), 150)
    beside = islice(batches(tokenizer, source, start, processes=2), 150)
    chunks = set()
    for (position, ids, weights), (other, other_ids, other_weights) in zip(here, beside, strict=True):
        assert position == other and torch.equal(ids, other_ids) and torch.equal(weights, other_weights)
        chunks.add(position.chunk)
    assert chunks == {5, 6}, chunks
"""


def test_processes_beside_the_training_make_the_same_batches_in_the_same_order(tmp_path: Path) -> None:
    """In a process of its own: multiprocessing keeps one of its own beside whoever used it, to the end."""
    (tmp_path / "compare.py").write_text(COMPARE)
    env = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run([sys.executable, tmp_path / "compare.py", FOLDER / "tokenizer.json"], env=env, capture_output=True,
                          text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
