"""The reasons that a job can have, with their meaning and what follows. docs/states.md is made from this table."""

from __future__ import annotations

from typing import Final

REASONS: Final[dict[str, tuple[str, str]]] = {
    "exit N": ("the command ended with this status", "up to `retries`"),
    "exit N, disk-full": (
        "the same, and there was no room left on the machine's disk: the end of its log may be missing",
        "up to `retries`",
    ),
    "killed by SIGNAL": ("a signal ended it that cloudsend did not send", "up to `retries`"),
    "oom": (
        "the kernel ended it for lack of memory",
        "up to `retries`, with as much more memory as `retry_memory_factor` says and a machine has",
    ),
    "timeout": ("it ran longer than its `timeout`", "up to `retries`"),
    "output-missing": ("it ended well but did not leave an output that it promised", "up to `retries`"),
    "disk-full": ("the host had no room to start it", "when there is room, there or elsewhere, and not counted"),
    "environment-failed": (
        "its environment could not be built; the build's log says why",
        "when the config is run again",
    ),
    "dependency-failed": ("a job that it is `after` did not succeed", "when the config is run again"),
    "no-capacity": ("no machine can hold it, or none could be had", "when the config is run again"),
    "denied": (
        "the account's credentials or permissions do not allow to rent its machine",
        "when the config is run again",
    ),
    "lost": (
        "the host proved that it no longer runs, and left no exit record; or the host ended it with all else, as it "
        "does when it shuts down; or the `life`, `eco_life` or part of the `budget` of its machine was over",
        "up to `retries_lost`",
    ),
    "preempted": ("the provider took the machine", "always, and not counted"),
    "upload-changed": (
        "a file that it is given was edited after the run was submitted",
        "when the config is run again",
    ),
    "upload-missing": (
        "a file that it is given could not be read or was gone on the host",
        "when the config is run again",
    ),
    "bad-spec": ("the host refused the request as malformed or too large", "when the config is run again"),
    "cancelled by the user": ("you ended it", "when the config is run again"),
    "superseded": ("it was edited; another job has taken its place", "never"),
    "no longer in the config": ("it was removed from the config before it started", "never"),
}
