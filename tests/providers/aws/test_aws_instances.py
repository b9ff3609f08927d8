"""What EC2 says of a machine, read: states, reasons, times, addresses."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.providers.aws.clients import Account
from cloudsend_cli.providers.aws.instances import find_address, find_wish, parse_machine
from cloudsend_cli.providers.aws.records import Choice, Records
from cloudsend_cli.providers.aws.tenant import Tenant

LAUNCHED = datetime(2026, 11, 21, 12, 0, 0, tzinfo=timezone.utc)


def entry(state: str = "running", **more: Any) -> dict[str, Any]:
    return {
        "InstanceId": "i-1",
        "InstanceType": "m7i.large",
        "State": {"Name": state},
        "LaunchTime": LAUNCHED,
        "ClientToken": "cs-1",
        "Placement": {"AvailabilityZone": "eu-west-3a"},
        "PublicIpAddress": "192.0.2.9",
        "PrivateIpAddress": "10.0.0.9",
        "Tags": [{"Key": "cloudsend:run", "Value": "r1"}, {"Key": "Name", "Value": "n"}],
        **more,
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("pending", "pending"),
        ("running", "running"),
        ("stopping", "ending"),
        ("stopped", "stopped"),
        ("shutting-down", "ending"),
        ("terminated", "terminated"),
        ("dreaming", "unknown"),
    ],
)
def test_states(theirs: str, ours: str) -> None:
    assert parse_machine(entry(theirs), "eu-west-3").shown_state == ours


def test_machine_that_is_stopping_has_not_ended() -> None:
    """Its jobs may run still, and it may be started again."""
    assert not parse_machine(entry("stopping"), "eu-west-3").has_ended


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("Server.SpotInstanceTermination", "preempted"),
        ("Server.SpotInstanceShutdown", "preempted"),
        ("Server.InsufficientInstanceCapacity", "capacity"),
        ("Client.InstanceInitiatedShutdown", "shut down from within"),
        ("Client.UserInitiatedShutdown", "terminated"),
        ("Client.VolumeLimitExceeded", "ended at its start: the account's limit on disks is used up"),
        ("Server.Whatever", "AWS's words"),
    ],
)
def test_reasons(code: str, reason: str) -> None:
    ended = entry("terminated", StateReason={"Code": code, "Message": "AWS's words"})
    assert parse_machine(ended, "eu-west-3").reason == reason


@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        ("Server.InsufficientInstanceCapacity", 0.0),
        ("Client.VolumeLimitExceeded", 0.0),
        ("Client.UserInitiatedShutdown", 60.0),
    ],
)
def test_launch_that_never_began_is_charged_nothing(code: str, seconds: float) -> None:
    """Seen: a minute for each launch that went from pending to terminated."""
    machine = parse_machine(entry("terminated", StateReason={"Code": code}), "eu-west-3")
    assert machine.least_seconds == seconds
    assert machine.ended_at == (None if seconds else LAUNCHED.timestamp())


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_what_is_stopped_is_not_terminated(state: str) -> None:
    """Seen: a line `ending ... terminated` after `stop instance`. AWS gives both the same reason."""
    about = {"Code": "Client.UserInitiatedShutdown", "Message": "Client.UserInitiatedShutdown: User initiated"}
    stopped = parse_machine(entry(state, StateReason=about), "eu-west-3")
    assert (stopped.state, stopped.reason) == (state, "stopped")


def test_running_machine_has_no_reason() -> None:
    assert parse_machine(entry(StateReason={"Code": "pending", "Message": "pending"}), "eu-west-3").reason == ""


def test_internal_error_of_a_key_is_explained() -> None:
    ended = entry("terminated", StateReason={"Code": "Client.InternalError", "Message": "Client error on launch"})
    assert "key" in parse_machine(ended, "eu-west-3").reason


@pytest.mark.parametrize(
    ("state", "words", "ended"),
    [
        ("terminated", "User initiated (2026-11-21 12:30:00 GMT)", 1800.0),
        ("stopped", "User initiated (2026-11-21 12:30:00 GMT)", 1800.0),
        ("running", "User initiated (2026-11-21 12:30:00 GMT)", None),
        ("terminated", "", None),
        ("terminated", "Server.SpotInstanceTermination", None),
    ],
)
def test_times(state: str, words: str, ended: float | None) -> None:
    machine = parse_machine(entry(state, StateTransitionReason=words), "eu-west-3")
    assert machine.launched_at == LAUNCHED.timestamp()
    assert machine.ended_at == (None if ended is None else LAUNCHED.timestamp() + ended)


def test_least_that_ec2_may_say() -> None:
    machine = parse_machine({"InstanceId": "i-1"}, "eu-west-3")
    assert (machine.state, machine.market, machine.launched_at, machine.tags) == ("unknown", "on-demand", None, {})


# ---- addresses ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    return Tenant("aws", Account("", "eu-west-3"), tmp_path)


REQUEST = (
    '{"v":1,"region":"eu-west-3","type":"m7i.large","image":"ami-1","user":"admin","root_device":"/dev/xvda",'
    '"idle":600,"life":86400,"unadopted":1200}'
)


def test_address(tenant: Tenant) -> None:
    tenant.records.write_choice(Choice("cs-1", REQUEST, 1.0, launch={}))
    public = find_address(tenant, parse_machine(entry(), "eu-west-3"))
    assert public is not None
    assert (public.host, public.user, public.key) == ("192.0.2.9", "admin", "aws:i-1")
    assert find_address(tenant, parse_machine(entry("terminated"), "eu-west-3")) is None
    assert find_address(tenant, parse_machine(entry(PublicIpAddress=None), "eu-west-3")) is None, "not seen yet"


def test_address_in_a_private_network(tenant: Tenant) -> None:
    request = REQUEST.replace('"v":1', '"v":1,"public":false')
    tenant.records.write_choice(Choice("cs-1", request, 1.0, launch={}))
    private = find_address(tenant, parse_machine(entry(PublicIpAddress=None), "eu-west-3"))
    assert private is not None and private.host == "10.0.0.9"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"token": 1}'])
def test_machine_whose_note_is_lost_has_no_address(tenant: Tenant, damage: str) -> None:
    """Nobody knows its user any more; it ends itself."""
    tenant.records.write_choice(Choice("cs-1", REQUEST, 1.0, launch={}))
    (tenant.records.folder / "choices/cs-1.json").write_text(damage)
    machine = parse_machine(entry(), "eu-west-3")
    assert find_wish(tenant, machine) is None
    assert find_address(tenant, machine) is None


def test_notes_of_long_ago_are_dropped(tmp_path: Path) -> None:
    import os

    records = Records(tmp_path)
    for token in ("old", "new"):
        records.write_choice(Choice(token, REQUEST, 1.0))
    os.utime(tmp_path / "choices/old.json", (1, 1))
    records.forget_old()
    assert records.choice("old") is None and records.choice("new") is not None


@pytest.mark.parametrize("name", ["../secret", "", "a/b", ".hidden"])
def test_names_choose_no_path(tmp_path: Path, name: str) -> None:
    assert Records(tmp_path).choice(name) is None
    Records(tmp_path).forget_machine(name)
