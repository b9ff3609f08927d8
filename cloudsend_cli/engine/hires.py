"""Notes of machines that a user rents without any run, in `<state directory>/<provider's type>/created`.

ORDER: the note is on the disk before the machine is asked for, so that the same command, given again after a crash or
an interruption, asks for the same machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cloudsend_cli.core.model import ProviderDefinition
from cloudsend_cli.core.naming import digest, token
from cloudsend_cli.core.renting import KEPT
from cloudsend_cli.errors import StateDirError
from cloudsend_cli.store.migrations import sync

FOLDER = "created"
RESUMED_WITHIN = 900.0  # seconds; an older one is no longer what the user waits for
KEPT_FOR = 60 * 86400.0


@dataclass(frozen=True, slots=True)
class Hire:
    """One machine that was asked for. `instance_id` is empty until its provider has named it."""

    node: str
    provider: str
    type: str
    settings: str  # of the provider's definition
    words: tuple[str, ...]  # what the user said of the machine
    nonce: str
    request: str = ""
    generation: int = 0
    at: float = 0.0
    instance_id: str = ""
    up: bool = False

    @property
    def definition(self) -> ProviderDefinition:
        return ProviderDefinition(self.provider, self.type, self.settings)

    @property
    def token(self) -> str:
        return token(KEPT, self.node, self.generation, digest(self.request, self.nonce))


def new_hire(definition: ProviderDefinition, words: Iterable[str]) -> Hire:
    nonce = secrets.token_hex(16)
    letters = "abcdefghjkmnpqrstvwxyz"
    # Never a number: those name the machines of runs.
    name = letters[int(nonce[:2], 16) % len(letters)] + digest(nonce)[:4]
    return Hire(
        f"{definition.name}-{name}", definition.name, definition.type, definition.settings, tuple(words), nonce
    )


def write_hire(state_dir: Path, hire: Hire) -> None:
    folder = _folder(state_dir, hire.type)
    path = folder / f"{hire.node}.json"
    temporary = folder / f".{hire.node}-{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(asdict(hire), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(folder)
    except OSError as problem:
        raise StateDirError(f"{path} cannot be written: {problem}", hint="is there room on the disk?") from problem


def forget_hire(state_dir: Path, hire: Hire) -> None:
    for name in (f"{hire.node}.json", f".{hire.node}.lock"):
        with contextlib.suppress(OSError):
            (state_dir / hire.type / FOLDER / name).unlink(missing_ok=True)


def list_hires(state_dir: Path, types: Iterable[str]) -> list[Hire]:
    """The oldest first. Notes that cannot be read are left alone; those of machines long gone are removed."""
    found = []
    for kind in types:
        for path in (state_dir / kind / FOLDER).glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                words = json.loads(path.read_text("utf-8"))
                hire = Hire(**{**words, "words": tuple(words["words"])})
                if time.time() - hire.at > KEPT_FOR:
                    forget_hire(state_dir, hire)
                else:
                    found.append(hire)
    return sorted(found, key=lambda hire: hire.at)


@contextlib.contextmanager
def hold_hire(state_dir: Path, hire: Hire) -> Iterator[bool]:
    """Whether nobody else is waiting for this machine; nobody is told so while this one does."""
    fd = os.open(_folder(state_dir, hire.type) / f".{hire.node}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def is_unfinished(hire: Hire, definition: ProviderDefinition, words: Iterable[str], now: float) -> bool:
    """Whether the command that wanted it has not seen it come up, and this one wants the same."""
    wanted = (definition, tuple(words))
    return not hire.up and now - hire.at < RESUMED_WITHIN and (hire.definition, hire.words) == wanted


def _folder(state_dir: Path, kind: str) -> Path:
    folder = state_dir / kind / FOLDER
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state_dir / kind).chmod(0o700)
    except OSError as problem:
        raise StateDirError(f"{folder} cannot be made: {problem}", hint="is there room on the disk?") from problem
    return folder
