"""Builds llama-cpp-python as a step of its own, and records how that went for the next start and for the Model tab."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .backend import Choice, Tools, build_variables, choose, look, no_compiler_advice, processor
from .progress import run_visibly, tail

RECORD_FILE = "llama_cpp_build.json"
LOG_FILE = "llama_cpp_build.log"
MAX_RECORD_BYTES = 2**20
NAME = re.compile(r"\s*llama[-_.]cpp[-_.]python\b", re.IGNORECASE)
# A few hundred tokens at once and some one by one: libraries can load and die of an instruction at their first tokens.
PROBE = """
import sys, llama_cpp
if len(sys.argv) > 1:
    model = llama_cpp.Llama(sys.argv[1], n_ctx=512, verbose=False)
    model("The cat sat on the mat. " * 30, max_tokens=4)
"""
ILLEGAL = {-4: "SIGILL", 0xC000001D: "an illegal instruction"}
PORTABLE = "-DGGML_NATIVE=off"
# In the order in which they explain most; CMake's own says it in the lines below.
_FAULTS = (re.compile(r"CMake Error[^\n]*\n+(.+?)\n\s*(?:\n|Call Stack)", re.DOTALL),
           re.compile(r"([^\n]*(?:fatal error:|\berror: (?!subprocess-exited)|Killed|No space left|cannot allocate)[^\n]*)"),
           re.compile(r"(ERROR: [^\n]*)"))


@dataclass(frozen=True)
class Build:
    """How the last build went; the JSON file `.venv/llama_cpp_build.json` has these keys.

    `backend` is what is installed (what was tried, where not `ok`). `reason` is a sentence: why this backend, or why it
    failed. `command` repeats the build by hand. `log` is the end of the output of the last that failed, else empty.
    `requirement`, `python`, `processor`, `own` (the person's CMAKE_ARGS) and `chosen` (what auto would take) say whether the
    record still holds.
    """

    ok: bool
    backend: str
    command: str
    reason: str
    log: str = ""
    requirement: str = ""
    python: str = ""
    chosen: str = ""
    processor: str = ""
    own: str = ""


def read_build(venv: Path) -> Build | None:
    """The record in a virtual environment; None where start.py has not built there, or the file is not ours."""
    try:
        with (venv / RECORD_FILE).open("rb") as file:
            values = json.loads(file.read(MAX_RECORD_BYTES))
        known = {field.name: values[field.name] for field in dataclasses.fields(Build) if field.name in values}
        return Build(**known)
    except (OSError, ValueError, TypeError):
        return None


def write_build(venv: Path, build: Build) -> None:
    """Replace the record in one step, so that a stop in the middle leaves the old one."""
    beside = venv / (RECORD_FILE + ".new")
    beside.write_text(json.dumps(dataclasses.asdict(build), indent=1), encoding="utf-8")
    os.replace(beside, venv / RECORD_FILE)


def is_current(build: Build | None, requirement: str, python: str, wanted: str, *, retry: bool,
               now: Callable[[], Choice]) -> bool:
    """Whether nothing needs building. `wanted` empty keeps what is there; `now` looks at the machine, asked for auto only.

    A build for another processor is not current, nor one with other CMAKE_ARGS where a person gives some.
    """
    if build is None or (build.requirement, build.python) != (requirement, python) or (retry and not build.ok):
        return False
    if build.processor != _short(processor()) or os.environ.get("CMAKE_ARGS", build.own) != build.own:
        return False
    return wanted in ("", build.backend) or (wanted == "auto" and build.chosen == now().backend)


@dataclass(frozen=True)
class Place:
    """Where to install: the virtual environment, its Python and that one's version, and the arguments pip is given.

    `probe` is a small GGUF that a fresh build is tried on; where it is missing the libraries are only loaded.
    """

    venv: Path
    python: Path
    version: str
    pip_arguments: tuple[str, ...] = ()
    probe: Path | None = None


def build_llama_cpp(place: Place, requirement: str, wanted: str, *, retry: bool = False,
                    say: Callable[[str], None] = print) -> Build:
    """Install `requirement` for the wanted backend unless the record says it is there. Never raises for a failed build."""
    found: list[Tools] = []

    def tools() -> Tools:
        found[:] = found or [look()]
        return found[0]

    before = read_build(place.venv)
    if is_current(before, requirement, place.version, wanted, retry=retry, now=lambda: choose("auto", tools())):
        assert before is not None, "a missing record is not current"
        return before
    choice = choose(wanted or "auto", tools())
    say(f"llama-cpp-python will be built for {choice.backend}: {choice.why}.")
    replace = before is not None and before.ok
    build = _try(place, requirement, choice, tools(), replace=replace)
    if not build.ok and (wanted or "auto") == "auto" and choice.backend != "cpu":
        say(f"{build.reason} Trying without the GPU.")
        plain = _try(place, requirement, Choice("cpu", f"the build for {choice.backend} failed: {build.reason}"), tools(),
                     replace=replace)
        build = dataclasses.replace(plain, chosen=choice.backend, log=plain.log or build.log)
    if before is not None and before.ok and not build.ok and before.processor == build.processor:
        build = dataclasses.replace(build, ok=True, backend=before.backend,
                                    reason=f"{build.reason} The earlier build for {before.backend} stays.")
    write_build(place.venv, build)
    return build


def _try(place: Place, requirement: str, choice: Choice, tools: Tools, *, replace: bool) -> Build:
    """One build, and a look whether it works: a GPU backend can build where its driver is missing."""
    variables = build_variables(choice.backend, tools, os.environ)
    cache = _cache(choice.backend, variables.get("CMAKE_ARGS", ""), os.environ)
    command = [str(place.python), "-m", "pip", "install", "--verbose", *place.pip_arguments, *cache]
    if replace:
        # Without --no-deps pip would reinstall numpy and the rest too.
        command += ["--force-reinstall", "--no-deps"]
    if not tools.compiler:
        # Building would only fail after a long download; a finished wheel may still be on the index.
        command += ["--only-binary", "llama-cpp-python"]
    command.append(requirement)
    log = place.venv / LOG_FILE
    status = run_visibly(command, title="llama-cpp-python", log=log, env={**os.environ, **variables, "PYTHONUNBUFFERED": "1"})
    reason, failure = choice.why, ""
    if status != 0:
        failure = tail(log, 60)
        reason = _reason(tail(log, 2000), tools)
    elif re.search(r"already satisfied: llama[-_]cpp[-_]python", log.read_text(encoding="utf-8", errors="replace")):
        reason = "it was installed already, for a backend that start.py does not know"
    if status == 0:
        fault, failure = _probe(place)
        status, reason = (1, fault) if fault else (0, reason)
    shown = _typed(variables, command)
    return Build(status == 0, choice.backend, shown, reason, failure, requirement, place.version, choice.backend,
                 _short(processor()), os.environ.get("CMAKE_ARGS", ""))


def _probe(place: Place) -> tuple[str, str]:
    """What is wrong with what was installed, as a sentence, and the end of what it printed; both empty where it works."""
    probe = [str(place.probe)] if place.probe is not None and place.probe.is_file() else []
    tried = subprocess.run([str(place.python), "-c", PROBE, *probe], capture_output=True, text=True, errors="replace")
    if tried.returncode == 0:
        return "", ""
    printed = tried.stderr[-4000:]
    if tried.returncode in ILLEGAL:
        return (f"It was built but this processor ended it with {ILLEGAL[tried.returncode]} at its first tokens, although it "
                f"lists all that was used. Build it without: CMAKE_ARGS={PORTABLE} python3 start.py install.", printed)
    return f"It was built but does not load: {(printed.strip().splitlines() or ['killed'])[-1]}.", printed


def _reason(log: str, tools: Tools) -> str:
    """One sentence for the person from the end of a failed build's output."""
    if not tools.compiler:
        return f"No C++ compiler was found ({no_compiler_advice(tools)})."
    found = next((match[1] for fault in _FAULTS if (match := fault.search(log))), "see the log")
    return f"The build failed: {' '.join(found.split())[:300]}."


def _cache(backend: str, flags: str, environ: Mapping[str, str]) -> list[str]:
    """A cache of its own for each backend, flags and processor: pip would take a wheel built for another from the common one.

    With CMAKE_ARGS of the person's own nothing is reused, since nothing tells which flags a wheel was built with.
    """
    if environ.get("PIP_NO_CACHE_DIR") or environ.get("CMAKE_ARGS"):
        return ["--no-cache-dir"]
    home = {"win32": environ.get("LOCALAPPDATA", ""), "darwin": str(Path.home() / "Library" / "Caches")}
    folder = environ.get("XDG_CACHE_HOME", "") or home.get(sys.platform, "") or str(Path.home() / ".cache")
    base = Path(environ.get("PIP_CACHE_DIR", "") or folder) / "colloquy"
    return ["--cache-dir", str(base / f"llama-cpp-{backend}-{_short(flags + processor())}")]


def _short(text: str) -> str:
    """What tells two texts apart, in eight characters."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _typed(variables: Mapping[str, str], command: list[str]) -> str:
    """The build as a person types it."""
    if sys.platform == "win32":
        return " && ".join([*(f'set "{name}={value}"' for name, value in variables.items()), subprocess.list2cmdline(command)])
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command)])
