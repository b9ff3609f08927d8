"""boto3's clients, one for each account, region and service of this process, and calls of them in our words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudsend_cli.errors import AuthError, CloudsendError

from .errors import read_error, translate, translating

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 30
ATTEMPTS = 4
# botocore takes a lack of capacity (HTTP 500) for worth repeating; the next offer is better than a later try.
LAUNCH_ATTEMPTS = 2

_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}

_Sources = tuple[tuple[str, object], ...]
_lock = threading.Lock()
_sessions: dict[str, tuple[_Sources, Any]] = {}
_clients: dict[tuple[str, str, str, bool], tuple[Any, Any]] = {}  # -> (the session it was made of, the client)


class Account:
    """The way into the account of one profile. `region` is where calls go that name none."""

    def __init__(self, profile: str = "", region: str = "") -> None:
        self.profile = profile
        self._region = region

    @property
    def region(self) -> str:
        """The definition's region, else the one that boto3 finds. ConfigError: there is none."""
        if self._region:
            return self._region
        from botocore.exceptions import NoRegionError

        with translating("find out which region to use"):
            region: str | None = _open_session(self.profile).region_name
            if not region:
                raise NoRegionError()
        return region

    def client(self, service: str, region: str = "", *, launching: bool = False) -> Any:
        """A client of boto3, safe to share among threads. `launching`: one that repeats less by itself."""
        return open_client(self.profile, service, region or self.region, launching=launching)

    def call(self, action: str, service: str, verb: str, region: str = "", **parameters: Any) -> dict[str, Any]:
        """The reply of one call, such as `ec2`, `describe_vpcs`. Errors are ours and say that we tried to `action`."""
        return dict(self._act(action, lambda: getattr(self.client(service, region), verb)(**parameters)))

    def launch(self, action: str, region: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """RunInstances."""
        return dict(self._act(action, lambda: self.client("ec2", region, launching=True).run_instances(**parameters)))

    def pages(self, action: str, service: str, verb: str, region: str = "", **parameters: Any) -> Iterator[Any]:
        """The pages of a call that AWS answers in parts. The end is only reached when all of them have come."""
        reader = iter(
            self._act(action, lambda: self.client(service, region).get_paginator(verb).paginate(**parameters))
        )
        while (page := self._act(action, lambda: next(reader, None))) is not None:
            yield page

    def _act(self, action: str, call: Callable[[], Any]) -> Any:
        try:
            with translating(action):
                return call()
        except CloudsendError as error:
            # EC2 says RequestExpired of credentials that are over. What the user renews is read by the next call.
            if isinstance(error, AuthError) or "Expired" in read_error(error.__cause__ or error)[0]:
                forget_clients(self.profile)
            raise


def open_client(profile: str, service: str, region: str, *, launching: bool = False) -> Any:
    """One client for all threads; made anew when the credentials' files or the environment have changed."""
    session = _open_session(profile)
    key = (profile, service, region, launching)
    with _lock:
        made_of, client = _clients.get(key, (None, None))
        if made_of is not session:
            # INVARIANT: under the lock, as sessions of boto3 must not be used by two threads at once.
            with translating(f"open {service} in {region}"):
                client = session.client(service, region_name=region, config=_config(launching))
            _clients[key] = (session, client)
    return client


def forget_clients(profile: str | None = None) -> None:
    """Read the credentials of a profile (None: of all) again at the next call."""
    with _lock:
        for known in [p for p in _sessions if profile in (None, p)]:
            del _sessions[known]
        for key in [k for k in _clients if profile in (None, k[0])]:
            del _clients[key]


def _config(launching: bool) -> Any:
    from importlib.metadata import version

    from botocore.config import Config

    return Config(
        retries={"mode": "standard", "total_max_attempts": LAUNCH_ATTEMPTS if launching else ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=32,
        user_agent_extra=f"cloudsend/{version('cloudsend-cli')}",
    )


def _open_session(profile: str) -> Any:
    import boto3

    sources = _list_sources()
    with _lock:
        known = _sessions.get(profile)
        if known is None or known[0] != sources:
            try:
                known = (sources, boto3.Session(profile_name=profile or None))
            except Exception as error:
                raise translate(error, f"open the profile {profile or 'default'!r}") from error
            _sessions[profile] = known
    return known[1]


def _list_sources() -> _Sources:
    """What credentials and settings come from, so that a change of any of it is noticed."""
    found: list[tuple[str, object]] = sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
    for variable, usual in _FILES.items():
        path = Path(os.environ.get(variable) or usual).expanduser()
        try:
            about = path.stat()
        except OSError:
            found.append((str(path), None))
        else:
            found.append((str(path), (about.st_mtime_ns, about.st_size, about.st_ino)))
    return tuple(found)
