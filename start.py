"""Fresh machine: makes .venv, installs what Colloquy needs with visible progress, then runs the app or its tests.

    python3 start.py [flags of app.py]       installs what is missing and opens the page
    python3 start.py install                 only installs, and tries a failed llama-cpp-python build again
    python3 start.py test [flags of pytest]  installs what the tests need; then ruff, mypy and pytest

Standard library only. It may be stopped at any time and run again. Run on Linux; the code for Windows and macOS was
written from their documentation and not run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST, NEWEST = (3, 11), (3, 13)
REQUIREMENTS = "requirements.txt"
DEV_REQUIREMENTS = "requirements-dev.txt"
STAMP_FILE = "installed.json"
PROBE_MODEL = "models/starter/starter-Q8_0.gguf"


class SetupFailed(Exception):
    """Says what failed and what to do next."""


def check_version(major: int, minor: int) -> str:
    """A sentence where this Python is too old or too new, else empty. Pythons from 3.7 on can read this file so far."""
    if OLDEST <= (major, minor) <= NEWEST:
        return ""
    return (f"Colloquy runs on Python 3.11, 3.12 and 3.13; this is {major}.{minor}. Install one of those and start again "
            "with it, for example: python3.12 start.py")


def python_of(venv: Path, platform: str = sys.platform) -> Path:
    """A virtual environment's interpreter."""
    return venv / "Scripts" / "python.exe" if platform == "win32" else venv / "bin" / "python"


