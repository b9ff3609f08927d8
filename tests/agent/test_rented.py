"""A rented machine: what its dead man's switch is told, and what clients are told of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudsend_cli.agent.host.encoding import compact
from cloudsend_cli.agent.host.records import write_record
from cloudsend_cli.agent.host.recovery import age_of
from cloudsend_cli.agent.host.rented import RESULTS_WAIT, Rented
from cloudsend_cli.core import decide_money

from .conftest import Client, Host, sh, wait_for

Rent = Callable[..., Client]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "rented"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def rent(host: Host, folder: Path) -> Rent:
    """Attach to an agent that finds the directory; it says by itself only what is urgent."""
    env = {"CLOUDSEND_RENTED_DIR": str(folder), "CLOUDSEND_AGENT_BEAT": "1000"}
    return lambda **options: host.attach(**{"resources": {"cpus": 2}, "env": env, **options})


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def age(path: Path) -> None:
    os.utime(path, (1, 1))


def is_touched(path: Path) -> bool:
    return path.exists() and path.stat().st_mtime > 1


def test_elsewhere_nothing_is_told_and_nothing_written(host: Host, tmp_path: Path) -> None:
    client = host.attach(env={"CLOUDSEND_RENTED_DIR": str(tmp_path / "none")})
    assert "rented" not in client.about
    assert client.call("lease", seconds=60)["error"]["code"] == "not-rented"
    assert not (tmp_path / "none").exists()


def test_hello_tells_of_the_switch(rent: Rent, folder: Path) -> None:
    assert rent().about["rented"] == {"armed": False, "lease": None, "notice": None}
    (folder / "armed").write_text("idle=600 life=86400 unadopted=1200\n")
    client = rent()
    assert client.about["rented"]["armed"] is True
    assert client.channel.hello is not None and client.channel.hello["rented"]["armed"] is True


def test_heartbeats_tell_of_it_too(host: Host, folder: Path) -> None:
    client = host.attach(env={"CLOUDSEND_RENTED_DIR": str(folder), "CLOUDSEND_AGENT_BEAT": "0.1"})
    (folder / "armed").touch()
    client.until(lambda: [e for e in client.events if e.event == "heartbeat" and e["rented"]["armed"]])


@pytest.mark.parametrize("what", ["a link", "open to others", "of another user", "a file"])
def test_a_directory_that_others_could_write_is_not_believed(rent: Rent, folder: Path, what: str) -> None:
    if what == "a link":
        folder.rename(folder.with_name("there"))
        folder.symlink_to(folder.with_name("there"))
    elif what == "open to others":
        folder.chmod(0o777)
    elif what == "a file":
        folder.rmdir()
        folder.touch()
    elif os.geteuid():
        pytest.skip("only root can give a directory away")
    else:
        os.chown(folder, 12345, -1)
    assert "rented" not in rent().about


def test_a_directory_that_comes_later_is_found(rent: Rent, folder: Path) -> None:
    folder.rmdir()
    client = rent()
    assert "rented" not in client.about
    folder.mkdir(mode=0o700)
    wait_for(lambda: (client.step(0.01), is_touched(folder / "active"))[1])
    assert (folder / "adopted").exists()  # else the switch would end a machine that works
    assert "rented" in client.call("hello", owner="tests", epoch=1)


def test_only_a_client_that_wants_something_adopts_it(rent: Rent, folder: Path) -> None:
    rent(owner="check", epoch=0)
    rent(hello=False)
    assert not list(folder.iterdir())
    rent()
    assert {path.name for path in folder.iterdir()} == {"adopted", "active"}


def test_it_is_active_while_attempts_are_unfinished(rent: Rent, folder: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    client = rent()
    client.start(sh("a.1", f"until test -e {go}; do sleep 0.05; done"))
    client.running("a.1")
    client.close()
    wait_for(lambda: is_touched(folder / "active"))
    age(folder / "active")
    wait_for(lambda: is_touched(folder / "active"))
    go.touch()
    back = rent()
    back.wait_for_report("a.1")
    back.call("ack", attempts=["a.1"])
    back.close()
    look = rent(owner="check", epoch=0)
    age(folder / "active")
    end = time.monotonic() + 6  # one turn of touching is 5 s
    look.until(lambda: time.monotonic() > end)
    assert not is_touched(folder / "active")


# ---- results that nobody has taken ---------------------------------------------------------------------------------


@pytest.fixture
def hasty(host: Host, folder: Path) -> Rent:
    """An agent that leaves soon after nothing keeps it, and waits with results for as long as it is told."""

    def attach(wait: float = 3600, **options: Any) -> Client:
        env = {"CLOUDSEND_RENTED_DIR": str(folder), "CLOUDSEND_AGENT_IDLE": "1", "CLOUDSEND_RESULTS_WAIT": str(wait)}
        return host.attach(**{"resources": {"cpus": 2}, "env": env, **options})

    return attach


def test_it_waits_for_the_client_of_a_result_and_so_does_its_agent(hasty: Rent, host: Host, folder: Path) -> None:
    """Seen: a laptop slept for longer than the idle time; its machine ended with the results, and all was redone."""
    client = hasty()
    client.run(sh("a.1", "exit 3"))
    client.close()
    age(folder / "active")
    wait_for(lambda: is_touched(folder / "active"))
    assert host.processes()
    back = hasty()
    assert back.about["pid"] == client.about["pid"]
    assert back.report()["a.1"]["exit_code"] == 3
    back.call("ack", attempts=["a.1"])
    back.close()
    wait_for(lambda: not host.processes())


def test_it_does_not_wait_for_ever(hasty: Rent, host: Host) -> None:
    client = hasty(wait=0.5)
    client.run(sh("a.1", "true"))
    client.close()
    wait_for(lambda: not host.processes())


def test_it_waits_for_nobody_who_wanted_its_end(hasty: Rent, host: Host) -> None:
    client = hasty()
    client.start(sh("a.1", "sleep 600"))
    client.running("a.1")
    client.call("cancel", attempts=["a.1", "a.2"])
    assert client.wait("a.1")["cause"] == "cancelled"
    client.close()
    wait_for(lambda: not host.processes())


def test_what_ended_long_ago_is_not_waited_for_because_the_agent_is_a_new_one(hasty: Rent, host: Host) -> None:
    client = hasty()
    ended = client.run(sh("a.1", "true"))
    host.crash(client)
    (host.home / "journal").unlink(missing_ok=True)
    with (host.home / "attempts/a.1/record").open("r+b") as record:
        write_record(record.fileno(), compact({**ended, "ended": time.time() - 3601}))
    hasty(owner="check", epoch=0).close()
    wait_for(lambda: not host.processes())


def test_the_hour_is_that_of_what_is_paid_for() -> None:
    assert RESULTS_WAIT == decide_money.RESULTS_WAIT == 3600
    assert age_of(b"{}") == age_of(b"not json") == age_of(compact({"ended": time.time() + 60})) == 0.0


def made(folder: Path, heard: float, monkeypatch: pytest.MonkeyPatch, **found: bool) -> Any:
    """`found`: whether any attempt is unfinished, or awaited."""
    monkeypatch.setenv("CLOUDSEND_RENTED_DIR", str(folder))
    peer = SimpleNamespace(owner="tests", epoch=1, heard=heard)
    owners = SimpleNamespace(only_looks=lambda peer: peer.owner == "check")
    attempts = SimpleNamespace(
        is_any_unfinished=lambda: found.get("unfinished", False),
        is_any_awaited=lambda now, seconds: found.get("awaited", False),
    )
    return Rented(owners, attempts, SimpleNamespace(by_fd={3: peer}))


def test_a_client_that_has_gone_silent_keeps_nothing_alive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that was closed: its connection stands for a quarter of an hour, and the machine costs money."""
    now = time.monotonic()
    assert made(folder, now - 59, monkeypatch).is_in_use(now)
    assert not made(folder, now - 61, monkeypatch).is_in_use(now)
    assert made(folder, now - 61, monkeypatch, unfinished=True).is_in_use(now)
    assert made(folder, now - 61, monkeypatch, awaited=True).is_in_use(now)


