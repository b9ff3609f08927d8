"""The wrong clock of a host: a small library that is preloaded there into every process."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from .commands import DEADLINE
from .spec import LabError, NotHere

SOURCE = Path(__file__).with_name("clock.c")
LIBRARY, OFFSET, PRELOAD = "/usr/lib/lab-clock.so", "/etc/lab-clock", "/etc/ld.so.preload"
# In place: the file is mapped, and one that is emptied first would end those who look at it.
CHANGE = f"dd of={OFFSET} conv=notrunc status=none"


def build(target: Path) -> bytes:
    """Compile the library for hosts."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotHere("a wrong clock: no C compiler on this machine (apt-get install gcc libc6-dev)")
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        f'-DOFFSET_FILE="{OFFSET}"',
        "-o",
        str(target),
        str(SOURCE),
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr}")
    return target.read_bytes()


def encode(seconds: float) -> bytes:
    return struct.pack("q", round(seconds * 1_000_000_000))
