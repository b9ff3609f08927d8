"""The lab itself: its hosts are machines of their own, and nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab_probes import MakeHosts, MakeLab, Ssh, answers, connection, is_silent, wait_until
from sshlab import Lab, LabError, LabHost, NotHere
from sshlab.cgroups import Cgroup
from sshlab.commands import with_descendants

CHECKS = Path(__file__).with_name("loopback_checks.py")
ROOT = Path(__file__).resolve().parents[2]

needs_namespaces = pytest.mark.usefixtures("namespaces")


def test_its_level_is_said(shared_lab: Lab, summary_line: Callable[[str], None]) -> None:
    assert shared_lab.level == "namespaces" or shared_lab.leaves_out
    if shared_lab.leaves_out:
        summary_line(f"tier real: {shared_lab.leaves_out}")


class TestHost:
    @needs_namespaces
    def test_it_is_a_machine_of_its_own(self, lab_hosts: MakeHosts, ssh: Ssh) -> None:
        one, other = lab_hosts(2)
        ssh(one, "echo mine | tee file /tmp/of-a-host /dev/shm/of-a-host >/dev/null")
        told = "hostname; cat /proc/sys/kernel/random/boot_id; cat /etc/machine-id; id -un"
        first, second = (ssh(host, told).stdout.split() for host in (one, other))
        assert [first[0], first[1], first[3]] == [one.name, one.boot_id, "lab"]
        assert second[0] == other.name
        assert not set(first) - {"lab"} & set(second)
        assert not Path("/tmp/of-a-host").exists()
        assert ssh(other, "cat file /tmp/of-a-host /dev/shm/of-a-host").stdout == ""
        assert one.pids("sshd") and max(one.pids()) < 1000
        assert one.sh("ls -A /home") == "lab"
        assert not one.exists(str(ROOT))

    @needs_namespaces
    def test_hosts_reach_each_other(self, lab_hosts: MakeHosts) -> None:
        one, other = lab_hosts(2)
        script = "exec 3<>/dev/tcp/$0/22 && head -c 4 <&3"
        assert one.exec(["bash", "-c", script, other.address]).stdout == b"SSH-"

    def test_its_user_cannot_change_the_machine(self, host: LabHost) -> None:
        host.sh("echo changed >/etc/os-release; rm -rf /usr/bin/env", root=True)
        assert "changed" not in Path("/etc/os-release").read_text()
        assert Path("/usr/bin/env").exists()

    @needs_namespaces
    def test_files_are_written_and_read_as_the_user(self, host: LabHost) -> None:
        host.write("a b/c", b"\0\xff\n", mode=0o750)
        assert host.read("a b/c") == b"\0\xff\n"
        assert host.sh("stat -c '%U %a' 'a b/c'") == "lab 750"
        host.write("/etc/motd", "hello", root=True)
        assert host.read("/etc/motd") == b"hello"
        with pytest.raises(LabError, match="Permission denied"):
            host.write("/etc/motd", "hello")

    def test_processes_are_named_and_ended_by_the_hosts_own_numbers(self, host: LabHost) -> None:
        with subprocess.Popen(host.command(["sh", "-c", "echo $$; exec sleep 4321"]), stdout=-1) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            assert host.pids("sleep 4321") == [pid]
            host.kill(pid, signal.SIGTERM)
        assert host.pids("sleep 4321") == []

    @needs_namespaces
    def test_orphans_are_reaped(self, host: LabHost) -> None:
        host.sh("(setsid true &) ; true")
        wait_until(lambda: "Z" not in host.sh("cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f3"))

    def test_hashed_names_are_known(self, lab: MakeLab) -> None:
        made = lab(1)
        made.write_known_hosts(hashed=True)
        assert made[0].address not in made.known_hosts.read_text()
        assert subprocess.run(made.ssh(made[0], "true"), check=False).returncode == 0

    def test_twenty_at_once_are_quick_and_small(self, lab: MakeLab, summary_line: Callable[[str], None]) -> None:
        began = time.monotonic()
        made = lab(20)
        took = time.monotonic() - began
        assert all(answers(host, timeout=5) for host in made)
        assert len({host.boot_id for host in made}) == 20
        memory = sum(proportional_memory(pid) for pid in processes_of(made)) / 20
        summary_line(f"20 hosts with sshd: {took:.1f} s, {memory / 1e6:.1f} MB each")
        assert memory < 10_000_000


class TestPower:
    @needs_namespaces
    def test_a_reboot_keeps_files_and_address_and_no_process(self, host: LabHost, ssh: Ssh) -> None:
        told = "cat /proc/sys/kernel/random/boot_id kept"
        before = ssh(host, f"echo x >kept; setsid sleep 4321 >/dev/null 2>&1 & {told}").stdout.split()
        assert before == [host.boot_id, "x"]
        assert host.pids("sleep 4321")
        host.sh("echo y >/etc/kept; echo z >/tmp/lost", root=True)
        host.reboot()
        after = ssh(host, f"{told} /etc/kept; ls /tmp").stdout.split()
        assert after == [host.boot_id, "x", "y"]
        assert host.boot_id != before[0]
        assert not host.pids("sleep 4321")

    def test_power_off_is_silent(self, host: LabHost) -> None:
        with connection(host) as sock:
            host.power_off()
            assert is_silent(sock)
            assert not answers(host)
            host.power_on()
            sock.sendall(b"are you there\n")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)

    def test_a_clean_power_off_closes_connections(self, host: LabHost) -> None:
        with connection(host) as sock:
            host.power_off(clean=True)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        assert not host.is_up

    @pytest.mark.parametrize(("number", "ended"), [(0x1234567, "reboot"), (0x4321FEDC, "off")])
    def test_a_host_ends_itself(self, host: LabHost, number: int, ended: str) -> None:
        script = f"import ctypes; ctypes.CDLL(None).reboot({number})"
        host.exec(["python3", "-c", script], root=True, check=False)
        assert host.wait_down() == ended
        assert not host.is_up
        host.power_on()
        assert answers(host, timeout=5)

    def test_pause_answers_nothing_and_resume_goes_on(self, host: LabHost) -> None:
        with connection(host) as sock:
            host.pause()
            assert not answers(host)
            sock.sendall(b"SSH-2.0-test\r\n")
            assert is_silent(sock)
            assert host.sh("echo looked into") == "looked into"
            host.resume()
            assert sock.recv(4096)

    @needs_namespaces
    def test_pause_needs_no_cgroup(self, host: LabHost, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Cgroup, "can_freeze", False)
        host.pause()
        assert not answers(host)
        host.resume()
        assert answers(host, timeout=5)
        host.pause()
        host.reboot()
        assert answers(host, timeout=5)

    def test_a_paused_host_is_switched_off(self, host: LabHost) -> None:
        host.pause()
        host.power_off()
        host.power_on()
        assert answers(host, timeout=5)


class TestUser:
    @pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish", "tcsh", "csh"])
    def test_login_shell(self, host: LabHost, ssh: Ssh, shell: str) -> None:
        if not host.exists(f"/bin/{shell}"):
            raise NotHere(f"no {shell} on this machine")
        host.set_shell(f"/bin/{shell}")
        rc = {"bash": ".bashrc", "zsh": ".zshenv", "fish": ".config/fish/config.fish"}.get(shell, ".cshrc")
        host.write(rc, "echo noise\n")
        done = ssh(host, "ps -o comm= -p $fish_pid" if shell == "fish" else "ps -o comm= -p $$")
        told = done.stdout.splitlines()
        assert told[-1] in {shell, "tcsh" if shell == "csh" else shell, "ps"}, done
        assert told[:-1] == ([] if shell == "dash" else ["noise"])

    def test_no_python(self, lab_hosts: MakeHosts, ssh: Ssh) -> None:
        (host,) = lab_hosts(python="none")
        assert ssh(host, "python3 -V; python -V; ls /usr/bin/python*").stdout == ""
        assert ssh(host, "python3 -V").returncode == 127
        host.set_python("machine")
        assert ssh(host, "python3 -V").stdout.startswith("Python 3.")

    def test_only_an_old_python(self, lab_hosts: MakeHosts, ssh: Ssh) -> None:
        (host,) = lab_hosts(python="3.6")
        assert ssh(host, "python3 -c 'import sys; print(sys.version_info[:2])'").stdout == "(3, 6)\n"
        assert ssh(host, "ls /usr/bin/python*").stdout.split() == ["/usr/bin/python3", "/usr/bin/python3.6"]
        host.set_python("2.7")
        assert ssh(host, "python -V; python3 -V").stderr.startswith("Python 2.7")

    def test_a_broken_python(self, host: LabHost, ssh: Ssh) -> None:
        host.set_python("broken")
        assert ssh(host, "python3 -V").returncode == 127
        assert "shared libraries" in ssh(host, "python3 -V").stderr


class TestClock:
    def test_it_is_wrong_and_then_jumps(self, host: LabHost, ssh: Ssh) -> None:
        host.set_clock_offset(3600)
        told = "python3 -c 'import time; print(time.time(), time.monotonic())'; date +%s"
        wall, steady, date = map(float, ssh(host, told).stdout.split())
        assert 3590 < wall - time.time() < 3610 and 3590 < date - time.time() < 3610
        assert abs(steady - time.monotonic()) < 10
        script = "import time\nwhile time.time() > 1.7e9: time.sleep(0.01)\n"
        with subprocess.Popen(host.command(["python3", "-c", script])) as process:
            host.set_clock_offset(-1e9)
            assert process.wait(10) == 0


class TestDisk:
    def test_a_full_disk(self, lab_hosts: MakeHosts) -> None:
        (host,) = lab_hosts(home_size="2m", home_inodes=100)
        for fill in (host.fill_disk, host.fill_inodes):
            fill()
            with pytest.raises(LabError, match="No space left"):
                host.write(fill.__name__, "x")
            host.reboot()  # a disk stays full
            with pytest.raises(LabError, match="No space left"):
                host.write(fill.__name__, "x")
            host.free_disk()
            host.write(fill.__name__, "x")

    def test_a_disk_of_the_machine_is_not_filled(self, host: LabHost) -> None:
        with pytest.raises(LabError, match="home_size"):
            host.fill_disk()

    def test_noexec(self, lab_hosts: MakeHosts, ssh: Ssh) -> None:
        (host,) = lab_hosts(noexec=True)
        for place in (".", "/tmp", "/var/tmp", "/dev/shm"):
            done = ssh(host, f"cp /bin/true {place}/x && {place}/x")
            assert (done.returncode, "Permission denied" in done.stderr) == (126, True), place

    def test_read_only(self, host: LabHost) -> None:
        host.remount(host.home, "ro")
        with pytest.raises(LabError, match="Read-only file system"):
            host.write("file", "x")
        host.reboot()
        host.write("file", "x")

    @needs_namespaces
    def test_a_shared_home(self, lab_hosts: MakeHosts, ssh: Ssh) -> None:
        (one,) = lab_hosts()
        (other,) = lab_hosts(home_of=one)
        assert ssh(one, "echo here >file; hostname").stdout.strip() != ssh(other, "hostname").stdout.strip()
        assert ssh(other, "cat file; echo there >file").stdout == "here\n"
        assert one.read("file") == b"there\n"

    def test_a_fork_storm_does_not_fill_the_machine(self, host: LabHost) -> None:
        limits = host.sh("cat /proc/self/cgroup", root=True)
        if "pids" not in limits:
            raise NotHere("no pids controller of cgroups")
        assert "pids:/cloudsend-sshlab" in limits

    def test_memory_has_a_limit(self, lab_hosts: MakeHosts, ssh: Ssh) -> None:
        (host,) = lab_hosts(memory="64m")
        done = ssh(host, "python3 -c 'x = bytearray(300_000_000)'; echo $?")
        assert done.stdout == "137\n"
        assert answers(host, timeout=5)


class TestLoopback:
    """Not root: the same hosts with less to them."""

    def test_an_ordinary_user_has_it(self, lab_hosts: MakeHosts, shared_lab: Lab) -> None:
        if shared_lab.level == "loopback":
            done = subprocess.run([sys.executable, str(CHECKS)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return
        (host,) = lab_hosts()
        for file in (ROOT / "tests/sshlab").iterdir():
            if file.is_file():
                host.write(f"tests/sshlab/{file.name}", file.read_bytes())
        host.write("tests/real/checks.py", CHECKS.read_bytes())
        done = host.exec(["python3", "-X", "dev", "-W", "error", "tests/real/checks.py"], check=False)
        assert (done.returncode, done.stderr) == (0, b""), done
        assert not host.pids("sshd:.*(22022|lab)")
        assert host.sh("ls -d /tmp/cloudsend-sshlab-*-* 2>/dev/null | cat") == ""

    def test_root_has_not(self) -> None:
        if os.geteuid() == 0:
            with pytest.raises(NotHere, match="not for root"):
                Lab(1, level="loopback")


class TestLeftovers:
    def test_two_labs_at_a_time(self, lab: MakeLab) -> None:
        one, other = lab(1), lab(1)
        assert one[0].address != other[0].address
        assert answers(one[0]) and answers(other[0])

    def test_a_killed_run_leaves_nothing(self, lab: MakeLab) -> None:
        script = """
