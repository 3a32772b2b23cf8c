"""Why a worker ended, in words a person can act on."""

from __future__ import annotations

import signal

_WINDOWS = {0xC0000005: "an access violation", 0xC0000409: "a failed check in native code", 0xC00000FD: "a stack overflow",
            0xC0000017: "a lack of memory", 0xC000001D: "an instruction this processor lacks"}
_STEPS = {
    "SIGKILL": "Most often the system ran out of memory and ended it: load it with a smaller context or fewer slots, take a "
               "smaller quantization, or close other programs.",
    "SIGILL": "The library was built for another processor: run python3 start.py install, which builds it for this one; "
              "if it says that nothing needs building, CMAKE_ARGS=-DGGML_NATIVE=off python3 start.py install.",
    "SIGTERM": "Something asked it to end; load it again when you are ready.",
}
_FAULT = "The model's file or its library has a fault; the end of the log says more. Load it again, or try another loader."


def cause_of(exit_code: int) -> tuple[str, str]:
    """How the process ended, and what to do next, from its exit code (negative: minus the signal's number)."""
    unsigned = exit_code & 0xFFFFFFFF
    if unsigned in _WINDOWS:
        return f"was ended by {_WINDOWS[unsigned]} (0x{unsigned:08X})", _FAULT
    if exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = f"signal {-exit_code}"
        return f"was killed by {name}", _STEPS.get(name, _FAULT)
    return f"ended with exit code {exit_code}", "The end of the log says why. Load it again, or try another loader."


def sentence(model: str, exit_code: int, *, is_loading: bool) -> str:
    """The message of a WorkerDied error."""
    how, step = cause_of(exit_code)
    return f"The process of the model {model} {how}{' while loading' if is_loading else ''}. {step}"
