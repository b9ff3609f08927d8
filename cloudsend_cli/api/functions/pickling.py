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
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

from cloudsend_cli.errors import UsageError

Reduced = Any  # what the protocol of pickle calls a reduce value
PLAIN = (str, bytes, int, float, complex, bool, type(None))


@dataclass(frozen=True, slots=True)
class Pickled:
    """`modules` are the names of all modules, of the user or not, that it takes to read it, and to run it."""

    data: bytes
    modules: frozenset[str] = field(default_factory=frozenset)


def pickle_value(value: object, what: str) -> Pickled:
    """UsageError: it cannot be pickled, with the reason in Python's words."""
    _send_main_by_value()
    file = io.BytesIO()
    pickler = _pickler_class()(file)
    try:
        pickler.dump(value)
    except Exception as problem:
        hint = "give it what it needs as plain data, and open files, locks and connections inside of the function"
        raise UsageError(f"{what} cannot be sent: {problem}", hint=hint) from problem
    return Pickled(file.getvalue(), frozenset(pickler.modules))


def _send_main_by_value() -> None:
    """Processes that multiprocessing has spawned call the user's program by another name."""
    module = sys.modules.get("__mp_main__")
    if module is not None:
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)


@functools.cache
def _pickler_class() -> Any:
    """Made when it is first used: cloudpickle takes as long to import as all that listing jobs needs."""
    from cloudpickle import Pickler

    class NotingPickler(Pickler):  # type: ignore[misc]  # it has no types
        def __init__(self, file: io.BytesIO) -> None:
            super().__init__(file)
            self.modules: set[str] = set()
            self.sets: dict[int, tuple[int, object]] = {}  # by identity, which lives as long as they are held here

        def persistent_id(self, obj: object) -> object:
            """Sets of texts have another order in each process: their items are sent sorted, see `program.Reader`."""
            if type(obj) not in {set, frozenset} or not _is_disorderly(obj):  # type: ignore[arg-type]
                return None
            if id(obj) in self.sets:
                return ("", self.sets[id(obj)][0], None)
            number = len(self.sets)
            self.sets[id(obj)] = (number, obj)
            return (type(obj).__name__, number, sorted(obj, key=_order))  # type: ignore[call-overload]

        def reducer_override(self, obj: object) -> Reduced:
            if isinstance(obj, CodeType):
                self.modules.update(_list_imports(obj))
            if isinstance(obj, ModuleType):
                self.modules.add(obj.__name__)
            if isinstance(obj, type):
                _name_class(obj)
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and isinstance(obj, (type, FunctionType)):
                self.modules.add(obj.__module__ or "")
            return reduced

    return NotingPickler


def _is_disorderly(items: Set[object]) -> bool:
    """Whether its order may differ from process to process, and can be made the same."""
    return len(items) > 1 and all(map(_is_plain, items))


def _is_plain(item: object) -> bool:
    return all(map(_is_plain, item)) if type(item) is tuple else type(item) in PLAIN


def _order(item: object) -> tuple[str, str]:
    return type(item).__name__, repr(item)


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
