"""Frames that were made to harm, homes that others can change, and secrets that must not show."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudsend_cli.agent.client import AgentRefused, encode_frame

from .conftest import Client, Host, sh, wait_for
from .test_hostile import raw
from .test_rebuild import inventory

OTHER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")


def peak_of(pid: int) -> int:
    """Bytes of memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


def nested(depth: int) -> bytes:
    return b'{"id":1,"op":"hello","owner":' + b"[" * depth + b"]" * depth + b"}\n"


@pytest.mark.parametrize("depth", [64, 500, 900, 5_000, 100_000])
def test_deep_json_ends_its_connection(host: Host, agent: Client, depth: int) -> None:
    assert b'"code":"protocol"' in raw(host, nested(depth))
    assert agent.run(sh("a.1", "true"))["exit_code"] == 0


def test_what_is_not_too_deep_is_read(host: Host, agent: Client) -> None:
    assert b'"code":"bad-request"' in raw(host, nested(60))
    deep: object = {}
    for _ in range(50):
        deep = {"x": deep}
    assert agent.run(sh("a.1", "true", about={"deep": deep}))["exit_code"] == 0
    assert inventory(agent)["a.1"]["spec"]["about"] == {"deep": deep}


def test_promised_sizes_take_no_memory(host: Host, agent: Client) -> None:
    before = peak_of(agent.about["pid"])
    for size in (1 << 20 | 1, 1 << 30, 1 << 62, -1, 1 << 2000):
        assert b'"code":"protocol"' in raw(host, b'{"id":1,"op":"put","size":%d}\n' % size)
    open_ends = []
    for _ in range(20):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(host.home / "agent.sock"))
        sock.sendall(b'{"id":1,"op":"put","size":1048576}\n' + b"x" * 100_000)
        open_ends.append(sock)
    assert agent.run(sh("a.1", "true"))["exit_code"] == 0
    assert peak_of(agent.about["pid"]) - before < 32 << 20
    for sock in open_ends:
        sock.close()


def frames() -> list[bytes]:
    spec = sh("f.1", "true", env={"A": "b"}, outputs=[{"pattern": "**/*"}])
    made = [
        {"id": 1, "op": "hello", "owner": "fuzz", "epoch": 1, "resources": {"cpus": 2}, "max_load": None},
        {"id": 2, "op": "start", "boot": "x", "attempts": [spec]},
        {"id": 3, "op": "report", "all": True},
        {"id": 4, "op": "manifest", "attempt": "a.1", "patterns": ["**"], "logs": True},
        {"id": 5, "op": "inventory", "after": None},
        {"id": 6, "op": "forget", "attempts": ["a.1"], "age": 1},
        {"id": 7, "op": "read", "attempt": "a.1", "stream": "stdout", "offset": 0, "length": 10},
    ]
    return [encode_frame(frame) for frame in made]


HELLO, *OTHERS = frames()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_frames_harm_nobody(host: Host, agent: Client, data: st.DataObject) -> None:
    """Valid frames with bytes changed, cut, doubled and swapped: the daemon answers, or hangs up, and lives."""
    sent = bytearray(HELLO + b"".join(data.draw(st.lists(st.sampled_from(OTHERS), max_size=4))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(sent) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "insert", "double"]))
        if how == "set":
            sent[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del sent[at : at + data.draw(st.integers(1, 20))]
        elif how == "insert":
            sent[at:at] = data.draw(st.binary(max_size=20))
        else:
            sent[at:at] = sent[at : at + 50]
        sent = sent or bytearray(b"\n")
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(host.home / "agent.sock"))
    with sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10)
        while more := sock.recv(65536):
            assert b'"code":"internal"' not in more
    assert agent.call("ping").ok


def test_fuzzed_frames_left_the_daemon_as_it_was(host: Host, agent: Client) -> None:
    before = peak_of(agent.about["pid"])
    for i in range(300):
        raw_bytes = os.urandom(i * 37)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(host.home / "agent.sock"))
        with sock:
            sock.sendall(raw_bytes)
    assert agent.run(sh("a.1", "true"))["exit_code"] == 0
    assert peak_of(agent.about["pid"]) - before < 16 << 20
    assert "Traceback" not in (host.home / "agent.log").read_text()


