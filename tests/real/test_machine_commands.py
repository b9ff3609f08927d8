"""The commands for machines, in processes of their own, on hosts with a real sshd."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pexpect
from machine_command import Command
from real_stack import wait_for
from ssh_cluster import Cluster

MakeCluster = Callable[..., Cluster]


def forget_keys(cluster: Cluster) -> None:
    (cluster.state / "known_hosts").write_text("")


def fingerprint(view: dict[str, Any]) -> str:
    return str(view["facts"]["unknown_host_key"]["fingerprint"])


# ---- check ---------------------------------------------------------------------------------------------------------


def test_check_has_a_line_for_each_host_and_the_status_of_the_worst(cluster: MakeCluster) -> None:
    made = cluster(4)
    good, changed, off, bare = made.hosts
    changed.new_host_key()
    off.power_off()
    bare.set_python("none")
    command = Command(made)
    with ThreadPoolExecutor() as pool:  # each waits for the one that is off
        unreachable = pool.submit(command, "check", off.name, status=6)
        views = {view["host"]: view for view in command.json("check", "-p", "lab", status=7)}
        unreachable.result()
    assert {h: v["code"] for h, v in views.items()} == {
        good.address: None, changed.address: "host-key", off.address: "unreachable", bare.address: "unfit",
    }  # fmt: skip
    assert all(view["hint"] for view in views.values() if not view["ok"])
    facts = views[good.address]["facts"]
    assert facts["cpus"] >= 1
    assert abs(facts["clock_offset"]) < 5
    assert facts["taken"] is None
    lines = command("check", good.name, changed.name, status=4).stdout.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 1
    assert sum(line.startswith("FAILED ") for line in lines) == 1
    assert "remove the old line" in "\n".join(lines)
    command("check", good.name)


def test_check_warns_of_what_will_hurt_later(cluster: MakeCluster) -> None:
    made = cluster(1, settings={"max_load": 0.00001, "cpus": 4096}, home_size="40m")
    made.hosts[0].set_clock_offset(-90)
    (view,) = Command(made).json("check", "-p", "lab")
    assert view["ok"] is True
    text = "\n".join(view["warnings"])
    assert "its clock is 90 s behind" in text
    assert "above max_load" in text
    assert "providers.yml says cpus: 4096" in text
    assert " free in /home/lab" in text


def test_an_unknown_key_is_accepted_only_by_its_fingerprint(cluster: MakeCluster) -> None:
    made = cluster(2)
    forget_keys(made)
    command = Command(made)
    views = {view["host"]: view for view in command.json("check", "-p", "lab", status=4)}
    one, other = made.hosts
    accept = "--accept-host-key"
    command("check", accept, fingerprint(views[one.address]), status=2)
    command("check", one.name, other.name, accept, fingerprint(views[one.address]), status=2)
    command("check", one.name, accept, "MD5:0", status=2)
    command("check", one.name, accept, fingerprint(views[other.address]), status=4)
    assert (made.state / "known_hosts").read_text() == ""
    said = command("check", one.name, accept, fingerprint(views[one.address]))
    assert f"accepted the ssh-ed25519 key {fingerprint(views[one.address])}" in said.stderr
    known = (made.state / "known_hosts").read_text()
    assert one.address in known
    assert other.address not in known
    command("check", other.name, status=4)


def test_on_a_terminal_one_is_asked_about_an_unknown_key_and_never_about_a_changed_one(cluster: MakeCluster) -> None:
    made = cluster(1)
    (host,) = made.hosts
    forget_keys(made)
    command = Command(made)
    for answer in ("", "y"):  # the default is no
        asked = command.on_terminal("check", "-p", "lab")
        asked.expect("presents the ssh-ed25519 key SHA256:")
        asked.expect(r"Accept it\? \[y/N\]")
        asked.sendline(answer)
        asked.expect(pexpect.EOF)
        asked.close()
        assert asked.exitstatus == (0 if answer else 4)
        assert bool((made.state / "known_hosts").read_text()) == bool(answer)
    host.new_host_key()
    asked = command.on_terminal("check", "-p", "lab")
    asked.expect(pexpect.EOF)
    asked.close()
    assert "has changed" in asked.before
    assert "Accept" not in asked.before
    assert asked.exitstatus == 4


def test_a_run_says_which_machine_refuses_and_what_to_do(cluster: MakeCluster) -> None:
    made = cluster(2)
    known = (made.state / "known_hosts").read_text().splitlines()
    kept = [line for line in known if line.startswith(f"{made.hosts[0].address} ")]
    (made.state / "known_hosts").write_text("\n".join(kept) + "\n")
    made.config("c.json", jobs=["true"])
    said = Command(made)("run", "c.json").stderr
    assert f"{made.node(made.hosts[1])} is left out: refused: the host key of" in said
    assert f"`cloudsend check {made.node(made.hosts[1])}` says what to do" in said


# ---- create, list, terminate, ssh ----------------------------------------------------------------------------------


def test_a_claimed_machine_is_listed_reached_and_given_back(cluster: MakeCluster) -> None:
    made = cluster(2)
    one, other = made.hosts
    command = Command(made)
    machine = command.json("create", "instance", "-p", "lab", "--set", f"host={other.name}")
    assert (machine["name"], machine["claimed"], machine["state"]) == (made.node(other), True, "claimed")
    assert machine["cpus"] >= 1
    assert command.json("create", "instance", "-p", "lab")["name"] == made.node(one)
    none = command("create", "instance", "-p", "lab", status=5).stderr
    assert none.count("claimed already by this state directory") == 2
    assert command("list", "instances", "-o", "name").stdout.split() == [made.node(one), made.node(other)]
    assert command.json("info", "instance", made.node(one))["connected"] is True
    done = command(
        "ssh", made.node(other), "--", "sh", "-c", 'printf "%s|" "$0" "$@"; exit 7', "a b", "$HOME", status=7
    )
    assert done.stdout == "a b|$HOME|"
    command("terminate", "instance", one.name, made.node(other))
    assert command.json("terminate", "instance", made.node(one))[0]["released"] is False  # again, and nothing changes
    assert command.json("list", "instances") == []
    assert "was not claimed" in command("terminate", "instance", f"lab/{one.name}").stdout
    command("terminate", "instance", "nothing", status=3)
    command("ssh", "nothing", status=3)


def test_a_machine_is_claimed_against_others(cluster: MakeCluster, tmp_path: Path) -> None:
    made = cluster(1)
    (host,) = made.hosts
    command = Command(made)
    command("create", "instance", "-p", "lab")
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    shutil.copy(made.state / "known_hosts", other / "known_hosts")
    made.write_providers(home="/home/lab/elsewhere")  # as another user's agent
    stranger = Command(made, other)
    refused = stranger("create", "instance", "-p", "lab", status=5).stderr
    assert "in use by cloudsend of lab" in refused
    assert stranger.json("list", "instances") == []
    (view,) = stranger.json("check", "-p", "lab")
    assert "in use by cloudsend of lab" in view["warnings"][0]
    made.write_providers()
    command("terminate", "instance", host.name)
    made.write_providers(home="/home/lab/elsewhere")
    stranger("create", "instance", "-p", "lab")
    stranger("terminate", "instance", host.name)


def test_a_machine_that_does_not_answer_stays_claimed_until_it_is_forgotten(cluster: MakeCluster) -> None:
    made = cluster(1)
    (host,) = made.hosts
    command = Command(made)
    command("create", "instance", "-p", "lab")
    host.power_off()
    said = command("terminate", "instance", host.name, status=6).stderr
    assert f"{made.node(host)} is still claimed" in said
    assert "--forget" in said
    assert len(command.json("list", "instances")) == 1
    command("terminate", "instance", host.name, "--forget")
    assert command.json("list", "instances") == []


def test_machines_of_ones_own_are_not_switched_on_or_off(cluster: MakeCluster) -> None:
    made = cluster(1)
    command = Command(made)
    for verb in ("start", "stop"):
        said = command(verb, "instance", made.hosts[0].name, status=2).stderr
        assert "does not switch it on or off" in said
    assert "is not claimed" in command("create", "instance", "-p", "local", status=2).stderr


def test_a_machine_of_several_runs_is_one_line(cluster: MakeCluster) -> None:
    made = cluster(1)
    (host,) = made.hosts
    made.config("a.json", jobs=[{"name": "a", "run": "sleep 60", "cpus": 0.5}])
    made.config("b.json", jobs=[{"name": "b", "run": "sleep 60", "cpus": 0.5}])
    command = Command(made)
    command("create", "instance", "-p", "lab")
    runs = [command("run", "-d", name).stdout.strip() for name in ("a.json", "b.json")]

    def both_run() -> Any:
        (machine,) = command.json("list", "instances")
        return machine if machine["jobs"] == 2 and machine["cpus_free"] == machine["cpus"] - 1 else None

    machine = wait_for(both_run)
    assert (machine["name"], machine["runs"], machine["claimed"]) == (made.node(host), runs, True)
    assert machine["load"] is not None
    given = command("terminate", "instance", host.name).stdout
    assert "2 jobs of yours go on there" in given
    assert {job["state"] for job in command.json("list", "jobs")} == {"running"}
    for run in runs:
        command("kill", "run", run)
    command("wait", *runs, status=1)
