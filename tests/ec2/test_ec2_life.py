"""Machines must not be lost and not be had twice: crashes at every effect, lost replies of every call that changes
something, and nobody there any more. The lab's ledger is the judge.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cloud_user import RUN, User, surroundings
from ec2lab import Cloud, Instance

from cloudsend_cli.errors import UnreachableError

PROGRAM = Path(__file__).with_name("life_process.py")
CHANGES = ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "CreateTags", "TerminateInstances"]
ALL = os.environ.get("CLOUDSEND_CRASH_POINTS") == "all"
STEP = 1 if ALL else 3  # of the effects at which a process is killed
DOUBLE_CRASHES = 8 if ALL else 3


@pytest.fixture
def user(ec2: Cloud, state_dir: Path) -> Iterator[User]:
    with surroundings(ec2):
        yield User(ec2, state_dir)


class Lives:
    """One after the other with one state directory, each killed where it is told."""

    def __init__(self, user: User) -> None:
        user.state_dir.mkdir(mode=0o700, exist_ok=True)
        requests = [user.request(), user.request(zone="b", market="spot", reuse=False)]
        command = [sys.executable, str(PROGRAM), str(user.state_dir), str(user.state_dir / "journal"), *requests]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self._read() == "ready"

    def live(self, number: int = 0) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        words: str = json.loads(self._read())
        assert words in {"killed", "done"}, words
        return words

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.communicate()


def crash(ec2: Cloud, state_dir: Path, *numbers: int) -> bool:
    """Live with a crash at each of these effects of a process, then without one. Whether there were so many."""
    ec2.reset()
    lives = Lives(User(ec2, state_dir / "-".join(map(str, numbers))))
    try:
        crashed = [lives.live(number) for number in numbers]
        assert lives.live() == "done"
    finally:
        lives.close()
    judge(ec2)
    return crashed[-1] == "killed"


def judge(ec2: Cloud) -> None:
    """Two machines, however it went, each launched once; both gone; one group with one rule, and nothing else."""
    assert [(one.market, one.state) for one in ec2.instances] == [("on-demand", "terminated"), ("spot", "terminated")]
    assert len({row.instance_id for row in ec2.ledger()}) == len(ec2.ledger()) == 2
    left = [leak for leak in ec2.leaks() if "group" not in leak]
    assert left == []
    groups = ec2.client().describe_security_groups(Filters=[{"Name": "group-name", "Values": ["cloudsend-*"]}])
    [group] = groups["SecurityGroups"]
    assert [len(rule["IpRanges"]) for rule in group["IpPermissions"]] == [1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_crash_at_every_effect(user: User, summary_line: Callable[[str], None]) -> None:
    number = 1
    while crash(user.ec2, user.state_dir, number):
        number += STEP
    assert number > 20
    summary_line(f"crashes of the provider of AWS: {(number - 1) // STEP} of {number - 1} effects, lost or doubled: 0")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_crash_and_crash_again(user: User, summary_line: Callable[[str], None]) -> None:
    choose = random.Random(4)
    for _ in range(DOUBLE_CRASHES):
        crash(user.ec2, user.state_dir, *(choose.randint(1, 25) for _ in range(choose.randint(2, 3))))
    summary_line(f"double and triple crashes of the provider of AWS: {DOUBLE_CRASHES}, lost or doubled: 0")


@pytest.mark.parametrize("action", CHANGES)
@pytest.mark.parametrize("fault", ["lost reply", "lost request", "error after the effect", "delivered twice"])
def test_no_answer_to_a_change(user: User, action: str, fault: str) -> None:
    ec2 = user.ec2
    lives = Lives(user)
    if fault == "lost reply":
        ec2.lose_reply(action, times=5)
    elif fault == "lost request":
        ec2.lose_request(action, times=5)
    elif fault == "delivered twice":
        ec2.deliver_twice(action, times=5)
    else:
        ec2.inject(action, "InternalError", status=500, after=True, times=5)
    try:
        assert lives.live() == "done"
    finally:
        lives.close()
    judge(ec2)


@pytest.mark.slow
def test_throttled_all_the_way(user: User) -> None:
    for action in (*CHANGES, "DescribeInstances", "DescribeSecurityGroups"):
        user.ec2.inject(action, "RequestLimitExceeded", status=503, times=5)
    lives = Lives(user)
    assert lives.live() == "done"
    lives.close()
    judge(user.ec2)


def test_lists_that_lag_double_nothing(user: User) -> None:
    user.ec2.lag.hidden = 1.0
    user.ec2.lag.stale = 0.5
    lives = Lives(user)
    assert lives.live() == "done"
    lives.close()
    judge(user.ec2)


# ---- nobody is there any more -------------------------------------------------------------------------------------


def enter(ec2: Cloud, one: Instance, command: str) -> str:
    """Executed on the machine by its login user, once it is armed."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        host = ec2.host(one.id) if one.host is not None else None
        if host is not None and host.is_up and host.sh("[ ! -e /run/cloudsend/armed ] || echo armed") == "armed":
            return host.sh(command)
        time.sleep(0.05)
    raise AssertionError(f"the switch of {one.id} is not armed:\n{one.console}")


