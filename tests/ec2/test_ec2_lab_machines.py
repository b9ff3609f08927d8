"""The lab of AWS itself: what its machines do, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from ec2_lab_probes import code_of, launch, login, make_keys, one_try, open_group, user_data, wait_for_ssh
from ec2lab import Cloud
from ec2lab.instance import Instance
from sshlab.commands import wait_for

TESTS = Path(__file__).parents[1]
IMDS = "http://169.254.169.254/latest"
TOKEN = f'T=$(curl -sf -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" {IMDS}/api/token)'
READ = f'curl -s -w " %{{http_code}}" -H "X-aws-ec2-metadata-token: $T" {IMDS}'


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return make_keys(tmp_path)


def up(ec2: Cloud, token: str = "token-1", **more: object) -> Instance:
    one = launch(ec2, token, **more)
    wait_for_ssh(ec2, one)
    return one


def test_metadata_is_read_with_a_token(ec2: Cloud) -> None:
    one = up(ec2, UserData="#!/bin/sh\ntrue\n", MetadataOptions={"HttpTokens": "required"})
    host = ec2.host(one.id)
    assert host.sh(f"{TOKEN}; {READ}/meta-data/instance-id") == f"{one.id} 200"
    assert host.sh(f"{TOKEN}; {READ}/meta-data/placement/availability-zone") == f"{one.zone} 200"
    assert host.sh(f"{TOKEN}; {READ}/user-data") == "#!/bin/sh\ntrue\n 200"
    assert host.sh(f"{TOKEN}; {READ}/meta-data/spot/instance-action").endswith("404")
    assert host.sh(f"{READ}/meta-data/instance-id").endswith("401")
    assert (one.id, "/latest/meta-data/instance-id") in ec2.asked_metadata


def test_a_spot_machine_is_taken_after_its_notice_or_not(ec2: Cloud) -> None:
    one = up(ec2, InstanceMarketOptions={"MarketType": "spot"})
    look = f"{TOKEN}; {READ}/meta-data/spot/instance-action"
    ec2.notice(one.id, 60)
    assert '"action": "terminate"' in ec2.host(one.id).sh(look)
    ec2.notice(one.id, withdrawn=True)
    assert ec2.host(one.id).sh(look).endswith("404")
    ec2.notice(one.id, 0.1)
    ec2.wait(one.id, "terminated")
    shown = ec2.client().describe_instances(InstanceIds=[one.id])["Reservations"][0]["Instances"][0]
    assert shown["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert shown["StateTransitionReason"].startswith("Server.SpotInstanceTermination (20")
    assert ec2.leaks() == []


def test_a_machine_taken_without_notice_is_silent(ec2: Cloud, keys: dict[str, str]) -> None:
    more = {"UserData": user_data(keys), "SecurityGroupIds": [open_group(ec2)]}
    one = up(ec2, InstanceMarketOptions={"MarketType": "spot"}, **more)
    assert login(one, keys, "true").returncode == 0
    address = one.public
    ec2.reclaim(one.id)
    ec2.wait(one.id, "terminated")
    one.history[-1].public = address  # where it was
    assert "timed out" in login(one, keys, "true", timeout=1).stderr


@pytest.mark.parametrize(
    ("command", "behaviour", "state"),
    [
        ("shutdown -h now", "terminate", "terminated"),
        ("poweroff", "terminate", "terminated"),
        ("/sbin/shutdown now", "stop", "stopped"),
        ("systemctl poweroff", "stop", "stopped"),
    ],
)
def test_a_machine_ends_itself(ec2: Cloud, command: str, behaviour: str, state: str) -> None:
    one = up(ec2, InstanceInitiatedShutdownBehavior=behaviour)
    ec2.host(one.id).sh(f"sudo {command}")
    ec2.wait(one.id, state)
    shown = ec2.client().describe_instances(InstanceIds=[one.id])["Reservations"][0]["Instances"][0]
    assert shown["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert [row.end is not None for row in ec2.ledger()] == [True]


def test_a_machine_restarts_itself_and_its_boothook_runs_at_each_boot(ec2: Cloud, keys: dict[str, str]) -> None:
    one = up(ec2, UserData=user_data(keys))
    host = ec2.host(one.id)
    address, boot = one.public, host.boot_id
    host.sh("sudo reboot")
    wait_for(lambda: one.boots == 2, "the second boot")
    assert (one.state, one.public, host.boot_id == boot) == ("running", address, False)
    host.sh("cloud-init status --wait")
    assert host.sh("wc -l </var/boots; wc -l </var/ran", root=True).split() == ["2", "1"]
    assert float(host.sh("cut -d' ' -f1 /proc/uptime")) < 60
    ec2.client().reboot_instances(InstanceIds=[one.id])
    wait_for(lambda: one.boots == 3, "the third boot")


def test_a_stopped_machine_starts_with_its_disk_and_another_address(ec2: Cloud, keys: dict[str, str]) -> None:
    one = up(ec2, UserData=user_data(keys), SecurityGroupIds=[open_group(ec2)])
    assert login(one, keys, "echo kept >note").returncode == 0
    address, client = one.public, one_try(ec2)
    client.stop_instances(InstanceIds=[one.id])
    ec2.wait(one.id, "stopped")
    assert "PublicIpAddress" not in client.describe_instances()["Reservations"][0]["Instances"][0]
    client.start_instances(InstanceIds=[one.id])
    wait_for(lambda: one.boots == 2, "it is back")
    wait_for_ssh(ec2, one)
    done = login(one, keys, "cat note")
    assert (done.stdout, one.public != address) == ("kept\n", True)
    rows = ec2.ledger()
    assert [(row.seconds, row.price, row.end is None) for row in rows] == [(60, 0.1008, False), (60, 0.1008, True)]
    assert ec2.bill() == pytest.approx(2 * 60 / 3600 * 0.1008)
    ec2.terminate(one.id)
    ec2.wait(one.id, "terminated")
    with pytest.raises(ClientError) as error:
        client.start_instances(InstanceIds=[one.id])
    assert code_of(error) == "IncorrectInstanceState"


def test_who_may_connect_is_for_the_groups_to_say(ec2: Cloud, keys: dict[str, str]) -> None:
    group = open_group(ec2, "203.0.113.7/32")
    one = up(ec2, UserData=user_data(keys), SecurityGroupIds=[group])
    assert "timed out" in login(one, keys, "true", timeout=1).stderr
    ours = {"GroupId": group, "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": f"{ec2.client_address}/32"}
    ec2.client().authorize_security_group_ingress(**ours)
    assert login(one, keys, "true").returncode == 0
    ec2.client().revoke_security_group_ingress(**ours)
    assert "timed out" in login(one, keys, "true", timeout=1).stderr


def test_machines_reach_each_other_and_nothing_else(ec2: Cloud) -> None:
    group = open_group(ec2, "198.18.0.0/15")
    one, other = (up(ec2, f"token-{number}", SecurityGroupIds=[group]) for number in range(2))
    probe = "import socket; print(socket.create_connection(({!r}, 22), 5).recv(4))"
    for address in (other.public, other.private):
        assert "SSH-" in ec2.host(one.id).sh(f'python3 -c "{probe.format(address)}"')
    assert ec2.host(one.id).sh(f"curl -s {ec2.url}/checkip") == one.public
    route = ec2.host(one.id).exec(["ping", "-c1", "-W1", "192.0.2.1"], check=False)
    assert route.returncode != 0
    away = subprocess.run(["ssh", "-o", "ConnectTimeout=1", f"x@{one.private}"], capture_output=True, check=False)
    assert b"timed out" in away.stderr


def test_a_machine_by_a_key_pair(ec2: Cloud, tmp_path: Path, keys: dict[str, str]) -> None:
    ec2.client().import_key_pair(KeyName="login", PublicKeyMaterial=keys["login.pub"].encode())
    made = ec2.client().create_key_pair(KeyName="made", KeyType="ed25519")["KeyMaterial"]
    one = up(ec2, KeyName="login")
    other = up(ec2, "other", KeyName="made", UserData="#cloud-config\nssh_authorized_keys: [ssh-ed25519 AAAA more]\n")
    authorized = ".ssh/authorized_keys"
    assert ec2.host(one.id).read(authorized).decode().split()[:2] == keys["login.pub"].split()[:2]
    (tmp_path / "made").write_text(made)
    (tmp_path / "made").chmod(0o600)
    public = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "made"], capture_output=True, text=True, check=True)
    lines = ec2.host(other.id).read(authorized).decode().splitlines()
    assert (lines[0].split()[:2], lines[1]) == (public.stdout.split()[:2], "ssh-ed25519 AAAA more")


def test_the_console_says_what_the_boot_said(ec2: Cloud, keys: dict[str, str]) -> None:
    one = up(ec2, UserData=user_data(keys, boothook="echo from the hook; echo to the console >/dev/console"))
    wait_for(lambda: "to the console" in one.console and "finished" in one.console, "the boot")
    output = one_try(ec2).get_console_output(InstanceId=one.id)["Output"]
    assert "from the hook" in output
    assert f"-----BEGIN SSH HOST KEY KEYS-----\n{keys['host.pub']}" in output
    ec2.terminate(one.id)
    ec2.wait(one.id, "terminated")
    assert "from the hook" in one_try(ec2).get_console_output(InstanceId=one.id)["Output"]


def test_machines_that_never_answer(ec2: Cloud, keys: dict[str, str]) -> None:
    ways = ("no sshd", "no cloud-init", "impaired", "no machine")
    for way in ways:
        ec2.break_next(way)
    made = [launch(ec2, way, UserData=user_data(keys), SecurityGroupIds=["default"][:0]) for way in ways]
    for one in made:
        ec2.wait(one.id, "running")
    wait_for(lambda: [one.boots for one in made] == [1, 1, 1, 0], "they boot")
    assert [one.host is not None and one.host.booted.listens(22) for one in made] == [False, False, True, False]
    assert ["HOST KEY" in one.console for one in made] == [True, False, True, False]
    statuses = one_try(ec2).describe_instance_status(InstanceIds=[one.id for one in made])["InstanceStatuses"]
    assert [status["InstanceStatus"]["Status"] for status in statuses] == ["ok", "ok", "impaired", "initializing"]


CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
from ec2lab import Cloud
cloud = Cloud()
ec2 = cloud.client()
ec2.run_instances(ImageId=cloud.image(), InstanceType="m7i.large", MinCount=2, MaxCount=2)
for one in cloud.instances:
    cloud.wait(one.id, "running")
while not all(one.boots for one in cloud.instances):
    time.sleep(0.01)
print(cloud.lab._slot.number, cloud._moto.pid, cloud._keeper, flush=True)
{then}
"""


