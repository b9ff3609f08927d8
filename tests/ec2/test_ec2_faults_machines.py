"""What happens to machines of a whole cloudsend that AWS, or somebody at its console, does not leave in peace.

Numbers of the catalogue of faults: P1 throttled, P4 capacity, P5 limits, P8 keys, P10 ends that do not end, P11
somebody else. P7, spot machines that are taken back: see test_ec2_preemption.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from ec2_stack import LEDGER, OF_MAESTRO, AtOnce, Ec2Stack, play_together, together, wait_for
from ec2lab import Cloud

pytestmark = pytest.mark.slow
HELD = f"{LEDGER}; until [ -e ~/go ]; do sleep 0.05; done"


@pytest.fixture(scope="module")
def at_once(one_cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[AtOnce]:
    one_cloud.reset()
    chosen = [getattr(item, "obj", None) for item in request.session.items if item.path == request.path]
    with play_together(one_cloud, chosen) as made:
        yield made


def submit(stack: Ec2Stack, command: str = LEDGER, jobs: int = 1, **machine: object) -> str:
    return stack.submit(instances=stack.machine(**{"idle": "0", **machine}), jobs=[command] * jobs)


def let_go(stack: Ec2Stack) -> None:
    for one in stack.alive:
        stack.ec2.host(one.id).sh("touch go")


def launches(stack: Ec2Stack) -> list[tuple[str, str]]:
    """(letter of the zone, outcome) of each call."""
    calls = stack.calls_of("RunInstances")
    return [(str(call.params["Placement.AvailabilityZone"])[-1], call.outcome) for call in calls]


# ---- P4 -----------------------------------------------------------------------------------------------------------


@together
def test_p4_no_capacity_in_the_first_zone(stack: Ec2Stack) -> None:
    stack.ec2.market.capacity[f"{stack.region}a", "*", "*"] = 0
    run = submit(stack)
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    asked = launches(stack)
    assert asked[-1] == ("b", "ok")
    assert {*asked[:-1]} == {("a", "InsufficientInstanceCapacity")}
    stack.check_nothing_left(1)
    del stack.ec2.market.capacity[f"{stack.region}a", "*", "*"]


@together
def test_p4_no_capacity_anywhere_is_told_and_costs_nothing(stack: Ec2Stack) -> None:
    """Each pool is asked once, and not again for ten minutes; the user's word ends the wait."""
    zones = [f"{stack.region}{letter}" for letter in "abcdef"]
    stack.ec2.market.capacity.update({(zone, "*", "*"): 0 for zone in zones})
    run = submit(stack)
    wait_for(lambda: "InsufficientInstanceCapacity" in str(stack.nodes(run)) and len(launches(stack)) >= 3)
    (job,) = stack.jobs(run)
    wait_for(lambda: stack.nodes(run)["aws-0"].state == "wanted")
    assert len({zone for zone, _ in launches(stack)}) >= 3
    assert "InsufficientInstanceCapacity" in stack.cli("explain", job)
    asked = len(launches(stack))
    stack.cli("kill", "run", run, status=None)
    stack.follow_to_end(run)
    assert len(launches(stack)) == asked
    stack.check_nothing_left(0)
    for zone in zones:
        del stack.ec2.market.capacity[zone, "*", "*"]


@together
def test_p4_no_capacity_after_pending(stack: Ec2Stack) -> None:
    """The launch succeeds, and the machine ends before it begins: the next pool is asked."""
    stack.ec2.market.failing[f"{stack.region}a", "*", "*"] = 1
    run = submit(stack)
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    assert [zone for zone, _ in launches(stack)] == ["a", "b"]
    first, second = stack.machines
    assert first.reason is not None and first.reason.code == "Server.InsufficientInstanceCapacity"
    paid = {row.instance_id for row in stack.ec2.ledger()}
    assert first.id not in paid and second.id in paid
    told = json.loads(stack.cli("cost", run, "-o", "json"))["machines"]
    assert [machine["cost"] for machine in told if machine["instance_id"] == first.id] == [0]
    stack.check_nothing_left(2)


# ---- P10 ----------------------------------------------------------------------------------------------------------