def test_it_is_touched_seldom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    rented = made(folder, now, monkeypatch)
    rented.tick(now)
    age(folder / "active")
    rented.tick(now + 4.9)
    assert not is_touched(folder / "active")
    rented.tick(now + 5.1)
    assert is_touched(folder / "active")


def test_a_switch_that_cannot_be_told_stops_nothing(rent: Rent, folder: Path) -> None:
    (folder / "active").mkdir()
    (folder / "adopted").symlink_to("/nonexistent/file")
    assert rent().run(sh("a.1", "exit 3"))["exit_code"] == 3


# ---- lease ---------------------------------------------------------------------------------------------------------


def test_a_lease_is_written_as_the_uptime_of_the_end(rent: Rent, folder: Path) -> None:
    client = rent()
    before = uptime()
    reply = client.call("lease", seconds=3600)
    written = (folder / "lease").read_text()
    assert int(before) + 3600 <= int(written) <= uptime() + 3600
    assert 3590 < reply["lease"] <= 3600
    assert 3590 < rent().about["rented"]["lease"] <= 3600
    assert not (folder / "lease.new").exists()
    client.call("lease", seconds=5)
    assert int((folder / "lease").read_text()) < before + 60  # the last word counts
    assert client.call("lease", seconds=None)["lease"] is None
    assert not (folder / "lease").exists()
    assert client.call("lease", seconds=None).ok


@pytest.mark.parametrize("seconds", [-1, True, "60", 1e10, [1]])
def test_a_lease_is_a_number(rent: Rent, folder: Path, seconds: object) -> None:
    assert rent().call("lease", seconds=seconds)["error"]["code"] == "bad-request"
    assert not (folder / "lease").exists()


def test_a_client_that_was_superseded_leases_nothing(rent: Rent, folder: Path) -> None:
    old = rent(epoch=1)
    rent(epoch=2)
    assert old.call("lease", seconds=60)["error"]["code"] == "fenced"
    assert not (folder / "lease").exists()


@pytest.mark.parametrize("text", ["", "soon", "\0", "1 2"])
def test_a_lease_that_is_damaged_is_none_or_over(rent: Rent, folder: Path, text: str) -> None:
    (folder / "lease").write_text(text)
    assert rent().about["rented"]["lease"] in (None, 0)