def test_frames_that_are_sent_again_do_nothing_twice(host: Host, agent: Client, tmp_path: Path) -> None:
    """The same bytes on the same and on another connection, as somebody in between could repeat them."""
    ledger = tmp_path / "ledger"
    hello = encode_frame({"id": 1, "op": "hello", "owner": "tests", "epoch": 1})
    start = encode_frame({"id": 2, "op": "start", "boot": agent.boot, "attempts": [sh("a.1", f"echo x >> {ledger}")]})
    first = raw(host, hello + start + start + start)
    assert (first.count(b'"queued"'), first.count(b'"duplicate"')) == (1, 2)
    agent.until(lambda: agent.report()["a.1"]["state"] == "exited")
    assert raw(host, hello + start).count(b'"duplicate"') == 1
    cancel = encode_frame({"id": 3, "op": "cancel", "attempts": ["b.1"]})
    assert raw(host, hello + cancel + cancel).count(b'"tombstoned"') == 2
    assert ledger.read_text() == "x\n"


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """As /tmp is: anybody may make things in it."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o1777)
    for above in folder.parents:
        if above == Path("/tmp"):
            break
        above.chmod(above.stat().st_mode | 0o711)
    yield folder


def refusal(home: Path, agent_file: Path) -> str:
    with pytest.raises(AgentRefused) as caught:
        Client(home, agent=agent_file)
    return caught.value.code


@needs_root
def test_a_home_that_another_user_could_replace_is_refused(open_folder: Path, agent_file: Path) -> None:
    theirs = open_folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, OTHER, OTHER)
    assert refusal(theirs / "h", agent_file) == "home-unsafe"
    assert refusal(theirs, agent_file) == "home-owner"
    link = open_folder / "link"
    link.symlink_to(open_folder / "ours")
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    assert refusal(link, agent_file) == "home-unsafe"
    assert refusal(link / "h", agent_file) == "home-unsafe"
    assert not (open_folder / "ours").exists()
    anybody = open_folder / "anybody"
    anybody.mkdir()
    anybody.chmod(0o777)
    assert refusal(anybody / "h", agent_file) == "home-unsafe"
    (open_folder / "file").touch()
    assert refusal(open_folder / "file", agent_file) == "home-kind"
    assert refusal(open_folder / "file" / "h", agent_file) == "home-kind"
    loop = open_folder / "loop"
    loop.symlink_to(loop)
    assert refusal(loop / "h", agent_file) == "home-unsafe"


def test_a_home_behind_a_link_of_ours_is_used_by_its_own_name(
    make_host: Callable[[str], Host], tmp_path: Path
) -> None:
    """Home directories are small, and often lead to a larger disk."""
    (tmp_path / "large").mkdir()
    (tmp_path / "small").symlink_to("large")
    real = make_host("large/h")
    client = real.attach()
    other = Client(tmp_path / "small" / "h", agent=real.agent)
    real.clients.append(other)
    assert client.about["home"] == str(tmp_path / "large" / "h")
    assert other.about["agent"] == client.about["agent"]
    assert other.about["home"] == client.about["home"]


RACE = """
import os, sys
os.chdir(sys.argv[1]); os.setgid(65534); os.setuid(65534)
os.mkdir("trap"); os.chmod("trap", 0o777)
print("ready", flush=True)
while True:
    for make in (lambda: os.symlink("trap", "h"), lambda: os.mkdir("h"), lambda: open("h", "x").close()):
        for undo in (os.unlink, os.rmdir):
            try:
                make()
            except OSError:
                pass
            try:
                undo("h")
            except OSError:
                pass
"""


@needs_root
def test_nobody_wins_a_race_for_a_home_in_an_open_folder(open_folder: Path, agent_file: Path) -> None:
    racer = subprocess.Popen([sys.executable, "-c", RACE, str(open_folder)], stdout=subprocess.PIPE)
    host = Host(open_folder / "h", agent_file)
    outcomes: dict[str, int] = {}
    try:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
        for _ in range(40):
            try:
                client = host.attach()
                outcome = "ours"
                assert client.about["home"] == str(host.home)
                assert host.home.lstat().st_uid == os.geteuid()
                client.close()
                break
            except AgentRefused as refused:
                outcome = refused.code
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert set(outcomes) <= {"home-unsafe", "home-owner", "home-kind", "os", "ours"}, outcomes
        assert list((open_folder / "trap").iterdir()) == []
    finally:
        racer.kill()
        racer.communicate()
        host.close()


CANARY = "c4n4ry-9f3b"


def words_of_all_processes() -> bytes:
    found = b""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                found += Path("/proc", name, "cmdline").read_bytes()
    return found


def test_a_secret_shows_nowhere_but_in_its_job(host: Host, tmp_path: Path) -> None:
    agent = host.attach(resources={"cpus": 1, "memory": 0, "gpus": 0})
    go = tmp_path / "go"
    secrets = {"TOKEN": CANARY, "OTHER": f"x{CANARY}y"}
    wait = f'test -n "$TOKEN" || exit 9; while [ ! -e {go} ]; do sleep 0.05; done; exit 3'
    agent.start(sh("a.1", wait, secrets=secrets, grace=0.1), sh("a.2", wait, secrets=secrets))
    agent.running("a.1")
    assert CANARY.encode() not in words_of_all_processes()
    told = [
        agent.start(sh("b.1", "true", secrets={"TOKEN": CANARY, "BAD=": CANARY})),
        agent.start(sh("b.2", "true", secrets={"TOKEN": CANARY, "N": 7})),
        agent.start({"id": "b.3", "argv": [7], "secrets": secrets}),
        agent.start(sh("a.1", "other", secrets={"TOKEN": CANARY * 2})),
        agent.call("report"),
        agent.call("report", all=True),
        inventory(agent),
        agent.call("hello", owner=7, secrets=secrets),
    ]
    assert CANARY not in json.dumps(told)
    in_files = [path for path in host.home.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert [path.relative_to(host.home) for path in in_files] == [Path("attempts/a.2/secrets")]
    assert in_files[0].stat().st_mode & 0o777 == 0o600
    host.crash(agent)
    again = host.attach()
    go.touch()
    again.wait("a.1", "a.2")
    again.run({"id": "c.1", "argv": ["no-such-program"], "secrets": secrets})
    again.run(sh("c.2", "true", secrets={f"V{i}": CANARY + "x" * 100_000 for i in range(8)}))
    again.call("cancel", attempts=["c.3"])
    again.start(sh("c.3", "true", secrets=secrets))
    wait_for(lambda: not host.jobs())
    left = [path for path in host.home.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert left == []
    assert CANARY not in json.dumps([again.status, again.report(), inventory(again)])
    assert CANARY.encode() not in words_of_all_processes()
