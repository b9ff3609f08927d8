"""A function, or what it is called with, as bytes: by value where it is defined in the user's program.

Equal objects are to give equal bytes in every process that runs the same program, as the bytes are what a job is known
by: a sweep that is run again keeps what is there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import pickle
import sys
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from operator import methodcaller
from types import CodeType, FunctionType, ModuleType
from typing import Any

from cloudsend_cli.errors import UsageError

Reduced = Any  # what the protocol of pickle calls a reduce value
CACHED = functools._lru_cache_wrapper
MAIN = frozenset({"__main__", "__mp_main__"})  # of the user's program
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
        if "weakref" in str(problem):
            hint = (
                "functools.singledispatch and weak references: define it in a module, which is sent as a file, instead"
            )
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
            if (ours := _reduce_cached(obj)) is not None:
                return ours
            self.modules.update(_list_modules(obj))
            if isinstance(obj, type):
                _name_class(obj)
            reduced = super().reducer_override(obj)
            if reduced is NotImplemented and isinstance(obj, (type, FunctionType, CACHED)):
                self.modules.add(obj.__module__ or "")
            return reduced

    return NotingPickler


def _reduce_cached(obj: Any) -> Reduced:
    """A function behind `functools.lru_cache`, by value where the function would be, without its cache; else None."""
    if isinstance(obj, functools.cached_property):  # until Python 3.12 it has a lock
        return functools.cached_property, (obj.func,), {k: v for k, v in vars(obj).items() if k != "lock"}
    if not isinstance(obj, CACHED) or not hasattr(obj, "__wrapped__") or _is_found_there(obj):
        return None
    state = {key: value for key, value in vars(obj).items() if key != "cache_parameters"}
    return methodcaller("__call__", obj.__wrapped__), (_Decorator(**obj.cache_parameters()),), state


class _Decorator:
    """Becomes `functools.lru_cache(…)` where it is read: what that returns cannot be pickled."""

    def __init__(self, maxsize: int | None, typed: bool) -> None:
        self._parameters = (maxsize, typed)

    def __reduce__(self) -> Reduced:
        return functools.lru_cache, self._parameters


def _is_found_there(obj: Any) -> bool:
    """Whether its module has it by its name, and will have it on a machine."""
    if obj.__module__ in MAIN or obj.__module__ not in sys.modules:
        return False
    found: object = sys.modules[obj.__module__]
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj


def _is_disorderly(items: Set[object]) -> bool:
    """Whether its order may differ from process to process, and can be made the same."""
    return len(items) > 1 and all(map(_is_plain, items))


def _is_plain(item: object) -> bool:
    return all(map(_is_plain, item)) if type(item) is tuple else type(item) in PLAIN


def _order(item: object) -> tuple[str, str]:
    return type(item).__name__, repr(item)


def _list_modules(obj: object) -> Iterable[str]:
    if isinstance(obj, ModuleType):
        return (obj.__name__,)
    return _list_imports(obj) if isinstance(obj, CodeType) else ()


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
        if cloudpickle._should_pickle_by_reference(kind):
            return
        with contextlib.suppress(AttributeError):  # what Python notes there when the first object of it is pickled
            del kind.__slotnames__  # type: ignore[attr-defined]
        if kind in by_class:
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
