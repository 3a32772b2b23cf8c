"""A 4-bit linear layer on PyTorch's own CPU kernel, made from a GPTQ or AWQ layer."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .unpack import Layer

if TYPE_CHECKING:
    import torch

KERNEL_GROUPS = (256, 128, 64, 32)  # rows that may share a scale
COLUMNS = 16                        # the kernel takes a multiple of so many outputs


@functools.cache
def int4_class() -> Any:
    """The layer's class; a function, because its base class needs torch."""
    import torch
    from torch import nn

    class Int4Linear(nn.Module):  # type: ignore[misc]  # mypy does not look into torch
        """y = x @ W.T + bias with 4-bit W; x of any float type and shape (..., in), computed in bfloat16 with sums in float32.

        The kernel means (value - 8) * scale + zero. In float32 it is a hundred times slower. Each row is computed
        as if it were alone, so a prompt gives equal results in any chunks. order: for act-order, which input each row belongs to.
        """

        def __init__(self, layer: Layer, order: torch.Tensor | None, group: int) -> None:
            super().__init__()
            n_in = layer.values.shape[0]
            values = layer.values if order is None else layer.values[order]
            of_group = layer.groups[::group] if order is None else layer.groups[order][::group]
            scales, zeros = layer.scales[of_group], layer.zeros[of_group]
            self.in_features, self.out_features, self.group = n_in, layer.values.shape[1], group
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.T.to(torch.int32).contiguous(), 1)
            self.register_buffer("packed", packed)
            self.register_buffer("scales_and_zeros", torch.stack([scales, (8 - zeros) * scales], -1).bfloat16().contiguous())
            self.register_buffer("order", order)
            self.register_buffer("bias", None if layer.bias is None else layer.bias.float())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.reshape(-1, self.in_features).to(torch.bfloat16)
            if self.order is not None:
                rows = rows[:, self.order]
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group, self.scales_and_zeros)
            if self.bias is not None:
                y = y + self.bias
            return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    return Int4Linear


def dense(layer: Layer, dtype: Any) -> Any:
    """The layer unpacked, as large as it was before it was quantized: a torch.nn.Linear."""
    import torch
    from torch import nn

    n_in, n_out = layer.values.shape
    with torch.device("meta"):
        made = nn.Linear(n_in, n_out, bias=layer.bias is not None, dtype=dtype)
    made.weight = nn.Parameter(layer.weight().to(dtype), requires_grad=False)
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.to(dtype), requires_grad=False)
    return made


def int4(layer: Layer) -> Any | None:
    """The layer for the kernel, or None where its shape or groups do not fit: outputs no multiple of 16, ragged groups."""
    import torch

    n_in, n_out = layer.values.shape
    n_groups = layer.scales.shape[0]
    if n_out % COLUMNS or n_in % n_groups:
        return None
    size = n_in // n_groups
    group = next((one for one in KERNEL_GROUPS if size % one == 0), 0)
    if not group or bool((torch.bincount(layer.groups, minlength=n_groups) != size).any()):
        return None
    order = torch.argsort(layer.groups, stable=True)
    return int4_class()(layer, None if bool((order == torch.arange(n_in)).all()) else order, group)