def venv_version(venv: Path) -> str:
    """Its Python's version such as 3.11.7, read without starting it; empty where there is no usable environment."""
    config = venv / "pyvenv.cfg"
    if not python_of(venv).exists() or not config.is_file():
        return ""
    found = re.search(r"^version(?:_info)?\s*=\s*((\d+)\.(\d+)\S*)", config.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found and not check_version(int(found[2]), int(found[3])) else ""


def make_venv(venv: Path) -> None:
    """Make the environment, or make it anew where its Python is gone, not one of ours, or without pip."""
    if venv_version(venv):
        python = str(python_of(venv))
        if any(subprocess.run([python, "-m", *words], capture_output=True).returncode == 0
               for words in (["pip", "--version"], ["ensurepip", "--upgrade"])):
            return
    print(f"Making the virtual environment {venv}.", flush=True)
    base = getattr(sys, "_base_executable", "") or sys.executable
    made = subprocess.run([base, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, errors="replace")
    if made.returncode != 0:
        raise SetupFailed(f"{(made.stdout + made.stderr).strip()}\nThe virtual environment could not be made. "
                          "On Debian and Ubuntu: sudo apt install python3-venv; then start again.")


def split_requirements(text: str) -> tuple[str, str]:
    """A requirements list without llama-cpp-python, and that one's line without its comment: it is built afterwards."""
    from modules.install.llama_cpp import NAME

    lines = text.splitlines()
    own = [line.partition(" #")[0].strip() for line in lines if NAME.match(line)]
    return "\n".join(line for line in lines if not NAME.match(line)) + "\n", own[0] if own else ""


def progress_flag(venv: Path) -> list[str]:
    """The flag by which pip from 24.1 on tells how far a download is where its output is no terminal."""
    folders = [folder for pattern in ("lib/*/site-packages", "Lib/site-packages") for folder in venv.glob(pattern)]
    names = [path.name for folder in folders for path in folder.glob("pip-*.dist-info")]
    found = [re.match(r"pip-(\d+)\.(\d+)", name) for name in names]
    return ["--progress-bar", "raw"] if any(m and (int(m[1]), int(m[2])) >= (24, 1) for m in found) else []


def fingerprint(*parts: str) -> str:
    """What tells two installations apart."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamps(venv: Path) -> dict[str, str]:
    """The fingerprint of each list that was installed to its end; empty where none was."""
    try:
        stamps = json.loads((venv / STAMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def install(root: Path, venv: Path, *, dev: bool, backend: str, index_url: str, retry: bool) -> None:
    """Install what is missing; nothing to do is found out without starting a program. Raises SetupFailed."""
    from modules.install.llama_cpp import Place, build_llama_cpp

    base, llama_cpp = split_requirements((root / REQUIREMENTS).read_text(encoding="utf-8"))
    texts = {REQUIREMENTS: base}
    if dev:
        texts[DEV_REQUIREMENTS] = (root / DEV_REQUIREMENTS).read_text(encoding="utf-8")
    version = venv_version(venv)
    wanted = {name: fingerprint(text, version) for name, text in texts.items()}
    stamps = read_stamps(venv)
    index = ["--index-url", index_url] if index_url else []
    if not version or any(stamps.get(name) != stamp for name, stamp in wanted.items()):
        make_venv(venv)
        version = venv_version(venv)
        install_lists(venv, texts, index)
        stamps = {**read_stamps(venv), **{name: fingerprint(text, version) for name, text in texts.items()}}
        (venv / STAMP_FILE).write_text(json.dumps(stamps, indent=1), encoding="utf-8")
    if llama_cpp:
        constraints = venv / f"list-{REQUIREMENTS}"
        constraints.write_text(base, encoding="utf-8")
        place = Place(venv, python_of(venv), version, ("--constraint", str(constraints), *progress_flag(venv), *index),
                      root / PROBE_MODEL)
        build = build_llama_cpp(place, llama_cpp, backend, retry=retry)
        if not build.ok:
            print(f"GGUF models cannot be loaded yet. {build.reason}\nThe rest works. To try again:\n  {build.command}\n"
                  "or: python3 start.py install", flush=True)


def install_lists(venv: Path, texts: dict[str, str], index: list[str]) -> None:
    """Give pip the lists in one command, so that it settles them together."""
    from modules.install.progress import run_visibly, tail

    command = [str(python_of(venv)), "-m", "pip", "install", "--no-input", *progress_flag(venv), *index]
    for name, text in texts.items():
        path = venv / f"list-{name}"
        path.write_text(text, encoding="utf-8")
        command += ["--requirement", str(path)]
    log = venv / "install.log"
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    print("Installing " + " and ".join(texts) + f" (log: {log}).", flush=True)
    if run_visibly(command, title="packages", log=log, env=env) != 0:
        raise SetupFailed(f"{tail(log)}\nThe packages could not be installed; the reason is above and in {log}. What was "
                          "downloaded is kept: run the same command again. Behind a mirror give --index-url.")


def run_tests(python: Path, arguments: list[str]) -> int:
    """ruff, mypy, then pytest, whose closing line stays last; what failed before it is named there too."""
    failed = []
    for name, words in (("ruff check", ["ruff", "check", "."]), ("mypy", ["mypy"])):
        print(f"{name}:", flush=True)
        if subprocess.call([str(python), "-m", *words], cwd=ROOT) != 0:
            failed.append(name)
    env = {**os.environ, "CHECKS_FAILED": ", ".join(failed)}
    status = subprocess.call([str(python), "-m", "pytest", *arguments], cwd=ROOT, env=env)
    return status or (1 if failed else 0)


def run_app(python: Path, arguments: list[str]) -> int:
    """Start the app in place of this process where the system can, so that signals reach it."""
    command = [str(python), str(ROOT / "app.py"), *arguments]
    if sys.platform == "win32":
        return subprocess.call(command)
    sys.stdout.flush()
    os.execv(command[0], command)


def read_flags(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What to do, our own flags, and all the others, which go to app.py or pytest untouched."""
    from modules.install.backend import BACKENDS

    parser = argparse.ArgumentParser(prog="start.py", description=__doc__, allow_abbrev=False, add_help=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="",
                        help="what llama-cpp-python is built for; the first time auto, which looks at the machine; "
                             "without this flag what was built stays")
    parser.add_argument("--index-url", default="", metavar="URL", help="the package index that pip uses")
    is_command = bool(argv) and argv[0] in ("install", "test")
    flags, rest = parser.parse_known_args(argv[1:] if is_command else argv)
    flags.command = argv[0] if is_command else "run"
    if flags.command == "run" and {"-h", "--help"} & set(rest):
        from modules.core.options import make_parser

        print(parser.format_help() + "\nThe flags of app.py:\n\n" + make_parser().format_help())
        raise SystemExit(0)
    if flags.command == "install" and rest:
        parser.error("install knows no " + " ".join(rest))
    return flags, rest


def main(argv: list[str]) -> int:
    """Do it and return the exit status."""
    complaint = check_version(*sys.version_info[:2])
    if complaint:
        print(complaint, file=sys.stderr)
        return 2
    flags, rest = read_flags(argv)
    # A stop from outside ends pip and its compilers too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        install(ROOT, VENV, dev=flags.command == "test", backend=flags.backend, index_url=flags.index_url,
                retry=flags.command == "install")
        if flags.command == "test":
            return run_tests(python_of(VENV), rest)
        return run_app(python_of(VENV), rest) if flags.command == "run" else 0
    except SetupFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
