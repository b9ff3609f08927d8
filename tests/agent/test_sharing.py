"""One machine, several users: who has it, what others load it with, what one may know of the other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudsend_cli.agent.client import ChannelClosed

from .conftest import Client, Host, sh, wait_for


@pytest.fixture
def machine() -> str:
    """A name of the claim that only this test uses."""
    return f"cloudsend-test-{uuid.uuid4().hex}"


@pytest.fixture
def attach(make_host: Callable[[str], Host], machine: str) -> Callable[..., Client]:
    hosts: dict[str, Host] = {}

    def attach(home: str, **options: object) -> Client:
        host = hosts.setdefault(home, make_host(home)) if home not in hosts else hosts[home]
        env = {"CLOUDSEND_MACHINE": machine, **options.pop("env", {})}  # type: ignore[dict-item]
        return host.attach(env=env, **options)

    return attach


def is_claimed(machine: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect("\0" + machine)
        except OSError:
            return False
        return True


def test_a_ping_is_answered_before_anything_else(host: Host) -> None:
    client = host.attach(hello=False)
    reply = client.call("ping")
    assert reply.ok
    assert reply["load"] >= 0
    assert abs(reply["time"] - client.call("hello", owner="x", epoch=1)["time"]) < 5


def test_hello_tells_of_the_machine(agent: Client) -> None:
    assert agent.about["load"] >= 0
    assert agent.about["disk_free"] > 0
    assert agent.about["inodes_free"] is None or agent.about["inodes_free"] > 0
    assert agent.about["python"].count(".") == 2
    assert agent.about["user"]
    assert (agent.about["claims"], agent.about["others"]) == ([], 0)
    assert "held_by_load" not in agent.about


def test_a_heartbeat_counts_what_runs_and_waits(host: Host) -> None:
    env = {"CLOUDSEND_AGENT_BEAT": "0.2"}
    one = host.attach(owner="one", resources={"cpus": 1, "memory": 0, "gpus": 0}, env=env)
    one.start(sh("a.1", "sleep 300"), sh("a.2", "true"))
    one.running("a.1")
    two = host.attach(owner="two")
    assert two.about["others"] == 1
    beat = two.until(lambda: next((e for e in two.events if e.event == "heartbeat"), None))
    assert (beat["running"], beat["queued"], beat["others"]) == (1, 1, 1)
    assert beat["inodes_free"] is None or beat["inodes_free"] > 0
    own = one.until(lambda: next((e for e in reversed(one.events) if e.event == "heartbeat"), None))
    assert own["others"] == 0


def test_a_second_home_is_told_who_has_the_machine(attach: Callable[..., Client], machine: str) -> None:
    one = attach("one", shared=False)
    refused = attach("two", shared=False)
    assert refused.about.error_code == "taken"
    error = refused.about["error"]
    assert error["holder"]["uid"] == os.geteuid()
    assert error["holder"]["home"] == one.about["home"]
    assert one.about["home"] in error["message"]
    assert refused.call("report").error_code == "hello-first"
    again = refused.call("hello", owner="tests", epoch=1, shared=True)
    assert again.ok
    refused.boot = again["boot"]
    assert refused.run(sh("b.1", "true"))["exit_code"] == 0
    one.close()
    wait_for(lambda: not is_claimed(machine))
    assert attach("two", shared=False, owner="third").about.ok
    assert attach("one", shared=False).about.error_code == "taken"


def test_the_machine_stays_taken_while_attempts_wait_or_run(attach: Callable[..., Client], machine: str) -> None:
    one = attach("one", shared=False, resources={"cpus": 1, "memory": 0, "gpus": 0})
    one.start(sh("a.1", "sleep 300"), sh("a.2", "true"))
    one.running("a.1")
    one.close()
    assert attach("two", shared=False).about.error_code == "taken"
    again = attach("one")
    assert again.about.ok
    again.call("cancel", attempts=["a.1"])
    again.wait("a.1", "a.2")
    again.close()
    wait_for(lambda: not is_claimed(machine))


def test_an_upgrade_keeps_the_machine(attach: Callable[..., Client], machine: str) -> None:
    one = attach("one", shared=False)
    one.start(sh("a.1", "sleep 300"))
    one.running("a.1")
    for _ in range(5):
        one.channel.request("handover")
        with contextlib.suppress(ChannelClosed, OSError):
            one.until(lambda: False)
        agent, one = one.about["agent"], attach("one", shared=False)
        assert one.about.ok
        assert one.about["agent"] != agent
        assert "taken" not in one.about
        assert one.report()["a.1"]["state"] == "running"
    assert is_claimed(machine)


def test_a_check_neither_takes_the_machine_nor_is_refused(attach: Callable[..., Client], machine: str) -> None:
    look = attach("one", owner="check", epoch=0, shared=False)
    assert look.about.ok
    assert look.about["taken"] is None
    assert not is_claimed(machine)
    owner = attach("two", shared=False)
    seen = attach("one", owner="check", epoch=0, shared=False)
    assert seen.about["taken"]["home"] == owner.about["home"]


def test_a_client_that_says_nothing_of_sharing_shares(attach: Callable[..., Client], machine: str) -> None:
    attach("one", shared=False)
    assert attach("two").about.ok
    assert attach("two", shared=True).about.ok


def test_two_owners_of_one_home_share_its_queue(attach: Callable[..., Client]) -> None:
    one = attach("one", owner="one", shared=False)
    two = attach("one", owner="two", shared=False)
    assert one.about["agent"] == two.about["agent"]
    one.start(sh("a.1", "sleep 300"))
    one.running("a.1")
    assert two.call("hello", owner="two", epoch=1)["others"] == 1


def test_a_kept_claim_outlasts_clients_idleness_and_the_daemon(attach: Callable[..., Client], machine: str) -> None:
    one = attach("one", env={"CLOUDSEND_AGENT_IDLE": "0.1"})
    assert [claim["owner"] for claim in one.call("claim", owner="lab")["claims"]] == ["lab"]
    assert one.call("claim")["claims"][1]["owner"] == "tests"
    one.close()
    two = attach("two")
    refusal = two.call("claim")
    assert refusal.error_code == "taken"
    os.kill(one.about["pid"], signal.SIGKILL)
    wait_for(lambda: not is_claimed(machine))
    again = attach("one", owner="check", epoch=0, env={"CLOUDSEND_AGENT_IDLE": "0.1"})
    assert {claim["owner"] for claim in again.about["claims"]} == {"lab", "tests"}
    assert is_claimed(machine)
    assert two.call("claim").error_code == "taken"
    assert again.call("release", owner="lab")["claims"][0]["owner"] == "tests"
    assert again.call("release", owner="tests")["claims"] == []
    assert not is_claimed(machine)
    assert two.call("claim")["claims"][0]["owner"] == "tests"


def test_who_lost_the_machine_meanwhile_sees_its_attempts_and_starts_none(
    attach: Callable[..., Client], machine: str, tmp_path: Path
) -> None:
    one = attach("one", shared=False, resources={"cpus": 1, "memory": 0, "gpus": 0})
    one.start(sh("a.1", "sleep 300"), sh("a.2", f"touch {tmp_path}/ran"))
    one.running("a.1")
    os.kill(one.about["pid"], signal.SIGKILL)
    wait_for(lambda: not is_claimed(machine))
    two = attach("two", shared=False)
    assert two.about.ok
    again = attach("one", shared=False)
    assert again.about["taken"]["home"] == two.about["home"]
    assert again.about["held_by_claim"] is True
    again.call("cancel", attempts=["a.1"])
    assert again.wait("a.1")["cause"] == "cancelled"
    assert again.call("report")["held_by_claim"] is True
    assert again.report()["a.2"]["state"] == "queued"
    assert not (tmp_path / "ran").exists()
    two.close()
    assert again.wait("a.2")["exit_code"] == 0
    assert "held_by_claim" not in again.call("report")


@contextlib.contextmanager
def impostor(machine: str, words: bytes) -> Iterator[None]:
    """Somebody who holds the name and says anything."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + machine)
        listener.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    asking, _ = listener.accept()
                    with asking, contextlib.suppress(OSError):
                        asking.sendall(words)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"\xff\xfe\n",
        b"[" * 100_000,
        b"x" * 10_000_000,
        json.dumps({"user": "root", "uid": 0, "home": "\x1b]0;evil\x07" + "\u202e" * 500, "since": "now"}).encode(),
        json.dumps({"home": {"a": 1}, "since": 1e300}).encode() + b"\n",
        b'{"since": NaN, "home": "/x"}\n',
    ],
)
def test_what_a_stranger_says_of_itself_is_not_trusted(
    attach: Callable[..., Client], machine: str, words: bytes
) -> None:
    with impostor(machine, words):
        refused = attach("one", shared=False).about
    assert refused.error_code == "taken"
    message, holder = refused["error"]["message"], refused["error"]["holder"]
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 400
    assert holder["uid"] == os.geteuid()
    assert f"(uid {os.geteuid()})" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_another_user_is_named_as_the_kernel_knows_him(
    attach: Callable[..., Client], machine: str, tmp_path: Path
) -> None:
    import pwd
    import subprocess
    import sys

    script = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); s.bind('\\0' + sys.argv[1]);"
        "s.listen(); print('ready', flush=True); c = s.accept()[0]; c.send(b'{\"uid\": 0}\\n');"
        "c.close(); sys.stdin.read()"
    )
    squatter = subprocess.Popen([sys.executable, "-c", script, machine], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert squatter.stdout is not None
    assert squatter.stdout.readline() == b"ready\n"
    try:
        error = attach("one", shared=False).about["error"]
        assert error["holder"]["uid"] == 65534
        assert pwd.getpwuid(65534).pw_name in error["message"]
    finally:
        squatter.communicate()


def test_attempts_wait_while_others_load_the_machine(host: Host, tmp_path: Path) -> None:
    load = tmp_path / "loadavg"
    load.write_text("7.50 1.00 1.00 1/100 1\n")
    client = host.attach(max_load=2, env={"CLOUDSEND_LOADAVG": str(load), "CLOUDSEND_AGENT_BEAT": "0.2"})
    assert client.about["load"] == 7.5
    assert client.about["max_load"] == 2
    client.start(sh("a.1", "true"))
    assert client.call("report")["held_by_load"] is True
    assert client.report()["a.1"] == {"state": "queued"}
    beat = client.until(lambda: next((e for e in client.events if e.event == "heartbeat"), None))
    assert beat["held_by_load"] is True
    load.write_text("1.90 1.00 1.00 1/100 1\n")
    assert client.wait("a.1")["exit_code"] == 0
    assert "held_by_load" not in client.call("report")


def test_a_limit_of_load_is_kept_and_can_be_lifted(host: Host, tmp_path: Path) -> None:
    load = tmp_path / "loadavg"
    load.write_text("7.50 1.00 1.00 1/100 1\n")
    client = host.attach(max_load=0.5, env={"CLOUDSEND_LOADAVG": str(load)})
    client.start(sh("a.1", "true"))
    host.crash(client)
    again = host.attach(env={"CLOUDSEND_LOADAVG": str(load)})
    assert again.about["max_load"] == 0.5
    assert again.report()["a.1"] == {"state": "queued"}
    assert again.call("hello", owner="tests", epoch=1, max_load=None)["max_load"] is None
    assert again.wait("a.1")["exit_code"] == 0
    for wrong in (-1, "2", True, [1]):
        assert again.call("hello", owner="tests", epoch=1, max_load=wrong).error_code == "bad-request"
    assert again.call("hello", owner="tests", epoch=1, shared="yes").error_code == "bad-request"


def test_the_load_of_our_own_attempts_does_not_hold_the_next(host: Host, tmp_path: Path) -> None:
    """After a restart with four CPUs taken, a load of four is ours."""
    load = tmp_path / "loadavg"
    load.write_text("0.00 1.00 1.00 1/100 1\n")
    env = {"CLOUDSEND_LOADAVG": str(load)}
    client = host.attach(max_load=1, env=env, resources={"cpus": 8, "memory": 0, "gpus": 0})
    client.start(*(sh(f"a.{i}", "sleep 300") for i in range(4)))
    for i in range(4):
        client.running(f"a.{i}")
    host.crash(client)
    load.write_text("4.50 1.00 1.00 1/100 1\n")
    again = host.attach(env=env)
    assert again.run(sh("b.1", "true"))["exit_code"] == 0
    load.write_text("5.50 1.00 1.00 1/100 1\n")
    again.start(sh("b.2", "true"))
    assert again.call("report")["held_by_load"] is True
    assert again.report()["b.2"] == {"state": "queued"}
