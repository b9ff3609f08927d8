"""How a daemon is found, started, replaced and, when it hangs, ended; and whether it outlives a logout."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudsend_cli.agent.client import AgentRefused

from .conftest import Client, Host, sh, wait_for
from .test_crash import alive

SOON = {"CLOUDSEND_AGENT_HUNG": "1"}


def test_a_hung_daemon_is_replaced_and_its_jobs_go_on(host: Host, tmp_path: Path) -> None:
    client = host.attach()
    go = tmp_path / "go"
    client.start(sh("a.1", f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; exit 4"), sh("a.2", "sleep 300"))
    job = client.running("a.1")
    client.running("a.2")
    os.kill(client.about["pid"], signal.SIGSTOP)
    again = host.attach(env=SOON)
    assert again.about["pid"] != client.about["pid"]
    assert not alive(client.about["pid"])
    assert again.running("a.1") == job
    again.call("cancel", attempts=["a.2"])
    assert again.wait("a.2")["cause"] == "cancelled"
    go.touch()
    assert again.wait("a.1")["exit_code"] == 4
    assert again.stream("a.1") == b"begun\n"


def test_two_who_find_a_hung_daemon_agree_on_the_next(host: Host) -> None:
    from concurrent.futures import ThreadPoolExecutor

    client = host.attach()
    os.kill(client.about["pid"], signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: host.attach(env=SOON), range(5)))
    assert len({client.about["agent"] for client in found}) == 1
    assert found[0].run(sh("a.1", "true"))["exit_code"] == 0


def test_a_daemon_that_was_silent_for_a_while_is_left_alone(host: Host) -> None:
    client = host.attach()
    pid = client.about["pid"]
    os.kill(pid, signal.SIGSTOP)
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(host.agent), "attach", str(host.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "CLOUDSEND_AGENT_HUNG": "20"},
    )
    try:
        # The first look of `attach` is over when it listens for an answer.
        wait_for(lambda: "poll" in Path(f"/proc/{waiting.pid}/wchan").read_text() or waiting.poll() is not None)
        os.kill(pid, signal.SIGCONT)
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith(b"cloudsend-agent-1 ")
        assert alive(pid)
    finally:
        waiting.communicate()


def test_a_stranger_that_holds_the_lock_is_never_killed(host: Host, tmp_path: Path) -> None:
    """It listens, says nothing, and is not a daemon of this home: whatever the lock file says."""
    client = host.attach()
    host.crash(client)
    script = (
        "import fcntl, os, socket, sys; lock = open('agent.lock', 'r+'); fcntl.flock(lock, fcntl.LOCK_EX);"
        "os.unlink('agent.sock'); s = socket.socket(socket.AF_UNIX); s.bind('agent.sock'); s.listen();"
        "start = open('/proc/self/stat').read().rpartition(')')[2].split()[19];"
        "lock.write('%d %s\\n' % (os.getpid(), start)); lock.flush(); print('ready', flush=True); sys.stdin.read()"
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", script], cwd=host.home, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == b"ready\n"
    try:
        with pytest.raises(AgentRefused, match="not known for certain") as caught:
            host.attach(env=SOON)
        assert caught.value.code == "agent-silent"
        assert stranger.poll() is None
    finally:
        stranger.communicate()
    assert host.attach().run(sh("a.1", "true"))["exit_code"] == 0


def test_a_start_that_cannot_exec_says_so(host: Host, tmp_path: Path) -> None:
    """Python is taken away between the start of `attach` and that of the daemon."""
    python = own_python(tmp_path)
    host.home.mkdir(mode=0o700)
    with (host.home / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        attaching = subprocess.Popen(
            [str(python), "-I", "-S", "-B", str(host.agent), "attach", str(host.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        wait_for(lambda: waits_for_lock(attaching.pid))
        python.unlink()
    out = attaching.communicate()[0]
    assert b'cloudsend-agent-error {"code":"start-failed","message":"start-failed: cannot run ' in out
    assert b"No such file" in out


def waits_for_lock(pid: int) -> bool:
    """`attach` opens and closes the lock file in turns while another holds it."""
    return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()


def own_python(folder: Path) -> Path:
    """A Python that can be taken away: its own executable, and a link to the library."""
    import sysconfig

    real = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    (folder / "py/bin").mkdir(parents=True)
    (folder / "py" / library.parent.name).mkdir()
    (folder / "py" / library.parent.name / library.name).symlink_to(library)
    return Path(shutil.copy(real, folder / "py/bin" / real.name))


def test_python_may_vanish_under_a_running_daemon(host: Host, tmp_path: Path) -> None:
    python = own_python(tmp_path)
    client = host.attach(python=str(python), resources={"cpus": 3, "memory": 0, "gpus": 0})
    assert os.path.realpath(f"/proc/{client.about['pid']}/exe") == str(python)
    client.start(sh("a.0", "sleep 300"))
    client.running("a.0")
    shutil.rmtree(tmp_path / "py")
    client.start(*(sh(f"a.{i}", f"echo {i}; exit {i}") for i in range(1, 9)), {"id": "a.9", "argv": ["none"]})
    assert client.wait("a.8", *(f"a.{i}" for i in range(1, 8)))["exit_code"] == 8, client.status
    assert client.wait("a.9")["exit_code"] == 127
    client.call("cancel", attempts=["a.0"])
    assert client.wait("a.0")["cause"] == "cancelled"
    sha = client.put(os.urandom(300_000))
    assert client.run(sh("b.1", "echo x > y", files=[{"path": "in", "sha256": sha}], timeout=30))["exit_code"] == 0
    assert len(client.call("manifest", attempt="b.1", patterns=["*"], logs=True)["files"]) == 4
    assert client.call("inventory")["attempts"]
    assert client.call("manifest", attempt="b.1", patterns=[7]).error_code == "bad-request"
    # Even an error of ours is told in words.
    (host.home / "envs").rmdir()
    assert client.call("report").error_code == "os"
    # The next connection brings a Python that is there.
    again = host.attach()
    assert again.about["agent"] == client.about["agent"]
    assert again.run(sh("c.1", "true"))["exit_code"] == 0


def test_a_daemon_that_cannot_start_says_why(make_host: Callable[[str], Host]) -> None:
    host = make_host("broken")
    host.home.mkdir(mode=0o700)
    (host.home / "journal").mkdir()
    with pytest.raises(AgentRefused, match=r"start-failed: .*journal") as caught:
        host.attach()
    assert caught.value.code == "start-failed"


# What sshd is to a command: its parent, in another session, which ends with the connection. On SIGTERM it ends; asked
# to `kill` it first ends whatever carries the mark of the session, as logind does with a session's control group.
LOGIN = """
import os, signal, sys

