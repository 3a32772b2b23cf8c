"""Which llama.cpp backend suits this machine: what compilers and GPUs are there, and what follows from that."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BACKENDS = ("auto", "cpu", "cuda", "rocm", "vulkan", "metal")
ASK_SECONDS = 20  # nvidia-smi takes several on a machine with many GPUs
# Where toolkits lie that do not put themselves on the path.
TOOLKITS = ("/usr/local/cuda/bin", "/opt/rocm/bin")
GIGABYTE = 2**30
# What llama.cpp uses of an x86 processor beyond AVX2: the name in /proc/cpuinfo, and the option that builds it.
X86_OPTIONS = {"avx512f": "GGML_AVX512", "avx512_vbmi": "GGML_AVX512_VBMI", "avx512vbmi": "GGML_AVX512_VBMI",
               "avx512_vnni": "GGML_AVX512_VNNI", "avx512_bf16": "GGML_AVX512_BF16", "avx_vnni": "GGML_AVX_VNNI"}


@dataclass(frozen=True)
class Tools:
    """What was found: paths of programs and names of GPUs, each empty where there is none."""

    system: str  # as sys.platform
    machine: str  # as platform.machine(), lower case
    compiler: str = ""
    nvcc: str = ""
    nvidia_gpu: str = ""
    hipcc: str = ""
    amd_gpu: str = ""
    glslc: str = ""
    vulkan_gpu: str = ""


@dataclass(frozen=True)
class Choice:
    """A backend and the sentence that says why, which is shown to the person."""

    backend: str
    why: str


def look(environ: Mapping[str, str] = os.environ, ask: Callable[[Sequence[str]], str] | None = None) -> Tools:
    """Look at this machine. `ask` runs a program and gives what it prints, or nothing where it fails."""
    ask = ask or _ask
    path = os.pathsep.join([environ.get("PATH", ""), *TOOLKITS, *_beside(environ.get("CUDA_PATH", "")),
                            *_beside(environ.get("ROCM_PATH", "")), *_beside(environ.get("VULKAN_SDK", ""))])

    def find(*names: str) -> str:
        return next((found for name in names if name and (found := shutil.which(name, path=path))), "")

    nvidia = re.search(r"^GPU \d+: (.*?)(?: \(UUID.*)?$", ask([find("nvidia-smi"), "-L"]), re.MULTILINE)
    amd = re.search(r"Name:\s+(gfx[1-9][0-9a-f]+)", ask([find("rocminfo")]))
    return Tools(
        system=sys.platform, machine=platform.machine().lower(),
        compiler=find(environ.get("CXX", ""), "c++", "g++", "clang++", "cl") or _visual_studio(environ),
        nvcc=find("nvcc"), nvidia_gpu=nvidia[1] if nvidia else "",
        hipcc=find("hipcc"), amd_gpu=amd[1] if amd else "",
        glslc=find("glslc"), vulkan_gpu=_vulkan_gpu(ask([find("vulkaninfo"), "--summary"])))


def choose(wanted: str, tools: Tools) -> Choice:
    """The backend to build: the one that was asked for, or in auto the fastest that this machine can build and run."""
    kits = {"cuda": ("nvcc, NVIDIA's compiler", tools.nvcc), "rocm": ("hipcc, AMD's compiler", tools.hipcc),
            "vulkan": ("glslc, the shader compiler", tools.glslc)}
    if wanted != "auto":
        name, found = kits.get(wanted, ("", "-"))
        return Choice(wanted, "asked for" if found else f"asked for, although {name}, was not found")
    if tools.system == "darwin" and tools.machine == "arm64":
        return Choice("metal", "this is a Mac with Apple silicon")
    gpus = {"cuda": tools.nvidia_gpu, "rocm": tools.amd_gpu, "vulkan": tools.vulkan_gpu}
    notes: list[str] = []
    for backend, (name, found) in kits.items():
        if found and gpus[backend]:
            return Choice(backend, "; ".join([*notes, f"{gpus[backend]} and {name}, are here"]))
        if found:
            notes.append(f"{name}, is here but no GPU for {backend} is visible")
        elif gpus[backend]:
            notes.append(f"{gpus[backend]} is here but {name}, is not")
    return Choice("cpu", "; ".join(notes or ["no GPU toolkit was found"]))


def build_variables(backend: str, tools: Tools, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that make llama-cpp-python build this backend; the person's own settings win.

    The number of compilers at once is bounded by memory: a machine that runs out of it kills the build, or the session.
    """
    own = environ.get("CMAKE_ARGS", "")
    # Who says what the build is for says all of it: what we list of the processor may be what ended it.
    ours = [] if "GGML_NATIVE" in own else processor_flags(processor())
    flags = " ".join([backend_flags(backend, tools), *ours]).strip()
    variables = {"CMAKE_ARGS": f"{flags} {own}".strip()}
    if "CMAKE_BUILD_PARALLEL_LEVEL" not in environ:
        each = (4 if backend in ("cuda", "rocm") else 1.5) * GIGABYTE
        variables["CMAKE_BUILD_PARALLEL_LEVEL"] = str(parallel_jobs(cores(), memory_bytes(), each))
    if backend == "cuda" and tools.nvcc:
        variables["CUDACXX"] = tools.nvcc
    return {name: value for name, value in variables.items() if value}


