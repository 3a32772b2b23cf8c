"""How the weights of a GPTQ or AWQ checkpoint are packed, as its own description says; what cannot be unpacked is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modules.core.errors import LoadFailed

WIDTHS = (2, 3, 4, 8)
MAX_GROUP = 1 << 20


@dataclass(frozen=True)
class Packing:
    """bits a weight; group_size: input rows that share a scale and a zero, -1 for all of them.

    zero_offset: what is added to a stored zero: AutoGPTQ writes it less one ("gptq"), its successor as it is ("gptq_v2").
    varies: whether some layers have another width, which only GPTQModel sorts out.
    """

    method: Literal["gptq", "awq"]
    bits: int
    group_size: int
    zero_offset: int
    varies: bool = False

    def __str__(self) -> str:
        return f"{self.method.upper()} {'of several widths' if self.varies else f'{self.bits}-bit'}"


def read_packing(described: Mapping[str, Any]) -> Packing:
    """The packing that a description with `quant_method` means; raises LoadFailed naming the value that cannot be used."""
    method: Literal["gptq", "awq"] = "awq" if described["quant_method"] == "awq" else "gptq"
    bits = _whole(described, ("bits", "w_bit"), "bits")
    group = _whole(described, ("group_size", "q_group_size"), "group_size")
    if bits not in (WIDTHS if method == "gptq" else (4,)):
        raise LoadFailed(f"The checkpoint says bits: {bits}; {method.upper()} weights have "
                         f"{'2, 3, 4 or 8' if method == 'gptq' else '4'}. Check its quantization config.", param="bits")
    if not (group == -1 or 0 < group <= MAX_GROUP):
        raise LoadFailed(f"The checkpoint says group_size: {group}; it is -1 or above 0. Check its quantization config.")
    if method == "awq":
        version = str(described.get("version", "gemm")).lower()
        if version != "gemm":
            raise LoadFailed(f"This AWQ checkpoint is in the layout {version!r}; only gemm can be loaded here. Get a gemm, GPTQ "
                             "or GGUF version.")
        return Packing(method, bits, group, 0)
    layout = str(described.get("checkpoint_format") or "gptq").lower()
    if layout not in ("gptq", "gptq_v2"):
        raise LoadFailed(f"This GPTQ checkpoint is in the layout {layout!r}, which is made for one GPU kernel; gptq and gptq_v2 "
                         "can be loaded here. Get a version in one of these, or GGUF.")
    return Packing(method, bits, group, 1 if layout == "gptq" else 0, bool(described.get("dynamic")))


def _whole(described: Mapping[str, Any], keys: tuple[str, ...], name: str) -> int:
    value = next((described[key] for key in keys if key in described), None)
    if isinstance(value, bool) or not isinstance(value, int):
        raise LoadFailed(f"The checkpoint's quantization config says {name}: {value!r}, which is no whole number; download it "
                         "again.")
    return value