def logout(*_):
    mark = b"LOGIN_SESSION=" + os.environb[b"LOGIN_SESSION"] + b"\\0"
    for name in os.listdir("/proc") if sys.argv[1] == "kill" else ():
        if name.isdigit() and int(name) != os.getpid():
            try:
                if mark in open("/proc/%s/environ" % name, "rb").read() + b"\\0":
                    os.kill(int(name), signal.SIGKILL)
            except OSError:
                pass
    os._exit(0)

signal.signal(signal.SIGTERM, logout)
if not os.fork():
    os.setsid()
    os.execv(sys.argv[2], sys.argv[2:])
while True:
    signal.pause()
"""


@pytest.fixture
def log_in(host: Host) -> Iterator[Callable[..., Client]]:
    logins: list[Client] = []

    def log_in(at_logout: str, **env: str) -> Client:
        env = {"LOGIN_SESSION": uuid.uuid4().hex, **env}
        logins.append(host.attach(via=[sys.executable, "-c", LOGIN, at_logout], env=env))
        return logins[-1]

    yield log_in
    for client in logins:
        log_out(client)


def log_out(client: Client) -> None:
    client.process.terminate()
    client.close()


def knows_survival(client: Client) -> Any:
    return client.call("hello", owner="tests", epoch=1)["survives_logout"]


def test_a_daemon_that_outlives_its_session_says_so(host: Host, log_in: Callable[..., Client]) -> None:
    first = log_in("leave", CLOUDSEND_AGENT_BEAT="0.2")
    assert first.about["survives_logout"] is None
    first.start(sh("a.1", "sleep 300"))
    job = first.running("a.1")
    second = log_in("leave")
    log_out(first)
    second.until(lambda: knows_survival(second) is True)
    assert second.about["agent"] == first.about["agent"]
    assert second.running("a.1") == job
    second.until(lambda: [e for e in second.events if e.event == "heartbeat" and e["survives_logout"] is True])
    second.call("cancel", attempts=["a.1"])
    second.wait("a.1")
    os.kill(second.about["pid"], signal.SIGKILL)
    log_out(second)
    assert log_in("leave").about["survives_logout"] is True


def test_a_connection_that_goes_on_is_no_proof(host: Host, log_in: Callable[..., Client]) -> None:
    """The channel of `attach` has ended; what started it, and with it the login session, has not."""
    first = log_in("leave")
    first.socket.close()
    second = log_in("leave")
    import time

    begun = time.monotonic()
    second.until(lambda: time.monotonic() - begun > 3.5)
    assert knows_survival(second) is None
    assert first.process.poll() is None


def test_two_daemons_that_died_with_their_sessions_are_told(host: Host, log_in: Callable[..., Client]) -> None:
    told = []
    for _ in range(3):
        client = log_in("kill")
        told.append(client.about["survives_logout"])
        pid = client.about["pid"]
        log_out(client)
        wait_for(lambda: not alive(pid))  # noqa: B023
    assert told == [None, None, False]


def test_a_daemon_that_left_by_itself_or_crashed_alone_is_no_such_death(
    host: Host, log_in: Callable[..., Client]
) -> None:
    for _ in range(2):
        client = log_in("kill")
        client.channel.request("handover")
        wait_for(lambda: client.channel.flush() and not alive(client.about["pid"]))  # noqa: B023
        log_out(client)
    for _ in range(2):
        client = log_in("kill")
        os.kill(client.about["pid"], signal.SIGKILL)
        wait_for(lambda: b'"daemon":null' in (host.home / "session.json").read_bytes())
        log_out(client)
    assert log_in("leave").about["survives_logout"] is None


@pytest.fixture
def systemd(tmp_path: Path) -> dict[str, str]:
    """A user's systemd that lingers: what it runs is no longer part of the session."""
    folder = tmp_path / "bin"
    folder.mkdir()
    run = '#!/bin/sh\necho "$*" >> "$0.log"\nwhile [ "$1" != -- ]; do shift; done; shift\n'
    run += 'exec env -u LOGIN_SESSION "$@"\n'
    for name, text in (("systemd-run", run), ("loginctl", "#!/bin/sh\necho Linger=yes\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (tmp_path / "runtime/systemd").mkdir(parents=True)
    (tmp_path / "runtime/systemd/private").touch()
    return {"PATH": f"{folder}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(tmp_path / "runtime")}


def test_with_lingering_daemon_runners_and_jobs_outlive_a_logout_that_kills(
    host: Host, log_in: Callable[..., Client], systemd: dict[str, str], tmp_path: Path
) -> None:
    first = log_in("kill", **systemd)
    go = tmp_path / "go"
    first.start(sh("a.1", f"while [ ! -e {go} ]; do sleep 0.05; done; exit 4"))
    job = first.running("a.1")
    pid = first.about["pid"]
    log_out(first)
    assert "--user --scope" in (tmp_path / "bin/systemd-run.log").read_text()
    second = log_in("kill", **systemd)
    assert second.about["pid"] == pid
    assert second.running("a.1") == job
    go.touch()
    assert second.wait("a.1")["exit_code"] == 4
    second.until(lambda: knows_survival(second) is True)


def test_a_systemd_that_refuses_is_done_without(
    host: Host, log_in: Callable[..., Client], systemd: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bin/systemd-run").write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n")
    assert log_in("leave", **systemd).run(sh("a.1", "true"))["exit_code"] == 0


def test_a_socket_of_another_user_is_not_talked_to(host: Host) -> None:
    if os.geteuid():
        pytest.skip("needs root to be two users")
    client = host.attach()
    host.crash(client)
    with socket.socket(socket.AF_UNIX) as impostor:
        (host.home / "agent.sock").unlink()
        script = (
            "import os, socket, sys; s = socket.socket(fileno=0); os.setuid(65534); s.listen();"
            "print('ready', flush=True); print(s.accept()[0].recv(99))"
        )
        impostor.bind(str(host.home / "agent.sock"))
        process = subprocess.Popen([sys.executable, "-c", script], stdin=impostor, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        again = host.attach()
        assert again.run(sh("a.1", "true", secrets={"A": "b"}))["exit_code"] == 0
        assert process.communicate()[0] in (b"", b"b''\n")