@together
def test_p10_machine_that_stays_shutting_down_is_watched_until_it_is_gone(stack: Ec2Stack) -> None:
    run = submit(stack)
    wait_for(lambda: stack.machines)
    (machine,) = stack.machines
    stack.ec2.linger(machine.id)
    stack.settle(run)
    wait_for(lambda: [one.state for one in stack.machines] == ["shutting-down"])
    looks = len(stack.calls_of("DescribeInstances"))
    wait_for(lambda: len(stack.calls_of("DescribeInstances")) > looks + 1)
    assert not stack.is_over(run)
    assert stack.nodes(run)["aws-0"].state == "releasing"
    assert "releasing" in stack.cli("list", "instances")
    stack.ec2.let_end(machine.id)
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    stack.check_nothing_left(1)


@together
def test_p10_protected_machine_is_asked_again_until_it_may_be_ended(stack: Ec2Stack) -> None:
    run = submit(stack)
    wait_for(lambda: stack.machines)
    (machine,) = stack.machines
    stack.ec2.protect(machine.id)
    stack.settle(run)
    wait_for(lambda: [c for c in stack.calls_of("TerminateInstances") if c.outcome == "OperationNotPermitted"])
    wait_for(lambda: f"{machine.id} (m7i.large in {stack.region}) goes on costing" in stack.cli("maestro", "logs"))
    assert not stack.is_over(run)
    stack.ec2.unprotect(machine.id)
    stack.follow_to_end(run)
    stack.check_nothing_left(1)


# ---- P11 ----------------------------------------------------------------------------------------------------------


@together
def test_p11_somebody_reboots_our_machine(stack: Ec2Stack) -> None:
    """The system ends the job as it shuts down: that is no end of the job's own, and it is done again."""
    run = submit(stack, HELD)
    wait_for(lambda: len(stack.ledger()) == 1)
    (machine,) = stack.machines
    stack.ec2.reboot(machine.id)
    wait_for(lambda: len(stack.ledger()) == 2)
    let_go(stack)
    stack.follow_to_end(run)
    (done,) = stack.jobs(run).values()
    assert (done.state, done.attempt) == ("succeeded", 2)
    assert stack.client.attempts(done.id)[0]["reason"].startswith("lost: the host ")
    assert sorted(stack.ledger().values()) == [1, 1]
    stack.check_nothing_left(1)


@together
def test_p11_somebody_stops_and_starts_our_machine(stack: Ec2Stack) -> None:
    """What ran there is lost and done again, on the same machine under its new address."""
    run = submit(stack, HELD)
    wait_for(lambda: len(stack.ledger()) == 1)
    (machine,) = stack.machines
    before = machine.public
    stack.ec2.stop(machine.id)
    stack.ec2.wait(machine.id, "stopped")
    (job,) = stack.jobs(run)
    wait_for(lambda: stack.jobs(run)[job].state == "pending")
    stack.ec2.start(machine.id)
    stack.ec2.wait(machine.id, "running")
    assert machine.public != before
    wait_for(lambda: len(stack.ledger()) == 2)
    let_go(stack)
    stack.follow_to_end(run)
    (done,) = stack.jobs(run).values()
    assert (done.state, done.attempt) == ("succeeded", 2)
    assert sorted(stack.ledger().values()) == [1, 1]
    stack.check_nothing_left(1)


@together
def test_p11_somebody_stops_our_machine_while_it_comes_up(stack: Ec2Stack) -> None:
    """Seen: it was waited for until the run was ended by hand."""
    stack.ec2.break_next("no sshd", region=stack.region)
    run = submit(stack)
    wait_for(lambda: [one.state for one in stack.machines] == ["running"])
    stack.ec2.stop(stack.machines[0].id)
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    stack.check_nothing_left(2)


@together
def test_p11_somebody_ends_our_machine(stack: Ec2Stack) -> None:
    run = submit(stack, HELD)
    wait_for(lambda: len(stack.ledger()) == 1)
    stack.ec2.terminate(stack.machines[0].id)
    wait_for(lambda: len(stack.ledger()) == 2)
    let_go(stack)
    stack.follow_to_end(run)
    (done,) = stack.jobs(run).values()
    assert (done.state, done.attempt) == ("succeeded", 2)
    stack.check_nothing_left(2)


@together
def test_p11_somebody_renames_our_machine(stack: Ec2Stack) -> None:
    """Its Name and tags of others are not ours to mind."""
    run = submit(stack, HELD)
    wait_for(lambda: len(stack.ledger()) == 1)
    stack.ec2.retag(stack.machines[0].id, {"Name": "mine", "team": "x"})
    let_go(stack)
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    stack.check_nothing_left(1)


