"""Machines must not be lost and not be had twice: crashes at every effect, lost replies of every call that changes
something. The lab's ledger is the judge.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import life_process
import pytest
from campaigns import pick
from cloud_user import User, surroundings
from ec2lab import Cloud

PROGRAM = Path(life_process.__file__)
STRUCK = life_process.ATTEMPTS + 1  # one call comes to nothing, and one attempt of the next
CHANGES = ["CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "CreateTags", "TerminateInstances"]
FAULTS = ["lost reply", "lost request", "error after the effect", "delivered twice"]
# Two faults of each change, each fault of two changes at the least; test_ec2_faults_calls.py has all of them.
SAMPLE = [(action, FAULTS[(n + more) % 4]) for n, action in enumerate(CHANGES) for more in (0, 1)]
STEP = pick(3, 1)  # of the effects at which a process is killed
DOUBLE_CRASHES = pick(2, 8)
CAMPAIGN = pytest.mark.campaign("kills at effects of the provider of AWS")


@pytest.fixture
def user(ec2: Cloud, state_dir: Path) -> Iterator[User]:
    with surroundings(ec2):
        yield User(ec2, state_dir)


class Lives:
    """One after the other with one state directory, each a fork of one process, and killed where it is told."""

    def __init__(self, process: subprocess.Popen[str], user: User) -> None:
        self.process = process
        user.state_dir.mkdir(mode=0o700, exist_ok=True)
        requests = [user.request(), user.request(zone="b", market="spot", reuse=False)]
        self._words = [str(user.state_dir), str(user.state_dir / "journal"), *requests]

    def live(self, number: int = 0) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([number, *self._words]) + "\n")
        self.process.stdin.flush()
        words: str = json.loads(self.process.stdout.readline())
        assert words in {"killed", "done"}, words
        return words


@pytest.fixture(scope="module")
def process(one_cloud: Cloud) -> Iterator[subprocess.Popen[str]]:
    with surroundings(one_cloud):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(PROGRAM)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == "ready\n"
        yield made
        made.communicate()


@pytest.fixture
def lives(process: subprocess.Popen[str], user: User) -> Lives:
    return Lives(process, user)


def crash(process: subprocess.Popen[str], user: User, *numbers: int) -> bool:
    """Live with a crash at each of these effects of a process, then without one. Whether there were so many."""
    user.ec2.reset()
    lives = Lives(process, User(user.ec2, user.state_dir / "-".join(map(str, numbers))))
    crashed = [lives.live(number) for number in numbers]
    assert lives.live() == "done"
    judge(user.ec2)
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
@CAMPAIGN
@pytest.mark.timeout(1200)
def test_crash_at_every_effect(
    process: subprocess.Popen[str], user: User, summary_line: Callable[[str], None]
) -> None:
    number = 1
    while crash(process, user, number):
        number += STEP
    assert number > 20
    summary_line(f"crashes of the provider of AWS: {(number - 1) // STEP} of {number - 1} effects, lost or doubled: 0")


@pytest.mark.slow
@CAMPAIGN
@pytest.mark.timeout(1200)
def test_c9_crash_and_crash_again(
    process: subprocess.Popen[str], user: User, summary_line: Callable[[str], None]
) -> None:
    choose = random.Random(4)
    for _ in range(DOUBLE_CRASHES):
        crash(process, user, *(choose.randint(1, 25) for _ in range(choose.randint(2, 3))))
    summary_line(f"double and triple crashes of the provider of AWS: {DOUBLE_CRASHES}, lost or doubled: 0")


@CAMPAIGN
@pytest.mark.parametrize(("action", "fault"), pick(SAMPLE, [*product(CHANGES, FAULTS)]))
def test_no_answer_to_a_change(user: User, lives: Lives, action: str, fault: str) -> None:
    ec2 = user.ec2
    if fault == "lost reply":
        ec2.lose_reply(action, times=STRUCK)
    elif fault == "lost request":
        ec2.lose_request(action, times=STRUCK)
    elif fault == "delivered twice":
        ec2.deliver_twice(action, times=STRUCK)
    else:
        ec2.inject(action, "InternalError", status=500, after=True, times=STRUCK)
    assert lives.live() == "done"
    judge(ec2)


@pytest.mark.slow
def test_throttled_all_the_way(user: User, lives: Lives) -> None:
    for action in (*CHANGES, "DescribeInstances", "DescribeSecurityGroups"):
        user.ec2.inject(action, "RequestLimitExceeded", status=503, times=STRUCK)
    assert lives.live() == "done"
    judge(user.ec2)


def test_lists_that_lag_double_nothing(user: User, lives: Lives) -> None:
    user.ec2.lag.hidden = 1.0
    user.ec2.lag.stale = 0.5
    assert lives.live() == "done"
    judge(user.ec2)
