"""First weights from which attention can already look up what stood before: a head start in copying.

Copying takes two heads in a row: one tells each place what stood before it, the next looks for the place told of what stands
here and copies what it finds there (Olsson et al. 2022, "In-context Learning and Induction Heads"). From purely random weights
this pair forms late, after more text than two CPU cores can train on; `heads` sets one such pair, and all else stays random or at
zero. Weights that begin where training tends to end are mimetic initialization (Trockman and Kolter 2023, arXiv:2305.09828).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

N_FAST = 8  # rotary pairs that turn fast enough to tell one place from the next
PLACE_SCORE = 20.0  # each fast pair's part of the score of the place before, before the division by the root of the head's width
MATCH_SCORE = 2.0  # each slow dimension's part of the score of a match, likewise
COPY_SHARE = 0.5  # how long a copied embedding is beside the embedding itself
FINAL_GAIN = 0.25  # the last norm's; at 1 a tied model begins sure that each token comes twice


def quiet(model: LlamaForCausalLM) -> torch.Tensor:
    """Set embeddings of a known length, and let no layer add anything at first.

    Returns the direction, (hidden,) of length 1, that is equal in all embeddings. As the output matrix is the same, it changes no
    probability; heads can read it where a bias would be.
    """
    import torch

    with torch.no_grad():
        rows = model.model.embed_tokens.weight
        hidden = rows.shape[1]
        common = torch.full((hidden,), hidden ** -0.5)
        rows.normal_(0.0, hidden ** -0.5)
        rows.sub_(torch.outer(rows @ common, common)).add_(common)  # of length about 1 along the direction and 1 across it
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.norm.weight.fill_(FINAL_GAIN)
    return common


def heads(model: LlamaForCausalLM, common: torch.Tensor) -> None:
    """Make the first head of layer 0 tell what stood before, and that of layer 1 copy what followed it then."""
    import torch

    width, hidden = model.config.head_dim, model.config.hidden_size
    half = width // 2
    rope_theta = float(model.config.rope_parameters["rope_theta"])
    turns = rope_theta ** (-torch.arange(half) / half)  # radians a token
    before, match = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    with torch.no_grad():
        # Both sides of a normed embedding have half its square: hidden / 2 along the common direction.
        size = (PLACE_SCORE * 2 / hidden) ** 0.5
        query, key = torch.zeros(width), torch.zeros(width)
        key[:N_FAST] = size
        query[:N_FAST] = size * turns[:N_FAST].cos()  # the key turned back by one place
        query[half:half + N_FAST] = -size * turns[:N_FAST].sin()
        before.q_proj.weight[:width] = torch.outer(query, common)
        before.k_proj.weight[:width] = torch.outer(key, common)
        basis = torch.linalg.qr(torch.randn(hidden, hidden))[0]
        basis -= torch.outer(basis @ common, common)
        read, told, copied = basis[:width], basis[width:2 * width], basis[2 * width:3 * width]
        before.v_proj.weight[:width] = read
        before.o_proj.weight[:, :width] = told.T * (2 / hidden) ** 0.5  # the norm made it longer by the inverse
        slow = torch.cat([torch.arange(half // 2, half), torch.arange(half + half // 2, width)])
        for weight, directions in ((match.q_proj.weight, read), (match.k_proj.weight, told)):
            weight[:width] = 0.0
            weight[slow] = directions[slow] * MATCH_SCORE ** 0.5
        match.v_proj.weight[:width] = copied
        match.o_proj.weight[:, :width] = COPY_SHARE * copied.T
