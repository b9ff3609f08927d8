"""Rented machines when nobody is there any more: each ends itself, by each rule of its dead man's switch.

What mostly waits is played at the same time, each scene by a user of its own in a region of its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cloud_user import RUN, User, surroundings
from ec2_stack import REGIONS
from ec2lab import Cloud, Instance

from cloudsend_cli.core.model import ProviderDefinition
from cloudsend_cli.errors import UnreachableError


class Somebody(User):
    """Who rents in one region."""

    def __init__(self, ec2: Cloud, state_dir: Path, region: str) -> None:
        super().__init__(ec2, state_dir, ProviderDefinition("aws", "aws", json.dumps({"region": region})))
        self.region = region

    def rent(self, token: str = "token-1", **changes: Any) -> Instance:
        """A machine that runs."""
        return self.running(self.create(token, region=self.region, **changes))


def enter(ec2: Cloud, one: Instance, command: str) -> str:
    """Executed on the machine by its login user, once it is armed."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        host = ec2.host(one.id) if one.host is not None else None
        if host is not None and host.is_up and host.sh("[ ! -e /run/cloudsend/armed ] || echo armed") == "armed":
            return str(host.sh(command))
        time.sleep(0.05)
    raise AssertionError(f"the switch of {one.id} is not armed:\n{one.console}")


def end_by_each_rule(user: Somebody) -> None:
    ec2 = user.ec2
    unadopted = user.rent("t-unadopted", unadopted=4)
    idle = user.rent("t-idle", idle=15)
    old = user.rent("t-old", life=15, idle=600)
    leased = user.rent("t-leased")
    used = user.rent("t-used")
    touch = "touch /run/cloudsend/adopted /run/cloudsend/active"
    for one in (idle, old, used):
        enter(ec2, one, touch)
    enter(ec2, leased, f"{touch}; cut -d. -f1 /proc/uptime | awk '{{print $1 + 5}}' >/run/cloudsend/lease")
    for one in (unadopted, idle, old, leased):
        ec2.wait(one.id, "terminated", timeout=90)
    rented = {r.instance_id: r for r in user.provider.list_rented()}
    assert {rented[one.id].reason for one in (unadopted, idle, old, leased)} == {"shut down from within"}
    assert rented[used.id].state == "running"


def boot_again(user: Somebody) -> None:
    one = user.rent(unadopted=15)
    enter(user.ec2, one, "touch /run/cloudsend/adopted /run/cloudsend/active")
    user.ec2.reboot(one.id)
    user.ec2.wait(one.id, "terminated", timeout=120)
    assert user.status(one.id).reason == "shut down from within"


def take_back(user: Somebody) -> None:
    ec2 = user.ec2
    one = user.rent(market="spot")
    enter(ec2, one, "true")
    ec2.notice(one.id, seconds=120)
    wanted = (
        "for i in $(seq 300); do [ -e /run/cloudsend/notice ] && break; sleep 0.1; done; cat /run/cloudsend/notice"
    )
    assert json.loads(enter(ec2, one, wanted))["action"] == "terminate"
    ec2.notice(one.id, withdrawn=True)
    gone = "for i in $(seq 300); do [ -e /run/cloudsend/notice ] || break; sleep 0.1; done; ls /run/cloudsend"
    assert "notice" not in enter(ec2, one, gone).split()


def die_while_it_is_made(user: Somebody) -> None:
    ec2 = user.ec2
    gate = ec2.hold("RunInstances", after=True, region=user.region)
    request = user.request(user.region, unadopted=3)
    failed: list[BaseException] = []

    def rent() -> None:
        try:
            user.provider.create_instance(RUN, "aws-0", 1, "t-1", request)
        except UnreachableError as error:
            failed.append(error)

    thread = threading.Thread(target=rent)
    thread.start()
    assert gate.reached.wait(20)
    [one] = [one for one in ec2.instances if one.region == user.region]
    ec2.wait(one.id, "terminated", timeout=60)
    gate.release()
    thread.join()


SCENES = (end_by_each_rule, boot_again, take_back, die_while_it_is_made)
Played = dict[Callable[[Somebody], None], Future[None]]


@pytest.fixture(scope="module")
def played(one_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    one_cloud.reset()
    with surroundings(one_cloud), ThreadPoolExecutor(len(SCENES)) as pool:
        yield {
            scene: pool.submit(scene, Somebody(one_cloud, tmp_path_factory.mktemp("state"), region))
            for scene, region in zip(SCENES, REGIONS, strict=False)
        }
    one_cloud.reset()


@pytest.mark.slow
def test_with_every_client_dead_each_machine_ends_itself(played: Played) -> None:
    """By each of its rules. What nobody adopts, what is idle, what is too old, whose lease is over."""
    played[end_by_each_rule].result()


@pytest.mark.slow
def test_switch_is_armed_again_by_every_boot(played: Played) -> None:
    played[boot_again].result()


def test_notice_reaches_the_agents_directory(played: Played) -> None:
    played[take_back].result()


def test_first_second_of_its_life_is_guarded(played: Played) -> None:
    """The client dies while AWS makes the machine: nobody has its id, and it ends itself."""
    played[die_while_it_is_made].result()
