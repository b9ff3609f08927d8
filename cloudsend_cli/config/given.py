"""What a mapping gives once its keys were checked, and how to ask it for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .document import Node, Scalar


@dataclass(slots=True, eq=False)
class Given:
    """One key that the file gives: the value when it is good, else None, and where it stands."""

    name: str
    value: object
    node: Node
    key: Scalar
    path: str


Values = dict[str, Given]


def value_of(values: Mapping[str, Given], name: str) -> object:
    """None: there is none, or it is not good, which was reported."""
    given = values.get(name)
    return None if given is None else given.value


def node_of(values: Mapping[str, Given], name: str) -> Node | None:
    given = values.get(name)
    return None if given is None else given.node


def text_of(values: Mapping[str, Given], name: str) -> str:
    value = value_of(values, name)
    return value if isinstance(value, str) else ""


def whole_of(values: Mapping[str, Given], name: str) -> int | None:
    value = value_of(values, name)
    return value if isinstance(value, int) else None


def list_pairs(values: Mapping[str, Given], name: str) -> list[tuple[str, Node]]:
    """Of a list of texts: each with its node."""
    value = value_of(values, name)
    return value if isinstance(value, list) else []
