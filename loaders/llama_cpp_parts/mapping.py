"""What stays of a memory-mapped model once it is loaded: only the pages that are read again."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MADV_DONTNEED = 4
MAPS = Path("/proc/self/maps")


def let_go(path: str) -> int:
    """Take the mapped pages of this file, and of all GGUF files, off this process; returns how many bytes they spanned.

    llama.cpp copies the weights of some types (Q4_K and Q4_0 on AVX2, what goes to a GPU) into a layout of its own and leaves
    the file's pages mapped too: twice the memory. A page that is read again comes back from the system's cache. Linux only;
    elsewhere, and where anything fails, nothing is done.
    """
    if not MAPS.exists():
        return 0
    try:
        about = os.stat(path)
        libc = ctypes.CDLL(None, use_errno=True)
        lines = MAPS.read_text("utf-8", "surrogateescape").splitlines()
    except (OSError, AttributeError):
        return 0
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    n_bytes = 0
    for line in lines:
        span, modes, _, device, inode, *name = line.split(maxsplit=5)
        major, _, minor = device.partition(":")
        is_it = (os.makedev(int(major, 16), int(minor, 16)), int(inode)) == (about.st_dev, about.st_ino)
        if "w" in modes or not (is_it or (name and name[0].lower().endswith(".gguf"))):
            continue
        start, _, end = span.partition("-")
        size = int(end, 16) - int(start, 16)
        if not libc.madvise(int(start, 16), size, MADV_DONTNEED):
            n_bytes += size
    return n_bytes
