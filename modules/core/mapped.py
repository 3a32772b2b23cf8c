"""What stays of memory-mapped weights once a model is loaded: only the pages that are read again."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from pathlib import Path

MADV_DONTNEED = 4
SMAPS = Path("/proc/self/smaps")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+)")


def let_go(files: Iterable[Path]) -> int:
    """Take the mapped pages of these files off this process; returns how many bytes of address space they were in.

    Libraries read weights from a mapped file, keep them in another form (repacked, quantized, on a GPU), and leave the file's
    pages mapped: the model's memory and the file's together. A page that is read again comes back from the system's cache.
    A mapping that was written into keeps its pages. Linux only; elsewhere, and where anything fails, nothing is done.
    """
    if not SMAPS.exists():
        return 0
    try:
        wanted = {(about.st_dev, about.st_ino) for about in map(os.stat, files)}
        lines = SMAPS.read_text("utf-8", "surrogateescape").splitlines()
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    except (OSError, AttributeError):
        return 0
    n_bytes = start = stop = 0
    for line in lines:
        if head := _MAPPING.match(line):
            start, stop = int(head[1], 16), int(head[2], 16)
            is_wanted = (os.makedev(int(head[3], 16), int(head[4], 16)), int(head[5])) in wanted
            stop = stop if is_wanted else start
        elif line.startswith("Anonymous:") and stop > start:
            is_written = line.split()[1] != "0"
            if not is_written and not libc.madvise(start, stop - start, MADV_DONTNEED):
                n_bytes += stop - start
            stop = start
    return n_bytes
