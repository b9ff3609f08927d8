"""Where a host's name leads: the user's SSH configuration, as `ssh -G` resolves it, under what the address says."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cloudsend_cli.core.model import HostAddress
from cloudsend_cli.errors import AuthError, ConfigError, Problem

from .host_keys import parse_public_key

CONFIG_VARIABLE = "CLOUDSEND_SSH_CONFIG"
RESOLVE_LIMIT = 20
HOPS_LIMIT = 8
NO_CONFIG = Path("none")  # as `ssh -F none`: neither the user's nor the system's

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}")
_IPV6 = re.compile(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]{1,32})?")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]{0,127}\$?")
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>\d{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach one machine."""

    asked: str  # what the user wrote: for messages
    hostname: str
    port: int = 22
    user: str = ""
    key: str = ""  # the identity file of the address: that one and no other
    identity_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str = ""  # a socket's path, or "none"; "" = SSH_AUTH_SOCK
    hops: tuple[Route, ...] = ()  # machines in between, the first one first
    proxy_command: str = ""  # expanded
    host_key_alias: str = ""
    known_hosts: tuple[str, ...] = ()  # the user's and the system's files
    address_family: str = "any"
    host_key: str = ""  # a pinned public key line: then no other counts, but for one that is kept under the alias
    alias: str = ""  # what our own file alone knows its keys by, whatever its address is


def check_host(host: str) -> None:
    """ConfigError for what could be an option or shell text; names go to programs and messages."""
    if not (_HOST.fullmatch(host) or _IPV6.fullmatch(host)):
        raise _bad("host name", host, "only letters, digits, `.`, `-` and `_`, or is an address")


def check_user(user: str) -> None:
    if not _USER.fullmatch(user):
        raise _bad("user name", user, "only letters, digits, `.`, `-`, `_`, `+` and `@`")


def _bad(what: str, value: str, allowed: str) -> ConfigError:
    return ConfigError([Problem(f"not a {what}: {value[:80]!r}", hint=f"a {what} has {allowed}")])


def resolve(address: HostAddress, config: Path | None = None) -> Route:
    """The route to the machine of `address`. What the address says wins over the user's SSH configuration.

    With an alias neither the user's nor the system's known hosts play a part.
    """
    settings = dict(address.settings)
    alias = settings.get("alias", "")
    if alias and not _HOST.fullmatch(alias):
        raise _bad("host key alias", alias, "only letters, digits, `.`, `-` and `_`")
    route = resolve_name(
        address.host,
        port=address.port,
        user=address.user,
        key=settings.get("key", ""),
        jump=settings.get("jump", ""),
        host_key=settings.get("host_key", ""),
        config=config_for(address, config),
    )
    return replace(route, alias=alias, known_hosts=()) if alias else route


def config_for(address: HostAddress, config: Path | None) -> Path | None:
    """The SSH configuration that counts for a machine; None: where ssh looks by itself."""
    if dict(address.settings).get("config") == "none":
        return NO_CONFIG
    return config if config is not None else config_from_environment()


def config_from_environment() -> Path | None:
    """Another file than ~/.ssh/config."""
    path = os.environ.get(CONFIG_VARIABLE)
    return Path(path) if path else None


def resolve_name(  # noqa: PLR0913 - what an address may say
    host: str,
    *,
    port: int = 0,
    user: str = "",
    key: str = "",
    jump: str = "",
    host_key: str = "",
    config: Path | None = None,
    depth: int = 0,
) -> Route:
    check_host(host)
    if user:
        check_user(user)
    if host_key and parse_public_key(host_key) is None:
        raise _bad("public key", host_key, "a type and base64, as a .pub file has them")
    if depth > HOPS_LIMIT:
        raise AuthError(f"more than {HOPS_LIMIT} machines in between, at {host}", hint="is there a loop of ProxyJump?")
    options = read_options(host, port, user, config)
    hostname = _first(options, "hostname", host)
    check_host(hostname)
    user = user or _first(options, "user", "") or getpass.getuser()
    port = port or int(_first(options, "port", "22"))
    if not jump and "proxycommand" not in options:
        jump = _without_none(_first(options, "proxyjump", ""))
    words = _Tokens(host, hostname, port, user, _first(options, "hostkeyalias", ""))
    proxy_command = "" if jump else _without_none(_first(options, "proxycommand", ""))
    return Route(
        asked=host,
        hostname=hostname,
        port=port,
        user=user,
        key=os.path.expanduser(key),
        identity_files=tuple(words.expand_path(f) for f in options.get("identityfile", ())),
        identities_only=bool(key) or _first(options, "identitiesonly", "no") == "yes",
        identity_agent=_identity_agent(_first(options, "identityagent", ""), words),
        hops=_hops(jump, config, key, depth),
        proxy_command=words.expand(proxy_command),
        host_key_alias=_first(options, "hostkeyalias", ""),
        known_hosts=tuple(
            words.expand_path(f)
            for option in ("userknownhostsfile", "globalknownhostsfile")
            for f in _first(options, option, "").split()
            if f != "none"
        ),
        address_family=_first(options, "addressfamily", "any"),
        host_key=host_key,
    )


