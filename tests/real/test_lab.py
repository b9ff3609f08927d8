"""The lab itself: each fault is what it says."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from sshlab import Lab, LabHost

MakeHosts = Callable[..., list[LabHost]]
QUICK = 0.4  # what is silent for so long is silent


@pytest.fixture
def host(lab_hosts: MakeHosts) -> LabHost:
    return lab_hosts()[0]


@pytest.fixture
def ssh(shared_lab: Lab) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(host: LabHost, *argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        command = shared_lab.ssh(host, *argv)
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@contextmanager
def banner(host: LabHost) -> Iterator[socket.socket]:
    """A connection to sshd that has said its first line."""
    with closing(socket.create_connection((host.address, host.port), timeout=5)) as sock:
        assert sock.recv(4) == b"SSH-"
        sock.recv(4096)
        yield sock


def is_silent(sock: socket.socket) -> bool:
    sock.settimeout(QUICK)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    return False


def connects(host: LabHost, timeout: float = QUICK) -> bool:
    try:
        with closing(socket.create_connection((host.address, host.port), timeout=timeout)) as sock:
            return sock.recv(4) == b"SSH-"
    except TimeoutError:
        return False


class TestPower:
    def test_a_reboot_keeps_files_and_address_and_no_process(self, host: LabHost, ssh) -> None:
        before = ssh(host, "cat /proc/sys/kernel/random/boot_id; setsid sleep 1000 >/dev/null 2>&1 & echo x >kept")
        assert before.stdout.strip() == host.boot_id
        assert host.pids("sleep 1000")
        host.reboot()
        after = ssh(host, "cat /proc/sys/kernel/random/boot_id kept")
        assert after.stdout.split() == [host.boot_id, "x"]
        assert host.boot_id != before.stdout.strip()
        assert not host.pids("sleep 1000")

    def test_power_off_is_silent(self, host: LabHost) -> None:
        with banner(host) as sock:
            host.power_off()
            assert is_silent(sock)
            assert not connects(host)
            host.power_on()
            sock.sendall(b"are you there\n")
            sock.settimeout(5)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)

    def test_pause_answers_nothing_and_resume_goes_on(self, host: LabHost, ssh) -> None:
        with banner(host) as sock:
            host.pause()
            assert not connects(host)
            sock.sendall(b"SSH-2.0-test\r\n")
            assert is_silent(sock)
            host.resume()
            sock.settimeout(5)
            assert sock.recv(4096)
        assert ssh(host, "echo here").stdout == "here\n"


class TestNetwork:
    @pytest.mark.parametrize("cut", ["partition", "partition_in", "partition_out"])
    def test_partition_is_silent_and_heals(self, host: LabHost, cut: str) -> None:
        with banner(host) as sock:
            getattr(host, cut)()
            assert not connects(host)
            sock.sendall(b"SSH-2.0-test\r\n")
            assert is_silent(sock)
            host.heal()
            sock.settimeout(5)
            assert sock.recv(4096)
        assert connects(host, timeout=5)

    def test_loss_slows_and_loses_nothing(self, host: LabHost, ssh) -> None:
        host.loss(10)
        assert ssh(host, "head -c 300000 /dev/zero | tr '\\0' x").stdout == "x" * 300000

    def test_total_loss_is_a_partition(self, host: LabHost) -> None:
        host.loss(100)
        assert not connects(host)


class TestSshd:
    def test_a_restart_leaves_sessions_alone(self, host: LabHost, shared_lab: Lab) -> None:
        with subprocess.Popen(shared_lab.ssh(host, "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
            assert session.stdin and session.stdout
            session.stdin.write(b"before\n")
            session.stdin.flush()
            assert session.stdout.readline() == b"before\n"
            listener = host.pids(r"\[listener\]")
            host.restart_sshd()
            assert host.pids(r"\[listener\]") != listener
            session.stdin.write(b"after\n")
            session.stdin.close()
            assert session.stdout.read() == b"after\n"
