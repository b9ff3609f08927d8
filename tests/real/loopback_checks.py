"""What hosts on loopback addresses can do. Run by an ordinary user, who may be that of a host of the lab."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sshlab import Lab, LabHost, NotHere


def ask(lab: Lab, host: LabHost, command: str) -> str:
    done = subprocess.run(lab.ssh(host, command), capture_output=True, text=True, timeout=20, check=False)
    return done.stdout


def check_home_and_boot_id(lab: Lab, one: LabHost, other: LabHost) -> None:
    told = ask(lab, one, "pwd; echo $HOME $CLOUDSEND_BOOT_ID; echo x >file")
    assert told.split() == [one.home, one.home, one.boot_id], told
    assert one.read("file") == b"x\n"
    assert not other.exists("file")


def check_copies(lab: Lab, one: LabHost, other: LabHost) -> None:
    one.write("from", "x" * 100_000)
    target = lab.directory / "got"
    subprocess.run(["scp", *lab.ssh(one)[1:3], f"{one.name}:from", str(target)], check=True, capture_output=True)
    assert target.read_text() == "x" * 100_000


def check_reboot(lab: Lab, one: LabHost, other: LabHost) -> None:
    for host in (one, other):
        ask(lab, host, "setsid sleep 4321 >/dev/null 2>&1 &")
    before = one.boot_id
    with closing(socket.create_connection((one.address, one.port), timeout=5)) as sock:
        assert sock.recv(4) == b"SSH-"
        one.reboot()
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass
    assert (one.pids("sleep 4321"), len(other.pids("sleep 4321"))) == ([], 1)
    assert ask(lab, one, "echo $CLOUDSEND_BOOT_ID").strip() == one.boot_id != before


def check_pause(lab: Lab, one: LabHost, other: LabHost) -> None:
    one.pause()
    with closing(socket.create_connection((one.address, one.port), timeout=5)) as sock:
        sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            raise AssertionError(sock.recv(1))
        one.resume()
        sock.settimeout(5)
        assert sock.recv(4) == b"SSH-"


def check_sshd(lab: Lab, one: LabHost, other: LabHost) -> None:
    for fault, status in ((one.restart_sshd, 0), (one.kill_sshd_sessions, 255)):
        with subprocess.Popen(lab.ssh(one, "echo; cat"), stdin=-1, stdout=-1, stderr=-1) as session:
            assert session.stdout is not None
            session.stdout.readline()
            fault()
            if status == 0:
                assert session.communicate(b"goes on", timeout=20)[0] == b"goes on"
            assert session.wait(20) == status
            session.communicate()
    one.sshd(ForceCommand="echo forced")
    assert ask(lab, one, "echo asked") == "forced\n"
    one.sshd()
    one.new_host_key()
    assert ask(lab, one, "echo refused") == ""
    lab.write_known_hosts(hashed=True)
    assert ask(lab, one, "echo known") == "known\n"


def check_shell_and_python(lab: Lab, one: LabHost, other: LabHost) -> None:
    one.set_shell("/bin/dash")
    assert ask(lab, one, "ps -o comm= -p $$") == "dash\n"
    one.set_python("broken")
    assert ask(lab, one, "python3 -V 2>/dev/null; echo $?") == "127\n"
    one.set_python("machine")
    assert ask(lab, one, "python3 -V").startswith("Python 3")


def check_what_is_left_out(lab: Lab, one: LabHost, other: LabHost) -> None:
    for refused in (
        one.partition,
        one.power_off,
        one.fill_disk,
        one.reset_connections,
        lambda: one.sh("true", root=True),
        lambda: one.write("/etc/motd", "x"),
        lambda: one.set_python("none"),
        lambda: lab.add(noexec=True),
    ):
        try:
            refused()
        except NotHere as reason:
            assert "namespaces" in str(reason) or "mounts" in str(reason), reason
        else:
            raise AssertionError(refused)
    assert lab.leaves_out.startswith("not root, so hosts on loopback addresses: no faults of the network")


with Lab(2) as made:
    assert made.level == "loopback", made.level
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check(made, *made)
