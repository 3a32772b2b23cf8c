"""Where a model's layers lie: on one device, or spread over GPUs, the CPU's memory and the disk by accelerate."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import Any

from modules.core.errors import LoadFailed
from modules.core.knobs import setting

GIB = 1 << 30
USABLE = 0.9  # of what is free, where no limit is set
SINGLE = "single"


@dataclass(frozen=True)
class PlacementOptions:
    device_map: str = setting(
        "choice", SINGLE, "Device map", "single: all of the model on one device. The others spread its layers over all GPUs, "
        "then the CPU's memory, then the disk, from which they are read for every token: auto and sequential fill one after the "
        "other, balanced loads the GPUs evenly.", choices=(SINGLE, "auto", "balanced", "sequential"))
    gpu_memory: float = setting("float", 0.0, "GPU memory (GiB)", "With a device map: most weights on each GPU; 0 is what is "
                                "free.", minimum=0, maximum=100_000, step=0.5)
    cpu_memory: float = setting("float", 0.0, "CPU memory (GiB)", "With a device map: most weights in the CPU's memory, the rest "
                                "stays on disk; 0 is what is free.", minimum=0, maximum=100_000, step=0.5)


@dataclass(frozen=True)
class Placement:
    """arguments: those of from_pretrained. scratch: a folder for weights that cannot be read from the checkpoint as they are."""

    arguments: dict[str, Any]
    scratch: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        if self.scratch is not None:
            self.scratch.cleanup()


def place(options: dict[str, Any], device: str) -> Placement:
    """As the options say; raises LoadFailed for what cannot be together."""
    kind = options.get("device_map", SINGLE)
    gpu, cpu = options.get("gpu_memory", 0.0), options.get("cpu_memory", 0.0)
    if kind == SINGLE:
        if gpu or cpu:
            raise LoadFailed("gpu_memory and cpu_memory limit what a device map spreads; set device_map to auto, or both to 0.",
                             param="device_map")
        return Placement({"device_map": None if device == "cpu" else {"": device}})
    if device == "mps":
        raise LoadFailed("A device map spreads a model over NVIDIA GPUs, the CPU and the disk; with Metal choose device_map "
                         "single.", param="device_map")
    if cpu and options["quantization"] != "none":
        raise LoadFailed(f"Weights shrunk while loading ({options['quantization']}) cannot be left on disk. Set cpu_memory to 0, "
                         "or quantization to none.", param="cpu_memory")
    import torch
    from accelerate.utils import get_max_memory

    limits: dict[int | str, int] = {}
    for number in range(torch.cuda.device_count() if device == "cuda" else 0):
        limits[number] = int(gpu * GIB or USABLE * torch.cuda.mem_get_info(number)[0])
    limits["cpu"] = int(cpu * GIB or USABLE * get_max_memory()["cpu"])
    scratch = tempfile.TemporaryDirectory(prefix="colloquy-offload-")
    return Placement({"device_map": kind, "max_memory": limits, "offload_folder": scratch.name}, scratch)


def where(model: Any, device: str) -> str:
    """The devices with the number of parts on each: `cpu`, or `cuda:0 (20), cpu (8), disk (4)`."""
    found = Counter(f"cuda:{place}" if isinstance(place, int) else str(place)
                    for place in getattr(model, "hf_device_map", {"": device}).values())
    return next(iter(found)) if len(found) == 1 else ", ".join(f"{place} ({count})" for place, count in found.items())


def is_offloaded(model: Any) -> bool:
    """Whether weights come and go for every token."""
    return any(parameter.device.type == "meta" for parameter in model.parameters())
