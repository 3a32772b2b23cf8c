"""Loads a GGUF file through llama.cpp: progress, cancel, its log, and errors that say what to do."""

from __future__ import annotations

import ctypes
import glob
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from modules.core.errors import LoadFailed, OutOfMemory
from modules.core.loader import Progress
from modules.core.mapped import let_go

INFO, WARN, ERROR, CONTINUED = 2, 3, 4, 5  # ggml_log_level
BUFFER = re.compile(r"buffer size =\s*([\d.]+) MiB")
SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.I)
FLASH = re.compile(r"Flash Attention (enabled|disabled)")
DEVICE = re.compile(r"using device (\S+) \(([^)]*)\)")
LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}  # llama_load_mode by (mmap, mlock)
SPLIT_MODES = {"layer": 1, "row": 2, "none": 0}  # llama_split_mode
MAX_OVERHEARD = 2_000  # characters; after its reason the grammar's parser repeats the whole grammar
# What the log says where memory ran out, on the CPU, CUDA, Metal and Vulkan.
OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|cannot allocate|ErrorOutOfDeviceMemory|unable to allocate", re.I)


class Log:
    """llama.cpp's log on standard error, and what it told while loading. Its callback lives as long as this does.

    Debug lines are dropped; once the model is loaded (`is_loading` False) only warnings and errors pass.
    """

    def __init__(self, c: Any) -> None:
        self._c = c
        self.is_loading = True
        self.buffer_bytes = 0
        self.device = ""
        self.flash_attention = ""
        self.has_copies = False  # weights of the mapped file that were also copied: repacked, or to a GPU
        self.errors: deque[str] = deque(maxlen=20)
        self._level = INFO
        self._callback = c.llama_log_callback(self._take)
        c.llama_log_set(self._callback, None)

    def close(self) -> None:
        """Give the log back to the library's own way."""
        self._c.llama_log_set(self._c.llama_log_callback(), None)

    def _take(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == CONTINUED else level
        if self._level < (INFO if self.is_loading else WARN):
            return
        line = text.decode("utf-8", "replace")
        sys.stderr.write(line)
        if self._level == ERROR:
            self.errors.append(line.strip())
        elif self.is_loading:
            self._learn(line)

    def _learn(self, line: str) -> None:
        if found := BUFFER.search(line):
            self.buffer_bytes += int(float(found[1]) * 2**20)
            self.has_copies |= " model buffer" in line and "_Mapped" not in line
        elif found := DEVICE.search(line):
            self.device = f"{found[1]} ({found[2]})"
        elif found := FLASH.search(line):
            self.flash_attention = "on" if found[1] == "enabled" else "off"


class Library:
    """The imported library, its backend and its log; made by `load`, closed last."""

    def __init__(self) -> None:
        try:
            import llama_cpp.llama_cpp as c
        except Exception as error:  # a broken build raises OSError, RuntimeError or ImportError from ctypes
            raise LoadFailed(f"llama-cpp-python cannot be used: {error}. Install it again: pip install --force-reinstall "
                             "--no-cache-dir llama-cpp-python==0.3.36.") from error
        self.c: Any = c
        self.log = Log(c)
        c.llama_backend_init()

    def load_model(self, path: str, *, gpu_layers: int, split: Sequence[float], split_mode: str, main_gpu: int, mmap: bool,
                   mlock: bool, progress: Progress) -> Any:
        """The model's handle; raises what `progress` raised, LoadFailed or OutOfMemory. split: each GPU's share, () for none."""
        c = self.c
        size = check_file(path)
        raised: list[BaseException] = []

        def advance(fraction: float, _: Any) -> bool:
            try:
                progress(0.02 + 0.9 * fraction, f"reading {size / 2**30:.1f} GiB")
            except BaseException as error:  # noqa: BLE001 - nothing may cross the C code; it is raised again below
                raised.append(error)
                return False
            return True

        callback = c.llama_progress_callback(advance)
        settings = c.llama_model_default_params()
        settings.n_gpu_layers, settings.main_gpu = gpu_layers, main_gpu
        settings.split_mode = SPLIT_MODES[split_mode]
        if split:  # the library reads one for every device that it could have
            settings.tensor_split = (ctypes.c_float * c.llama_max_devices())(*split)
        settings.load_mode = LOAD_MODES[mmap, mlock]
        settings.progress_callback = callback
        model = c.llama_model_load_from_file(os.fsencode(path), settings)
        if raised:
            if model:
                c.llama_model_free(model)
            raise raised[0]
        if not model:
            raise self.failure(f"{Path(path).name} could not be loaded",
                               "Check that the download is complete and that this llama.cpp knows the model's architecture.")
        if mmap and not mlock and self.log.has_copies:
            let_go(parts_of(Path(path)))
        return model

    def metadata(self, model: Any, name: str) -> str:
        """The header's value of `<architecture>.<name>`, or ""."""
        architecture = self._value(model, "general.architecture")
        return self._value(model, f"{architecture}.{name}")

    def _value(self, model: Any, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = self.c.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else ""

    def failure(self, what: str, advice: str) -> LoadFailed | OutOfMemory:
        """The error to raise after the library refused, with what it said last; advice: what to do where it gave a reason."""
        said = "; ".join(self.log.errors)
        if OUT_OF_MEMORY.search(said):
            return OutOfMemory(f"{what}: memory ran out. Choose a smaller context, a smaller KV type, fewer GPU layers, or a "
                               "smaller quantization of the model.", log=said)
        reason = next((line.split(": ", 1)[-1] for line in self.log.errors if line), "llama.cpp gave no reason")
        return LoadFailed(f"{what}: {reason}. {advice}", log=said)


def overhear(call: Callable[[], object]) -> str:
    """What a call into llama.cpp says on standard error, its first MAX_OVERHEARD characters; it goes there afterwards.

    Some of its parts, such as the grammar's parser, say why they refuse there alone and not to the log's callback.
    """
    try:
        with tempfile.TemporaryFile() as file:
            sys.stderr.flush()
            real = os.dup(2)
            os.dup2(file.fileno(), 2)
            try:
                call()
                sys.stderr.flush()
            finally:
                os.dup2(real, 2)
                os.close(real)
            file.seek(0)
            said = file.read()
            os.write(2, said)
    except OSError as error:
        return f"What llama.cpp said could not be read: {error}. The model's own log has it."
    return said.decode("utf-8", "replace").strip()[:MAX_OVERHEARD]


def parts_of(path: Path) -> list[Path]:
    """The files of a split GGUF that are there, or the one."""
    name = SPLIT.sub(r"-*-of-\1.gguf", glob.escape(path.name))
    return list(path.parent.glob(name))


def check_file(path: str) -> int:
    """Size of the file in bytes; raises LoadFailed where it is no GGUF, before the library reads it."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise LoadFailed(f"{path} cannot be read: {error.strerror or error}.") from error
    if magic != b"GGUF":
        hint = " It is a Git LFS pointer: run `git lfs pull`." if magic == b"vers" else " Download it again."
        raise LoadFailed(f"{Path(path).name} is no GGUF file: it begins with {magic!r} and has {size} bytes.{hint}")
    return size


def physical_cores() -> int:
    """Cores this process may run on, two hyper-threads counted once: decoding gains nothing from a core's second."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, os.cpu_count() or 1)
    allowed = os.sched_getaffinity(0)
    cores = set()
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(path.read_text("ascii").strip())
        except OSError:
            return len(allowed)
    return max(1, len(cores))
