"""As much of JSON Schema as docs/reference/output.schema.json uses."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "output.schema.json"
TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "array": list,
}
KNOWN = {
    "type", "enum", "pattern", "minimum", "required", "properties", "additionalProperties", "items", "$ref",
}  # fmt: skip


@cache
def definitions() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())["$defs"]
    return found


def check(value: Any, name: str) -> None:
    """AssertionError says where `value` is not what `$defs` calls `name`."""
    _check(value, definitions()[name], name)


def _check(value: Any, schema: dict[str, Any], at: str) -> None:
    assert not set(schema) - KNOWN, f"the schema of {at} uses more than is checked here"
    if "$ref" in schema:
        _check(value, definitions()[schema["$ref"].rsplit("/", 1)[1]], at)
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        fits = any(isinstance(value, TYPES[n]) and (n == "boolean" or value is not True) for n in names)
        assert fits, f"{at}: {value!r} is no {names}"
    assert "enum" not in schema or value in schema["enum"], f"{at}: {value!r}"
    if isinstance(value, str) and "pattern" in schema:
        assert re.search(schema["pattern"], value), f"{at}: {value!r}"
    if isinstance(value, int | float) and "minimum" in schema:
        assert value >= schema["minimum"], f"{at}: {value!r}"
    if isinstance(value, dict):
        _check_object(value, schema, at)
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            _check(item, schema["items"], f"{at}[{number}]")


def _check_object(value: dict[str, Any], schema: dict[str, Any], at: str) -> None:
    missing = set(schema.get("required", ())) - set(value)
    assert not missing, f"{at} lacks {missing}"
    for key, item in value.items():
        inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
        if inner:
            _check(item, inner, f"{at}.{key}")
