"""kill -9 of everything at every step, restarts, upgrades, a full disk: never two runs, never a false word."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import FINAL, Client, Host, sh, wait_for

# System calls that change something outside the process, or tell somebody.
CHANGING = (
    "openat,open,mkdir,mkdirat,write,pwrite64,sendto,sendmsg,flock,symlink,symlinkat,unlink,unlinkat,"
    "vfork,clone,clone3,wait4,close,chdir"
)


def has_strace() -> bool:
    return (
        shutil.which("strace") is not None
        and not subprocess.run(
            ["strace", "-e", "trace=none", "true"], stderr=subprocess.DEVNULL, check=False
        ).returncode
    )


def traced(pid: int, *options: str, log: Path) -> subprocess.Popen[bytes]:
    """strace attached to one process; returns when it is, or when that has ended by it already."""
    process = subprocess.Popen(["strace", "-q", "-o", str(log), *options, "-p", str(pid)], stderr=subprocess.PIPE)
    status = Path(f"/proc/{pid}/status")
    wait_for(lambda: not alive(pid) or "TracerPid:\t0\n" not in status.read_text())
    return process


def release(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert process.stderr is not None
    process.stderr.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def only_child(pid: int) -> int:
    """The idle runner, once whatever cleared away after the one before has ended."""

    def single() -> int | None:
        found = [child for child in children(pid) if alive(child)]
        return found[0] if len(found) == 1 else None

    return int(wait_for(single))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def points(log: Path, cut: Callable[[str], bool] = lambda line: True) -> list[tuple[str, int]]:
    """(system call, its number in the trace) of every step of one life."""
    counts: dict[str, int] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        name = re.match(r"(\w+)\(", line)
        if name:
            counts[name[1]] = counts.get(name[1], 0) + 1
            if cut(line):
                found.append((name[1], counts[name[1]]))
    return found


def check_after(host: Host, client: Client, spec: dict, ledger: Path) -> str:  # type: ignore[type-arg]
    """Asks for the start again until there is an end; at most one run, and a status that fits it."""
    assert client.start(spec)[spec["id"]] in ("queued", "duplicate")
    client.until(lambda: client.report().get(spec["id"], {}).get("state") in FINAL)
    status = client.report()[spec["id"]]
    runs = ledger.read_text().split().count(spec["id"]) if ledger.exists() else 0
    assert runs <= 1, f"{runs} runs of {spec['id']}"
    if status["state"] == "exited":
        assert (runs, status["exit_code"]) == (1, 5), status
    else:
        assert status["state"] == "lost", status
        if status["cause"] == "never-started":
            assert runs == 0
    assert host.jobs() == []
    return f"{status['state']}, {runs} runs"


@pytest.mark.skipif(not has_strace(), reason="strace is not there or not permitted")
def test_kill_9_of_a_runner_at_every_step(
    host: Host, agent: Client, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    ledger, log = tmp_path / "ledger", tmp_path / "trace"

    def spec(ident: str) -> dict:  # type: ignore[type-arg]
        return sh(ident, f"echo {ident} >> {ledger}; exit 5")

    agent.run(spec("warm"))
    runner = only_child(agent.about["pid"])
    tracer = traced(runner, "-e", "trace=" + CHANGING, log=log)
    agent.run(spec("traced"))
    release(tracer)
    steps = points(log)
    outcomes: dict[str, int] = {}
    for n, (name, number) in enumerate(steps):
        agent.run(spec(f"warm.{n}"))
        runner = only_child(agent.about["pid"])
        tracer = traced(runner, "-e", f"trace={name}", "-e", f"inject={name}:signal=SIGKILL:when={number}", log=log)
        agent.start(spec(f"k.{n}"))
        wait_for(lambda: tracer.poll() is not None)  # noqa: B023
        assert tracer.stderr is not None
        tracer.stderr.close()
        outcome = check_after(host, agent, spec(f"k.{n}"), ledger)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(f"\nkill -9 of a runner: {len(steps)} points, {outcomes}")
    record_testsuite_property("kill points of a runner", len(steps))
    assert len(steps) >= 20


@pytest.mark.skipif(not has_strace(), reason="strace is not there or not permitted")
def test_kill_9_of_the_daemon_at_every_step(
    host: Host, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    ledger, log = tmp_path / "ledger", tmp_path / "trace"

    def spec(ident: str) -> dict:  # type: ignore[type-arg]
        return sh(ident, f"echo {ident} >> {ledger}; exit 5", secrets={"A": "b"})

    client = host.attach()
    client.run(spec("warm"))
    tracer = traced(client.about["pid"], "-e", "trace=" + CHANGING, log=log)
    client.run(spec("traced"))
    client.call("ack", attempts=["traced"])
    release(tracer)
    steps = points(log)
    outcomes: dict[str, int] = {}
    for n, (name, number) in enumerate(steps):
        client.run(spec(f"warm.{n}"))
        log.unlink()
        inject = f"inject={name}:signal=SIGKILL:when={number}"
        tracer = traced(client.about["pid"], "-e", f"trace={name}", "-e", inject, log=log)
        client.channel.request("start", boot=client.boot, attempts=[spec(f"k.{n}")])
        try:
            client.until(lambda: client.status.get(f"k.{n}", {}).get("state") in FINAL)  # noqa: B023
            client.call("ack", attempts=[f"k.{n}"])
            client.until(lambda: tracer.poll() is not None, 2)  # noqa: B023
        except (OSError, client_errors()):
            pass
        except AssertionError:
            release(tracer)
            continue
        wait_for(lambda: tracer.poll() is not None)  # noqa: B023
        assert tracer.stderr is not None
        tracer.stderr.close()
        client.close()
        client = host.attach()
        outcome = check_after(host, client, spec(f"k.{n}"), ledger)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(f"\nkill -9 of the daemon: {len(steps)} points, {outcomes}")
    record_testsuite_property("kill points of the daemon", len(steps))
    assert sum(outcomes.values()) >= 10
    assert set(outcomes) <= {"exited, 1 runs"}


def client_errors() -> type[Exception]:
    from cloudsend_cli.agent.client import ChannelClosed

    return ChannelClosed


def test_a_job_survives_its_daemon_and_its_end_is_not_lost(host: Host, tmp_path: Path) -> None:
    client = host.attach()
    go = tmp_path / "go"
    client.start(
        sh("a.1", f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; echo done; exit 4"),
        sh("a.2", "exit 6"),
        sh("a.3", "sleep 300"),
    )
    client.running("a.1")
    client.running("a.3")
    client.wait("a.2")
    host.crash(client)
    again = host.attach()
    assert again.about["agent"] != client.about["agent"]
    assert again.report()["a.1"]["state"] == "running"
    assert again.report()["a.2"]["exit_code"] == 6
    again.call("cancel", attempts=["a.3"])
    assert again.wait("a.3")["cause"] == "cancelled"
    go.touch()
    assert again.wait("a.1")["exit_code"] == 4
    assert again.stream("a.1") == b"begun\ndone\n"
    host.crash(again)
    third = host.attach()
    assert third.report()["a.1"]["exit_code"] == 4


def test_a_job_ends_while_no_daemon_lives(host: Host, tmp_path: Path) -> None:
    client = host.attach()
    go = tmp_path / "go"
    client.start(sh("a.1", f"while [ ! -e {go} ]; do sleep 0.05; done; exit 4"))
    client.running("a.1")
    host.crash(client)
    go.touch()
    wait_for(lambda: b'"exited"' in host.record("a.1"))
    assert host.attach().report()["a.1"]["exit_code"] == 4


def test_what_was_queued_starts_in_order_after_a_crash(host: Host, tmp_path: Path) -> None:
    client = host.attach(resources={"cpus": 1, "memory": 1 << 30, "gpus": 0})
    go, ledger = tmp_path / "go", tmp_path / "ledger"
    client.start(sh("first", f"while [ ! -e {go} ]; do sleep 0.05; done"))
    client.start(*(sh(f"q.{i}", f"echo {i} >> {ledger}") for i in range(20)))
    client.running("first")
    host.crash(client)
    again = host.attach()
    assert again.about["resources"]["cpus"] == 1
    go.touch()
    again.wait(*(f"q.{i}" for i in range(20)))
    assert ledger.read_text().split() == [str(i) for i in range(20)]


def test_kill_9_of_a_runner_is_lost_once_and_leaves_nothing(host: Host, agent: Client, tmp_path: Path) -> None:
    """One leftover has left the session, another its environment as well."""
    hidden = tmp_path / "hidden"
    script = f"setsid sleep 300 & (setsid env -i sh -c 'echo $$ > {hidden}; exec sleep 300' &); sleep 300"
    agent.start(sh("a.1", script), sh("a.2", "sleep 0.3; exit 2"))
    agent.running("a.1")
    wait_for(lambda: len(host.jobs()) >= 2 and hidden.exists() and hidden.read_text())
    runner = int(json.loads(host.record("a.1")[9:])["runner"])
    os.kill(runner, signal.SIGKILL)
    status = agent.wait("a.1")
    assert (status["state"], status["exit_code"]) == ("lost", None)
    assert agent.wait("a.2")["exit_code"] == 2
    assert host.jobs() == []
    assert not alive(int(hidden.read_text()))
    agent.call("ack", attempts=["a.1"])
    assert "a.1" not in agent.report()


def test_kill_9_of_the_job_is_a_signal_that_nobody_here_sent(agent: Client) -> None:
    agent.start(sh("a.1", "sleep 300"))
    os.kill(agent.running("a.1"), signal.SIGKILL)
    status = agent.wait("a.1")
    assert (status["signal"], status["cause"], status["state"]) == (signal.SIGKILL, None, "exited")


def test_daemon_and_runner_killed_together(host: Host, agent: Client) -> None:
    agent.start(sh("a.1", "setsid sleep 300 & sleep 300"))
    agent.running("a.1")
    runner = int(json.loads(host.record("a.1")[9:])["runner"])
    os.kill(agent.about["pid"], signal.SIGKILL)
    os.kill(runner, signal.SIGKILL)
    agent.close()
    again = host.attach()
    again.until(lambda: again.report()["a.1"]["state"] == "lost")
    assert host.jobs() == []


def test_another_boot_makes_the_waiting_stale_and_the_running_lost(host: Host, agent: Client) -> None:
    agent.start(sh("a.1", "sleep 300", cpus=4), sh("a.2", "true"))
    agent.running("a.1")
    for pid in host.processes():
        os.kill(pid, signal.SIGKILL)
    agent.close()
    again = host.attach(env={"CLOUDSEND_BOOT_ID": "the-next-boot"})
    assert again.boot.partition(".")[0] == "the-next-boot"
    found = again.report()
    assert (found["a.1"]["state"], found["a.1"]["cause"]) == ("lost", "rebooted")
    assert found["a.2"]["state"] == "stale"
    assert again.start(sh("a.2", "true")) == {"a.2": "duplicate"}
    assert again.start(sh("a.3", "true"), boot=agent.boot) == {"a.3": "wrong-boot"}


def test_a_reused_pid_is_never_signalled(host: Host, agent: Client) -> None:
    """A record that names a stranger: its number is right, its start time is not."""
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        agent.start(sh("a.1", "sleep 300"))
        agent.running("a.1")
        record = json.loads(host.record("a.1")[9:])
        for pid in host.processes():
            os.kill(pid, signal.SIGKILL)
        agent.close()
        # Start times count in ticks of 10 ms: both may have begun in the same one.
        record.update(pid=bystander.pid, runner=bystander.pid, pid_start=1, runner_start=1)
        body = json.dumps(record).encode().ljust(1014)
        (host.home / "attempts/a.1/record").write_bytes(b"%08x %s\n" % (zlib.crc32(body), body))
        again = host.attach()
        again.call("cancel", attempts=["a.1"])
        again.until(lambda: again.report()["a.1"]["state"] == "lost")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_c20_an_upgrade_in_place_leaves_the_running_job_alone(host: Host, tmp_path: Path) -> None:
    old = host.attach()
    go = tmp_path / "go"
    old.start(sh("a.1", f"while [ ! -e {go} ]; do sleep 0.05; done; exit 9"), sh("a.2", "sleep 300"))
    job = old.running("a.1")
    old.running("a.2")
    newer = tmp_path / "newer.pyz"
    shutil.copy(host.agent, newer)
    with zipfile.ZipFile(newer, "a") as archive:
        archive.writestr("newer", b"")
    new = host.attach(agent=newer)
    assert new.about["sha"] != old.about["sha"]
    assert not alive(old.about["pid"])
    assert new.running("a.1") == job
    go.touch()
    assert new.wait("a.1")["exit_code"] == 9
    new.call("cancel", attempts=["a.2"])
    assert new.wait("a.2")["cause"] == "cancelled"


def test_a_home_that_others_can_read_is_refused(tmp_path: Path, agent_file: Path) -> None:
    from cloudsend_cli.agent.client import AgentRefused

    open_home = tmp_path / "open"
    open_home.mkdir(mode=0o755)
    with pytest.raises(AgentRefused, match="chmod 700"):
        Client(open_home, agent=agent_file)


def test_an_idle_daemon_leaves_and_a_long_path_works(make_host: Callable[[str], Host]) -> None:
    host = make_host("a-very-long-name-" * 8)
    client = host.attach(env={"CLOUDSEND_AGENT_IDLE": "0.2"})
    client.run(sh("a.1", "true"))
    client.close()
    wait_for(lambda: not host.processes())
    assert not (host.home / "agent.sock").exists()
    assert host.attach().report()["a.1"]["exit_code"] == 0


def test_a_hundred_thousand_old_attempts_do_not_delay_a_start(host: Host) -> None:
    """Their directories are stood for by journal lines and a tenth of the directories."""
    client = host.attach()
    host.crash(client)
    for i in range(10_000):
        (host.home / "attempts" / f"old.{i}").mkdir()
    with (host.home / "journal").open("a") as journal:
        journal.writelines(f"a old.{i}\n" for i in range(100_000))
    begun = time.monotonic()
    again = host.attach()
    print(f"\nstart with 100,000 acknowledged attempts: {time.monotonic() - begun:.2f} s")
    assert again.report() == {}
    assert again.run(sh("a.1", "true"))["exit_code"] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)],
        check=False,
        stderr=subprocess.DEVNULL,
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_no_exit(small_disk: Path, agent_file: Path) -> None:
    host = Host(small_disk / "h", agent_file)
    try:
        client = host.attach()
        status = client.run(sh("a.1", "head -c 3000000 /dev/zero; echo $? >&2; exit 3"))
        assert (status["state"], status["exit_code"]) == ("exited", 3)
        assert status["stdout_size"] > 100_000
        full = host.home / "filler"
        with pytest.raises(OSError, match="No space"), full.open("wb", buffering=0) as filler:
            while True:
                filler.write(b"\0" * 1024)
        assert client.start(sh("a.2", "true")) == {"a.2": "disk-full"}
        assert client.call("cancel", attempts=["a.9"])["results"] == {"a.9": "tombstoned"}
        assert client.report()["a.1"]["exit_code"] == 3
        client.call("ack", attempts=["a.1"])
        host.crash(client)
        full.unlink()
        (host.home / "attempts/a.1/stdout").unlink()
        again = host.attach()
        assert again.run(sh("a.2", "true"))["exit_code"] == 0
    finally:
        host.close()


def test_a_disk_that_fills_before_the_claim_fails_the_start(small_disk: Path, agent_file: Path) -> None:
    host = Host(small_disk / "h", agent_file)
    try:
        client = host.attach(resources={"cpus": 1, "memory": 0, "gpus": 0})
        go = small_disk / "h" / "go"
        client.start(sh("a.1", f"while [ ! -e {go} ]; do sleep 0.05; done"), sh("a.2", "touch ran"))
        client.running("a.1")
        full = host.home / "filler"
        with pytest.raises(OSError, match="No space"), full.open("wb", buffering=0) as filler:
            while True:
                filler.write(b"\0" * 1024)
        go.touch()
        status = client.wait("a.1", "a.2")
        assert status["exit_code"] == 0
        assert (client.status["a.2"]["state"], client.status["a.2"]["cause"]) == ("exited", "disk-full")
        assert not (host.home / "attempts/a.2/work").exists()
        assert client.about["agent"] == client.call("hello", owner="tests", epoch=1)["agent"]
    finally:
        host.close()


def test_memory_killed_is_named_so(host: Host, agent: Client) -> None:
    group = Path("/sys/fs/cgroup/memory/cloudsend-test")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(32 << 20))
    except OSError as problem:
        pytest.skip(f"no memory cgroup of version 1 can be made here: {problem}")
    agent.start(sh("a.2", "exec sleep 300"))
    bystander = agent.running("a.2")
    try:
        script = f"echo $$ > {group}/cgroup.procs; exec python3 -c 'x = bytearray(1 << 28)'"
        status = agent.run(sh("a.1", script))
        assert (status["signal"], status["cause"], status["oom"]) == (signal.SIGKILL, "oom", True)
        os.kill(bystander, signal.SIGKILL)  # by somebody, and not for memory
        status = agent.wait("a.2")
        assert (status["signal"], status["cause"]) == (signal.SIGKILL, None)
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_sixty_jobs_while_the_daemon_is_killed_fifteen_times(host: Host, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    specs = [sh(f"j.{i}", f"sleep 0.0{i % 9}; echo {i} >> {ledger}; sleep 0.0{i % 5}") for i in range(60)]
    client = host.attach(resources={"cpus": 4, "memory": 1 << 34, "gpus": 0})
    for _ in range(15):
        client.start(*specs)
        host.crash(client)
        client = host.attach()
    client.until(lambda: all(status["state"] in FINAL for status in client.report().values()))
    assert {(status["state"], status["exit_code"]) for status in client.report().values()} == {("exited", 0)}
    assert sorted(map(int, ledger.read_text().split())) == list(range(60))
    assert host.jobs() == []
    assert "Traceback" not in (host.home / "agent.log").read_text()
