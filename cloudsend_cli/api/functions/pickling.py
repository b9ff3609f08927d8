"""A function, or what it is called with, as bytes: by value where it is defined in the user's program.

Equal objects are to give equal bytes in every process that runs the same program, as the bytes are what a job is known
by: a sweep that is run again keeps what is there.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

from cloudsend_cli.errors import UsageError

Reduced = Any  # what the protocol of pickle calls a reduce value


@dataclass(frozen=True, slots=True)
class Pickled:
    """`modules` are the names of all modules, of the user or not, that it takes to read it, and to run it."""

    data: bytes
    modules: frozenset[str] = field(default_factory=frozenset)


def pickle_value(value: object, what: str) -> Pickled:
    """UsageError: it cannot be pickled, with the reason in Python's words."""
    file = io.BytesIO()
    pickler = _pickler_class()(file)
    try:
        pickler.dump(value)
    except Exception as problem:
        hint = "give it what it needs as plain data, and open files, locks and connections inside of the function"
        raise UsageError(f"{what} cannot be sent: {problem}", hint=hint) from problem
    return Pickled(file.getvalue(), frozenset(pickler.modules))


class _Constant:
    """A set among the constants of code, in an order that does not depend on the process."""

    def __init__(self, items: frozenset[object]) -> None:
        self.items = sorted(items, key=lambda item: (type(item).__name__, repr(item)))

    def __reduce__(self) -> Reduced:
        return frozenset, (self.items,)


@functools.cache
def _pickler_class() -> Any:
    """Made when it is first used: cloudpickle takes as long to import as all that listing jobs needs."""
    from cloudpickle import Pickler

    class NotingPickler(Pickler):  # type: ignore[misc]  # it has no types
        def __init__(self, file: io.BytesIO) -> None:
            super().__init__(file)
            self.modules: set[str] = set()

        def reducer_override(self, obj: object) -> Reduced:
            if isinstance(obj, CodeType):
                self.modules.update(_list_imports(obj))
                make, parts = Pickler.dispatch_table[CodeType](obj)
                return make, tuple(_in_order(p) if p is obj.co_consts else p for p in parts)
            if isinstance(obj, ModuleType):
                self.modules.add(obj.__name__)
            if isinstance(obj, type):
                _name_class(obj)
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and isinstance(obj, (type, FunctionType)):
                self.modules.add(obj.__module__ or "")
            return reduced

    return NotingPickler


def _in_order(constants: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_Constant(c) if type(c) is frozenset else c for c in constants)


def _list_imports(code: CodeType) -> Iterator[str]:
    """What it imports while it runs. Code inside of it is pickled, and asked, by itself."""
    import dis

    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield str(instruction.argval)


def _name_class(kind: type) -> None:
    """Give a class that is sent by value a name that is its own and the same in each process.

    cloudpickle would draw one at random. By it, what comes home of this class is of the class that is there.
    """
    from cloudpickle import cloudpickle

    try:
        by_class, by_id = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS, cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
        if kind in by_class or cloudpickle._should_pickle_by_reference(kind):
            return
        with cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:
            for count in itertools.count():
                text = f"{kind.__module__}\n{kind.__qualname__}\n{count}"
                name = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
                if by_id.setdefault(name, kind) is kind:
                    by_class[kind] = name
                    return
    except (AttributeError, TypeError):
        return  # another cloudpickle than those we know: such a class has another name in each process


def loads(data: bytes) -> object:
    """Executes what was pickled: only ever of a file whose sender the caller has chosen to trust."""
    return pickle.loads(data)  # noqa: S301
