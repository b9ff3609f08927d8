"""The lab of AWS itself, by plain boto3 and OpenSSH: what the tests of cloudsend rely on."""

from __future__ import annotations

import base64
import subprocess
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from ec2lab import Cloud
from ec2lab.instance import Instance

ONCE = {"retries": {"total_max_attempts": 1}}
TAGS = [{"Key": "owner", "Value": "me"}]


def one_try(ec2: Cloud, service: str = "ec2", region: str | None = None) -> Any:
    """A client that does not try again by itself."""
    from botocore.config import Config

    return ec2.client(service, region, config=Config(**ONCE))


def request(ec2: Cloud, token: str = "token-1", **more: Any) -> dict[str, Any]:
    return {
        "ImageId": ec2.image(),
        "InstanceType": "m7i.large",
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "TagSpecifications": [{"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "volume")],
        **more,
    }


def launch(ec2: Cloud, token: str = "token-1", **more: Any) -> Instance:
    made = one_try(ec2).run_instances(**request(ec2, token, **more))["Instances"]
    return ec2.instance(made[0]["InstanceId"])


def open_group(ec2: Cloud, source: str | None = None) -> str:
    client = ec2.client()
    vpc = client.describe_vpcs()["Vpcs"][0]["VpcId"]
    group: str = client.create_security_group(GroupName="ssh", Description="ssh", VpcId=vpc)["GroupId"]
    client.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=source or f"{ec2.client_address}/32"
    )
    return group


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A login key and a host key, by name of their files."""
    made = {}
    for name in ("login", "host"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
        made[name] = str(tmp_path / name)
        made[f"{name}.pub"] = (tmp_path / f"{name}.pub").read_text().strip()
    return made


def user_data(keys: dict[str, str], runcmd: str = "", boothook: str = "") -> bytes:
    indented = Path(keys["host"]).read_text().replace("\n", "\n    ")
    config = (
        "#cloud-config\n"
        f"ssh_authorized_keys:\n- {keys['login.pub']}\n"
        f"ssh_keys:\n  ed25519_private: |\n    {indented}\n  ed25519_public: {keys['host.pub']}\n"
        "write_files:\n- path: /etc/lab-test\n  permissions: '0600'\n  content: written\n"
        f"runcmd:\n- echo ran >>/var/ran\n- {runcmd or 'true'}\n"
    )
    message = MIMEMultipart()
    hook = f"#cloud-boothook\n#!/bin/sh\necho $INSTANCE_ID >>/var/boots\n{boothook}\n"
    message.attach(MIMEText(hook, "cloud-boothook"))
    message.attach(MIMEText(config, "cloud-config"))
    return message.as_bytes()


def login(one: Instance, keys: dict[str, str], *command: str, timeout: int = 10) -> subprocess.CompletedProcess[str]:
    known = Path(keys["host"] + ".known")
    known.write_text(f"{one.id} {' '.join(keys['host.pub'].split()[:2])}\n")
    options = {
        "UserKnownHostsFile": known, "HostKeyAlias": one.id, "StrictHostKeyChecking": "yes", "BatchMode": "yes",
        "IdentityFile": keys["login"], "IdentitiesOnly": "yes", "ConnectTimeout": timeout,
    }  # fmt: skip
    arguments = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    argv = ["ssh", "-F", "none", *arguments, f"ubuntu@{one.public}", *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def wait_for_ssh(ec2: Cloud, one: Instance) -> None:
    from sshlab.commands import wait_for

    def listens() -> bool:
        host = one.host
        return host is not None and host.is_up and host.booted.listens(22)

    wait_for(listens, f"sshd of {one.id}")


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


assert base64
