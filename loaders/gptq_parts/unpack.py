"""Packed integers of GPTQ and AWQ checkpoints, spread out: several small numbers lie in one 32-bit word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modules.core.errors import LoadFailed

from .packing import Packing

if TYPE_CHECKING:
    import torch

# AWQ's gemm layout lets nibble i of a word stand for column (0, 2, 4, 6, 1, 3, 5, 7)[i]; this is where each column is found.
AWQ_COLUMNS = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True)
class Packed:
    """One layer's packed tensors as they are stored. g_idx: the group of each input row, None where rows lie in order."""

    name: str
    qweight: torch.Tensor
    qzeros: torch.Tensor
    scales: torch.Tensor
    g_idx: torch.Tensor | None = None
    bias: torch.Tensor | None = None


@dataclass(frozen=True)
class Layer:
    """One layer's numbers: weight[i, o] = scales[groups[i], o] * (values[i, o] - zeros[groups[i], o]).

    values: (in, out) uint8. scales, zeros: (groups, out) float32. groups: (in,) int64. bias: (out,) or None.
    """

    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    groups: torch.Tensor
    bias: torch.Tensor | None

    def weight(self) -> torch.Tensor:
        """The matrix itself, (out, in) float32."""
        spread = self.scales[self.groups] * (self.values.float() - self.zeros[self.groups])
        return spread.T.contiguous()


def integers(words: torch.Tensor, bits: int) -> torch.Tensor:
    """The numbers in (n, m) int32 words, lowest bits first and rows going on into the next: (n * 32 / bits, m) uint8."""
    import torch

    n_values = math.lcm(32, bits) // bits  # that fill whole words
    n_words = n_values * bits // 32
    blocks = words.reshape(-1, n_words, words.shape[1]).to(torch.int64) & 0xFFFFFFFF
    parts = []
    for i in range(n_values):
        word, shift = divmod(i * bits, 32)
        part = blocks[:, word] >> shift
        if shift + bits > 32:
            part = part | blocks[:, word + 1] << (32 - shift)
        parts.append((part & ((1 << bits) - 1)).to(torch.uint8))
    return torch.stack(parts, 1).reshape(-1, words.shape[1])


def unpack(packed: Packed, packing: Packing, n_in: int, n_out: int) -> Layer:
    """The layer's numbers; raises LoadFailed where the tensors' shapes or groups do not fit (n_in, n_out) and the packing."""
    import torch

    group = n_in if packing.group_size == -1 else packing.group_size
    n_groups = -(-n_in // group)
    if packing.method == "awq":
        shapes = {"qweight": (n_in, n_out // 8), "qzeros": (n_groups, n_out // 8), "scales": (n_groups, n_out)}
    else:
        shapes = {"qweight": (n_in * packing.bits // 32, n_out), "qzeros": (n_groups, n_out * packing.bits // 32),
                  "scales": (n_groups, n_out)}
    for name, shape in shapes.items():
        found = tuple(getattr(packed, name).shape)
        if found != shape:
            raise LoadFailed(f"{packed.name}.{name} has the shape {found} where {shape} belongs ({n_in} to {n_out}, "
                             f"{packing.bits} bits, groups of {group}): one of the configs is another model's.")
    if packing.method == "awq":
        values, zeros = _columns(packed.qweight), _columns(packed.qzeros)
    else:
        values = integers(packed.qweight, packing.bits)
        zeros = integers(packed.qzeros.T.contiguous(), packing.bits).T
    groups = torch.arange(n_in) // group if packed.g_idx is None else packed.g_idx.to(torch.int64)
    if tuple(groups.shape) != (n_in,) or int(groups.min()) < 0 or int(groups.max()) >= n_groups:
        raise LoadFailed(f"{packed.name}.g_idx does not give each of {n_in} rows one of {n_groups} groups; download the model "
                         "again.")
    bias = packed.bias if packed.bias is not None and bool(packed.bias.any()) else None  # AutoGPTQ writes zeros for none
    return Layer(values, packed.scales.float(), zeros.float() + packing.zero_offset, groups, bias)


def _columns(words: torch.Tensor) -> torch.Tensor:
    """AWQ's nibbles, (n, m) int32 to (n, 8 * m) uint8."""
    import torch

    shifts = torch.tensor([4 * place for place in AWQ_COLUMNS])
    return ((words.unsqueeze(-1) >> shifts) & 15).to(torch.uint8).reshape(words.shape[0], -1)
