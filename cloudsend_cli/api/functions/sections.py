"""Python functions that stand as `Call` in a config's sections: each becomes its tasks, and a word that names them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cloudsend_cli.config.context import FunctionTasks
from cloudsend_cli.config.points import describe_repeated
from cloudsend_cli.config.sections import NO_PLACES, NO_TASKS, REPEATED
from cloudsend_cli.engine.submit import Keep
from cloudsend_cli.errors import CloudsendError, ConfigError, Problem

from .tasks import PLAIN, Call, Pool, plan_tasks, show_value

CALL, PARAM, ASYNC = ("Call", "call"), ("Param", "param"), ("Async", "async")
OURS = (*PARAM, *ASYNC, "python")  # keys that only we read where `Call` is a function
UNFIT = ("Remote", "Port", "workdir", "matrix")
Group = Mapping[str, object]
Sections = dict[str, object]


class Mistake(Exception):
    """What is wrong with a group; where it stands is added by those who know."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def extract_functions(
    config: Mapping[str, object], keep: Keep, key: str = "sections"
) -> tuple[dict[str, object], dict[str, FunctionTasks]]:
    """The config with words for functions, and the tasks by these words. ConfigError with all problems at once."""
    sections = config.get(key)
    if not isinstance(sections, Mapping):
        return dict(config), {}
    problems: list[Problem] = []
    functions: dict[str, FunctionTasks] = {}
    replaced: Sections = {}
    for section, groups in sections.items():
        if not isinstance(groups, Mapping):
            replaced[section] = groups  # the loader says what is wrong with it
            continue
        named: dict[object, object] = {}
        for name, group in groups.items():
            named[name] = group
            if isinstance(group, Mapping) and callable(_pick(group, CALL)):
                word = f"\0{len(functions)}"
                try:
                    functions[word] = _read_group(group, keep)
                    named[name] = {k: word if k in CALL else v for k, v in group.items() if k not in OURS}
                except (Mistake, CloudsendError) as problem:
                    path = f"{key}.{section}.{name}"
                    problems.append(Problem(f"{path}: {problem}", file="config", hint=problem.hint, path=path))
        replaced[section] = named
    if problems:
        raise ConfigError(problems)
    return {**config, key: replaced}, functions


def _read_group(group: Group, keep: Keep) -> FunctionTasks:
    function = _pick(group, CALL)
    assert callable(function)  # noqa: S101 - asked by the caller
    for key in UNFIT:
        if key in group:
            raise Mistake(f"{key!r} cannot be used with a function", "the function may do itself what it asks for")
    python = group.get("python", "")
    if not isinstance(python, str):
        raise Mistake(f"'python' is the command of an interpreter, not a {type(python).__name__}")
    params, places = _read_lists(group, PARAM), _read_lists(group, ASYNC)
    doubled = sorted(params.keys() & places.keys())
    if doubled:
        raise Mistake(f"{doubled[0]!r} is in Param and in Async", "the function would get it twice; rename one")
    tasks = plan_tasks(function, list(_list_calls(params)), keep, pool=read_pool(places), python=python)
    return replace(tasks, warnings=tuple(_list_warnings(params, places)))


def _list_warnings(params: Mapping[str, list[object]], places: Mapping[str, list[object]]) -> Iterator[str]:
    """What is told of the lists of a command, too."""
    for key, lists, empty in (("Param", params, NO_TASKS), ("Async", places, NO_PLACES)):
        yield from (f"{key}.{name}: an empty list {empty}" for name, values in lists.items() if not values)
    for name, values in params.items():
        counts = Counter((type(value), value) for value in values if type(value) in {str, *PLAIN})
        for (_, value), count in counts.items():
            if count > 1:
                yield f"Param.{name}: {describe_repeated(show_value(value), count)}, and {REPEATED}"


def _list_calls(params: Mapping[str, list[object]]) -> Iterator[Call]:
    for row in _product(params):
        yield Call((), row, tuple((name, show_value(value)) for name, value in row.items()))


def read_pool(places: Mapping[str, Sequence[object]]) -> Pool:
    """Without Async, or with an empty list in it, one after another."""
    return Pool(tuple(_product(places)) or ({},))


def _product(lists: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    for row in itertools.product(*lists.values()):
        yield dict(zip(lists, row, strict=True))


def _pick(group: Group, names: tuple[str, ...]) -> object:
    return next((group[name] for name in names if name in group), None)


def _read_lists(group: Group, names: tuple[str, ...]) -> dict[str, list[object]]:
    key, given = names[0], _pick(group, names)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise Mistake(f"{key} is a dict of names and lists, not a {type(given).__name__}")
    found: dict[str, list[object]] = {}
    for name, values in given.items():
        if not isinstance(name, str):
            raise Mistake(f"{key}: the name {name!r} is not a text")
        if not isinstance(values, (list, tuple, range)):
            kind = type(values).__name__
            raise Mistake(f"{key}.{name}: expected a list of values, not a {kind}", f"write [{values!r}]"[:80])
        if not name and names is ASYNC and not values:
            continue  # how the seeds write that there are no places
        if not name.isidentifier():
            what = "no name" if not name else f"{name!r}, which is no name"
            hint = "functions are called by names; a command may have ''" if not name else "name the function's own"
            raise Mistake(f"{key}: a function takes arguments by name, and here is {what}", hint)
        found[name] = list(values)
    return found
