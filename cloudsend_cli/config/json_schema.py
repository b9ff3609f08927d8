"""The JSON Schema of a config, made from the tables of keys, for editors. `config.schema.json` beside it is a copy."""

from __future__ import annotations

from .check import Schema, Table
from .effects import NO_EFFECT_YET
from .sample import SAMPLE
from .schema import ENVIRONMENT, GROUP, INSTANCE, JOB, OUTPUT, TOP

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> Schema:
    """A schema of the 2020-12 dialect that accepts every good config; not all that it accepts is good."""
    schema = _object(TOP)
    properties = schema["properties"]
    if isinstance(properties, dict):
        properties["instances"] = _one_or_list({"$ref": "#/$defs/instance"}, properties["instances"])
        properties["environments"] = _one_or_list({"$ref": "#/$defs/environment"}, properties["environments"])
        job: Schema = {"anyOf": [{"type": ["string", "number", "boolean"]}, {"$ref": "#/$defs/job"}]}
        properties["jobs"] = _one_or_list(job, properties["jobs"])
        section: Schema = {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/group"}}
        properties["sections"] = {**_as_object(properties["sections"]), "additionalProperties": section}
    schema["patternProperties"] = {"^x-": {}}
    return {
        "$schema": DIALECT,
        "title": "cloudsend config",
        **schema,
        "$defs": {
            "instance": _object(INSTANCE),
            "environment": _object(ENVIRONMENT),
            "job": _job(),
            "output": _object(OUTPUT),
            "matrix": MATRIX,
            "group": _group(),
        },
    }


_VALUE: Schema = {"type": ["string", "number", "boolean"]}
_NUMBERS: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}
_ONE_KEY: Schema = {"additionalProperties": False, "type": "object", "minProperties": 1}
_VALUES: Schema = {
    "anyOf": [
        _VALUE,
        {"type": "array", "items": _VALUE},
        {**_ONE_KEY, "properties": {"range": _NUMBERS}},
        {**_ONE_KEY, "properties": {"log": {**_NUMBERS, "minItems": 3}}},
        {**_ONE_KEY, "properties": {"from_files": {"type": ["string", "array"], "items": {"type": "string"}}}},
    ]
}
_ROW: Schema = {"type": "object", "additionalProperties": {"anyOf": [_VALUE, {"type": "array", "items": _VALUE}]}}
_ROWS: Schema = {"anyOf": [_ROW, {"type": "array", "items": _ROW}]}
_ZIP: Schema = {"type": "object", "additionalProperties": _VALUES}


def _object(table: Table) -> Schema:
    properties: Schema = {}
    for entry in table.fields:
        text = entry.doc + (f" Default: {entry.default}." if entry.default else "")
        reason = NO_EFFECT_YET.get((table.where, entry.name))
        if reason:
            text += f" No effect yet: {reason}."
        properties[entry.name] = {**entry.schema, "description": text}
        for alias in entry.aliases:
            properties[alias] = {**entry.schema, "description": f"The same as {entry.name}. {text}"}
    return {"type": "object", "properties": properties, "additionalProperties": False}


MATRIX: Schema = {
    "type": ["object", "null"],
    "description": "Parameters and their values; the jobs are their product, the first key slowest.",
    "properties": {
        "exclude": {**_ROWS, "description": "Combinations to leave out."},
        "include": {**_ROWS, "description": "Combinations to add."},
        "sample": {
            "anyOf": [{"type": "integer", "minimum": 1}, _object(SAMPLE), _VALUES],
            "description": "How many of the combinations to draw; with a list: a parameter of this name.",
        },
        "zip": {"anyOf": [_ZIP, {"type": "array", "items": _ZIP}], "description": "Lists taken side by side."},
    },
    "additionalProperties": _VALUES,
}


def _job() -> Schema:
    schema = _object(JOB)
    properties = schema["properties"]
    if isinstance(properties, dict):
        output: Schema = {"anyOf": [{"type": ["string", "number", "null"]}, {"$ref": "#/$defs/output"}]}
        for name in ("output", *next(entry.aliases for entry in JOB.fields if entry.name == "output")):
            properties[name] = _one_or_list(output, properties[name])
        properties["matrix"] = {"$ref": "#/$defs/matrix"}
    needs = ("run", "run_command", "script", "run_script")
    return {**schema, "anyOf": [{"required": [name]} for name in needs]}


def _group() -> Schema:
    schema = _object(GROUP)
    properties = schema["properties"]
    jobs = _job()["properties"]
    if isinstance(properties, dict) and isinstance(jobs, dict):
        values: Schema = {"type": ["object", "null"], "additionalProperties": {"anyOf": [_VALUES, {"type": "null"}]}}
        for name in ("Param", "param", "Async", "async"):
            properties[name] = {**values, "description": properties[name]["description"]}
        for name in ("matrix", "output", "output_files", "output_file"):
            properties[name] = jobs[name]
    return {**schema, "anyOf": [{"required": [name]} for name in ("Call", "call")]}


def _as_object(schema: object) -> Schema:
    return schema if isinstance(schema, dict) else {}


def _one_or_list(item: Schema, old: object) -> Schema:
    text = old.get("description", "") if isinstance(old, dict) else ""
    return {"anyOf": [item, {"type": "array", "items": item}, {"type": "null"}], "description": text}


def write_schema() -> None:
    """Write the packaged copy anew."""
    import json
    from pathlib import Path

    text = json.dumps(config_schema(), indent=2) + "\n"
    Path(__file__).with_name("config.schema.json").write_text(text, encoding="utf-8")