def _first(options: Mapping[str, list[str]], name: str, default: str) -> str:
    return options[name][0] if options.get(name) else default


def _without_none(value: str) -> str:
    return "" if value == "none" else value


def _hops(jump: str, config: Path | None, key: str, depth: int) -> tuple[Route, ...]:
    """`ProxyJump a,b`: a is reached as its own configuration says, b through a, and so on.

    Where no configuration counts, nothing names a key for them: it is the one of the machine itself.
    """
    hops: list[Route] = []
    for word in jump.split(",") if jump else ():
        match = _HOP.fullmatch(word.strip())
        if match is None:
            raise _bad("machine in between", word, "the form user@host:port")
        hop = resolve_name(
            match["host"].strip("[]"),
            port=int(match["port"] or 0),
            user=match["user"] or "",
            key=key if config == NO_CONFIG else "",
            config=config,
            depth=depth + 1,
        )
        hops.extend(hop.hops if not hops else ())
        hops.append(_alone(hop) if hops else hop)
    return tuple(hops)


def _alone(hop: Route) -> Route:
    return replace(hop, hops=(), proxy_command="")


def _identity_agent(value: str, words: _Tokens) -> str:
    if value in ("", "SSH_AUTH_SOCK", "none"):
        return "none" if value == "none" else ""
    if value.startswith("$"):
        return os.environ.get(value.strip("${}"), "none")
    return words.expand_path(value)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The `%` words of ssh_config(5)."""

    asked: str
    hostname: str
    port: int
    user: str
    alias: str

    def expand(self, text: str) -> str:
        if "%" not in text:
            return text
        local = socket.gethostname()
        words = {
            "%": "%",
            "h": self.hostname,
            "n": self.asked,
            "p": str(self.port),
            "r": self.user,
            "u": getpass.getuser(),
            "d": str(Path.home()),
            "i": str(os.getuid()),
            "k": self.alias or self.asked,
            "l": local,
            "L": local.partition(".")[0],
        }
        return re.sub(r"%(.)", lambda m: words.get(m[1], m[0]), text)

    def expand_path(self, text: str) -> str:
        text = re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m[1], m[0]), self.expand(text))
        return os.path.expanduser(text)


# ---- the user's configuration ------------------------------------------------------------------------------------


def read_options(host: str, port: int, user: str, config: Path | None) -> dict[str, list[str]]:
    """Each option of the user's SSH configuration for `host`, lower case, with its values."""
    if config == NO_CONFIG:
        return {}
    if config is not None:
        check_trusted(config)
    if shutil.which("ssh") is None:
        from .ssh_config_files import read_without_ssh

        return read_without_ssh(host, user, config)
    command = ["ssh", "-G"]
    command += ["-F", str(config)] if config is not None else []
    command += ["-p", str(port)] if port else []
    command += ["-l", user] if user else []
    try:
        done = subprocess.run(
            [*command, "--", host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RESOLVE_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise AuthError(
            f"`ssh -G {host}` failed: {problem}", hint="does a `Match exec` of ~/.ssh/config wait?"
        ) from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AuthError(
            f"ssh refuses its configuration for {host}: {words[-1] if words else f'exit status {done.returncode}'}",
            hint=f"mend it until `ssh -G {host}` works",
        )
    return parse_options(done.stdout.decode("utf-8", "surrogateescape"))


def parse_options(text: str) -> dict[str, list[str]]:
    """The output of `ssh -G`: a name and a value in each line, names repeated."""
    options: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if value:
            options.setdefault(name.lower(), []).append(value.strip())
    return options


def check_trusted(path: Path) -> None:
    """A configuration file runs commands: one that others can write is refused, as ssh does with ~/.ssh/config."""
    try:
        about = path.stat()
    except OSError as problem:
        raise AuthError(f"{path} cannot be read: {problem.strerror}", hint="is the path right?") from None
    if about.st_uid not in (0, os.getuid()):
        raise AuthError(f"{path} belongs to another user, and could run commands", hint="use a file of your own")
    if about.st_mode & 0o022:
        raise AuthError(f"{path} can be written by others, and could run commands", hint=f"chmod go-w {path}")
