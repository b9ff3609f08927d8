"""A config file as nodes: read whole, and never waited for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from cloudsend_cli.errors import ConfigError, Problem

from .check import suggest
from .document import (
    MAX_BYTES,
    Items,
    Mapping,
    Node,
    Place,
    decode_file,
    fail,
    is_null,
    parse_yaml,
    problem_at,
    show_text,
)

FIRST = "write at least: jobs: python train.py"


def read_document(
    path: str, absolute: str, take_functions: Callable[[object], object] | None = None
) -> tuple[Node, list[Problem]]:
    """The file as nodes, with its doubled keys. Raises ConfigError when it cannot be read as one mapping."""
    file = path if is_text(path) else show_text(path)
    if not is_text(absolute):
        raise fail("the path of the config is not valid UTF-8", Place(file), "rename the file or its directory")
    if "\0" in path:
        raise fail("the path contains a NUL character", Place(show_text(path)))
    text = decode_file(_read_bytes(path, absolute, file), file)
    root: Node | None
    problems: list[Problem] = []
    if absolute.endswith(".py"):
        from .python_document import execute_config

        root = execute_config(absolute, text, file, take_functions)
    elif absolute.endswith(".json"):
        from .json_document import parse_json

        root, problems = parse_json(text, file)
    else:
        root, problems = parse_yaml(text, file)
    if root is None or is_null(root):
        raise fail("the file is empty", Place(file), FIRST)
    if not isinstance(root, Mapping):
        what = "a list" if isinstance(root, Items) else "one text"
        message = f"expected keys such as 'jobs:', found {what}"
        raise ConfigError([*problems, problem_at(message, root.place, FIRST)])
    return root, problems


def _read_bytes(path: str, absolute: str, file: str) -> bytes:
    try:
        descriptor = os.open(absolute, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            info = os.fstat(stream.fileno())
            if not stat.S_ISREG(info.st_mode):
                what = "a directory" if stat.S_ISDIR(info.st_mode) else "not a regular file"
                raise fail(f"is {what}, not a config", Place(file), _near_files(absolute, os.curdir))
            if info.st_size > MAX_BYTES:
                message = f"the file has {info.st_size / 1e6:.1f} MB; the limit is {MAX_BYTES // 1_000_000} MB"
                raise fail(message, Place(file), "use matrix or repeat instead of writing out many jobs")
            return stream.read(MAX_BYTES)
    except FileNotFoundError:
        raise fail("no such file", Place(file), _near_files(absolute, path)) from None
    except IsADirectoryError:
        raise fail("is a directory, not a config", Place(file)) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise fail(f"cannot be read: {show_text(reason)}", Place(file)) from None


def _near_files(absolute: str, path: str) -> str:
    folder, wanted = os.path.split(absolute)
    try:
        names = [n for n in os.listdir(folder)[:10_000] if n.endswith((".yml", ".yaml", ".json", ".py"))]
    except (OSError, ValueError):
        names = []
    near = suggest(wanted, names)
    if near:
        return f"did you mean {show_text(os.path.join(os.path.dirname(path), near))!r}?"
    return "'cloudsend init' writes a first config"


def is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
