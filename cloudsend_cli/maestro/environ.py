"""What a running maestro takes over from the environment of the user's newest command."""

from __future__ import annotations

import os
from collections.abc import Mapping

AGENT = "SSH_AUTH_SOCK"
SSH_CONFIG = "CLOUDSEND_SSH_CONFIG"
ADDRESS = "CLOUDSEND_CALLER_CIDR"  # from which machines of a cloud are logged in to
CLOUD = "AWS_"  # how the names begin


def pick_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What a command sends along. It goes through a socket that only this user can open, and is never stored."""
    cloud = {name: value for name, value in environ.items() if name.startswith(CLOUD)}
    return {**{name: environ.get(name, "") for name in (AGENT, SSH_CONFIG, ADDRESS)}, **cloud}


def take_variables(given: object) -> None:
    """Credentials and the agent of the login that this process began in may be gone.

    They are kept where a command has none: one that is started by cron does not take them from a run. Those of a
    cloud belong together: the command's replace all. The configuration of ssh is that of the command.
    """
    if not isinstance(given, dict):
        return
    words = {name: value for name, value in given.items() if isinstance(name, str) and isinstance(value, str)}
    for name in (AGENT, ADDRESS):
        if words.get(name):
            os.environ[name] = words[name]
    if SSH_CONFIG in words:
        _set(SSH_CONFIG, words[SSH_CONFIG])
    cloud = {name: value for name, value in words.items() if name.startswith(CLOUD) and "\0" not in value}
    if cloud:
        for name in [name for name in os.environ if name.startswith(CLOUD)]:
            _set(name, cloud.get(name, ""))
        for name, value in cloud.items():
            _set(name, value)


def _set(name: str, value: str) -> None:
    if value:
        os.environ[name] = value
    else:
        os.environ.pop(name, None)
