"""Where each value of a config comes from, for `config show --origin`."""

from __future__ import annotations

from collections.abc import Iterator

from .check import Table
from .document import Mapping, Node, Scalar, is_null, items_of, render_inline
from .schema import GROUP, SYNONYMS, TABLES, TOP


def list_origins(root: Node) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each key's dotted path, with its value and where that is said."""
    tables = {table.where: table for table in TABLES if table.where}
    given = {SYNONYMS.get(key.text, key.text): (key, value) for key, value in _own(root)}
    for entry in TOP.fields:
        if entry.name not in given:
            if entry.default:
                yield entry.name, (entry.default, "default")
            continue
        key, value = given[entry.name]
        table = tables.get(entry.name)
        if entry.name == GROUP.where:
            yield from _list_groups(entry.name, key, value)
        elif table is None:
            yield entry.name, (render_inline(value), _origin(key, value))
        else:
            yield from _list_items(table, value)


def _list_items(table: Table, value: Node) -> Iterator[tuple[str, tuple[str, str]]]:
    items = items_of(value)
    for index, item in enumerate(items):
        path = f"{table.where}[{index}]"
        if not isinstance(item, Mapping):
            yield path, (render_inline(item), _origin(item, item))
            continue
        named = {table.by_name[k.text].name: (k, v) for k, v in item.entries if k.text in table.by_name}
        for column in table.fields:
            if column.name in named:
                inner, content = named[column.name]
                content = column.spell_out(inner.text, content)
                yield f"{path}.{column.name}", (render_inline(content), _origin(inner, content))
            elif column.default:
                yield f"{path}.{column.name}", (column.default, "default")


def _list_groups(path: str, key: Node, value: Node, depth: int = 0) -> Iterator[tuple[str, tuple[str, str]]]:
    """Of sections, of their groups, and of the keys of these."""
    if depth < 3 and isinstance(value, Mapping) and value.entries:
        for inner, content in value.entries:
            yield from _list_groups(f"{path}.{inner.text}", inner, content, depth + 1)
    else:
        yield path, (render_inline(value), _origin(key, value))


def _own(root: Node) -> Iterator[tuple[Scalar, Node]]:
    if isinstance(root, Mapping):
        yield from ((key, value) for key, value in root.entries if not is_null(value))


def _origin(key: Node, value: Node) -> str:
    return value.place.origin if value.place.file == "--set" else key.place.origin
