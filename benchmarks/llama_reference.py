"""Builds llama-bench and llama-server from the llama.cpp sources that llama-cpp-python ships, to measure against."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.install.backend import processor, processor_flags

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "llama-reference"
PROGRAMS = ("llama-bench", "llama-server")


def find_programs() -> dict[str, Path] | None:
    """The programs by name where they are built, else None."""
    found = {name: FOLDER / "bin" / name for name in PROGRAMS}
    return found if all(path.exists() for path in found.values()) else None


def build_programs() -> dict[str, Path]:
    """Fetch and build what is missing (about ten minutes on two cores); raises CalledProcessError where that fails."""
    found = find_programs()
    if found:
        return found
    source = _source()
    cmake = ["nice", "-n", "15", "cmake"] if os.name == "posix" else ["cmake"]
    off = [f"-DLLAMA_{name}=OFF" for name in ("CURL", "OPENSSL", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_UI")]
    subprocess.run([*cmake, "-S", source, "-B", FOLDER, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *off,
                    *processor_flags(processor())], check=True)
    cores = str(os.cpu_count() or 1)
    subprocess.run([*cmake, "--build", FOLDER, "--parallel", cores, "--target", *PROGRAMS], check=True)
    found = find_programs()
    assert found is not None, "the build made what it was told to"
    return found


def _source() -> Path:
    """llama.cpp's folder out of the source distribution of the version that requirements.txt pins."""
    pinned = re.search(r"^llama-cpp-python==(\S+)", (ROOT / "requirements.txt").read_text("utf-8"), re.M)
    assert pinned is not None, "requirements.txt pins llama-cpp-python"
    target = ROOT / "build" / f"llama-cpp-python-{pinned[1]}"
    if not (target / "CMakeLists.txt").exists():
        archive = next((ROOT / "build").glob(f"llama_cpp_python-{pinned[1]}.tar.gz"), None)
        if archive is None:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-binary", "llama-cpp-python", "--no-deps",
                            "--dest", ROOT / "build", f"llama-cpp-python=={pinned[1]}"], check=True)
            archive = next((ROOT / "build").glob(f"llama_cpp_python-{pinned[1]}.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(ROOT / "build", filter="data")
        (ROOT / "build" / f"llama_cpp_python-{pinned[1]}").rename(target)
    return target / "vendor" / "llama.cpp"


if __name__ == "__main__":
    for name, path in build_programs().items():
        print(name, path)
