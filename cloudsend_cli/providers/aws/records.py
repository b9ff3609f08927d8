"""What we note of machines in <state directory>/aws: what each token was used for, and whose each machine is now.

A choice is on the disk before the request that it leads to, so that a repeated request is the same one to the byte.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from .identity import write_file

KEPT_FOR = 60 * 86400.0  # seconds after which no machine of a token lives any more
_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a token was used for: a machine that was kept, or a launch."""

    token: str
    request: str
    at: float
    instance_id: str = ""  # of the kept machine
    launch: dict[str, Any] | None = None  # the arguments of RunInstances


@dataclass(frozen=True, slots=True)
class Machine:
    """Whose a machine is, which its tags tell later. `run` is places.KEPT while it waits for a run."""

    instance_id: str
    region: str
    run: str
    token: str  # under which it was created or taken over
    at: float  # when that was
    kind: str = ""  # of Wish, once it is kept


Note = TypeVar("Note", Choice, Machine)


class Records:
    """The notes of one state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._choices, self._machines = folder / "choices", folder / "machines"

    def choice(self, token: str) -> Choice | None:
        return _read(self._choices, token, Choice)

    def write_choice(self, choice: Choice) -> None:
        _write(self._choices, choice.token, asdict(choice))

    def machine(self, instance_id: str) -> Machine | None:
        return _read(self._machines, instance_id, Machine)

    def write_machine(self, machine: Machine) -> None:
        _write(self._machines, machine.instance_id, asdict(machine))

    def list_machines(self) -> Iterator[Machine]:
        try:
            names = sorted(path.stem for path in self._machines.glob("i-*.json"))
        except OSError:
            return
        for name in names:
            machine = self.machine(name)
            if machine is not None:
                yield machine

    def forget_machine(self, instance_id: str) -> None:
        """It has ended."""
        if _NAME.fullmatch(instance_id):
            with contextlib.suppress(OSError):
                (self._machines / f"{instance_id}.json").unlink(missing_ok=True)

    def forget_old(self) -> None:
        """What belongs to machines that are gone for long."""
        limit = time.time() - KEPT_FOR
        runs = (self.folder / "runs").glob("*.regions")
        for path in [*self._choices.glob("*.json"), *self._machines.glob("*.json"), *runs]:
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < limit:
                    path.unlink()


def _read(folder: Path, name: str, cls: type[Note]) -> Note | None:
    """None: there is none, or somebody damaged it. What a later version adds is ignored."""
    if not _NAME.fullmatch(name):
        return None
    try:
        words = json.loads((folder / f"{name}.json").read_text("utf-8"))
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in words.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write(folder: Path, name: str, words: dict[str, Any]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    write_file(folder / f"{name}.json", json.dumps(words, sort_keys=True))
