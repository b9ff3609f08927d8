"""Commands that change something at AWS, when the answers to their calls are lost, or the calls, or both fail.

Numbers of the catalogue of faults: P2 lost answers, P3 errors. Calls of whole runs: see test_ec2_faults_calls.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import command_lines
import pytest
from ec2_stack import CHANGING, AtOnce, Ec2Stack, play_together, together
from ec2_strikes import is_change, list_changes, list_unreadable_verbs, strike
from ec2lab import Call, Cloud
from ec2lab.instance import GONE

from cloudsend_cli.errors import UnreachableError
from cloudsend_cli.providers.aws.identity import open_identity
from cloudsend_cli.providers.aws.policy import load_policy

KEY = "AKIASTRUCKSTRUCK0000"
ELSEWHERE = "192.0.2.9/32"  # where the caller was before
AT_MOST = 3  # times that a command has to be given, as two of its calls may be struck one after the other
SPOT_ROLE = "iam:CreateServiceLinkedRole"  # AWS's own act in the caller's name

# What one life of a machine consists of: each step is a command, and the calls of it that are struck.
STEPS = {
    "create": ("CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "CreateTags"),
    "stop": ("StopInstances",),
    "start": ("StartInstances",),
    "check": ("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"),
    "terminate": ("TerminateInstances",),
    "gc": (
        "CancelSpotInstanceRequests",
        "DeleteKeyPair",
        "DeleteNetworkInterface",
        "DeleteSecurityGroup",
        "DeleteSnapshot",
        "DeleteVolume",
        "ReleaseAddress",
    ),
}
STRUCK = {action for actions in STEPS.values() for action in actions}


@pytest.fixture(scope="module")
def at_once(one_cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[AtOnce]:
    one_cloud.reset()
    chosen = [getattr(item, "obj", None) for item in request.session.items if item.path == request.path]
    with play_together(one_cloud, chosen) as made:
        yield made


# ---- nothing is left out -------------------------------------------------------------------------------------------


def test_every_change_that_the_product_makes_is_struck_here() -> None:
    """Who adds a call that changes something adds it to a step above, and so to all faults."""
    assert list_unreadable_verbs() == []
    assert list_changes() == STRUCK
    assert {*CHANGING} <= STRUCK


def test_every_change_that_the_policy_allows_is_struck_here() -> None:
    allowed = {
        action
        for statement in load_policy()["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    changes = {action for action in allowed if is_change(action.partition(":")[2])}
    assert changes - {SPOT_ROLE} == {f"ec2:{action}" for action in STRUCK}


# ---- the life of a machine -----------------------------------------------------------------------------------------


class Commands:
    """The commands of one user, a line each, in a process that is started once."""

    def __init__(self, stack: Ec2Stack) -> None:
        words = [sys.executable, command_lines.__file__]
        here = {"AWS_REGION": stack.region, "AWS_DEFAULT_REGION": stack.region, "AWS_ACCESS_KEY_ID": KEY}
        environ = {**os.environ, **here, "CLOUDSEND_HOME": str(stack.state), "COLUMNS": "240"}
        self._process = subprocess.Popen(
            words, cwd=stack.files, env=environ, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def __call__(self, line: str) -> tuple[int, str]:
        """The exit status, and what was written, both streams."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        said = []
        for text in self._process.stdout:
            if text.startswith(command_lines.MARK):
                return int(text.split()[-1]), "".join(said)
            said.append(text)
        raise AssertionError(f"{line}: it ended\n{''.join(said)}")

    def close(self) -> None:
        self._process.communicate(timeout=60)


