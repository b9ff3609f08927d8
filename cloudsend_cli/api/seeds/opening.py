"""The config of a client: a dict, a file, JSON text, or the one that was submitted last from this directory."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudsend_cli.errors import ConfigError, Problem

if TYPE_CHECKING:
    from cloudsend_cli.config.document import Node

Keys = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Submission:
    """A run as an earlier client has submitted it: of each job the id, by its name."""

    run: str
    ids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """`path` is set where it came from a file; else relative paths in `document` are below `folder`, and its runs are
    continued by `name`. `earlier`: what was run of it before, where it is taken up again."""

    document: Keys
    folder: str
    path: str = ""
    name: str = ""
    earlier: Submission | None = None

    @property
    def recovers(self) -> bool:
        """Whether running it again goes on: a file's run does, as with `cloudsend run`; a dict has to ask for it."""
        said = self.document.get("recover")
        return self.path != "" if said is None else bool(said)

    @property
    def config(self) -> str | Keys:
        """What a Client takes. Of a file its path, so that problems name its lines."""
        return self.path or self.document

    @property
    def has_jobs(self) -> bool:
        return bool(self.document.get("jobs") or self.document.get("sections"))

    def pick(self, index: int, name: str) -> Keys:
        """The config with one of its jobs alone."""
        entry = {**self.entries("jobs")[index], "name": name, "repeat": 1}
        return {**self.document, "jobs": [entry]}

    def entries(self, key: str) -> list[Keys]:
        """`instances`, `environments` or `jobs`, one mapping each."""
        found = self.document.get(key)
        items = found if isinstance(found, (list, tuple)) else [] if found is None else [found]
        return [item if isinstance(item, Mapping) else {"run_command": item} for item in items]


def open_source(config: Keys | str | os.PathLike[str] | None, state_dir: Path, folder: str) -> Source:
    """ConfigError: it cannot be read. Whether it can be run is told by `start`."""
    if config is None:
        return _reopen(state_dir, folder)
    if isinstance(config, Mapping):
        return Source(config, folder, name=_name(folder))
    try:
        text = os.fspath(config)
    except TypeError:
        told = f"a {type(config).__name__} is no config"
        raise ConfigError([Problem(told, hint="give get_client a dict, a file or JSON text")]) from None
    if text.lstrip().startswith("{"):
        return Source(_parse(text, "JSON text"), folder, name=_name(folder))
    path = os.path.join(folder, os.path.expanduser(text))
    return Source(_read(path), os.path.dirname(path), path)


def _name(folder: str) -> str:
    """What a dict is known by: the program that has it, and where it was started. Two programs do not share a run."""
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    return f"{os.path.abspath(program)} in {folder}" if program else folder


def _parse(text: str, file: str) -> Keys:
    try:
        found = json.loads(text)
    except ValueError as problem:
        raise ConfigError([Problem(f"not valid JSON: {problem}", file=file)]) from None
    if not isinstance(found, dict):
        raise ConfigError([Problem('expected an object with keys such as "jobs"', file=file)])
    return found


def _read(path: str) -> Keys:
    found = read_document(path)
    return found if isinstance(found, Mapping) else {}


def read_document(path: str) -> Keys | list[Any]:
    """ConfigError: it cannot be read."""
    from cloudsend_cli.config import load

    root, problems = load.read_document(path, path)
    if problems:
        raise ConfigError(problems)
    found = _plain(root)
    return found if isinstance(found, (dict, list)) else {}


def _plain(node: Node) -> Any:
    from cloudsend_cli.config.document import Items, Scalar

    if isinstance(node, Items):
        return [_plain(item) for item in node.items]
    if not isinstance(node, Scalar):
        return {key.text: _plain(value) for key, value in node.entries}
    if node.kind == "null":
        return None
    if node.kind == "bool":
        return node.text.lower() == "true"
    if node.kind == "int":
        return int(node.text, 0) if node.text[:2] in {"0o", "0x"} else int(node.text)
    if node.kind == "float":
        return float(node.text.replace(".inf", "inf").replace(".nan", "nan"))
    return node.text


# ---- the one that was submitted last -------------------------------------------------------------------------------


def kept_path(state_dir: Path, folder: str) -> Path:
    """Of the config that was submitted last from `folder`; the seeds kept theirs in `folder` itself."""
    return state_dir / "seeds" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]}.json"


def forget_source(state_dir: Path, folder: str) -> None:
    kept_path(state_dir, folder).unlink(missing_ok=True)


def keep_source(source: Source, run: Submission, state_dir: Path, folder: str) -> None:
    """For a later client without a config. One that holds what JSON cannot say is not kept."""
    path = kept_path(state_dir, folder)
    content = (
        {"path": source.path}
        if source.path
        else {
            "folder": source.folder,
            "name": source.name,
            "config": source.document,
        }
    )
    try:
        text = json.dumps({**content, "run": run.run, "ids": dict(run.ids)}, default=_render)
    except (TypeError, ValueError):
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def _render(value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, range):
        return list(value)
    raise TypeError


def _reopen(state_dir: Path, folder: str) -> Source:
    try:
        kept = json.loads(kept_path(state_dir, folder).read_bytes())
    except (OSError, ValueError):
        message = f"no config is given, and none was submitted from {folder} before"
        raise ConfigError([Problem(message)], hint="give get_client a dict or a file") from None
    earlier = Submission(kept["run"], kept["ids"]) if "run" in kept else None
    if path := kept.get("path"):
        return Source(_read(path), os.path.dirname(path), path, earlier=earlier)
    return Source(kept["config"], kept["folder"], name=kept["name"], earlier=earlier)
