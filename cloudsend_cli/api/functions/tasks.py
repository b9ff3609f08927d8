"""Calls of a function as commands with files: the function is sent once, short arguments stand in a variable."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudsend_cli.config.context import FunctionTask, FunctionTasks
from cloudsend_cli.core.model import Output, Slot, Upload
from cloudsend_cli.engine.submit import ANY_PYTHON, Keep
from cloudsend_cli.errors import UsageError

from . import FOLDER, VALUE
from .bundle import build_bundle
from .modules import find_sources
from .pickling import pickle_value

CALL_VARIABLE = "CLOUDSEND_CALL"  # see program.py
INLINE_MOST = 2000  # bytes of pickled arguments that stand in that variable
SHOWN_MOST = 120
PLAIN = (bool, int, float, complex, type(None))


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its arguments, and those of them that tell it from the others."""

    args: tuple[object, ...]
    named: Mapping[str, object]
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """The places of a group as its user wrote them: for each the named arguments that it gives. None: no pool."""

    places: tuple[Mapping[str, object], ...] | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(tuple((k, show_value(v)) for k, v in place.items()) for place in self.places or ())


def plan_tasks(
    function: Callable[..., object], calls: Sequence[Call], keep: Keep, *, pool: Pool | None = None, python: str = ""
) -> FunctionTasks:
    """UsageError: something cannot be sent. `python`: the command of the interpreter; "": as its place has it."""
    if not callable(function):
        raise UsageError(
            f"a {type(function).__name__} cannot be called", hint="give a function; commands are `submit`ted"
        )
    name = name_of(function)
    pool = pool or Pool()
    twice = {k for place in pool.places or () for k in place}.intersection(k for call in calls for k in call.named)
    if twice:
        told = ", ".join(map(repr, sorted(twice)))
        raise UsageError(
            f"{name}: its places and its points both give {told}", hint="rename one of them, or leave it out"
        )
    pickled = pickle_value(function, f"the function {name}")
    arguments = [pickle_value((call.args, dict(call.named)), f"the arguments of {name}") for call in calls]
    modules = {m for part in (pickled, *arguments) for m in part.modules}
    shared = [keep(f"{FOLDER}/call.pyz", build_bundle()), keep(f"{FOLDER}/function", pickled.data)]
    if any(pool.places or ()):
        places = pickle_value([dict(place) for place in pool.places or ()], f"the places of {name}")
        modules |= places.modules
        shared.append(keep(f"{FOLDER}/slots", places.data))
    for place, file in find_sources(modules).items():
        shared.append(keep(f"{FOLDER}/modules/{place}", _read(file)))
    uploads = tuple(sorted(shared, key=lambda upload: upload.path))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    argv = (python or ANY_PYTHON, f"{FOLDER}/call.pyz", version)
    tasks = []
    for call, part in zip(calls, arguments, strict=True):
        small = len(part.data) <= INLINE_MOST
        given = uploads if small else _with(uploads, keep(f"{FOLDER}/arguments", part.data))
        env = ((CALL_VARIABLE, base64.b64encode(part.data).decode()),) if small else ()
        tasks.append(FunctionTask(argv, _display(name, call), call.params, given, env))
    return FunctionTasks(tuple(tasks), pool.slots, (Output(VALUE),))


def _with(uploads: tuple[Upload, ...], one: Upload) -> tuple[Upload, ...]:
    return tuple(sorted((*uploads, one), key=lambda upload: upload.path))


def _read(file: Path) -> bytes:
    return file.read_bytes()


def name_of(function: Callable[..., object]) -> str:
    """As its user knows it: of a partial or an object that can be called, that of what is inside."""
    inner = getattr(function, "func", function)
    name = getattr(inner, "__qualname__", "") or type(inner).__qualname__
    return name.rpartition("<locals>.")[2]


def _display(name: str, call: Call) -> str:
    words = [*map(_show_argument, call.args), *(f"{k}={_show_argument(v)}" for k, v in call.named.items())]
    return f"{name}({', '.join(words)})"


def _show_argument(value: object) -> str:
    return repr(show_value(value)) if isinstance(value, str) else show_value(value)


def show_value(value: object) -> str:
    """For tables and variables. Equal values have equal texts in every process, as these are a part of a job."""
    if isinstance(value, str):
        text = value
    elif type(value) in PLAIN:
        text = str(value)
    elif type(value) in {list, tuple} and _is_plain(value):
        text = repr(value)
    else:
        plain = getattr(value, "item", None)  # numbers of arrays
        inner = plain() if callable(plain) and getattr(value, "shape", None) == () else value
        text = str(inner) if type(inner) in PLAIN else f"<{type(value).__name__}>"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= SHOWN_MOST else f"{text[: SHOWN_MOST - 3]}..."


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= SHOWN_MOST and all(map(_is_plain, value))
    return type(value) in {str, *PLAIN}
