"""Providers and machines by the real command, as far as no other machine is needed."""

from __future__ import annotations

import json

import pytest
from command_line import Command
from json_schema import check

PROVIDERS = """\
defaults:
  all: {disk: 30GB}
  ssh: {labels: [fast]}
  lab: {disk: 50GB}
providers:
  - name: lab
    type: ssh
    user: me
    hosts:
      - gpu1
      - {host: gpu2.lab, name: big, cpus: 32, gpus: 2, jump: me@bastion, labels: [fast, a100], shared: true}
"""


@pytest.fixture
def lab(cloudsend: Command) -> Command:
    (cloudsend.folder / "providers.yml").write_text(PROVIDERS)
    return cloudsend


def test_providers_are_those_of_the_nearest_file(lab: Command) -> None:
    views = {view["name"]: view for view in lab.json("list", "providers")}
    check(list(views.values()), "providers")
    assert {name: (v["type"], v["status"]) for name, v in views.items()} == {
        "local": ("local", "ready"), "lab": ("ssh", "ready"),
    }  # fmt: skip
    assert views["lab"]["file"] == str(lab.folder / "providers.yml")
    assert [host["name"] for host in views["lab"]["hosts"]] == ["gpu1", "big"]
    assert "2 hosts" in lab("list", "providers").stdout


def test_a_provider_shows_its_hosts_and_where_each_default_comes_from(lab: Command) -> None:
    view = lab.json("info", "provider", "lab")
    check(view, "provider")
    big = view["hosts"][1]
    assert (big["host"], big["cpus"], big["memory_bytes"], big["gpus"]) == ("gpu2.lab", 32, None, 2)
    assert big["settings"] == {"user": "me", "jump": "me@bastion", "labels": "fast,a100", "shared": "true"}
    origins = {key: (item["value"], item["origin"].rpartition(":")[2]) for key, item in view["defaults"].items()}
    assert origins == {"disk": ("50GB", "4"), "labels": ("[fast]", "3")}
    text = lab("info", "provider", "lab").stdout
    assert "32 CPUs, 2 GPUs" in text
    assert "what is found there" in text
    assert "did you mean lab" in lab("info", "provider", "lba", status=3).stderr


def test_mistakes_of_the_file_are_told_with_their_place(cloudsend: Command) -> None:
    (cloudsend.folder / "providers.yml").write_text("providers:\n  - {name: lab, type: shh}\n")
    said = cloudsend("list", "providers", status=2).stderr
    assert "providers.yml:2:23" in said
    assert cloudsend("__complete", "info", "provider", "", status=1).stdout == ""  # it says nothing, and does no harm
    assert cloudsend("list", "jobs").returncode == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("check nothing/at", 3, "no host 'nothing/at' in providers.yml"),
        ("check gpu", 3, "did you mean gpu1"),
        ("check -p ssh:127.0.0.1:1", 6, ""),
        ("check 127.0.0.1 --accept-host-key SHA256:x -p nowhere", 3, "no provider 'nowhere'"),
        ("check --accept-host-key SHA256:x", 2, "belongs to exactly one host"),
        ("create instance", 2, "of which provider?"),
        ("create instance -p local", 2, "is this machine"),
        ("create instance -p lab --set cpus", 2, "'cpus' is not KEY=VALUE"),
        ("create instance -p lab --set colour=red", 2, "colour"),
        ("create instance -p lab --set host=gpu3", 2, "'gpu3'"),
        ("terminate instance gpu9", 3, "no instance 'gpu9'"),
        ("ssh gpu9", 3, "no instance 'gpu9'"),
        ("ssh gpu1 --", 2, "there is no command after --"),
        ("start instance gpu1", 2, "does not switch it on or off"),
        ("stop instance lab/big", 2, "does not switch it on or off"),
        ("rebuild -p local", 2, "no hosts to read"),
    ],
)
def test_what_is_refused_says_why(lab: Command, words: str, status: int, said: str) -> None:
    done = lab(*words.split(), status=status)
    assert said in done.stderr
    assert not (lab.state_dir / "claims").exists()


def test_a_host_that_refuses_is_a_line_with_a_way_out(lab: Command) -> None:
    (view,) = lab.json("check", "ssh:127.0.0.1:1", status=6)
    check([view], "checks")
    assert (view["ok"], view["code"], view["host"]) == (False, "unreachable", "127.0.0.1")
    assert view["hint"]


def test_a_host_that_cannot_be_claimed_leaves_no_claim(lab: Command) -> None:
    (lab.folder / "providers.yml").write_text(
        json.dumps({"providers": [{"name": "lab", "type": "ssh", "hosts": [{"host": "127.0.0.1", "port": 1}]}]})
    )
    done = lab("create", "instance", "-p", "lab", status=6)
    assert "cannot be reached" in done.stderr
    assert lab.json("list", "instances") == []
    done = lab("rebuild", status=6)
    assert "FAILED" in done.stderr
    assert "nothing was missing" not in done.stderr


def test_hosts_and_providers_are_completed(lab: Command) -> None:
    def candidates(*words: str) -> list[str]:
        return [line.split("\t")[0] for line in lab("__complete", *words).stdout.splitlines()]

    assert candidates("check", "") == ["lab-gpu1", "gpu1", "lab-big", "big"]
    assert candidates("ssh", "lab") == ["lab-gpu1", "lab-big"]
    assert candidates("terminate", "instance", "lab-b") == ["lab-big"]
    assert candidates("run", "-p", "l") == ["local", "lab"]
    assert candidates("ssh", "lab-big", "--", "l") == []


def test_this_machine_of_several_runs_is_one_line(cloudsend: Command) -> None:
    runs = [cloudsend("run", "-d", "--", "sleep", "1000").stdout.strip() for _ in range(2)]
    (machine,) = cloudsend.json("list", "instances")
    check(machine, "instance")
    assert (machine["name"], machine["runs"], machine["claimed"]) == ("local-0", runs, False)
    for name in ("local-0", "local/0", f"{runs[1]}/local-0"):
        assert cloudsend.json("info", "instance", name)["name"] == "local-0"
    assert cloudsend("ssh", "local-0", "--", "sh", "-c", "exit 5", status=5).stdout == ""
    assert "nothing to give back" in cloudsend("terminate", "instance", "local-0", status=2).stderr
