"""What a machine says of a process may be anything."""

from __future__ import annotations

import pytest

from cloudsend_cli.maestro.pids import parse_pid


@pytest.mark.parametrize(
    ("statuses", "pid"),
    [
        ({"r.1.1": {"state": "running", "pid": 7}, "r.2.1": {"state": "running", "pid": 8}}, 7),
        ({"r.1.1": {"state": "exited", "pid": 7}}, None),
        ({"r.1.1": {"state": "queued"}}, None),
        ({"r.2.1": {"state": "running", "pid": 8}}, None),
        *(({"r.1.1": {"state": "running", "pid": pid}}, None) for pid in (0, -1, True, "7", 7.0, None, [7], 1 << 60)),
        ({"r.1.1": "running"}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_pid_is_a_number_of_a_running_process(statuses: object, pid: int | None) -> None:
    assert parse_pid(statuses, "r.1.1") == pid
