"""`--set a.b[0].c=value`: changes to a document before it is checked. Pure: documents are copied, not changed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cloudsend_cli.errors import ConfigError

from .document import (
    Items,
    Mapping,
    Node,
    Place,
    Scalar,
    describe_bad_text,
    fail,
    is_null,
    null_at,
    parse_yaml,
    show_text,
)
from .schema import SYNONYMS

_STEP = re.compile(r"([^.\[\]=]+)((?:\[[0-9]{1,7}\])*)")


def parse_override(text: str) -> tuple[list[str | int], Node]:
    """The path's steps and the value; raises ConfigError."""
    place = Place("--set")
    name, sign, value = text.partition("=")
    bad = describe_bad_text(text)
    if not sign or bad:
        what = bad or "has no '='"
        raise fail(f"--set {show_text(text)}: {what}", place, "write --set jobs[0].cpus=2")
    steps: list[str | int] = []
    for part in name.strip().split("."):
        found = _STEP.fullmatch(part)
        if not found:
            raise fail(f"--set {show_text(text)}: {name!r} is not a key", place, "write --set jobs[0].cpus=2")
        steps.append(found.group(1))
        steps += [int(index) for index in re.findall(r"\d+", found.group(2))]
    return steps, _parse_value(value, place)


def _parse_value(text: str, place: Place) -> Node:
    if text[:1] not in ("[", "{", '"', "'"):
        return Scalar(text, True, place)
    try:
        node, problems = parse_yaml(text, "--set")
    except ConfigError as problem:
        problems, node = problem.problems, None
    if problems:
        raise fail(f"--set: {show_text(text)}: {problems[0].message}", place)
    return node if node is not None else Scalar(text, True, place)


def apply_overrides(root: Node, overrides: Sequence[str]) -> Node:
    """The document with each override in turn. Raises ConfigError with all that cannot be applied."""
    problems = []
    for text in overrides:
        try:
            steps, value = parse_override(text)
            root = _set(root, steps, value, text)
        except ConfigError as problem:
            problems += problem.problems
    if problems:
        raise ConfigError(problems)
    return root


def _set(node: Node, steps: Sequence[str | int], value: Node, text: str) -> Node:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        return _set_item(node, step, rest, value, text)
    if isinstance(node, Scalar):
        place = node.place
        run: list[tuple[Scalar, Node]] = [] if is_null(node) else [(Scalar("run", False, place), node)]
        node = Mapping(run, place, len(run))
    if not isinstance(node, Mapping):
        raise fail(f"--set {show_text(text)}: before {step!r} stands a list", Place("--set"), "say which: [0]")
    canonical = SYNONYMS.get(step, step)
    entries = list(node.entries)
    at = next((i for i, (key, _) in enumerate(entries) if SYNONYMS.get(key.text, key.text) == canonical), None)
    if at is None:
        new = _set(null_at(Place("--set")), rest, value, text)
        return Mapping([(Scalar(step, False, Place("--set")), new), *entries], node.place, node.own + 1)
    # A key on the way keeps its place; the key that is set is now the command line's.
    key = entries[at][0] if rest else Scalar(step, False, Place("--set"))
    entries[at] = (key, _set(entries[at][1], rest, value, text))
    doubles = {i for i in range(at + 1, len(entries)) if SYNONYMS.get(entries[i][0].text) == canonical}
    own = node.own - sum(1 for i in doubles if i < node.own)
    return Mapping([entry for i, entry in enumerate(entries) if i not in doubles], node.place, own)


def _set_item(node: Node, index: int, rest: Sequence[str | int], value: Node, text: str) -> Node:
    items: list[Node] = list(node.items) if isinstance(node, Items) else [] if is_null(node) else [node]
    if index > len(items) or (index == len(items) and not rest and not isinstance(value, (Scalar, Mapping))):
        message = f"--set {show_text(text)}: there is no [{index}]; the list has {len(items)}"
        raise fail(message, Place("--set"))
    old = items[index] if index < len(items) else null_at(Place("--set"))
    items[index : index + 1] = [_set(old, rest, value, text) if rest else value]
    return Items(items, node.place)
