"""The machine's own time is nearly over, as its switch announces: what runs is told, and ends in time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Client, Host, sh, wait_for
from .test_preempting import STEADY, give_notice, rent, up
from .test_rented import folder

__all__ = ["folder", "rent"]

AT = "2026-11-21T12:00:00Z"


def announce(folder: Path, action: str = "life", seconds: float = 100.0, **more: object) -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    give_notice(folder, json.dumps({"action": action, "time": AT, "uptime": uptime + seconds, **more}))


@pytest.mark.parametrize(
    ("action", "cause"), [("life", "life-over"), ("eco_life", "eco-life-over"), ("budget", "budget-over")]
)
def test_what_runs_is_ended_with_a_cause_that_is_no_preemption(
    rent: Callable[..., Client], folder: Path, host: Host, action: str, cause: str
) -> None:
    client = rent(resources={"cpus": 1})
    hook = "echo saving at $CLOUDSEND_PREEMPT_AT; echo state > kept"
    client.start(sh("a.1", STEADY, on_preempt=hook, outputs=[{"pattern": "kept"}]), sh("a.2", "true"))
    up(client, "a.1")
    announce(folder, action)
    client.wait("a.1", "a.2")
    assert client.stream("a.1", "stderr") == f"saving at {AT}\n".encode()
    assert client.stream("a.1") == b"up\nTERM\n"
    one, two = client.status["a.1"], client.status["a.2"]
    assert (one["state"], one["cause"]) == ("exited", cause)
    assert (two["state"], two["cause"]) == ("cancelled", cause)
    assert (host.home / "attempts/a.1/work/kept").read_text() == "state\n"
    assert client.start(sh("a.3", "true")) == {"a.3": "preempted"}


def test_hook_and_grace_have_parts_of_the_time_that_is_left(
    rent: Callable[..., Client], folder: Path, host: Host
) -> None:
    """Else the machine would be off before anybody heard of the end, or fetched what was left."""
    client = rent()
    hook = "trap '' TERM; echo began; sleep 600 & sleep 600"
    deaf = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    client.start(sh("a.1", deaf, on_preempt=hook, grace=600))
    up(client, "a.1")
    announce(folder, seconds=4.0)
    status = client.wait("a.1")
    assert (status["cause"], status["signal"]) == ("life-over", 9)
    began, told = client.stream("a.1", "stderr").decode().splitlines()[:2]
    assert began == "began"
    limit = float(told.removeprefix("cloudsend: on_preempt has not ended within ").removesuffix(" s"))
    assert limit <= 1.0, "a quarter"
    wait_for(lambda: host.jobs() == [])


@pytest.mark.parametrize("uptime", [None, "soon", -5, True, [1]])
def test_notice_that_does_not_say_how_long_gives_the_usual_times(
    rent: Callable[..., Client], folder: Path, uptime: object
) -> None:
    client = rent()
    client.start(sh("a.1", STEADY, on_preempt="echo hooked"))
    up(client, "a.1")
    announce(folder, uptime=uptime)
    assert client.wait("a.1")["cause"] == "life-over"
    assert client.stream("a.1", "stderr") == b"hooked\n"


@pytest.mark.parametrize("action", [7, None, ["life"], {"life": 1}, "life-over"])
def test_action_of_another_kind_is_a_providers(rent: Callable[..., Client], folder: Path, action: object) -> None:
    client = rent()
    client.start(sh("a.1", STEADY))
    up(client, "a.1")
    give_notice(folder, json.dumps({"action": action, "time": AT}))
    assert client.wait("a.1")["cause"] == "preempted"


def test_kill_9_of_the_agent_in_the_middle_changes_nothing_of_the_cause(
    rent: Callable[..., Client], folder: Path, host: Host
) -> None:
    client = rent()
    gate = folder / "gate"
    client.start(sh("a.1", STEADY, on_preempt=f"echo hook; until test -e {gate}; do sleep 0.05; done"))
    up(client, "a.1")
    announce(folder)
    client.until(lambda: client.stream("a.1", "stderr"))
    host.crash(client)
    again = rent()
    assert again.about["rented"]["notice"]["action"] == "life"
    gate.touch()
    assert again.wait_for_report("a.1")["cause"] == "life-over"
    assert again.stream("a.1", "stderr") == b"hook\n"
