"""What start.py installs with: which backend suits which machine, what a failed build leaves, and what is shown of it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from modules.install import backend, llama_cpp, progress
from modules.install.backend import Choice, Tools, build_variables, choose, look, parallel_jobs, processor, processor_flags
from modules.install.llama_cpp import Build, Place, build_llama_cpp, is_current, read_build, write_build
from modules.install.progress import run_visibly, summary

LINUX = Tools(system="linux", machine="x86_64", compiler="/usr/bin/c++")
CUDA = replace(LINUX, nvcc="/usr/bin/nvcc", nvidia_gpu="NVIDIA H200")


@pytest.mark.parametrize(("tools", "backend", "why"), [
    (LINUX, "cpu", "no GPU toolkit"),
    (CUDA, "cuda", "NVIDIA H200"),
    (replace(CUDA, nvidia_gpu=""), "cpu", "nvcc, NVIDIA's compiler, is here but no GPU for cuda is visible"),
    (replace(CUDA, nvcc=""), "cpu", "NVIDIA H200 is here but nvcc, NVIDIA's compiler, is not"),
    (replace(CUDA, nvcc="", glslc="/usr/bin/glslc", vulkan_gpu="NVIDIA H200"), "vulkan", "nvcc"),
    (replace(LINUX, hipcc="/opt/rocm/bin/hipcc", amd_gpu="gfx1100"), "rocm", "gfx1100"),
    (replace(LINUX, glslc="/usr/bin/glslc"), "cpu", "no GPU for vulkan"),
    (Tools(system="darwin", machine="arm64"), "metal", "Apple silicon"),
    (Tools(system="darwin", machine="x86_64"), "cpu", "no GPU toolkit"),
])
def test_auto_takes_what_the_machine_can_build_and_run_and_says_why(tools: Tools, backend: str, why: str) -> None:
    choice = choose("auto", tools)
    assert choice.backend == backend and why in choice.why


def test_a_backend_that_is_asked_for_is_taken_and_what_it_lacks_is_said() -> None:
    assert choose("cuda", CUDA) == Choice("cuda", "asked for")
    assert choose("cpu", CUDA) == Choice("cpu", "asked for")
    assert choose("cuda", LINUX) == Choice("cuda", "asked for, although nvcc, NVIDIA's compiler, was not found")


def test_looking_reads_what_the_drivers_tools_print(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = {"nvidia-smi": "GPU 0: NVIDIA H200 (UUID: GPU-1)\n", "rocminfo": "  Name:   AMD Ryzen\n  Name:     gfx1100\n",
               "vulkaninfo": "GPU0:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_CPU\n\tdeviceName = llvmpipe\n"
                             "GPU1:\n\tdeviceType = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\n\tdeviceName = Radeon\n"}
    monkeypatch.setattr("shutil.which", lambda name, path: "/x/" + name)
    found = look({"PATH": ""}, lambda command: printed[Path(command[0]).name])
    assert (found.nvidia_gpu, found.amd_gpu, found.vulkan_gpu) == ("NVIDIA H200", "gfx1100", "Radeon")
    assert found.compiler == "/x/c++" and found.nvcc == "/x/nvcc"
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    bare = look({"PATH": ""})
    assert not any([bare.compiler, bare.nvcc, bare.nvidia_gpu, bare.hipcc, bare.amd_gpu, bare.glslc, bare.vulkan_gpu])


def test_a_drivers_tool_that_fails_is_no_gpu(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: Ghost'\nexit 9\n")
    tool.chmod(0o755)
    assert look({"PATH": str(tmp_path)}).nvidia_gpu == ""


def test_build_flags_bound_memory_and_keep_the_persons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "processor", lambda: "flags : avx2")
    variables = build_variables("cuda", CUDA, {"CMAKE_ARGS": "-DGGML_NATIVE=off"})
    assert variables["CMAKE_ARGS"] == "-DGGML_CUDA=on -DGGML_NATIVE=off" and variables["CUDACXX"] == CUDA.nvcc
    assert int(variables["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1
    assert "CMAKE_ARGS" not in build_variables("cpu", LINUX, {})
    assert "CMAKE_BUILD_PARALLEL_LEVEL" not in build_variables("cpu", LINUX, {"CMAKE_BUILD_PARALLEL_LEVEL": "3"})
    assert build_variables("cpu", Tools("darwin", "arm64"), {})["CMAKE_ARGS"] == "-DGGML_METAL=off"
    assert parallel_jobs(16, 8 * 2**30, 2 * 2**30) == 4 and parallel_jobs(16, 2**20, 2**31) == 1 and parallel_jobs(8, 0, 1) == 4


RECORD = Build(ok=True, backend="cpu", command="", reason="", requirement="llama-cpp-python==1", python="3.11.7", chosen="cpu",
               processor=llama_cpp._short(processor()))


@pytest.mark.parametrize(("record", "wanted", "retry", "current"), [
    (RECORD, "", False, True), (RECORD, "cpu", True, True), (RECORD, "auto", False, True), (RECORD, "cuda", False, False),
    (None, "", False, False), (replace(RECORD, requirement="llama-cpp-python==2"), "", False, False),
    (replace(RECORD, python="3.12.1"), "", False, False), (replace(RECORD, chosen="cuda"), "auto", False, False),
    (replace(RECORD, ok=False), "", False, True), (replace(RECORD, ok=False), "", True, False),
    (replace(RECORD, processor="another"), "", False, False)])
def test_it_builds_again_only_when_something_changed_or_a_failed_build_is_to_be_tried(
        record: Build | None, wanted: str, retry: bool, current: bool) -> None:
    now = Choice("cpu", "")
    assert is_current(record, "llama-cpp-python==1", "3.11.7", wanted, retry=retry, now=lambda: now) is current


def fake_build(monkeypatch: pytest.MonkeyPatch, tools: Tools,
               prints: Callable[[dict[str, str]], tuple[int, str]]) -> list[list[str]]:
    """pip replaced by a function of the build's variables that gives status and output; returns the commands that ran."""
    commands: list[list[str]] = []

    def run(command: Sequence[str], *, title: str, log: Path, env: dict[str, str]) -> int:
        commands.append(list(command))
        status, text = prints(env)
        log.write_text(text)
        return status

    monkeypatch.setattr(llama_cpp, "look", lambda: tools)
    monkeypatch.setattr(backend, "processor", lambda: "flags : avx2")
    monkeypatch.setattr(llama_cpp, "run_visibly", run)
    for name in ("CMAKE_ARGS", "PIP_NO_CACHE_DIR", "PIP_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    return commands


def place(tmp_path: Path, *, loads: bool = True) -> Place:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n" + ("exit 0" if loads else "echo 'ImportError: libcuda.so.1' >&2; exit 1") + "\n")
    python.chmod(0o755)
    return Place(tmp_path, python, "3.11.7")


@pytest.mark.parametrize(("log", "reason"), [
    ("-- Warning: ccache not found\n  CMake Error at x.cmake:230 (message):\n    Could NOT find Vulkan\n    (missing: glslc)\n"
     "  Call Stack (most recent call first):\n  error: subprocess-exited-with-error\n",
     "Could NOT find Vulkan (missing: glslc)."),
    ("x.cu:3: fatal error: cuda.h: no such file\nerror: subprocess-exited-with-error\n", "x.cu:3: fatal error: cuda.h: no"),
    ("  error: subprocess-exited-with-error\nERROR: Failed building wheel\n", "ERROR: Failed building wheel."),
    ("c++: Killed signal terminated program cc1plus\n", "Killed signal"), ("", "see the log")])
def test_the_reason_is_the_line_that_explains_most(log: str, reason: str) -> None:
    assert reason in llama_cpp._reason(log, LINUX)


def test_a_failed_build_leaves_its_reason_and_the_command_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = "lots\nCMake Error at CMakeLists.txt:3:\n  no CUDA here\n\nERROR: Failed building wheel"
    commands = fake_build(monkeypatch, LINUX, lambda env: (1, output))
    build = build_llama_cpp(place(tmp_path), "llama-cpp-python==1", "cuda")
    assert build == read_build(tmp_path) and not build.ok and build.backend == "cuda"
    assert "no CUDA here" in build.reason and output in build.log
    assert build.command.startswith("CMAKE_ARGS=-DGGML_CUDA=on ") and build.command.endswith("llama-cpp-python==1")
    assert build_llama_cpp(place(tmp_path), "llama-cpp-python==1", "") == build and len(commands) == 1, "no second try unasked"
    build_llama_cpp(place(tmp_path), "llama-cpp-python==1", "", retry=True)
    assert len(commands) == 2, "start.py install tries again"


def test_in_auto_a_failed_gpu_build_is_followed_by_one_for_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = fake_build(monkeypatch, CUDA,
                          lambda env: (1, "fatal error: nvcc") if "CUDA" in env.get("CMAKE_ARGS", "") else (0, ""))
    build = build_llama_cpp(place(tmp_path), "llama-cpp-python==1", "")
    assert build.ok and build.backend == "cpu" and "cuda failed" in build.reason and "nvcc" in build.log
    assert len(commands) == 2
    assert build_llama_cpp(place(tmp_path), "llama-cpp-python==1", "auto") == build, "auto would choose the same again"


def test_a_failed_change_of_backend_keeps_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_build(tmp_path, RECORD)
    commands = fake_build(monkeypatch, LINUX, lambda env: (1, "error: x"))
    build = build_llama_cpp(place(tmp_path), "llama-cpp-python==1", "vulkan")
    assert build.ok and build.backend == "cpu" and "stays" in build.reason
    assert "--force-reinstall" in commands[0] and "--no-deps" in commands[0]


def test_a_build_that_does_not_load_is_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_build(monkeypatch, CUDA, lambda env: (0, ""))
    build = build_llama_cpp(place(tmp_path, loads=False), "llama-cpp-python==1", "cuda")
    assert not build.ok and "libcuda.so.1" in build.reason


def test_without_a_compiler_nothing_is_downloaded_to_fail_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = fake_build(monkeypatch, replace(LINUX, compiler=""), lambda env: (1, "ERROR: No matching distribution"))
    build = build_llama_cpp(place(tmp_path), "llama-cpp-python==1", "")
    assert "--only-binary" in commands[0] and "No C++ compiler" in build.reason and "apt install" in build.reason


def test_wheels_of_one_backend_are_never_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = {llama_cpp._cache(*kind, {"PIP_CACHE_DIR": str(tmp_path)})[1]
              for kind in (("cpu", ""), ("cuda", ""), ("cpu", "-DGGML_NATIVE=off"))}
    assert len(caches) == 3 and all(cache.startswith(str(tmp_path)) for cache in caches)
    assert llama_cpp._cache("cpu", "", {"CMAKE_ARGS": "-DX=1"}) == ["--no-cache-dir"]


def test_a_persons_own_flags_build_again_and_then_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def now(build: Build) -> bool:
        return is_current(build, "llama-cpp-python==1", "3.11.7", "", retry=False, now=lambda: Choice("cpu", ""))

    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_NATIVE=off")
    assert not now(RECORD) and now(replace(RECORD, own="-DGGML_NATIVE=off"))
    monkeypatch.delenv("CMAKE_ARGS")
    assert now(replace(RECORD, own="-DGGML_NATIVE=off"))


def test_a_processor_with_amx_gets_all_but_that_and_others_what_they_have() -> None:
    assert processor_flags("flags : fpu avx2 fma avx512f avx512_vnni") == []
    assert processor_flags("flags : avx2 avx512f avx512vbmi avx512_bf16 amx_tile amx_int8") == [
        "-DGGML_NATIVE=off", "-DGGML_AVX512=on", "-DGGML_AVX512_BF16=on", "-DGGML_AVX512_VBMI=on"]


def test_a_person_who_names_the_processor_gets_nothing_of_ours_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "processor", lambda: "flags : avx2 avx512f amx_tile")
    assert "AVX512" in build_variables("cpu", LINUX, {"CMAKE_ARGS": "-DX=1"})["CMAKE_ARGS"]
    assert build_variables("cpu", LINUX, {"CMAKE_ARGS": "-DGGML_NATIVE=off"})["CMAKE_ARGS"] == "-DGGML_NATIVE=off"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_build_that_the_processor_ends_is_a_failed_one_and_says_what_to_do(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_build(monkeypatch, LINUX, lambda env: (0, ""))
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$3" = "$(dirname $0)/small.gguf" ] || exit 0\nkill -ILL $$\n')
    python.chmod(0o755)
    probe = tmp_path / "small.gguf"
    there = Place(tmp_path, python, "3.11.7", probe=probe)
    assert build_llama_cpp(there, "llama-cpp-python==1", "cpu").ok, "without a model the libraries are only loaded"
    probe.touch()
    build = build_llama_cpp(there, "llama-cpp-python==2", "cpu")
    assert build.backend == "cpu" and "SIGILL" in build.reason and "CMAKE_ARGS=-DGGML_NATIVE=off" in build.reason


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"ok": true}', "x" * 100])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / llama_cpp.RECORD_FILE).write_text(content)
    assert read_build(tmp_path) is None
    assert read_build(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("line", "words"), [
    ("Collecting torch==2.13.0 (from -r x)", "looking for torch==2.13.0"),
    ("  Downloading https://h/p/torch-2.13.0-cp311.whl (180.1 MB)", "downloading torch (180.1 MB)"),
    ("  Downloading gradio-6.31.0-py3-none-any.whl.metadata (16 kB)", "downloading gradio (16 kB)"),
    ("Progress 50 of 200", "before: 25 %"), ("Progress 5 of 0", "before"),
    ("  [57/178] Building CXX object a.o", "compiling 57 of 178"),
    ("Installing collected packages: a, b, c", "installing 3 packages"), ("anything else", "before"), ("", "before")])
