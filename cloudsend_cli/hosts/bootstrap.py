"""The one command line that a login shell on a host is given, and what goes into it. Pure text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

OLDEST_PYTHON = (3, 6)
NEWEST_PYTHON = (3, 16)
STAGE_MARK = "cloudsend-stage"
PYTHON_FLAGS = "-I -S -B"

# The shell reads two lines (a nonce, and the Python to use or nothing), looks for one that starts, and becomes it.
# That Python reads the stage up to a NUL. Neither text has a quote, `!`, newline or backslash of its own, so that each
# login shell hands it on as it stands: csh replaces `!` inside quotes, fish takes backslashes there.
# `read` and the reading of the stage take byte by byte, as the rest of the input is somebody else's.
_READ_STAGE = "import os;exec(bytes().join(iter(lambda:os.read(0,1)or os._exit(1),bytes(1))))"
_OWN_PATH = f"import sys;sys.version_info>=({OLDEST_PYTHON[0]},{OLDEST_PYTHON[1]})and print(sys.executable)"
_SHELL_TEXT = (
    "IFS= read -r n; IFS= read -r q; "
    'if test -n "$q"; then set -- "$q"; else set -- {names}; fi; '
    'for p do r=$("$p" {flags} -c "{probe}" </dev/null 2>/dev/null); '
    'if test -x "$r"; then exec {root}"$r" {flags} -c "{load}"; fi; '
    'if command -v "$p" >/dev/null 2>&1; then f="$f $p"; fi; done; '
    'echo "{mark} $n none$f"; exit 1'
)


def _python_names() -> str:
    versions = range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1)
    return " ".join(["python3", "/usr/libexec/platform-python", *(f"python3.{n}" for n in versions), "python"])


def _shell_text(root: str) -> str:
    return _SHELL_TEXT.format(
        names=_python_names(), flags=PYTHON_FLAGS, probe=_OWN_PATH, load=_READ_STAGE, mark=STAGE_MARK, root=root
    )


SHELL_TEXT = _shell_text("")
COMMAND = f"exec /bin/sh -c '{SHELL_TEXT}'"
_WITH_SUDO = 's=; test "$(id -u)" = 0 || s="sudo -n"; ' + _shell_text("$s ")
ROOT_COMMAND = f"exec /bin/sh -c '{_WITH_SUDO}'"  # the same as root, who needs no password for it


@lru_cache(maxsize=2)
def stage_text(name: str = "stage") -> bytes:
    return resources.files("cloudsend_cli.hosts").joinpath(f"{name}.py").read_bytes()


def opening(nonce: str, python: str, header: dict[str, object], stage: str = "stage") -> bytes:
    """All that is sent before the host has said anything."""
    if "\n" in python or "\0" in python:
        raise ValueError("a path of Python with a newline")
    line = ascii({**header, "nonce": nonce}).encode("ascii")  # Python reads it without a module
    preface = f"{nonce}\n{python}\n".encode("utf-8", "surrogateescape")
    return preface + stage_text(stage) + b"\0" + line + b"\n"


_PLAIN = re.compile(r"[A-Za-z0-9 _./:=@,+-]")


def one_argument(command: Sequence[str]) -> str:
    """A command line that any login shell gives to a POSIX shell as it stands.

    What is not plain goes as octal escapes of printf: csh replaces `!` and ends a word at a newline, fish eats
    backslashes.
    """
    text = shlex.join(command).encode("utf-8", "surrogateescape")
    octal = "".join(chr(b) if _PLAIN.match(chr(b)) else f"\\{b:03o}" for b in text)
    return f"""exec /bin/sh -c 'eval "$(printf "{octal}")"'"""


def python_name() -> str:
    return f"Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later"


def first_words(noise: bytes, lines: int = 5, width: int = 160) -> str:
    """The first lines of what a host said, with nothing in them that a terminal obeys."""
    text = noise.decode("utf-8", "replace")
    shown = ("".join(c if c.isprintable() else "?" for c in line.strip())[:width] for line in text.splitlines())
    return "\n".join([line for line in shown if line][:lines])