@pytest.mark.parametrize("how", ["close", "kill"])
def test_nothing_is_left_behind(how: str) -> None:
    then = "cloud.close()" if how == "close" else "time.sleep(600)"
    code = CHILD.format(tests=str(TESTS), then=then)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        slot, moto, keeper = (int(word) for word in child.stdout.readline().split())
        if how == "kill":
            child.send_signal(signal.SIGKILL)
        child.wait(60)
    ended = [Path(f"/proc/{pid}") for pid in (moto, keeper)]
    wait_for(lambda: not any(path.exists() for path in ended), "moto and the hosts end")
    wait_for(lambda: not Path(f"/sys/class/net/cslab{slot}").exists(), "its interface goes", deadline=90)
    mounts = Path("/proc/self/mounts").read_text()
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert ("cslab" in mounts, "table ip lab" in rules) == (False, False)


def test_the_lab_can_be_used_by_hand() -> None:
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    child = subprocess.Popen(
        [sys.executable, "-m", "ec2lab"],
        cwd=TESTS,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        lines = [child.stdout.readline() for _ in range(3)]
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read()
    assert child.wait(30) == 0
    assert lines[2].startswith("export AWS_ENDPOINT_URL=http://198.18.")
    assert "Traceback" not in rest


def test_the_client_is_told_its_address(shared_ec2: Cloud) -> None:
    import urllib.request

    with urllib.request.urlopen(f"{shared_ec2.url}/checkip") as reply:
        assert reply.read().decode().strip() == shared_ec2.client_address
