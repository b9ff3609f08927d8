"""AWS as a provider, asked of the lab: the contract, and each of AWS's troubles as the engine is told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cloud_user import RUN, User, surroundings
from ec2lab import Cloud

from cloudsend_cli.core.model import InstanceSpec
from cloudsend_cli.errors import (
    AuthError,
    CapacityError,
    CloudsendError,
    ConfigError,
    NotFoundError,
    ProviderError,
    QuotaError,
    UnreachableError,
)
from cloudsend_cli.providers.aws.identity import list_regions
from cloudsend_cli.providers.aws.provider import AwsProvider
from cloudsend_cli.testing.contract import ProviderContract


@pytest.fixture
def user(ec2: Cloud, state_dir: Path) -> Iterator[User]:
    with surroundings(ec2):
        yield User(ec2, state_dir)


class TestAwsContract(ProviderContract):
    @pytest.fixture
    def provider(self, user: User) -> AwsProvider:
        return user.provider

    @pytest.fixture
    def spec(self) -> InstanceSpec:
        return InstanceSpec("aws", 1, None, (("type", "m7i.large"), ("project", "p")))

    @pytest.fixture
    def wait(self, user: User) -> Callable[[], None]:
        return user.settle


# ---- create -------------------------------------------------------------------------------------------------------


def test_machine_is_as_it_was_asked_for(user: User, ec2: Cloud) -> None:
    made = user.create(region="eu-west-1", market="spot", max_price="0.5")
    user.running(made)
    assert list_regions(user.state_dir) == ["eu-west-1"]
    [entry] = ec2.client("ec2", "eu-west-1").describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"]
    assert entry["InstanceType"] == "m7i.large" and entry["InstanceLifecycle"] == "spot"
    assert entry["MetadataOptions"]["HttpTokens"] == "required" and "KeyName" not in entry
    owner = user.provider._tenant.identity.owner
    tags = {tag["Key"]: tag["Value"] for tag in entry["Tags"]}
    assert (tags["cloudsend:owner"], tags["cloudsend:run"], tags["cloudsend:node"]) == (owner, RUN, "aws-0")
    status = user.status(made)
    assert (status.state, status.node, status.generation) == ("running", "aws-0", 1)
    assert status.launched_at is not None and abs(status.launched_at - time.time()) < 60
    address = status.address
    assert address is not None
    assert (address.kind, address.key, address.port, address.user) == ("ssh", f"aws:{made}", 22, "ubuntu")
    assert address.host == entry["PublicIpAddress"]
    settings = dict(address.settings)
    assert settings["host_key"] == user.provider._tenant.identity.host_key("token-1").public
    assert (settings["alias"], settings["config"], settings["shared"]) == (made, "none", "true")
    assert settings["rotate"] == "true"
    assert settings["key"] == str(user.state_dir / "aws/login")


def test_region_and_group_come_before_the_first_launch(user: User, ec2: Cloud) -> None:
    gate = ec2.hold("RunInstances")
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(user.create)
        assert gate.reached.wait(20)
        assert list_regions(user.state_dir) == ["eu-west-3"]
        [group] = ec2.client().describe_security_groups(Filters=[{"Name": "group-name", "Values": ["cloudsend-*"]}])[
            "SecurityGroups"
        ]
        assert [rule["IpRanges"][0]["CidrIp"] for rule in group["IpPermissions"]] == [f"{ec2.client_address}/32"]
        gate.release()
        assert made.result()


def test_repeated_call_is_the_same_to_the_byte_also_of_another_process(user: User, ec2: Cloud) -> None:
    first = user.create()
    user.restart()
    assert user.create() == first
    calls = ec2.calls_of("RunInstances")
    assert len(calls) == 2
    assert calls[0].params == calls[1].params
    assert len(ec2.instances) == 1


def test_lost_reply_is_one_machine(user: User, ec2: Cloud) -> None:
    ec2.lose_reply("RunInstances", times=2)
    with pytest.raises(UnreachableError, match="no answer of AWS") as caught:
        user.create()
    assert caught.value.retry_after > 0
    assert user.create() == ec2.instances[0].id
    assert len(ec2.instances) == 1


def test_lost_reply_and_then_no_capacity_is_the_machine_that_there_is(user: User, ec2: Cloud) -> None:
    """Were it told as a lack of capacity, the machine would be paid for and nobody's."""
    ec2.lose_reply("RunInstances", times=2)
    with pytest.raises(UnreachableError):
        user.create()
    ec2.inject("RunInstances", "InsufficientInstanceCapacity", status=500, times=2)
    assert user.create() == ec2.instances[0].id