@pytest.mark.slow
def test_with_every_client_dead_each_machine_ends_itself(user: User, ec2: Cloud) -> None:
    """By each of its rules. What nobody adopts, what is idle, what is too old, whose lease is over."""
    unadopted = user.running(user.create("t-unadopted", unadopted=4))
    idle = user.running(user.create("t-idle", idle=15))
    old = user.running(user.create("t-old", life=15, idle=600))
    leased = user.running(user.create("t-leased"))
    used = user.running(user.create("t-used"))
    touch = "touch /run/cloudsend/adopted /run/cloudsend/active"
    for one in (idle, old, used):
        enter(ec2, one, touch)
    enter(ec2, leased, f"{touch}; cut -d. -f1 /proc/uptime | awk '{{print $1 + 5}}' >/run/cloudsend/lease")
    for one in (unadopted, idle, old, leased):
        ec2.wait(one.id, "terminated", timeout=90)
    rented = {r.instance_id: r for r in user.provider.list_rented()}
    assert {rented[one.id].reason for one in (unadopted, idle, old, leased)} == {"shut down from within"}
    assert rented[used.id].state == "running"


@pytest.mark.slow
def test_switch_is_armed_again_by_every_boot(user: User, ec2: Cloud) -> None:
    one = user.running(user.create(unadopted=15))
    enter(ec2, one, "touch /run/cloudsend/adopted /run/cloudsend/active")
    ec2.reboot(one.id)
    ec2.wait(one.id, "terminated", timeout=120)
    assert user.status(one.id).reason == "shut down from within"


@pytest.mark.slow
def test_notice_reaches_the_agents_directory(user: User, ec2: Cloud) -> None:
    one = user.running(user.create(market="spot"))
    enter(ec2, one, "true")
    ec2.notice(one.id, seconds=120)
    wanted = (
        "for i in $(seq 300); do [ -e /run/cloudsend/notice ] && break; sleep 0.1; done; cat /run/cloudsend/notice"
    )
    assert json.loads(enter(ec2, one, wanted))["action"] == "terminate"
    ec2.notice(one.id, withdrawn=True)
    gone = "for i in $(seq 300); do [ -e /run/cloudsend/notice ] || break; sleep 0.1; done; ls /run/cloudsend"
    assert "notice" not in enter(ec2, one, gone).split()


def test_first_second_of_its_life_is_guarded(user: User, ec2: Cloud) -> None:
    """The client dies while AWS makes the machine: nobody has its id, and it ends itself."""
    gate = ec2.hold("RunInstances", after=True)
    request = user.request(unadopted=3)
    failed: list[BaseException] = []

    def rent() -> None:
        try:
            user.provider.create_instance(RUN, "aws-0", 1, "t-1", request)
        except UnreachableError as error:
            failed.append(error)

    thread = threading.Thread(target=rent)
    thread.start()
    assert gate.reached.wait(20)
    [one] = ec2.instances
    ec2.wait(one.id, "terminated", timeout=60)
    gate.release()
    thread.join()
