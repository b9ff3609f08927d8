"""What a client that has lost everything finds on a host, and takes over."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from cloudsend_cli.agent.client import Frame

from .conftest import Client, Host, sh, wait_for


def inventory(client: Client, **fields: Any) -> dict[str, Frame]:
    found: dict[str, Any] = {}
    after = None
    while True:
        page = client.call("inventory", after=after, **fields)
        assert page.ok, page
        found.update((item["id"], item) for item in page["attempts"])
        after = page["next"]
        if after is None:
            return found


def test_everything_on_a_host_is_told_whoevers_it_is(host: Host) -> None:
    about = {"run": "abc", "job": 7, "name": "tränen", "nested": {"results": ["out", 1.5, None]}}
    one = host.attach(owner="one", resources={"cpus": 1, "memory": 0, "gpus": 0})
    spec = sh(
        "a.1",
        "echo hi; echo no >&2; exit 3",
        env={"A": "b"},
        secrets={"TOKEN": "s3cr3t"},
        outputs=[{"pattern": "out"}],
        timeout=60,
        about=about,
    )
    one.run(spec)
    one.call("ack", attempts=["a.1"])
    one.start(sh("a.2", "sleep 300"), sh("a.3", "true"))
    one.running("a.2")
    two = host.attach(owner="two")
    found = inventory(two)
    assert set(found) == {"a.1", "a.2", "a.3"}
    first = found["a.1"]
    assert (first["owner"], first["boot"], first["acknowledged"]) == ("one", one.boot, True)
    assert first["status"]["exit_code"] == 3
    assert first["status"]["stdout_size"] == 3
    assert first["spec"]["about"] == about
    assert {name: first["spec"][name] for name in ("argv", "env", "outputs", "timeout")} == {
        name: spec[name] for name in ("argv", "env", "outputs", "timeout")
    }
    assert "s3cr3t" not in json.dumps(found)
    assert found["a.2"]["status"]["state"] == "running"
    assert (found["a.3"]["status"], found["a.3"]["acknowledged"]) == ({"state": "queued"}, False)
    assert two.report() == {}


def test_what_the_client_notes_is_no_part_of_the_order(agent: Client) -> None:
    assert agent.run(sh("a.1", "true", about={"run": 1}))["exit_code"] == 0
    assert agent.start(sh("a.1", "true", about={"run": 2})) == {"a.1": "duplicate"}
    assert agent.start(sh("a.1", "false", about={"run": 1})) == {"a.1": "mismatch"}
    assert inventory(agent)["a.1"]["spec"]["about"] == {"run": 1}
    assert agent.start(sh("a.2", "true", about={"x": "y" * 8192})) == {"a.2": "bad-spec: about"}
    assert agent.start(sh("a.3", "true", about="text")) == {"a.3": "bad-spec: about"}
    assert agent.run(sh("a.4", "true", about={"x": "y" * 8000}, secrets={"A": "b"}))["exit_code"] == 0
    assert len(inventory(agent)["a.4"]["spec"]["about"]["x"]) == 8000


def test_an_inventory_of_any_length_comes_in_pages(agent: Client) -> None:
    idents = [f"j.{i:04}" for i in range(900)]
    for at in range(0, 900, 50):
        agent.start(*(sh(ident, "sleep 300", cpus=4, env={"A": "x" * 10_000}) for ident in idents[at : at + 50]))
    page = agent.call("inventory")
    assert page["next"] is not None
    assert len(page["attempts"]) < 900
    assert list(inventory(agent)) == idents
    assert agent.call("inventory", after="../x").error_code == "bad-request"


def test_a_spec_that_fills_a_frame_is_told_without_its_arguments(agent: Client) -> None:
    agent.start(sh("a.1", "true", env={f"V{i}": "x" * 1000 for i in range(1034)}, about={"run": 1}))
    (item,) = inventory(agent).values()
    assert item["cut"] is True
    assert item["spec"] == {"about": {"run": 1}}


def test_an_adopted_attempt_concerns_its_new_owner_alone(host: Host, tmp_path: Path) -> None:
    old = host.attach(owner="old", resources={"cpus": 1, "memory": 0, "gpus": 0})
    go = tmp_path / "go"
    old.start(sh("a.1", f"while [ ! -e {go} ]; do sleep 0.05; done; exit 4"), sh("a.2", "exit 5"), sh("a.3", "true"))
    old.running("a.1")
    new = host.attach(owner="new")
    assert new.call("adopt", attempts=["a.1", "a.2", "nobody.1"])["results"] == {
        "a.1": "adopted",
        "a.2": "adopted",
        "nobody.1": "unknown",
    }
    assert set(new.report()) == {"a.1", "a.2"}
    assert set(old.report()) == {"a.3"}
    go.touch()
    assert new.wait("a.1")["exit_code"] == 4
    assert new.wait("a.2")["exit_code"] == 5
    old.wait("a.3")
    assert "a.2" not in old.status


def test_an_adoption_is_durable_before_it_is_answered(host: Host) -> None:
    old = host.attach(owner="old")
    old.run(sh("a.1", "exit 3"))
    old.run(sh("a.2", "exit 4"))
    old.call("ack", attempts=["a.2"])
    new = host.attach(owner="new")
    assert new.call("adopt", attempts=["a.1", "a.2"]).ok
    os.kill(new.about["pid"], signal.SIGKILL)
    again = host.attach(owner="new")
    assert again.report()["a.1"]["exit_code"] == 3
    assert {ident: item["owner"] for ident, item in inventory(again).items()} == {"a.1": "new", "a.2": "new"}
    assert host.attach(owner="old").report() == {}


def test_an_adoption_outlasts_the_compaction_of_the_journal(host: Host) -> None:
    old = host.attach(owner="old")
    old.run(sh("a.1", "true"))
    old.call("ack", attempts=["a.1"])
    new = host.attach(owner="new")
    new.call("adopt", attempts=["a.1"])
    journal = host.home / "journal"
    wait_for(lambda: b"\na a.1\n" in journal.read_bytes())
    host.crash(new)
    with journal.open("a") as writer:
        writer.writelines(f"a old.{i}\n" for i in range(120_000))
    again = host.attach(owner="new")
    assert journal.stat().st_size < 1000
    assert inventory(again)["a.1"]["owner"] == "new"
    assert inventory(again)["a.1"]["acknowledged"] is True


def test_a_superseded_client_adopts_nothing(host: Host) -> None:
    old = host.attach(epoch=3)
    host.attach(epoch=4)
    other = host.attach(owner="other")
    other.run(sh("a.1", "true"))
    assert old.call("adopt", attempts=["a.1"]).error_code == "fenced"
    assert set(other.report()) == {"a.1"}


def test_logs_are_in_the_manifest_when_asked_for(agent: Client) -> None:
    agent.run(sh("a.1", "echo out; echo x > file"))
    files = agent.call("manifest", attempt="a.1", patterns=["file"], logs=True)["files"]
    assert files[:2] == [
        {"stream": "stdout", "size": 4, "sha256": hashlib.sha256(b"out\n").hexdigest()},
        {"stream": "stderr", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
    ]
    assert files[2]["path"] == "file"
    assert [item["stream"] for item in agent.call("manifest", attempt="a.1", logs=True)["files"]] == [
        "stdout",
        "stderr",
    ]
    assert [item["path"] for item in agent.call("manifest", attempt="a.1", patterns=["file"])["files"]] == ["file"]


def test_every_end_tells_the_size_of_both_logs(host: Host, agent: Client) -> None:
    agent.start(
        sh("e.1", "echo out; echo err >&2"),
        {"id": "e.2", "argv": ["no-such-command"]},
        sh("e.3", "true", files=[{"path": "x", "sha256": "0" * 64}]),
        sh("e.4", "echo begun; sleep 300"),
        {"id": "e.5", "argv": ["sleep", "300"], "cpus": 4},
        {"id": "e.6", "argv": ["sleep", "300"], "cpus": 4},
    )
    agent.running("e.4")
    wait_for(lambda: (host.home / "attempts/e.4/stdout").read_bytes() == b"begun\n")
    os.kill(int(json.loads(host.record("e.4")[9:])["runner"]), signal.SIGKILL)
    agent.running("e.5")
    agent.call("cancel", attempts=["e.6"])
    agent.call("cancel", attempts=["e.5"])
    idents = [f"e.{i}" for i in range(1, 7)]
    agent.wait(*idents)
    told = {ident: (agent.status[ident]["stdout_size"], agent.status[ident]["stderr_size"]) for ident in idents}
    assert told["e.1"] == (4, 4)
    assert told["e.2"][0] == 0
    assert told["e.2"][1] > 0
    assert agent.status["e.3"]["cause"] == "upload-missing"
    assert agent.status["e.4"]["state"] == "lost"
    assert (told["e.3"], told["e.4"], told["e.5"], told["e.6"]) == ((0, 0), (6, 0), (0, 0), (0, 0))
    report = agent.report()
    agent.call("ack", attempts=idents)
    everything = agent.call("report", all=True)["attempts"]
    for ident in idents:
        for found in (report[ident], everything[ident]):
            assert (found["stdout_size"], found["stderr_size"]) == told[ident]