def test_machine_that_may_be_there_is_not_told_away(user: User, ec2: Cloud) -> None:
    ec2.inject("RunInstances", "VcpuLimitExceeded")
    ec2.inject("DescribeInstances", "UnauthorizedOperation", times=None)
    with pytest.raises(UnreachableError, match="not known whether"):
        user.create()


def test_token_whose_machine_has_ended_says_so(user: User, ec2: Cloud) -> None:
    made = user.create()
    user.running(made)
    user.provider.terminate_instance(RUN, "aws-0", made)
    ec2.wait(made, "terminated")
    with pytest.raises(CapacityError, match="had one that has ended"):
        user.create()


def test_another_request_under_a_token_is_a_bug_and_starts_nothing(user: User, ec2: Cloud) -> None:
    user.create()
    with pytest.raises(ProviderError, match="token of aws-0 came with another request"):
        user.create(type="c7i.large")
    ec2.inject("RunInstances", "IdempotentParameterMismatch")
    with pytest.raises(ProviderError, match="bug of cloudsend"):
        user.create("token-2")
    assert len(ec2.instances) == 1


@pytest.mark.parametrize(
    ("code", "cls", "status"),
    [
        ("InsufficientInstanceCapacity", CapacityError, 500),
        ("SpotMaxPriceTooLow", CapacityError, 400),
        ("Unsupported", CapacityError, 400),
        ("VcpuLimitExceeded", QuotaError, 400),
        ("UnauthorizedOperation", AuthError, 403),
        ("InvalidAMIID.NotFound", ConfigError, 400),
        ("RequestLimitExceeded", UnreachableError, 503),
        ("InternalError", UnreachableError, 500),
        ("NeverHeardOf", ProviderError, 400),
    ],
)
def test_refusal_is_told_in_our_words(
    user: User, ec2: Cloud, code: str, cls: type[CloudsendError], status: int
) -> None:
    ec2.inject("RunInstances", code, status=status, times=None)
    with pytest.raises(cls, match=r"m7i\.large in eu-west-3a") as caught:
        user.create()
    assert code in caught.value.message
    assert len(ec2.calls_of("RunInstances")) <= 2
    assert not ec2.instances


def test_machine_that_never_could_begin_tells_why(user: User, ec2: Cloud) -> None:
    ec2.market.failing["*", "*", "*"] = 1
    made = user.create()
    ec2.wait(made, "terminated")
    status = user.status(made)
    assert (status.state, status.reason) == ("terminated", "capacity")


def test_twenty_at_once_make_one_group_and_twenty_machines(user: User, ec2: Cloud) -> None:
    request = user.request()
    with ThreadPoolExecutor(10) as pool:
        made = list(
            pool.map(lambda i: user.provider.create_instance(RUN, f"aws-{i}", 1, f"t-{i}", request), range(20))
        )
    assert len(set(made)) == len(ec2.instances) == 20
    assert len(ec2.calls_of("CreateSecurityGroup")) == len(ec2.calls_of("AuthorizeSecurityGroupIngress")) == 1
    assert len(ec2.calls_of("DescribeSecurityGroups")) == 1
    before = len(ec2.calls)
    assert len(user.provider.list_instances(RUN)) == 20
    assert [call.action for call in ec2.calls[before:]] == ["DescribeInstances"]


