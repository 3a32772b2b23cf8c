"""What the machine has free, and the load options that follow for a model."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from ..core.loader import LoaderSpec, ModelFile
from .forecast import LARGEST_DEFAULT_CONTEXT, Forecast, context_bytes, forecast
from .processor import physical_cores

CONTEXT_STEP = 256                # llama.cpp rounds to it, and loses prefix reuse where it has to
SMALLEST_CONTEXT = 512
USABLE = 0.9                      # of what is free
RESERVE_BYTES = 256 << 20         # for the page, other programs' next breath
VRAM_RESERVE_BYTES = 512 << 20    # the backend's own context and the desktop


def default_options(file: ModelFile, spec: LoaderSpec, free_ram: int, free_vram: int) -> dict[str, Any]:
    """Options that fit this machine, only those the loader has: the largest context up to 16k that fits, as many layers on the
    GPU as fit with it, a thread for each physical core. Where the memory or the number of
    layers is unknown the loader's own choice stays: there may be a GPU that nvidia-smi does not see."""
    options: dict[str, Any] = {}
    knobs = spec.options
    if "context" in knobs and file.has_weights:
        options["context"] = _within(knobs["context"], _fitting_context(file, spec, max(free_ram, free_vram)))
    if "gpu_layers" in knobs and free_vram and file.layers:
        needs = forecast(file, {name: knob.default for name, knob in knobs.items()} | options)
        options["gpu_layers"] = _within(knobs["gpu_layers"], _fitting_layers(file, needs, free_vram))
    if "threads" in knobs:
        options["threads"] = _within(knobs["threads"], physical_cores())
    return options


def _within(knob: Any, value: int) -> int:
    low = value if knob.minimum is None else max(value, int(knob.minimum))
    return low if knob.maximum is None else min(low, int(knob.maximum))


def _fitting_context(file: ModelFile, spec: LoaderSpec, free_bytes: int) -> int:
    """Tokens, a multiple of 256 and at least 512, or 256 for a model trained on less."""
    wanted = min(file.trained_context or LARGEST_DEFAULT_CONTEXT, LARGEST_DEFAULT_CONTEXT)
    options = {name: knob.default for name, knob in spec.options.items()}
    each, least = context_bytes(file, options), forecast(file, {**options, "context": SMALLEST_CONTEXT})
    room = USABLE * free_bytes - RESERVE_BYTES - least.weights_bytes - least.compute_bytes
    fits = int(room / each) if each else wanted
    return max(min(wanted, fits) // CONTEXT_STEP * CONTEXT_STEP, SMALLEST_CONTEXT if wanted >= SMALLEST_CONTEXT else CONTEXT_STEP)


def _fitting_layers(file: ModelFile, needs: Forecast, free_vram: int) -> int:
    """How many layers' weights and KV cache the GPU holds; the output layer counts as one more."""
    each = (needs.weights_bytes + needs.kv_bytes) / (file.layers + 1)
    room = USABLE * free_vram - VRAM_RESERVE_BYTES - needs.compute_bytes
    return max(0, min(file.layers + 1, int(room / each))) if each else file.layers + 1


def free_ram() -> int:
    """Bytes that a new process may take: what the system says is available, within the control group's limit."""
    import psutil
    available = int(psutil.virtual_memory().available)
    limit = _cgroup_free(Path("/sys/fs/cgroup"))
    return available if limit is None else max(0, min(available, limit))


def _cgroup_free(root: Path) -> int | None:
    """Bytes left of the control group's limit, None where there is none. Cached file pages count as free: they go first."""
    for limit, used, stat, cache in (("memory.max", "memory.current", "memory.stat", "inactive_file"),
                                     ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
                                      "total_inactive_file")):
        try:
            total = int((root / limit).read_text())
            taken = int((root / used).read_text())
        except (OSError, ValueError):
            continue  # no such version of control groups, or "max"
        if total >= 1 << 60:
            continue
        try:
            counts = dict(line.split() for line in (root / stat).read_text().splitlines())
            taken -= int(counts.get(cache, 0))
        except (OSError, ValueError):
            pass  # then the whole use counts: a smaller answer, on the safe side
        return max(0, total - taken)
    return None


def free_vram() -> int:
    """Bytes free on all NVIDIA GPUs together, 0 where nvidia-smi is absent, fails or takes over three seconds."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, timeout=3, check=True, text=True)
        return sum(int(line) for line in done.stdout.split()[:64]) << 20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0