class Life:
    """Of one machine by commands, while calls of theirs are struck."""

    def __init__(self, stack: Ec2Stack, kind: str, *, once: bool) -> None:
        self.stack, self.ec2, self.kind, self.once = stack, stack.ec2, kind, once
        secret = self.ec2.environ["AWS_SECRET_ACCESS_KEY"]
        self.ec2.add_credential(KEY, secret)
        self.commands = Commands(stack)

    def insist(self, step: str, line: str, is_done: Callable[[], bool]) -> None:
        """The command until it says that it is done; before, it says that it does not know. Neither is ever wrong."""
        attempts = 1 if self.once else command_lines.ATTEMPTS
        faults = [strike(self.ec2, action, self.kind, self.stack.region, attempts) for action in STEPS[step]]
        for left in reversed(range(AT_MOST)):
            status, said = self.commands(line)
            told = f"{line}: {status}\n{said}"
            if not status:
                break
            assert left and not self.once, told
            assert status == UnreachableError.exit_status and "no answer of AWS to" in said, told
        assert is_done(), told
        missed = [fault.action for fault in faults if not fault.hits]
        assert not missed, f"{missed} not called by {told}"

    def live(self) -> None:
        self.insist(
            "create", f"create instance -p aws --set type=m7i.large --set region={self.stack.region}", self.is_up
        )
        (machine,) = self.stack.machines
        self.insist("stop", f"stop instance {machine.id}", lambda: machine.state in {"stopping", "stopped"})
        self.ec2.wait(machine.id, "stopped")
        self.insist("start", f"start instance {machine.id}", lambda: machine.state in {"pending", "running"})
        self.ec2.wait(machine.id, "running")
        self.move()
        self.insist("check", "check -p aws --fix", lambda: self.list_open() == [f"{self.ec2.client_address}/32"])
        self.insist("terminate", f"terminate instance {machine.id}", lambda: machine.state in GONE)
        self.ec2.wait(machine.id, "terminated")
        self.leave_everything()
        self.insist("gc", "gc --yes", lambda: self.list_leaks() == [])
        assert self.stack.machines == [machine]
        assert {call.action for call in self.list_made()} == STRUCK, "and nothing else was changed"

    def is_up(self) -> bool:
        (machine,) = self.stack.machines
        return machine.state == "running" and self.ec2.tags(machine.id)["cloudsend:run"] == "kept"

    def list_made(self) -> list[Call]:
        calls = self.stack.calls_of(*{call.action for call in list(self.ec2.calls)})
        return [c for c in calls if c.access_key == KEY and is_change(c.action) and c.params.get("DryRun") != "true"]

    def list_leaks(self) -> list[str]:
        return [leak for leak in self.ec2.leaks() if leak.endswith(f" in {self.stack.region}")]

    def list_open(self) -> list[str]:
        (group,) = self.client().describe_security_groups(GroupIds=self.stack.groups())["SecurityGroups"]
        return [rule["CidrIp"] for permission in group["IpPermissions"] for rule in permission["IpRanges"]]

    def client(self) -> Any:
        return self.ec2.client("ec2", self.stack.region)

    def move(self) -> None:
        """As if the group had been made while the caller was elsewhere."""
        (group,) = self.client().describe_security_groups(GroupIds=self.stack.groups())["SecurityGroups"]
        self.client().revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ELSEWHERE}]}
        self.client().authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[rule])

    def leave_everything(self) -> None:
        """One of each kind of thing that nothing uses and that is paid for, or clutters the account."""
        client, tags = self.client(), {"cloudsend:owner": open_identity(self.stack.state).owner}

        def of(kind: str) -> list[dict[str, object]]:
            return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]

        zone, subnet = f"{self.stack.region}a", client.describe_subnets()["Subnets"][0]["SubnetId"]
        volume = client.create_volume(AvailabilityZone=zone, Size=1, TagSpecifications=of("volume"))["VolumeId"]
        client.create_snapshot(VolumeId=volume, TagSpecifications=of("snapshot"))
        client.allocate_address(Domain="vpc", TagSpecifications=of("elastic-ip"))
        client.create_network_interface(SubnetId=subnet, TagSpecifications=of("network-interface"))
        client.create_key_pair(KeyName="left", TagSpecifications=of("key-pair"))
        self.ec2.request_spot(tags, self.stack.region)


def live(stack: Ec2Stack, kind: str, *, once: bool = False) -> None:
    life = Life(stack, kind, once=once)
    try:
        life.live()
    finally:
        life.commands.close()


@together
def test_p2_answers_to_commands_are_lost(stack: Ec2Stack) -> None:
    live(stack, "reply lost")


@together
def test_p2_one_answer_to_each_command_is_lost(stack: Ec2Stack) -> None:
    """The SDK asks again by itself, and meets what the first call has done: nobody is to hear of it."""
    live(stack, "reply lost", once=True)


@together
def test_p2_calls_of_commands_are_lost(stack: Ec2Stack) -> None:
    live(stack, "request lost")


@together
def test_p3_errors_before_effects_of_commands(stack: Ec2Stack) -> None:
    live(stack, "error before")


@together
def test_p3_errors_after_effects_of_commands(stack: Ec2Stack) -> None:
    live(stack, "error after")
