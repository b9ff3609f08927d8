"""Where each value of a config comes from, for `config show --origin`."""

from __future__ import annotations

from collections.abc import Iterator

from .document import Items, Mapping, Node, Scalar, is_null, render_inline
from .schema import SYNONYMS, TABLES, TOP


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
        if table is None:
            yield entry.name, (render_inline(value), _origin(key, value))
            continue
        items = value.items if isinstance(value, Items) else [value]
        for index, item in enumerate(items):
            path = f"{entry.name}[{index}]"
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


def _own(root: Node) -> Iterator[tuple[Scalar, Node]]:
    if isinstance(root, Mapping):
        yield from ((key, value) for key, value in root.entries if not is_null(value))


def _origin(key: Node, value: Node) -> str:
    return value.place.origin if value.place.file == "--set" else key.place.origin