def test_group_that_somebody_removed_is_made_anew(user: User, ec2: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    ec2.inject("RunInstances", "InsufficientInstanceCapacity", status=500, times=2)
    with pytest.raises(CapacityError):
        user.create()
    [group] = ec2.client().describe_security_groups(Filters=[{"Name": "group-name", "Values": ["cloudsend-*"]}])[
        "SecurityGroups"
    ]
    ec2.client().delete_security_group(GroupId=group["GroupId"])
    monkeypatch.setattr("cloudsend_cli.providers.aws.create.GROUP_SEEN_WITHIN", 0.0)
    monkeypatch.setattr("cloudsend_cli.providers.aws.firewall.KNOWN_FOR", 0.0)
    with pytest.raises(UnreachableError, match=r"InvalidGroup\.NotFound"):
        user.create()
    assert user.create() == ec2.instances[0].id


# ---- list ---------------------------------------------------------------------------------------------------------


def test_list_of_several_pages_is_whole(user: User, ec2: Cloud) -> None:
    for number in range(5):
        user.create(f"token-{number}")
    ec2.lag.page = 2
    assert len(user.provider.list_instances(RUN)) == 5


def test_page_that_is_missing_makes_no_list(user: User, ec2: Cloud) -> None:
    for number in range(5):
        user.create(f"token-{number}")
    ec2.lag.page = 2
    ec2.inject("DescribeInstances", "InternalError", status=500, skip=1, times=None)
    with pytest.raises(UnreachableError):
        user.provider.list_instances(RUN)


def test_region_that_does_not_answer_makes_no_list_of_its_runs_alone(user: User, ec2: Cloud) -> None:
    request = user.request("eu-west-1")
    user.provider.create_instance("rother", "aws-0", 1, "t-other", request)
    user.create("t-1")
    user.create("t-2", user.request("us-east-1"))
    assert len(user.provider.list_instances(RUN)) == 2
    ec2.outage("eu-west-1")
    assert len(user.provider.list_instances(RUN)) == 2, "the region of another run"
    with pytest.raises(UnreachableError):
        user.provider.list_rented()
    ec2.outage("eu-west-1", None)
    ec2.outage("us-east-1")
    with pytest.raises(UnreachableError, match="us-east-1"):
        user.provider.list_instances(RUN)


def test_denied_list_is_no_empty_list(user: User, ec2: Cloud) -> None:
    user.create()
    ec2.deny("DescribeInstances")
    with pytest.raises(UnreachableError, match="UnauthorizedOperation"):
        user.provider.list_instances(RUN)


def test_nothing_is_asked_before_anything_was_rented(user: User, ec2: Cloud) -> None:
    assert list(user.provider.list_instances(RUN)) == list(user.provider.list_rented()) == []
    user.provider.terminate_instance(RUN, "aws-0", "i-0123456789abcdef0")
    assert ec2.calls == []
    assert not (user.state_dir / "aws").exists() or not (user.state_dir / "aws/identity").exists()


def test_credentials_that_ran_out_are_taken_up_when_they_are_renewed(
    user: User, ec2: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = user.create()
    ec2.expire_credentials()
    with pytest.raises(UnreachableError):
        user.provider.list_instances(RUN)
    ec2.add_credential("AKIANEW", "new/secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "new/secret")
    assert [status.instance_id for status in user.provider.list_instances(RUN)] == [made]


def test_credentials_in_a_file_are_read_again_when_it_changes(
    user: User, ec2: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, secret = ec2.environ["AWS_ACCESS_KEY_ID"], ec2.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    path.write_text("[default]\naws_access_key_id = AKIAWRONG\naws_secret_access_key = wrong\n")
    with pytest.raises(AuthError):
        user.create()
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    assert user.create()


# ---- end ----------------------------------------------------------------------------------------------------------


def test_lost_reply_of_terminate_is_made_good(user: User, ec2: Cloud) -> None:
    made = user.create()
    user.running(made)
    ec2.lose_reply("TerminateInstances", times=4)
    with pytest.raises(UnreachableError):
        user.provider.terminate_instance(RUN, "aws-0", made)
    user.provider.terminate_instance(RUN, "aws-0", made)
    ec2.wait(made, "terminated")
    status = user.status(made)
    assert (status.state, status.reason) == ("terminated", "terminated")
    assert status.ended_at is not None


def test_denied_terminate_is_loud(user: User, ec2: Cloud) -> None:
    ec2.market.on_demand["m7i.large"] = 0.1176
    made = user.create()
    user.running(made)
    ec2.deny("TerminateInstances")
    with pytest.raises(AuthError) as caught:
        user.provider.terminate_instance(RUN, "aws-0", made)
    for word in (made, "m7i.large", "eu-west-3", "$0.1176 per hour"):
        assert word in caught.value.message
    assert ec2.instance(made).state == "running"


def test_protected_machine_is_loud_too(user: User, ec2: Cloud) -> None:
    made = user.create()
    user.running(made)
    ec2.protect(made)
    with pytest.raises(ProviderError, match=f"{made} .*goes on costing .* per hour"):
        user.provider.terminate_instance(RUN, "aws-0", made)


def test_machine_of_somebody_else_is_never_touched(user: User, ec2: Cloud, tmp_path: Path) -> None:
    user.create("t-1")
    client = ec2.client()
    stranger = client.run_instances(ImageId=ec2.image(), InstanceType="m7i.large", MinCount=1, MaxCount=1)
    foreign = stranger["Instances"][0]["InstanceId"]
    other = User(ec2, tmp_path / "other")
    theirs = other.create("t-2")
    user.settle()
    for ident in (foreign, theirs):
        for act in (
            lambda ident=ident: user.provider.terminate_instance(RUN, "aws-0", ident),
            lambda ident=ident: user.provider.terminate_rented(ident),
            lambda ident=ident: user.provider.stop_instance(ident),
            lambda ident=ident: user.provider.keep_instance(RUN, "aws-0", ident),
        ):
            with pytest.raises(ProviderError, match="does not carry this installation's tag"):
                act()
    assert {one.state for one in ec2.instances} == {"running"}
    assert {r.instance_id for r in user.provider.list_rented()} == {ec2.instances[0].id}


def test_machine_that_lost_its_tag_is_not_ours_any_more(user: User, ec2: Cloud) -> None:
    """Nobody acts on what is not tagged; that we made it a moment ago may be a lag, and is tried again."""
    made = user.create()
    user.running(made)
    ec2.retag(made, {"cloudsend:owner": None})
    with pytest.raises(UnreachableError, match="not seen with its tags"):
        user.provider.terminate_instance(RUN, "aws-0", made)
    assert ec2.instance(made).state == "running"


def test_machine_that_is_not_seen_yet_is_not_taken_for_gone(user: User, ec2: Cloud) -> None:
    ec2.lag.hidden = 3600
    made = user.create()
    with pytest.raises(UnreachableError, match="not seen yet"):
        user.provider.terminate_instance(RUN, "aws-0", made)
    assert list(user.provider.list_instances(RUN)) == []
    ec2.lag.hidden = 0
    user.provider.terminate_instance(RUN, "aws-0", made)
    ec2.wait(made, "terminated")


def test_machine_ended_by_somebody_else_is_fine(user: User, ec2: Cloud) -> None:
    made = user.create()
    user.running(made)
    ec2.terminate(made)
    ec2.wait(made, "terminated")
    calls = len(ec2.calls_of("TerminateInstances"))
    user.provider.terminate_instance(RUN, "aws-0", made)
    assert len(ec2.calls_of("TerminateInstances")) == calls
    assert user.status(made).state == "terminated"


def test_machine_that_is_on_its_way_out_is_still_listed(user: User, ec2: Cloud) -> None:
    made = user.create()
    user.running(made)
    ec2.linger(made)
    user.provider.terminate_instance(RUN, "aws-0", made)
    assert user.status(made).state == "ending"
    ec2.let_end(made)
    ec2.wait(made, "terminated")
    assert user.status(made).state == "terminated"


def test_spot_machine_taken_back_was_preempted(user: User, ec2: Cloud) -> None:
    made = user.create(market="spot")
    user.running(made)
    ec2.reclaim(made)
    ec2.wait(made, "terminated")
    assert user.status(made).reason == "preempted"


# ---- whatever run -------------------------------------------------------------------------------------------------


def test_list_of_all_that_is_rented(user: User, ec2: Cloud) -> None:
    ec2.market.on_demand["m7i.large"] = 0.1
    ec2.market.spot["eu-west-1a", "m7i.large"] = 0.03
    first = user.create("t-1", life=7200)
    request = user.request("eu-west-1", market="spot")
    second = user.provider.create_instance("rother", "aws-3", 1, "t-2", request)
    user.settle()
    rented = {r.instance_id: r for r in user.provider.list_rented()}
    assert set(rented) == {first, second}
    here = rented[first]
    assert (here.provider, here.region, here.run, here.node, here.project) == ("aws", "eu-west-3", RUN, "aws-0", "p")
    assert (here.type, here.market, here.state) == ("m7i.large", "on-demand", "running")
    assert here.launched_at is not None and here.expires == here.launched_at + 7200
    assert here.price is not None and here.address is not None
    assert (rented[second].market, rented[second].run) == ("spot", "rother")
    calls = len(ec2.calls)
    user.provider.list_rented()
    assert [call.action for call in ec2.calls[calls:]] == ["DescribeInstances"] * 2


def test_stop_and_start(user: User, ec2: Cloud) -> None:
    made = user.create()
    user.running(made)
    before = user.status(made).address
    user.provider.stop_instance(made)
    ec2.wait(made, "stopped")
    assert user.status(made).state == "stopped"
    user.provider.stop_instance(made)
    user.provider.start_instance(made)
    user.running(made)
    after = user.status(made).address
    assert before is not None and after is not None
    assert (after.key, after.settings) == (before.key, before.settings)
    spot = user.create("t-2", market="spot")
    user.running(spot)
    with pytest.raises(ProviderError, match="spot machine"):
        user.provider.stop_instance(spot)


def test_console_is_shown(user: User, ec2: Cloud) -> None:
    made = user.create()
    user.running(made)
    text = ""
    for _ in range(100):
        text = user.provider.fetch_console(made)
        if "END SSH HOST KEY KEYS" in text:
            break
        time.sleep(0.1)
    assert user.provider._tenant.identity.host_key("token-1").public.split()[1] in text


def test_verbs_for_what_is_not_there(user: User) -> None:
    user.create()
    for verb in (user.provider.start_instance, user.provider.stop_instance, user.provider.fetch_console):
        with pytest.raises(NotFoundError, match="i-0123456789abcdef0"):
            verb("i-0123456789abcdef0")
    user.provider.terminate_rented("i-0123456789abcdef0")


def test_machine_is_ended_although_another_region_is_out(user: User, ec2: Cloud) -> None:
    """Its note is lost, so that every region has to be asked."""
    user.create("t-1", user.request("eu-west-1"))
    made = user.create("t-2")
    user.running(made)
    (user.state_dir / f"aws/machines/{made}.json").unlink()
    ec2.outage("eu-west-1")
    user.provider.terminate_rented(made)
    ec2.wait(made, "terminated")
    with pytest.raises(UnreachableError):
        user.provider.terminate_rented("i-0123456789abcdef0")


def test_lost_identity_is_no_empty_list(user: User) -> None:
    user.create()
    (user.state_dir / "aws/identity").unlink()
    user.restart()
    with pytest.raises(UnreachableError, match="identity` is gone"):
        user.provider.list_instances(RUN)


def test_request_that_cannot_be_read_rents_nothing(user: User, ec2: Cloud) -> None:
    with pytest.raises(ProviderError, match="cannot be read"):
        user.create(request=json.dumps({"v": 9}))
    assert ec2.calls_of("RunInstances") == []


def test_login_with_the_first_host_key(user: User, ec2: Cloud, tmp_path: Path) -> None:
    """What the address says is enough for OpenSSH, and the switch is armed."""
    import subprocess

    made = user.create()
    one = user.running(made)
    address = user.status(made).address
    assert address is not None
    settings: dict[str, Any] = dict(address.settings)
    known = tmp_path / "known_hosts"
    known.write_text(f"{settings['alias']} {settings['host_key']}\n")
    options = {
        "UserKnownHostsFile": known,
        "HostKeyAlias": settings["alias"],
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "IdentityFile": settings["key"],
        "IdentitiesOnly": "yes",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    script = (
        "for i in $(seq 100); do [ -e /run/cloudsend/armed ] && break; sleep 0.1; done; cat /run/cloudsend/armed; "
    )
    script += "stat -c '%U %a' /run/cloudsend"
    argv = ["ssh", "-F", "none", *words, f"{address.user}@{address.host}", script]
    for _ in range(50):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 255:
            break
        time.sleep(0.1)
    assert done.stdout.splitlines() == ["idle=600 life=86400 unadopted=1200", "ubuntu 700"], (done.stderr, one.console)