from sshlab import Lab
lab = Lab(2)
lab[0].pause()
print(lab.directory, flush=True)
input()
"""
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=-1, stdout=-1, cwd=ROOT / "tests") as process:
            assert process.stdout is not None
            directory = process.stdout.readline().decode().split()[0]
            process.kill()
        name = Path(directory).name
        assert Path(directory).exists()
        lab()
        assert not Path(directory).exists()
        wait_until(lambda: name not in all_command_lines())
        assert not [mount for mount in Path("/proc/mounts").read_text().splitlines() if name in mount]

    @needs_namespaces
    def test_a_closed_lab_leaves_nothing(self, lab: MakeLab) -> None:
        made = lab(2)
        directory, address = made.directory, made[0].address
        network = address.rpartition(".")[0]
        assert network in routes() and str(directory) in all_command_lines()
        made.close()
        assert network not in routes()
        assert str(directory) not in all_command_lines()
        assert not directory.exists()


def routes() -> str:
    return subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout


def processes_of(made: Lab) -> list[int]:
    """As this machine numbers them: all in whose command line the lab is named, and their children."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(made.directory).encode() in path.read_bytes():
                pids.append(int(path.parent.name))
    return sorted(with_descendants(set(pids)))


def proportional_memory(pid: int) -> int:
    """What is this process's own and its share of what it shares."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
        return int(fields[fields.index("Pss:") + 1]) * 1024
    return 0


def all_command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)