def backend_flags(backend: str, tools: Tools) -> str:
    """CMake's arguments for this backend."""
    flags = {"cuda": "-DGGML_CUDA=on", "rocm": "-DGGML_HIP=on", "vulkan": "-DGGML_VULKAN=on", "metal": "-DGGML_METAL=on",
             "cpu": "-DGGML_METAL=off" if tools.system == "darwin" else ""}[backend]
    if backend == "rocm" and tools.amd_gpu:
        flags += f" -DGPU_TARGETS={tools.amd_gpu}"
    return flags


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """The line that lists what this processor can do; its name where the system does not tell."""
    lines = info.read_text(encoding="ascii", errors="replace").splitlines() if info.is_file() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor() or platform.machine())


def processor_flags(line: str) -> list[str]:
    """CMake's arguments for a processor with AMX: everything it has but that. Nothing for others, whose build is native.

    Virtual machines that were moved to another host go on to list AMX where its first instruction ends the process.
    """
    names = line.split()
    if "amx_tile" not in names:
        return []
    return ["-DGGML_NATIVE=off", *sorted({f"-D{X86_OPTIONS[name]}=on" for name in names if name in X86_OPTIONS})]


def parallel_jobs(n_cores: int, n_bytes: int, bytes_each: float) -> int:
    """How many compilers to run at once, at least one. `n_bytes` 0 means that the memory's size is not known."""
    return max(1, min(n_cores, int(n_bytes // bytes_each) if n_bytes else n_cores // 2))


def cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """The machine's memory or the container's limit, whichever is less; 0 where neither can be told."""
    sizes = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        file = Path(path)
        text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
        sizes += [int(text)] if text.isdigit() else []
    if sys.platform != "win32" and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes, default=0)


def no_compiler_advice(tools: Tools) -> str:
    """What to install where there is no C++ compiler."""
    advice = {"darwin": "run xcode-select --install",
              "win32": "install Visual Studio Build Tools with 'Desktop development with C++'"}
    return advice.get(tools.system, "on Debian and Ubuntu: sudo apt install build-essential; on Fedora: sudo dnf install gcc-c++")


def _ask(command: Sequence[str]) -> str:
    if not command[0]:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""  # a driver's tool that fails or hangs means that the driver does not work


def _beside(folder: str) -> list[str]:
    return [str(Path(folder) / "bin"), str(Path(folder) / "Bin")] if folder else []


def _vulkan_gpu(summary: str) -> str:
    """The first real device in vulkaninfo's summary: a software renderer is slower than the CPU backend."""
    for block in summary.split("deviceType")[1:]:
        name = re.search(r"deviceName\s*=\s*(.+)", block)
        if name and "_TYPE_CPU" not in block.partition("\n")[0]:
            return name[1].strip()
    return ""


def _visual_studio(environ: Mapping[str, str]) -> str:
    """Visual Studio's finder, which CMake asks: its compiler is on no ordinary prompt's path."""
    found = Path(environ.get("ProgramFiles(x86)", "")) / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
    return str(found) if sys.platform == "win32" and found.is_file() else ""
