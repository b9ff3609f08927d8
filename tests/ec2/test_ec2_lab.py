"""The lab of AWS itself, by plain boto3: what its API does and what can be made to go wrong with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from ec2_lab_probes import code_of, launch, login, make_keys, one_try, open_group, request, user_data, wait_for_ssh
from ec2lab import Cloud


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return make_keys(tmp_path)


def test_a_machine_is_logged_into_by_the_keys_of_its_user_data(ec2: Cloud, keys: dict[str, str]) -> None:
    one = launch(ec2, UserData=user_data(keys), SecurityGroupIds=[open_group(ec2)])
    assert one.state == "pending"
    ec2.wait(one.id, "running")
    wait_for_ssh(ec2, one)
    done = login(
        one, keys, "cloud-init status --wait; sudo cat /var/boots /etc/lab-test /var/ran; id -un; hostname -I"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["status:", "done", one.id, "writtenran", "ubuntu", one.public, one.private]
    shown = ec2.client().describe_instances(Filters=[{"Name": "tag:owner", "Values": ["me"]}])["Reservations"]
    assert [entry["Instances"][0]["PublicIpAddress"] for entry in shown] == [one.public]
    ec2.client().terminate_instances(InstanceIds=[one.id])
    ec2.wait(one.id, "terminated")
    assert ec2.leaks() == [f"group {one.groups[0]} in eu-west-3"]


def test_one_client_token_is_one_machine(ec2: Cloud) -> None:
    one = launch(ec2)
    assert launch(ec2) is one
    with pytest.raises(ClientError) as error:
        launch(ec2, InstanceType="m7i.xlarge")
    assert code_of(error) == "IdempotentParameterMismatch"
    zoned = launch(ec2, Placement={"AvailabilityZone": "eu-west-3b"})
    assert (zoned is not one, zoned.zone) == (True, "eu-west-3b")
    ec2.terminate(one.id)
    ec2.wait(one.id, "terminated")
    with pytest.raises(ClientError) as error:
        launch(ec2)
    assert code_of(error) == "IdempotentInstanceTerminated"
    assert len(ec2.calls_of("RunInstances")) == 5


def test_errors_are_injected_by_action_and_parameters(ec2: Cloud) -> None:
    ec2.inject("RunInstances", "InsufficientInstanceCapacity", when={"InstanceType": "m7i.*"}, times=2)
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            launch(ec2)
        assert code_of(error) == "InsufficientInstanceCapacity"
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    launch(ec2)
    assert [call.outcome for call in ec2.calls] == ["InsufficientInstanceCapacity"] * 2 + ["ok"]
    assert ec2.calls[0].params["ClientToken"] == "token-1"


def test_a_lost_reply_hides_what_was_done_and_a_lost_request_does_nothing(ec2: Cloud) -> None:
    ec2.lose_request("RunInstances")
    with pytest.raises(ConnectionClosedError):
        launch(ec2)
    assert ec2.instances == []
    ec2.lose_reply("RunInstances")
    with pytest.raises(ConnectionClosedError):
        launch(ec2)
    assert [one.token for one in ec2.instances] == ["token-1"]
    assert launch(ec2) is ec2.instances[0]
    assert [(call.outcome, call.effects) for call in ec2.calls] == [
        ("dropped before", 0),
        ("dropped after", 1),
        ("ok", 1),
    ]


def test_a_call_can_be_held_delivered_twice_or_fail_after_its_effect(ec2: Cloud) -> None:
    ec2.inject("RunInstances", "InternalError", after=True)
    with pytest.raises(ClientError):
        launch(ec2)
    ec2.deliver_twice("RunInstances")
    assert launch(ec2) is ec2.instances[0]
    assert [call.effects for call in ec2.calls] == [1, 2]
    ec2.delay("DescribeRegions", 0.2)
    ec2.client().describe_regions()
    assert ec2.calls_of("DescribeRegions")[0].seconds >= 0.2
    gate = ec2.hold("DescribeInstances")
    child = subprocess.Popen(
        [
            "python3",
            "-c",
            f"import urllib.request as u; u.urlopen(u.Request({ec2.url!r}, b'Action=DescribeInstances'))",
        ],
        stderr=subprocess.DEVNULL,
    )
    assert gate.reached.wait(20)
    child.kill()
    child.wait()
    gate.release()


def test_new_machines_are_not_found_for_a_while_and_states_are_late(ec2: Cloud) -> None:
    ec2.lag.hidden, ec2.lag.stale = 60, 60
    client = one_try(ec2)
    one = launch(ec2)
    assert client.describe_instances()["Reservations"] == []
    for act in (client.describe_instances, client.terminate_instances):
        with pytest.raises(ClientError) as error:
            act(InstanceIds=[one.id])
        assert code_of(error) == "InvalidInstanceID.NotFound"
    ec2.lag.hidden = 0
    ec2.wait(one.id, "running")
    shown = client.describe_instances(Filters=[{"Name": "client-token", "Values": ["token-1"]}])["Reservations"][0]
    assert shown["Instances"][0]["State"]["Name"] == "pending"
    ec2.lag.stale = 0
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    assert client.describe_instances(Filters=running)["Reservations"][0]["Instances"][0]["InstanceId"] == one.id
    ec2.lag.empty = 1
    assert [len(client.describe_instances()["Reservations"]) for _ in range(2)] == [0, 1]


def test_lists_come_in_pages(ec2: Cloud) -> None:
    for number in range(3):
        launch(ec2, f"token-{number}")
    pages = list(ec2.client().get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["Reservations"]) for page in pages] == [2, 1]
    ec2.lag.page = 1
    assert len(list(ec2.client().get_paginator("describe_instances").paginate())) == 3
    ec2.lag.page, ec2.lag.blank = None, 1
    pages = list(ec2.client().get_paginator("describe_instances").paginate())
    assert [len(page["Reservations"]) for page in pages] == [0, 3]


def test_capacity_quotas_and_prices_decide_what_is_given(ec2: Cloud) -> None:
    spot = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.03", "SpotInstanceType": "one-time"}}
    ec2.market.capacity["eu-west-3a", "m7i.large", "on-demand"] = 2
    zone = {"AvailabilityZone": "eu-west-3a"}
    many = one_try(ec2).run_instances(**request(ec2, "many", MaxCount=5, Placement=zone))["Instances"]
    assert len(many) == 2
    with pytest.raises(ClientError) as error:
        launch(ec2, Placement=zone)
    assert code_of(error) == "InsufficientInstanceCapacity"
    assert launch(ec2, "elsewhere").zone == "eu-west-3b"
    ec2.market.spot["eu-west-3a", "m7i.large"] = 0.04
    with pytest.raises(ClientError) as error:
        launch(ec2, "poor", Placement=zone, InstanceMarketOptions=spot)
    assert code_of(error) == "SpotMaxPriceTooLow"
    ec2.market.spot["eu-west-3a", "m7i.large"] = 0.02
    one = launch(ec2, "rich", Placement=zone, InstanceMarketOptions=spot)
    shown = ec2.client().describe_instances(InstanceIds=[one.id])["Reservations"][0]["Instances"][0]
    assert (shown["InstanceLifecycle"], shown["SpotInstanceRequestId"]) == ("spot", one.spot_request)
    ec2.market.quotas["eu-west-3", "L-1216C47A"] = 6
    ec2.market.quotas["eu-west-3", "L-34B43A08"] = 2
    for token, more, code in (
        ("more", {}, "VcpuLimitExceeded"),
        ("spots", {"InstanceMarketOptions": {"MarketType": "spot"}}, "MaxSpotInstanceCountExceeded"),
    ):
        with pytest.raises(ClientError) as error:
            launch(ec2, token, **more)
        assert code_of(error) == code
    ec2.market.quotas.clear()
    ec2.market.capacity["*", "c7i.large", "*"] = "Unsupported"
    with pytest.raises(ClientError) as error:
        launch(ec2, "other", InstanceType="c7i.large")
    assert code_of(error) == "Unsupported"


def test_a_launch_can_turn_to_terminated(ec2: Cloud) -> None:
    ec2.market.failing["*", "*", "*"] = 1
    one = launch(ec2)
    ec2.wait(one.id, "terminated")
    shown = ec2.client().describe_instances(InstanceIds=[one.id])["Reservations"][0]["Instances"][0]
    assert shown["StateReason"]["Code"] == "Server.InsufficientInstanceCapacity"
    assert (ec2.leaks(), ec2.ledger()) == ([], [])


def test_too_many_calls_are_refused(ec2: Cloud) -> None:
    ec2.limits.set("DescribeInstances", 2, 0)
    client = one_try(ec2)
    client.describe_instances()
    client.describe_instances()
    with pytest.raises(ClientError) as error:
        client.describe_instances()
    assert code_of(error) == "RequestLimitExceeded"
    client.describe_regions()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"InstanceType": "m99.huge"}, "InvalidParameterValue"),
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "noble"}, "InvalidAMIID.Malformed"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
        ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
        ({"UserData": "x" * 16385}, "InvalidParameterValue"),
        ({"InstanceType": "m7g.large"}, "InvalidParameterValue"),
        ({"InstanceType": "p5.48xlarge"}, "Unsupported"),
        ({"Placement": {"AvailabilityZone": "eu-west-3z"}}, "InvalidParameterValue"),
    ],
)
def test_what_is_wrong_in_a_request_has_the_code_of_ec2(shared_ec2: Cloud, more: dict[str, object], code: str) -> None:
    with pytest.raises(ClientError) as error:
        launch(shared_ec2, "wrong", **more)
    assert code_of(error) == code


def test_credentials_are_checked(ec2: Cloud) -> None:
    key = "AKIAOTHER00000000000"

    def identity(secret: str, token: str | None = None) -> object:
        who = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
        return ec2.client("ec2", **who).describe_regions()

    with pytest.raises(ClientError) as error:
        identity("secret")
    assert code_of(error) == "AuthFailure"
    other = ec2.add_credential(key, "secret", "session")
    for secret, token in (("wrong", "session"), ("secret", "wrong"), ("secret", None)):
        with pytest.raises(ClientError) as error:
            identity(secret, token)
        assert code_of(error) == "AuthFailure"
    assert identity("secret", "session")
    other.expires = 1
    with pytest.raises(ClientError) as error:
        identity("secret", "session")
    assert code_of(error) == "RequestExpired"
    ec2.expire_credentials()
    for service, call, code in (
        ("sts", "get_caller_identity", "ExpiredToken"),
        ("service-quotas", "list_service_quotas", "ExpiredTokenException"),
    ):
        with pytest.raises(ClientError) as error:
            getattr(one_try(ec2, service), call)(**({"ServiceCode": "ec2"} if service != "sts" else {}))
        assert code_of(error) == code
    ec2.renew_credentials()
    assert one_try(ec2, "sts").get_caller_identity()["Account"] == "123456789012"


def test_denied_actions_are_told_by_a_dry_run_too(ec2: Cloud) -> None:
    client = one_try(ec2)
    with pytest.raises(ClientError) as error:
        client.run_instances(**request(ec2), DryRun=True)
    assert code_of(error) == "DryRunOperation"
    ec2.deny("Run*", "ec2:TerminateInstances")
    for dry in (True, False):
        with pytest.raises(ClientError) as error:
            client.run_instances(**request(ec2), DryRun=dry)
        assert code_of(error) == "UnauthorizedOperation"
    ec2.allow("Run*")
    one = launch(ec2)
    with pytest.raises(ClientError) as error:
        client.terminate_instances(InstanceIds=[one.id])
    assert code_of(error) == "UnauthorizedOperation"
    ec2.allow()
    client.terminate_instances(InstanceIds=[one.id])


def test_a_wrong_clock_makes_requests_expire(ec2: Cloud) -> None:
    ec2.access.skew = 900
    for service, call, code in (
        ("ec2", "describe_regions", "RequestExpired"),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch"),
    ):
        with pytest.raises(ClientError) as error:
            getattr(one_try(ec2, service), call)()
        assert code_of(error) == code


def test_regions_are_apart_and_one_can_be_out(ec2: Cloud) -> None:
    here, there = one_try(ec2), one_try(ec2, region="us-east-1")
    one = launch(ec2)
    assert there.describe_instances()["Reservations"] == []
    with pytest.raises(ClientError) as error:
        there.run_instances(**request(ec2, ImageId=ec2.image()))
    assert code_of(error) == "InvalidAMIID.NotFound"
    made = there.run_instances(**request(ec2, ImageId=ec2.image(region="us-east-1")))["Instances"][0]["InstanceId"]
    ec2.outage("us-east-1")
    with pytest.raises(ConnectionClosedError):
        there.describe_instances()
    assert here.describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"] == one.id
    ec2.outage("us-east-1", None)
    assert there.describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"] == made
    assert [line.split()[1] for line in ec2.leaks() if line.startswith("instance")] == [one.id, made]


def test_images_are_named_by_public_parameters_and_a_stranger_has_one_too(shared_ec2: Cloud) -> None:
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    found = shared_ec2.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    assert found == shared_ec2.image("noble")
    client = shared_ec2.client()
    by_name = [{"Name": "name", "Values": ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"]}]
    owners = {image["OwnerId"] for image in client.describe_images(Filters=by_name)["Images"]}
    assert owners == {"099720109477", "666666666666"}
    ours = client.describe_images(Filters=by_name, Owners=["099720109477"])["Images"]
    assert [(image["ImageId"], image["RootDeviceName"]) for image in ours] == [(found, "/dev/sda1")]
    shared_ec2.set_parameter(name, None)
    with pytest.raises(ClientError) as error:
        shared_ec2.client("ssm").get_parameter(Name=name)
    assert code_of(error) == "ParameterNotFound"


def test_prices_and_quotas_are_those_that_were_set(ec2: Cloud) -> None:
    import json

    ec2.market.on_demand["m7i.large"] = 0.125
    filters = {"instanceType": "m7i.large", "regionCode": "eu-west-3", "operatingSystem": "Linux", "tenancy": "Shared"}
    found = ec2.client("pricing", "us-east-1").get_products(
        ServiceCode="AmazonEC2",
        Filters=[{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in filters.items()],
    )["PriceList"]
    (term,) = json.loads(found[0])["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert (len(found), float(dimension["pricePerUnit"]["USD"])) == (1, 0.125)
    ec2.market.quotas["eu-west-3", "L-1216C47A"] = 5
    quota = ec2.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]
    assert quota["Value"] == 5
    ec2.market.spot["eu-west-3b", "m7i.large"] = 0.0123
    history = ec2.client().describe_spot_price_history(
        InstanceTypes=["m7i.large"], ProductDescriptions=["Linux/UNIX"], AvailabilityZone="eu-west-3b"
    )["SpotPriceHistory"]
    assert [float(entry["SpotPrice"]) for entry in history] == [0.0123]


def test_a_group_in_use_stays(ec2: Cloud) -> None:
    group = open_group(ec2)
    one = launch(ec2, SecurityGroupIds=[group])
    with pytest.raises(ClientError) as error:
        one_try(ec2).delete_security_group(GroupId=group)
    assert code_of(error) == "DependencyViolation"
    ec2.terminate(one.id)
    ec2.wait(one.id, "terminated")
    one_try(ec2).delete_security_group(GroupId=group)
    assert ec2.leaks() == []


def test_protected_machines_stay_and_ending_ones_can_take_long(ec2: Cloud) -> None:
    one, client = launch(ec2), one_try(ec2)
    ec2.protect(one.id)
    with pytest.raises(ClientError) as error:
        client.terminate_instances(InstanceIds=[one.id])
    assert code_of(error) == "OperationNotPermitted"
    ec2.unprotect(one.id)
    client.modify_instance_attribute(InstanceId=one.id, DisableApiTermination={"Value": True})
    with pytest.raises(ClientError) as error:
        client.terminate_instances(InstanceIds=[one.id])
    assert code_of(error) == "OperationNotPermitted"
    client.modify_instance_attribute(InstanceId=one.id, DisableApiTermination={"Value": False})
    ec2.linger(one.id)
    client.terminate_instances(InstanceIds=[one.id])
    states = client.describe_instance_status(InstanceIds=[one.id], IncludeAllInstances=True)["InstanceStatuses"]
    assert states[0]["InstanceState"]["Name"] == "shutting-down"
    ec2.let_end(one.id)
    assert one.state == "terminated"


def test_somebody_else_can_change_tags(ec2: Cloud) -> None:
    one = launch(ec2)
    ec2.retag(one.id, {"owner": None, "Name": "mine"})
    assert ec2.tags(one.id) == {"Name": "mine"}
    assert [call.action for call in ec2.calls] == ["RunInstances"]


def test_a_policy_is_enforced_by_resource_and_tags(ec2: Cloud) -> None:
    tagged = {"StringEquals": {"aws:RequestTag/owner": "me"}}
    ours = {"StringLike": {"aws:ResourceTag/owner": "m*"}}
    every = "arn:aws:ec2:*:*:"
    made = [f"{every}{kind}/*" for kind in ("instance", "volume", "network-interface")]
    statements = [
        {"Sid": "Look", "Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},
        {"Sid": "Make", "Effect": "Allow", "Action": "ec2:RunInstances", "Resource": made, "Condition": tagged},
        {"Sid": "From", "Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*::image/*"},
        {"Sid": "Tag", "Effect": "Allow", "Action": "ec2:CreateTags", "Resource": made,
         "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}},
        {"Sid": "End", "Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": made[0], "Condition": ours},
    ]  # fmt: skip
    stranger = launch(ec2, "stranger", TagSpecifications=[])
    policy = ec2.enforce({"Version": "2012-10-17", "Statement": statements})
    client = one_try(ec2)
    kinds = ("instance", "volume", "network-interface")
    tags = [{"ResourceType": kind, "Tags": [{"Key": "owner", "Value": "me"}]} for kind in kinds]
    one = launch(ec2, TagSpecifications=tags)
    for refused in (
        lambda: launch(ec2, "no tags", TagSpecifications=tags[:2]),
        lambda: client.terminate_instances(InstanceIds=[one.id, stranger.id]),
        lambda: client.create_tags(Resources=[stranger.id], Tags=tags[0]["Tags"]),
        lambda: client.delete_key_pair(KeyName="x"),
        lambda: client.terminate_instances(InstanceIds=[stranger.id], DryRun=True),
    ):
        with pytest.raises(ClientError) as error:
            refused()
        assert code_of(error) == "UnauthorizedOperation"
    client.terminate_instances(InstanceIds=[one.id])
    client.describe_instances()
    assert policy.used == {"Look", "Make", "From", "Tag", "End"}
    assert policy.refused[0].resource == "arn:aws:ec2:eu-west-3:123456789012:network-interface/*"
