"""Machines that wait for a later run of their project: who gets them, once, and what a crash in between leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cloud_user import RUN, User, surroundings
from ec2lab import Cloud

from cloudsend_cli.errors import CapacityError, UnreachableError

NEXT = "rtest2"


@pytest.fixture
def user(ec2: Cloud, state_dir: Path) -> Iterator[User]:
    with surroundings(ec2):
        yield User(ec2, state_dir)


def keep(user: User, token: str = "token-1", **changes: object) -> str:
    made = user.create(token, **changes)  # type: ignore[arg-type]
    user.running(made)
    user.provider.keep_instance(RUN, "aws-0", made)
    return made


def test_kept_machine_is_no_runs_and_still_rented(user: User, ec2: Cloud) -> None:
    made = keep(user)
    assert list(user.provider.list_instances(RUN)) == []
    [rented] = user.provider.list_rented()
    assert (rented.instance_id, rented.run, rented.project) == (made, "kept", "p")
    user.provider.keep_instance(RUN, "aws-0", made)


def test_later_run_of_the_project_gets_it(user: User, ec2: Cloud) -> None:
    made = keep(user)
    user.restart()
    assert user.provider.create_instance(NEXT, "aws-7", 4, "token-2", user.request()) == made
    assert len(ec2.instances) == len(ec2.calls_of("RunInstances")) == 1
    status = user.status(made, NEXT)
    assert (status.node, status.generation, status.state) == ("aws-7", 4, "running")
    assert status.address is not None
    first_key = user.provider._tenant.identity.host_key("token-1").public
    assert dict(status.address.settings)["host_key"] == first_key, "the key that it was launched with"
    assert user.provider.create_instance(NEXT, "aws-7", 4, "token-2", user.request()) == made


@pytest.mark.parametrize(
    "changes",
    [{"project": "other"}, {"type": "c7i.large"}, {"zone": "b"}, {"idle": 3600}, {"market": "spot"}, {"reuse": False}],
    ids=str,
)
def test_machine_of_another_kind_is_left_alone(user: User, ec2: Cloud, changes: dict[str, object]) -> None:
    made = keep(user)
    other = user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request(**changes))  # type: ignore[arg-type]
    assert other != made


def test_machine_serves_whatever_may_be_paid_for_it_and_wherever_it_is(user: User, ec2: Cloud) -> None:
    made = keep(user, zoned=False)
    request = user.request(zone="b", zoned=False, life=40000, max_price="0.5")
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", request) == made


def test_one_machine_goes_to_one_of_many_who_want_it(user: User, ec2: Cloud) -> None:
    made = keep(user)
    request = user.request()
    with ThreadPoolExecutor(8) as pool:
        got = list(
            pool.map(lambda i: user.provider.create_instance(NEXT, f"aws-{i}", 1, f"token-x{i}", request), range(8))
        )
    assert len(set(got)) == 8 and made in got
    assert len(ec2.instances) == 8


def test_machine_that_has_ended_meanwhile_is_not_waited_for(user: User, ec2: Cloud) -> None:
    made = keep(user)
    ec2.terminate(made)
    ec2.wait(made, "terminated")
    other = user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    assert other != made


@pytest.mark.parametrize(("life", "age"), [(50, 0), (3600, 1900)])
def test_old_machine_is_not_given_to_a_new_run(user: User, ec2: Cloud, life: int, age: int) -> None:
    """One with half of its life left would end under its next run, and one with a minute left before it is of use."""
    made = keep(user, life=life)
    ec2.instance(made).launched -= age
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request(life=life)) != made


def test_machine_with_more_than_half_of_its_life_is_given_to_a_new_run(user: User, ec2: Cloud) -> None:
    made = keep(user, life=3600)
    ec2.instance(made).launched -= 1700
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request(life=3600)) == made


def test_run_that_gave_it_away_cannot_end_it(user: User, ec2: Cloud) -> None:
    """Its late words come when another run works there."""
    made = keep(user)
    user.provider.terminate_instance(RUN, "aws-0", made)
    user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    user.provider.terminate_instance(RUN, "aws-0", made)
    user.provider.keep_instance(RUN, "aws-0", made)
    assert ec2.instance(made).state == "running"
    assert user.status(made, NEXT).state == "running"
    user.provider.terminate_instance(NEXT, "aws-0", made)
    ec2.wait(made, "terminated")


def test_user_can_end_it(user: User, ec2: Cloud) -> None:
    made = keep(user)
    user.provider.terminate_rented(made)
    ec2.wait(made, "terminated")


def test_run_ends_what_it_took_although_tags_lag(user: User, ec2: Cloud) -> None:
    made = keep(user)
    user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    ec2.retag(made, {"cloudsend:run": "kept"})  # what a reader that lags sees
    user.provider.terminate_instance(NEXT, "aws-0", made)
    ec2.wait(made, "terminated")


def test_machine_rented_for_no_run_is_a_new_one_and_is_used_by_the_next_run(user: User, ec2: Cloud) -> None:
    first = user.create("token-1", run="kept")
    second = user.create("token-2", run="kept")
    assert first != second and user.create("token-1", run="kept") == first
    user.settle()
    got = {user.provider.create_instance(NEXT, f"aws-{i}", 1, f"token-n{i}", user.request()) for i in range(2)}
    assert got == {first, second}


# ---- crashes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lose_reply", "lose_request"])
def test_lost_reply_while_it_is_kept(user: User, ec2: Cloud, fault: str) -> None:
    made = user.create()
    user.running(made)
    getattr(ec2, fault)("CreateTags", times=4)
    with pytest.raises(UnreachableError):
        user.provider.keep_instance(RUN, "aws-0", made)
    user.restart()
    user.provider.keep_instance(RUN, "aws-0", made)
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request()) == made


@pytest.mark.parametrize("fault", ["lose_reply", "lose_request"])
def test_lost_reply_while_it_is_taken(user: User, ec2: Cloud, fault: str) -> None:
    made = keep(user)
    getattr(ec2, fault)("CreateTags", times=4)
    with pytest.raises(UnreachableError):
        user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    user.restart()
    assert user.provider.create_instance(NEXT, "aws-9", 1, "token-3", user.request()) != made, "it is spoken for"
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request()) == made
    assert len(ec2.instances) == 2


def test_crash_between_the_two_notes_of_a_taking(user: User, ec2: Cloud) -> None:
    made = keep(user)
    gate = ec2.hold("CreateTags")
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(user.provider.create_instance, NEXT, "aws-0", 1, "token-2", user.request())
        assert gate.reached.wait(20)
        (user.state_dir / "aws/choices/token-2.json").unlink()  # as if the process had died before it wrote this
        gate.release()
        taking.result()
    ec2.retag(made, {"cloudsend:run": "kept", "cloudsend:token": "token-1"})
    user.restart()
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request()) == made
    assert len(ec2.instances) == 1


def test_launch_that_was_decided_is_repeated_although_a_machine_is_kept_now(user: User, ec2: Cloud) -> None:
    """Otherwise one token would have two machines."""
    made = user.create()
    user.running(made)
    ec2.lose_reply("RunInstances", times=2)
    with pytest.raises(UnreachableError):
        user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    user.provider.keep_instance(RUN, "aws-0", made)
    again = user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    assert again != made
    assert len(ec2.instances) == 2


def test_taken_machine_that_ends_before_the_repeated_call(user: User, ec2: Cloud) -> None:
    made = keep(user)
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request()) == made
    ec2.terminate(made)
    ec2.wait(made, "terminated")
    with pytest.raises(CapacityError, match="has ended"):
        user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())


def test_machine_that_ends_between_its_choice_and_its_taking_is_replaced(user: User, ec2: Cloud) -> None:
    made = keep(user)
    ec2.lose_request("CreateTags", times=4)
    with pytest.raises(UnreachableError):
        user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    ec2.terminate(made)
    ec2.wait(made, "terminated")
    other = user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request())
    assert other != made
    choice = json.loads((user.state_dir / "aws/choices/token-2.json").read_text())
    assert choice["instance_id"] == "" and choice["launch"]["ClientToken"] == "token-2"


def test_machine_of_a_request_without_reuse_is_never_given_on(user: User, ec2: Cloud) -> None:
    made = keep(user, reuse=False)
    assert user.provider.create_instance(NEXT, "aws-0", 1, "token-2", user.request()) != made
