"""Muon in float32: torch's own orthogonalizes in bfloat16, which CPUs without bf16 units do at a quarter of the speed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

if TYPE_CHECKING:
    import torch


def orthogonal(matrix: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """The matrix with all its singular values near 1, by Newton-Schulz (Jordan 2024, github.com/KellerJordan/Muon)."""
    import torch

    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if is_tall else x


class Muon(Optimizer):  # type: ignore[misc]  # mypy does not look into torch
    """Momentum whose steps are made orthogonal, with decoupled weight decay; for matrices alone."""

    def __init__(self, matrices: Iterable[Any], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step from the gradients in place; closures are not taken."""
        import torch

        assert closure is None, "nothing here re-evaluates the loss"
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    state = self.state[weight]
                    if "mean" not in state:
                        state["mean"] = torch.zeros_like(weight)
                    mean = state["mean"]
                    mean.lerp_(weight.grad, 1 - group["momentum"])
                    update = orthogonal(weight.grad.lerp(mean, group["momentum"]))
                    size = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)
