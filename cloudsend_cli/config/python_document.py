"""Python values, and `.py` configs, as nodes. A `.py` config is code: it runs only when its user names that file."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from collections.abc import Mapping as AbstractMapping
from datetime import timedelta

from cloudsend_cli.errors import ConfigError

from .document import MAX_DEPTH, Items, Mapping, Node, Place, Scalar, fail, show_text

MAX_VALUES = 5_000_000


class _Values:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.left = MAX_VALUES

    def node(self, value: object, path: str, depth: int) -> Node:
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            what = f"nested deeper than {MAX_DEPTH} levels" if self.left >= 0 else "more values than can be read"
            shown = path if len(path) <= 60 else path[:57] + "..."
            raise fail(f"{shown or 'config'}: {what}", self.place, "does it contain itself?", shown)
        if isinstance(value, AbstractMapping):
            return self.mapping(value, path, depth)
        if isinstance(value, (list, tuple, range)):
            items = [self.node(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
            return Items(items, self.place)
        scalar = self.scalar(value)
        if scalar is not None:
            return scalar
        plain = getattr(value, "tolist", None)  # arrays and their numbers
        if callable(plain):
            return self.node(plain(), path, depth + 1)
        raise fail(
            f"{path or 'config'}: a {type(value).__name__} cannot be used here",
            self.place,
            "use texts, numbers, true and false, lists and dicts",
            path,
        )

    def scalar(self, value: object) -> Scalar | None:
        if value is None:
            return Scalar("null", True, self.place, "None")
        if isinstance(value, (bool, float)):
            said = str(value)
            text = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(said, said)
            return Scalar(text, True, self.place, said if said != text else "")
        if isinstance(value, int):
            text = str(int(value)) if value.bit_length() < 4000 else "9" * 1200
            return Scalar(text, True, self.place)
        if isinstance(value, (str, os.PathLike)):
            text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
            return Scalar(text if isinstance(text, str) else os.fsdecode(text), False, self.place)
        if isinstance(value, timedelta):
            return Scalar(f"{value.total_seconds():g}", True, self.place, str(value))
        return None

    def mapping(self, value: AbstractMapping[object, object], path: str, depth: int) -> Mapping:
        entries: list[tuple[Scalar, Node]] = []
        for key, item in value.items():
            if not isinstance(key, (str, int, float)):
                raise fail(f"{path or 'config'}: the key {show_text(repr(key))} is not a text", self.place, path=path)
            name = Scalar(str(key), False, self.place)
            entries.append((name, self.node(item, f"{path}.{key}" if path else str(key), depth + 1)))
        return Mapping(entries, self.place, len(entries))


def build_nodes(value: object, file: str) -> Node:
    """Python data as nodes whose places name the file alone. Raises ConfigError for what no config can hold."""
    return _Values(Place(file)).node(value, "", 0)


def execute_config(path: str, text: str, file: str, take_functions: Callable[[object], object] | None = None) -> Node:
    """Run a `.py` config and return its `config`. Whatever it raises becomes a ConfigError with its file and line.

    `take_functions` replaces functions in it, while modules beside it can be found.
    """
    folder = os.path.dirname(path)
    names: dict[str, object] = {"__name__": "__cloudsend_config__", "__file__": path, "__builtins__": __builtins__}
    before = list(sys.path)
    sys.path.insert(0, folder)
    try:
        # WHY NOT stdout: it belongs to the answer of the command that loads the config.
        with contextlib.redirect_stdout(sys.stderr):
            exec(compile(text, path, "exec", dont_inherit=True), names)  # noqa: S102 the user named this file
    except SyntaxError as problem:
        line, column = (problem.lineno or 0, problem.offset or 1) if problem.filename == path else (0, 0)
        raise fail(f"not valid Python: {problem.msg}", Place(file, line, max(1, column))) from None
    except SystemExit as problem:
        raise _failure(problem, f"the config ended the program with exit({problem.code!r})", path, file) from None
    except Exception as problem:  # noqa: BLE001 the user's code may raise anything
        words = show_text(f"{type(problem).__name__}: {_words(problem)}"[:500])
        raise _failure(problem, f"the config raised {words}", path, file) from None
    else:
        if take_functions is not None and "config" in names:
            names["config"] = take_functions(names["config"])
    finally:
        sys.path[:] = before
    if "config" not in names:
        raise fail("the file does not set `config`", Place(file), "write: config = {'jobs': 'python train.py'}")
    return build_nodes(names["config"], file)


def _words(problem: BaseException) -> str:
    try:
        return str(problem)
    except Exception:  # noqa: BLE001 a broken __str__ of the user's own exception
        return "(no message)"


def _failure(problem: BaseException, message: str, path: str, file: str) -> ConfigError:
    frames = traceback.extract_tb(problem.__traceback__)
    line = next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == path), 0)
    return fail(message, Place(file, line, 1 if line else 0))
