"""How a job gets its environment."""

from __future__ import annotations

from collections.abc import Sequence

# CLOUDSEND_ENV is the directory of the environment on the host; the agent sets it.
_ENTER = '. "$CLOUDSEND_ENV/activate" && exec "$@"'


def wrap_command(argv: Sequence[str], has_environment: bool) -> tuple[str, ...]:
    """The arguments that run `argv` inside its environment; as they are if it has none."""
    return ("/bin/sh", "-c", _ENTER, "sh", *argv) if has_environment else tuple(argv)
