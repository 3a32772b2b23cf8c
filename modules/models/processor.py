"""What computes on this machine: how many cores, whether they have bfloat16, whether there may be a GPU."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path


@functools.cache
def computes_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16, so that half precision stays so on it."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_tile" in flags


@functools.cache
def may_have_gpu() -> bool:
    """False where nothing speaks for a GPU that could compute: no NVIDIA driver, no ROCm, no Mac."""
    return sys.platform == "darwin" or shutil.which("nvidia-smi") is not None or Path("/dev/kfd").exists()


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once."""
    import psutil
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    quota = _cpu_quota(Path("/sys/fs/cgroup"))
    return max(1, min(physical, usable, quota or physical))


def _cpu_quota(root: Path) -> int | None:
    """Whole CPUs that the control group grants, at least one; None without a limit."""
    try:
        allowed, period = (root / "cpu.max").read_text().split()
        return max(1, int(allowed) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
