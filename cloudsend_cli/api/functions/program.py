"""What executes a function on a machine: `__main__` of a zip that has cloudpickle beside it. Standard library alone.

Python from 2.7 on can read this file, so that one of another version than the caller's gets as far as to say so.
Its argument: the version that it needs (with a `+`: look for that one). The call's arguments stand in the variable
CALL, where they are short, else in the file `arguments` beside it: what other users see of a process is its command.

The last thing that it writes is the file `value` beside it: a line of JSON, then what was pickled. Whatever takes long
to import is imported where it is needed: most calls take less time than that.
"""

import os
import sys

FOLDER = os.path.dirname(os.path.abspath(sys.argv[0]))
MESSAGE_MOST = 10000
CALL = "CLOUDSEND_CALL"


def check_python(wanted):
    """Go on only as the version by which the function was pickled."""
    version = wanted.rstrip("+")
    have = "%d.%d" % sys.version_info[:2]
    if have == version:
        return
    if wanted.endswith("+"):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            other = os.path.join(folder, "python" + version)
            if folder and os.access(other, os.X_OK) and not os.path.isdir(other):
                os.execv(other, [other, sys.argv[0], version])
    where = "%s on %s is Python %s" % (sys.executable, os.uname()[1], have)
    what = "the function was sent from Python %s, and %s" % (version, where)
    hint = "give its group an environment with that Python (conda: python=%s), or the key python" % version
    leave({"kind": "refused", "message": what, "hint": hint})
    sys.stderr.write("cloudsend: %s; %s\n" % (what, hint))
    sys.exit(1)


def leave(header, pickle_into=None):
    """Write the outcome, whole or not at all. Without a header it is a value."""
    if header:
        import json

        line = json.dumps(header)
    else:
        line = '{"kind": "value"}'
    part = os.path.join(FOLDER, "value.part")
    with open(part, "wb") as file:
        file.write(line.encode("ascii") + b"\n")
        if pickle_into is not None:
            pickle_into(file)
    os.rename(part, os.path.join(FOLDER, "value"))


def describe(problem):
    """The type's name, and the message however broken its text is."""
    kind = type(problem)
    name = kind.__name__ if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "." + kind.__qualname__
    try:
        message = str(problem)
    except Exception:
        message = "(no message)"
    return {"type": name, "message": message[:MESSAGE_MOST]}


class Bundled(object):
    """Finds cloudpickle, when it is needed, beside this program: another one may differ in what it calls things."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] != "cloudpickle":
            return None
        import importlib.machinery

        inside = path or [sys.argv[0]]
        return importlib.machinery.PathFinder.find_spec(name, inside, target)


def dump(value, file):
    """By cloudpickle only what pickle does not know: to import that takes longer than most calls."""
    import pickle

    begin = file.tell()
    try:
        pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
    except Exception:
        import cloudpickle

        file.seek(begin)
        file.truncate()
        cloudpickle.dump(value, file)


def read(name):
    with open(os.path.join(FOLDER, name), "rb") as file:
        return file.read()


def loads(data):
    """What the caller pickled, whose sets come as sorted lists."""
    import io
    import pickle

    sets = {}

    class Reader(pickle.Unpickler):
        def persistent_load(self, told):
            kind, number, items = told
            if items is not None:
                sets[number] = frozenset(items) if kind == "frozenset" else set(items)
            return sets[number]

    return Reader(io.BytesIO(data)).load()


def unpack():
    """(function, arguments, named arguments), with those of the slot that it holds."""
    import binascii

    packed = os.environ.pop(CALL, "")  # not for what the function starts
    arguments = binascii.a2b_base64(packed) if packed else read("arguments")
    function = loads(read("function"))
    args, named = loads(arguments)
    slot = os.environ.get("CLOUDSEND_SLOT", "")
    if os.path.exists(os.path.join(FOLDER, "slots")) and slot.isdigit():
        named.update(loads(read("slots"))[int(slot)])
    return function, args, named


def settle(result):
    """Generators and coroutines cannot be sent: their values are."""
    import types

    if isinstance(result, types.GeneratorType):
        return list(result)
    if isinstance(result, types.CoroutineType):
        import asyncio

        return asyncio.run(result)
    return result


def report(problem, kind):
    """An exception: its words, and itself where it can be pickled and made again."""
    import io
    import pickle
    import traceback

    told = problem.__traceback__.tb_next if problem.__traceback__ is not None else None
    text = "".join(traceback.format_exception(type(problem), problem, told))
    sys.stderr.write(text)
    header = dict(describe(problem), kind=kind, traceback=text)
    packed = io.BytesIO()
    try:
        dump(problem, packed)
        pickle.loads(packed.getvalue())
    except BaseException:
        packed = io.BytesIO()
    leave(header, lambda file: file.write(packed.getvalue()))


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass


def main():
    check_python(sys.argv[1])
    sys.meta_path.insert(0, Bundled)
    sys.path[0:1] = [os.path.join(FOLDER, "modules"), os.path.dirname(FOLDER)]
    try:
        function, args, named = unpack()
    except Exception as problem:
        report(problem, "unreadable")
        return 1
    try:
        result = settle(function(*args, **named))
    except SystemExit as end:
        flush()
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
        leave({"kind": "exit", "code": code, "message": str(end.code)[:MESSAGE_MOST]})
        raise
    except KeyboardInterrupt as problem:
        report(problem, "raised")
        raise
    except BaseException as problem:
        flush()
        report(problem, "raised")
        return 1
    flush()
    try:
        leave({}, lambda file: dump(result, file))
    except Exception as problem:
        what = "the value, a %s, cannot be sent: %s" % (type(result).__name__, describe(problem)["message"])
        sys.stderr.write("cloudsend: %s\n" % what)
        leave({"kind": "unpicklable", "type": type(result).__name__, "message": what})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
