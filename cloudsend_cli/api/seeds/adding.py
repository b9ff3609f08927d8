"""What is added to a config that a client has: instances, environments and jobs, from wherever they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudsend_cli.errors import ConfigError, Problem

from .opening import Keys, Source, read_document

OBJECTS = ("instances", "environments", "jobs")
Added = Mapping[str, Sequence[Any]]
Config = Keys | Sequence[Any] | str | os.PathLike[str]


def read_added(config: Config, keys: Sequence[str], source: Source) -> Added:
    """The entries under `keys` of a path, JSON text, a whole config, a list of entries, or one entry.

    A list, or one entry, is of the first of `keys`. ConfigError: it cannot be read, has nothing of that kind, or has,
    where all kinds are asked for, a key beside them that this client's config has otherwise.
    """
    found = _read(config, source.folder)
    if not isinstance(found, Mapping):
        return {keys[0]: list(found)}
    if not any(key in found for key in keys):
        if len(keys) > 1 or not found:
            raise _problem(f"there are no {', '.join(keys)} to add", "give a dict with one of these keys")
        return {keys[0]: [found]}
    if len(keys) > 1:
        _refuse_others(found, source)
    return {key: _listed(found[key]) for key in keys if key in found}


def _read(config: Config, folder: str) -> Keys | Sequence[Any]:
    if isinstance(config, (Mapping, list, tuple)):
        return config
    if not isinstance(config, (str, os.PathLike)):
        raise _problem(f"a {type(config).__name__} is no config", "give a dict, a list, a file or JSON text")
    text = os.fspath(config)
    if not text.lstrip().startswith(("{", "[")):
        return read_document(os.path.join(folder, os.path.expanduser(text)))
    try:
        found = json.loads(text)
    except ValueError as problem:
        raise _problem(f"not valid JSON: {problem}", "") from None
    return found if isinstance(found, list) else dict(found)


def _refuse_others(found: Keys, source: Source) -> None:
    """Nothing that was written for the run as a whole is passed over in silence."""
    others = {key: value for key, value in found.items() if key not in OBJECTS}
    differing = [key for key, value in others.items() if source.document.get(key) != value]
    if differing:
        names = ", ".join(map(repr, differing))
        raise _problem(f"{names} cannot be added", "the config of get_client says it for the whole run")


def extend(source: Source, added: Added) -> Source:
    """With these entries behind those that it has. What came from a file goes by the file's name, and more, then."""
    document = dict(source.document)
    for key, entries in added.items():
        document[key] = [*_listed(document.get(key)), *entries]
    return _detach(source, document)


def without_objects(source: Source) -> Source:
    return _detach(source, {key: value for key, value in source.document.items() if key not in OBJECTS})


def _detach(source: Source, document: Keys) -> Source:
    if source.path:
        document = {"recover": True, **document}  # as a file's run
    return replace(source, document=document, path="", name=source.name or f"{source.path} and more")


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _problem(text: str, hint: str) -> ConfigError:
    return ConfigError([Problem(text, file="what is added", hint=hint)])