def test_pips_lines_become_a_few_words(line: str, words: str) -> None:
    assert summary(line, "before") == words


def test_a_program_is_shown_in_lines_and_logged_whole(tmp_path: Path) -> None:
    out = io.StringIO()
    code = "import sys; print('Collecting x'); print('odd \\x1b', file=sys.stderr); sys.exit(3)"
    assert run_visibly([sys.executable, "-c", code], title="packages", log=tmp_path / "log", out=out) == 3
    assert "failed with status 3" in out.getvalue() and "\x1b" not in out.getvalue()
    assert "Collecting x" in progress.tail(tmp_path / "log") and "odd" in progress.tail(tmp_path / "log")
    assert progress.tail(tmp_path / "none") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interruption_ends_the_program_and_what_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    compiler = f"sleep 100 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"
    code = ("import sys, pathlib; from modules.install.progress import run_visibly; "
            "run_visibly(['sh', '-c', sys.argv[1]], title='x', log=pathlib.Path(sys.argv[2]))")
    with subprocess.Popen([sys.executable, "-c", code, compiler, str(tmp_path / "log")], stderr=subprocess.PIPE,
                          stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as runner:
        until(pid_file.exists)
        runner.send_signal(signal.SIGINT)
        _, errors = runner.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    until(lambda: not is_running(int(pid_file.read_text())))


def until(is_true: Callable[[], bool]) -> None:
    """Wait for a condition, at most half a minute."""
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether the process lives; one that nobody has waited for yet is dead."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
