"""Which host keys are known for a machine, from OpenSSH's files and our own. Nothing here connects."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudsend_cli.errors import HostKeyError

FILE_LIMIT = 16 << 20
SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public host key."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` writes it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line of a known_hosts file."""

    patterns: str
    key: HostKey
    marker: str = ""
    place: str = ""  # file:line


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """What is known for one machine."""

    name: str
    good: tuple[KnownKey, ...] = ()
    revoked: tuple[KnownKey, ...] = ()
    authorities: tuple[KnownKey, ...] = ()
    advice: str = ""  # what to do about another key; else what a user does with a machine of his own

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(known.key.type for known in self.good))


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """What a machine presented of which nothing is known. HostKeyError.unknown."""

    name: str
    key: HostKey


def known_name(hostname: str, port: int, alias: str = "") -> str:
    """The name under which OpenSSH keeps the machine's keys."""
    if alias:
        return alias.lower()
    return hostname.lower() if port == SSH_PORT else f"[{hostname.lower()}]:{port}"


def parse_public_key(text: str) -> HostKey | None:
    """The key of `TYPE BASE64 comment`; None if it is none."""
    words = text.split()
    if len(words) < 2:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    size = int.from_bytes(blob[:4], "big")
    if len(blob) < 4 or blob[4 : 4 + size] != words[0].encode():
        return None
    return HostKey(words[0], blob)


def parse_known_hosts(text: str, file: str = "") -> list[KnownKey]:
    """The lines that can be understood; the others are passed over, as ssh does."""
    found: list[KnownKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3:
            continue
        key = parse_public_key(" ".join(words[1:3]))
        if key is not None:
            found.append(KnownKey(words[0], key, marker, f"{file}:{number}"))
    return found


def read_known_hosts(path: Path) -> list[KnownKey]:
    try:
        with path.open("rb") as reader:
            data = reader.read(FILE_LIMIT)
    except OSError:
        return []
    return parse_known_hosts(data.decode("utf-8", "replace"), str(path))


def name_matches(patterns: str, name: str) -> bool:
    """As OpenSSH's match_hostname: hashed, or a list of patterns of which a negated one forbids."""
    if patterns.startswith("|"):
        return _hash_matches(patterns, name)
    matched = False
    for pattern in patterns.lower().split(","):
        negated = pattern.startswith("!")
        if _glob(pattern.removeprefix("!"), name):
            if negated:
                return False
            matched = True
    return matched


def _hash_matches(text: str, name: str) -> bool:
    parts = text.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def _glob(pattern: str, name: str) -> bool:
    """`*` and `?` only: a bracket stands for itself, as in [host]:port."""
    places = {0}
    for letter in pattern:
        if letter == "*":
            places = set(range(min(places), len(name) + 1)) if places else set()
        else:
            places = {p + 1 for p in places if p < len(name) and letter in ("?", name[p])}
    return len(name) in places


def find_known(lines: Iterable[KnownKey], name: str) -> KnownKeys:
    good: list[KnownKey] = []
    revoked: list[KnownKey] = []
    authorities: list[KnownKey] = []
    kinds = {"": good, "@revoked": revoked, "@cert-authority": authorities}
    for line in lines:
        kind = kinds.get(line.marker)
        if kind is not None and name_matches(line.patterns, name):
            kind.append(line)
    return KnownKeys(name, tuple(good), tuple(revoked), tuple(authorities))


def find_known_for(lines: Sequence[KnownKey], hostname: str, port: int, alias: str) -> KnownKeys:
    """As ssh: a name with a port that nobody knows is looked for without it."""
    known = find_known(lines, known_name(hostname, port, alias))
    if alias or port == SSH_PORT or known.good:
        return known
    bare = find_known(lines, known_name(hostname, SSH_PORT))
    return KnownKeys(known.name, bare.good, known.revoked + bare.revoked, known.authorities + bare.authorities)


def judge(known: KnownKeys, key: HostKey, asked: str) -> None:
    """Returns if `key` is known for the machine; else HostKeyError, before anything is sent. Nothing is ever added."""
    for line in known.revoked:
        if line.key.blob == key.blob:
            raise HostKeyError(
                f"the {key.type} host key of {asked} is revoked: {key.fingerprint} ({line.place})",
                hint="do not connect; ask whoever runs the machine for its new key",
            )
    if any(line.key.blob == key.blob for line in known.good):
        return
    if known.good:
        old = next((line for line in known.good if line.key.type == key.type), known.good[0])
        raise HostKeyError(
            f"the host key of {asked} has changed: it presents {key.type} {key.fingerprint}, "
            f"known is {old.key.type} {old.key.fingerprint} ({old.place})",
            hint=known.advice
            or "somebody may stand in between: compare with the machine's administrator. If the change is right, "
            f"remove the old line of {known.name} and run `cloudsend check {asked} "
            f"--accept-host-key {key.fingerprint}`",
        )
    authorities = ""
    if known.authorities:
        authorities = (
            f" ({known.authorities[0].place} names an authority for it, but cloudsend cannot check host certificates)"
        )
    error = HostKeyError(
        f"the host key of {asked} is not known: {key.type} {key.fingerprint}{authorities}",
        hint="compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` says on the machine, then "
        f"`cloudsend check {asked} --accept-host-key {key.fingerprint}`",
    )
    error.unknown = UnknownKey(known.name, key)
    raise error