@together
def test_p11_a_machine_that_lost_our_tag_is_used_and_told_and_not_ended(stack: Ec2Stack) -> None:
    """It may be somebody else's now: nobody acts on it, the run does not claim to be over, and the switch is armed."""
    run = submit(stack, HELD)
    wait_for(lambda: len(stack.ledger()) == 1)
    (machine,) = stack.machines
    owner = stack.ec2.tags(machine.id)["cloudsend:owner"]
    stack.ec2.retag(machine.id, {"cloudsend:owner": None})
    let_go(stack)
    stack.settle(run)
    stack.check_jobs(run, 1)
    wait_for(lambda: "is not seen with its tags" in stack.cli("maestro", "logs"))
    assert not stack.calls_of("TerminateInstances")
    assert not stack.is_over(run)
    assert stack.ec2.host(machine.id).sh("cat /run/cloudsend/armed").startswith("idle=")
    stack.ec2.retag(machine.id, {"cloudsend:owner": owner})
    stack.follow_to_end(run)
    stack.check_nothing_left(1)


# ---- P1, P5, P8 ---------------------------------------------------------------------------------------------------


@together
def test_p1_throttle_storm(stack: Ec2Stack) -> None:
    """Nothing is lost by it, and what is asked meanwhile is not much."""
    storm = [
        stack.ec2.inject(one, "RequestLimitExceeded", status=503, times=None, region=stack.region)
        for one in OF_MAESTRO
        if one != "DescribeInstances"  # commands plan with it
    ]
    run = submit(stack, jobs=3, number=2)
    wait_for(lambda: sum(fault.hits for fault in storm) >= 12)
    assert "RequestLimitExceeded" in str(stack.nodes(run))
    made = stack.calls_of(*OF_MAESTRO)
    assert len(made) / (made[-1].time - made[0].time) < 10, "calls a second of two machines and a list"
    stack.ec2.lift(*storm)
    stack.follow_to_end(run)
    stack.check_jobs(run, 3)
    stack.check_nothing_left(2)


@together
def test_p5_a_limit_stops_its_machine_and_others_go_on(stack: Ec2Stack) -> None:
    stack.ec2.inject("RunInstances", "VcpuLimitExceeded", region=stack.region)
    run = submit(stack, jobs=3, number=2)
    stack.follow_to_end(run)
    stack.check_jobs(run, 3)
    states = sorted((node.state, "VcpuLimitExceeded" in node.reason) for node in stack.nodes(run).values())
    assert states == [("failed", True), ("released", False)]
    refused = [outcome for _, outcome in launches(stack) if outcome == "VcpuLimitExceeded"]
    assert len(refused) == 1, "it is not asked again in the hope that it has grown"
    stack.check_nothing_left(1)


@together
def test_p8_keys_that_expire_in_mid_run_pause_it(stack: Ec2Stack) -> None:
    """What runs is fine meanwhile; with new keys the rest is done, and the machine given back."""
    key = stack.use_key("AKIAEXPIRESEXPIRES00")
    run = submit(stack, HELD)
    wait_for(lambda: len(stack.ledger()) == 1)
    key.expires = 0.0
    let_go(stack)
    stack.settle(run)
    stack.check_jobs(run, 1)
    wait_for(lambda: [call for call in stack.calls_of(*OF_MAESTRO) if call.outcome == "RequestExpired"])
    assert stack.alive
    assert not stack.is_over(run)
    key.expires = None
    stack.follow_to_end(run)
    stack.check_nothing_left(1)


@together
def test_p8_a_machine_that_may_not_be_ended_is_told_loudly(stack: Ec2Stack) -> None:
    """With its id and what it costs, and until it is gone."""
    key = stack.use_key("AKIADENIEDDENIED0000")
    key.denied.append("TerminateInstances")
    run = submit(stack)
    wait_for(lambda: stack.calls_of("TerminateInstances"))
    (machine,) = stack.alive
    dear = f"{machine.id} (m7i.large in {stack.region}) goes on costing $"
    wait_for(lambda: dear in stack.cli("maestro", "logs"))
    assert not stack.is_over(run)
    key.denied.clear()
    stack.follow_to_end(run)
    stack.check_jobs(run, 1)
    stack.check_nothing_left(1)
