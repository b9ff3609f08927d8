"""What the tests of the lab of AWS do again and again, with plain boto3 and OpenSSH."""

from __future__ import annotations

import subprocess
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from ec2lab import Cloud
from ec2lab.instance import Instance
from sshlab.commands import wait_for

ONCE = {"retries": {"total_max_attempts": 1}}
TAGS = [{"Key": "owner", "Value": "me"}]


def one_try(ec2: Cloud, service: str = "ec2", region: str | None = None) -> Any:
    """A client that does not try again by itself."""
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


def make_keys(directory: Path) -> dict[str, str]:
    """A login key and a host key, by name of their files."""
    made = {}
    for name in ("login", "host"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)]
        subprocess.run(command, check=True)
        made[name] = str(directory / name)
        made[f"{name}.pub"] = (directory / f"{name}.pub").read_text().strip()
    return made


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


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
    def listens() -> bool:
        host = one.host
        return host is not None and host.is_up and host.booted.listens(22)

    wait_for(listens, f"sshd of {one.id}")
