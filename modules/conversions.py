"""Models converted and quantized here: what can be made of what, how large it will be, and the work in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape as glob_escape
from pathlib import Path

from .core.errors import AppError, BadRequest, Conflict, LoadFailed
from .core.loader import ModelFile
from .jobs import Jobs, JobState, Report
from .models import memory
from .models.architectures import ARCHITECTURES
from .models.naming import QUANTIZATION_AT_END
from .models.quantize import TYPES, UNFINISHED
from .models.save_nf4 import KIND as NF4
from .models.save_nf4 import is_possible as makes_nf4

ROOT = Path(__file__).resolve().parent.parent
KIND = "convert"
NF4_BITS = 5.0  # matrices 4.1; embeddings and the output stay whole
WHOLE_BITS = {"F32": 32.0, "BF16": 16.0, "F16": 16.0}
STALE_SECONDS = 600.0  # an unfinished file that was not written to for so long is nobody's any more
SPARE_BYTES = 256 << 20  # of the disk, left to others
LOG_LINES = 40
COMMAND = ("-m", "modules.models.convert")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ +-]{0,119}")


@dataclass(frozen=True)
class Target:
    """A type that a model can be written as. size_bytes: about how large the file will be."""

    kind: str
    size_bytes: int


class Conversions:
    """On the event loop. `models` is the folder that results go to: the first of the model folders.

    finished counts those that have come to their end, so that whoever shows the list of models can see that it changed.
    """

    def __init__(self, jobs: Jobs, models: Path) -> None:
        self.models = models
        self.finished = 0
        self._jobs = jobs

    async def recover(self) -> None:
        """Delete what an earlier process left half written; a file that is being written by another one stays."""
        await asyncio.to_thread(_sweep, self.models)

    def list(self) -> list[JobState]:
        """The conversions, the newest first."""
        return self._jobs.list(KIND)

    def cancel(self, id: str) -> bool:
        return self._jobs.cancel(id)

    def start(self, source: ModelFile, kind: str, name: str) -> str:
        """Begin writing `source` as GGUF of a type, under this name without .gguf; returns the job's id.

        Raises BadRequest for a source, type or name that will not do, Conflict where the name is taken or being written.
        """
        problem = why_not(source)
        if problem:
            raise BadRequest(f"{source.name} cannot be converted: {problem}", param="model")
        target = next((one for one in targets(source) if one.kind == kind), None)
        if target is None:
            raise BadRequest(f"{source.name} cannot be written as {kind!r}; it can be as: "
                             f"{', '.join(one.kind for one in targets(source))}.", param="kind")
        path = self._path(name, kind)
        needed = target.size_bytes + (int(source.n_params * 4) if kind in TYPES and source.format != "gguf" else 0)

        async def work(report: Report) -> str:
            await asyncio.to_thread(_require_room, self.models, needed)
            try:
                await _run(Path(source.path), path, kind, report)
            finally:
                await asyncio.to_thread(_delete_unfinished, path)
            self.finished += 1
            size = await asyncio.to_thread(_size, path)
            return f"{path.name} is in {self.models}: {size:,} bytes."

        return self._jobs.start(KIND, path.name, work, key=str(path))

    def _path(self, name: str, kind: str) -> Path:
        name = name.strip().removesuffix(".gguf")
        if not _NAME.fullmatch(name):
            raise BadRequest(f"{name[:80]!r} is no name for a file here; use at most 120 letters, digits, spaces, and . _ + -, "
                             "beginning with a letter or digit.", param="name")
        path = self.models / (name if kind == NF4 else f"{name}.gguf")
        if path.exists():
            raise Conflict(f"{path.name} is there already; choose another name, or delete it first.", param="name")
        return path


def why_not(file: ModelFile) -> str:
    """Why a model cannot be converted, "" where it can, as far as its headers say."""
    if file.problem:
        return file.problem
    if file.format == "gguf":
        return "" if file.quantization in WHOLE_BITS else "it is quantized already; a second time would lose more than once."
    if file.format != "safetensors":
        return "its weights are packed, or not on this machine." if file.format != "echo" else "it has no weights."
    if file.quantization not in WHOLE_BITS:
        return f"its weights are stored as {file.quantization or 'something unknown'}; they must be whole (F32, BF16 or F16)."
    return "" if file.architecture in ARCHITECTURES else f"the architecture {file.architecture} is not known to the converter."


def targets(file: ModelFile) -> list[Target]:
    """What it can be written as: GGUF, the largest first, whole types for a folder alone; and a folder in nf4."""
    own = WHOLE_BITS.get(file.quantization, 16.0)
    whole = {kind: value for kind, value in WHOLE_BITS.items() if value <= own and file.format == "safetensors"}
    packed = {NF4: NF4_BITS} if file.format == "safetensors" and makes_nf4() else {}
    bits = {**whole, **TYPES, **packed}
    return [Target(kind, int(file.n_params * value / 8)) for kind, value in bits.items()]


def usual_name(file: ModelFile, kind: str) -> str:
    """`llama-3-8b-F16` written as Q4_K_M is `llama-3-8b-Q4_K_M`."""
    last = Path(file.name).name
    return re.sub(r"[^A-Za-z0-9._ +-]", "-", f"{QUANTIZATION_AT_END.sub('', last) or last}-{kind}")[-120:].lstrip("._ +-")


def convertible(files: Sequence[ModelFile]) -> list[ModelFile]:
    return [file for file in files if not why_not(file)]


async def _run(source: Path, path: Path, kind: str, report: Report) -> None:
    """The converter as a child, its progress told as it comes. A cancel ends it at once, and so does the end of this process."""
    arguments = [*COMMAND, str(source), str(path), "--type", kind, "--progress", "--threads",
                 str(memory.physical_cores())]
    child = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE,
                                                 stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    said: deque[str] = deque(maxlen=LOG_LINES)

    async def listen(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            said.append(line.decode("utf-8", "replace").rstrip())

    listening = asyncio.create_task(listen(child.stderr))
    try:
        async for line in child.stdout:
            done, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            total, _, what = rest.partition(" ")
            if done.isdigit() and total.isdigit():
                report(done=int(done), total=int(total), unit="tensors", what=what)
        code = await child.wait()
        await listening
    finally:
        if child.returncode is None:
            child.kill()
            await asyncio.shield(child.wait())
        listening.cancel()
    if code:
        words = "\n".join(said).strip()
        reason = words[-1500:] or f"the converter ended with {code}"
        raise LoadFailed(f"{source.name} could not be converted: {reason}", log=words)


def _require_room(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise AppError(f"The disk of {folder} has {free / 1e9:.1f} GB free; while it is made, this takes "
                       f"{(needed + SPARE_BYTES) / 1e9:.1f} GB. Make room, or choose a smaller type.")


def _delete_unfinished(path: Path) -> None:
    name = glob_escape(path.name)
    for part in [*path.parent.glob(f"{name}*{UNFINISHED}"), *path.parent.glob(f".{name}{UNFINISHED}")]:
        _remove(part)


def _sweep(folder: Path) -> None:
    now = time.time()
    for part in [*folder.glob(f"*.gguf*{UNFINISHED}"), *folder.glob(f".*{UNFINISHED}")]:
        with contextlib.suppress(OSError):
            inside = part.iterdir() if part.is_dir() else ()
            if now - max(path.stat().st_mtime for path in (part, *inside)) > STALE_SECONDS:
                _remove(part)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            part.unlink()


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
