"""Words that name machines to SSH: hosts, users, hops. Pure; what could be an option or shell text is refused.

Each parser returns a value, or raises ValueError with the rest of a sentence that begins with the word.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

MOST_HOPS = 8

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,252}")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]{0,127}\$?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:=-]{0,62}")
_PATH = re.compile(r"[A-Za-z0-9_./~+=,@:-]{1,4000}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,32}")


@dataclass(frozen=True, slots=True)
class HostWord:
    """`user@host:port` in its parts; what the word does not say is "" and 0."""

    host: str
    user: str = ""
    port: int = 0

    @property
    def name(self) -> str:
        """A short name for tables and for machines of a run."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.host)[:50].strip("-._") or "host"
        return f"{name}-{self.port}" if self.port else name

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


def parse_host_word(text: str) -> HostWord:
    """Of `gpu1`, `me@gpu1:2222`, `10.0.0.7`, `fe80::1%eth0` or `me@[fe80::1]:22`."""
    user, at, rest = text.rpartition("@")
    if at and not user:
        raise ValueError("has no user before '@'")
    host, port = _split_port(rest)
    return HostWord(parse_host(host), parse_user(user) if user else "", port)


def _split_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("has brackets that do not match; write [fe80::1]:22")
        return host, parse_port(rest[1:]) if rest else 0
    if text.count(":") > 1:
        return text, 0  # an IPv6 address
    host, colon, port = text.partition(":")
    return host, parse_port(port) if colon else 0


def parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError("has a port that is not a number from 1 to 65535")
    return int(text)


def parse_host(text: str) -> str:
    """A name of `~/.ssh/config`, a DNS name or an address."""
    _refuse(text, "host name")
    if ":" in text:
        address, percent, zone = text.partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise ValueError("is not a host name or an address") from None
        if percent and not _ZONE.fullmatch(zone):
            raise ValueError("has a zone that is no name of an interface")
        return text
    if len(text) > 253:
        raise ValueError("is longer than 253 characters")
    if not _HOST.fullmatch(text):
        raise ValueError(_describe_odd(text, "host name", "letters, digits, '.', '-' and '_'"))
    if re.fullmatch(r"[0-9]+", text):
        raise ValueError("is a number, not a host")
    return text


def parse_user(text: str) -> str:
    _refuse(text, "user name")
    if not _USER.fullmatch(text):
        raise ValueError(_describe_odd(text, "user name", "letters, digits, '.', '-', '_' and '@'"))
    return text


def parse_jump(text: str) -> str:
    """Hops as `ProxyJump` takes them, the first one first; `none` for none."""
    hops = [hop.strip() for hop in text.split(",")]
    if hops == ["none"]:
        return "none"
    if len(hops) > MOST_HOPS:
        raise ValueError(f"names more than {MOST_HOPS} machines in between")
    return ",".join(str(parse_host_word(hop)) for hop in hops)


def parse_name(text: str) -> str:
    """A short name that can stand in a file name and in a table."""
    if not _NAME.fullmatch(text):
        raise ValueError("is not a short name; use letters, digits, '.', '-' and '_', at most 63")
    return text


def parse_label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("is not a label; use letters, digits and . _ + : = -, at most 63")
    return text


def parse_remote_path(text: str) -> str:
    """A path on the host, absolute or below the home directory there."""
    _refuse(text, "path")
    if not _PATH.fullmatch(text):
        raise ValueError(_describe_odd(text, "path", "letters, digits and . _ / ~ + = , @ : -"))
    if not text.startswith(("/", "~/")):
        raise ValueError("is not an absolute path on the host; begin it with / or ~/")
    if ".." in text.split("/"):
        raise ValueError("contains '..'")
    return text


def parse_program(text: str) -> str:
    """A program on the host: a path, or a name that its PATH has."""
    return parse_name(text) if "/" not in text and not text.startswith("-") else parse_remote_path(text)


def _refuse(text: str, what: str) -> None:
    if not text:
        raise ValueError(f"has no {what}")
    if text.startswith("-"):
        raise ValueError("begins with '-', which programs read as an option")
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("contains a control character")
    if any(c.isspace() for c in text):
        raise ValueError("contains a space")


def _describe_odd(text: str, what: str, allowed: str) -> str:
    odd = next((c for c in text if not re.fullmatch(r"[A-Za-z0-9._+@-]", c)), "")
    if not odd:
        return f"is not a {what}"
    shown = repr(odd) if odd.isprintable() else f"U+{ord(odd):04X}"
    return f"contains {shown}; a {what} has only {allowed}"
