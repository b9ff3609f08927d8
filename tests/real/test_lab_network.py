"""The lab itself: each fault between a client and its hosts is what it says."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import closing

import pytest
from lab_probes import MakeHosts, MakeLab, Ssh, answers, connection, is_silent, session, wait_until
from sshlab import Lab, LabError, LabHost

needs_namespaces = pytest.mark.usefixtures("namespaces")


class TestNetwork:
    @pytest.mark.parametrize("cut", ["partition", "partition_in", "partition_out", "hide_from_client"])
    def test_a_partition_is_silent_and_heals(self, host: LabHost, cut: str) -> None:
        with connection(host) as sock:
            getattr(host, cut)()
            assert not answers(host)
            sock.sendall(b"SSH-2.0-test\r\n")
            assert is_silent(sock)
            host.heal()
            assert sock.recv(4096)

    @needs_namespaces
    def test_an_index_is_reached_by_a_proxy(self, lab_hosts: MakeHosts) -> None:
        (host,) = lab_hosts(internet=True)
        with socket.create_server(("127.0.0.1", 0)) as server:
            script = f"""
import http.client, os, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["https_proxy"])
tunnel = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=5)
tunnel.set_tunnel("127.0.0.1", {server.getsockname()[1]})
tunnel.connect()
tunnel.sock.sendall(b"get")
print(tunnel.sock.recv(9).decode())
"""
            with subprocess.Popen(host.command(["python3", "-c", script]), stdout=-1) as process:
                with server.accept()[0] as there:
                    assert there.recv(3) == b"get"
                    there.sendall(b"index")
                assert process.communicate(timeout=10)[0] == b"index\n"
        assert "proxy = http://" in host.read("/etc/pip.conf").decode()

    def test_a_partition_has_a_direction(self, host: LabHost) -> None:
        with connection(host) as sock:
            host.partition_out()
            sock.sendall(b"SSH-2.0-arrived\r\n")
            wait_until(lambda: "arrived" in host.sshd_log() or host.sh("ss -Htn state established") != "")
            assert is_silent(sock)

    def test_what_is_hidden_is_reached_from_other_hosts(self, lab_hosts: MakeHosts, ssh: Ssh) -> None:
        bastion, inner = lab_hosts(2)
        inner.hide_from_client()
        assert not answers(inner)
        script = "exec 3<>/dev/tcp/$0/22 && head -c 4 <&3"
        assert bastion.exec(["bash", "-c", script, inner.address]).stdout == b"SSH-"
        assert ssh(inner, "-J", bastion.name, "hostname").stdout == f"{inner.name}\n"

    def test_a_partition_lasts_over_a_reboot(self, host: LabHost) -> None:
        host.partition()
        host.reboot()
        assert not answers(host)
        host.heal()
        assert answers(host, timeout=5)

    def test_loss_loses_so_many(self, host: LabHost) -> None:
        script = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE: nothing is lost for want of room
sock.bind(("", 9999))
print("ready", flush=True)
print(sum(1 for _ in iter(lambda: sock.recv(9), b"end")), flush=True)
"""
        command = host.command(["python3", "-c", script], root=True)
        with subprocess.Popen(command, stdout=-1) as process, socket.socket(type=socket.SOCK_DGRAM) as sock:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            host.loss(30)
            for _ in range(1000):
                sock.sendto(b"x", (host.address, 9999))
            host.heal()
            sock.sendto(b"end", (host.address, 9999))
            assert 600 < int(process.stdout.readline()) < 800  # six standard deviations and more

    def test_what_is_lost_is_sent_again(self, host: LabHost, ssh: Ssh) -> None:
        host.loss(2)
        assert ssh(host, "head -c 200000 /dev/zero | tr '\\0' x").stdout == "x" * 200000

    def test_total_loss_is_a_partition(self, host: LabHost) -> None:
        host.loss(100)
        assert not answers(host)

    def test_reset_tells_both_ends(self, host: LabHost, shared_lab: Lab) -> None:
        with session(shared_lab, host) as process:
            host.reset_connections()
            assert process.wait(5) == 255
        with connection(host) as sock:
            host.reset_connections()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        wait_until(lambda: not host.pids("sshd.*lab"))
        assert answers(host, timeout=5)

    def test_refused_is_not_silent(self, host: LabHost) -> None:
        host.refuse()
        with pytest.raises(ConnectionRefusedError):
            answers(host)

    def test_a_throttled_host_is_slow(self, host: LabHost, ssh: Ssh) -> None:
        host.throttle("2mbit")
        began = time.monotonic()
        assert len(ssh(host, "head -c 200000 /dev/urandom | base64 -w0").stdout) > 200000
        assert time.monotonic() - began > 0.8  # 260 kB are 2.1 Mbit
        host.heal()

    def test_addresses_are_swapped(self, lab: MakeLab) -> None:
        made = lab(2)
        one, other = made
        known, first = made.known_hosts.read_text(), one.address
        made.swap_addresses(one, other)
        assert (other.address, made.known_hosts.read_text()) == (first, known)
        done = subprocess.run(made.ssh(one, "hostname"), capture_output=True, text=True, check=False)
        assert done.returncode == 255 and "HOST IDENTIFICATION HAS CHANGED" in done.stderr
        made.write_known_hosts()
        assert subprocess.run(made.ssh(one, "hostname"), stdout=-1, check=False).stdout == b"h1\n"
        one.reboot()
        assert subprocess.run(made.ssh(one, "hostname"), stdout=-1, check=False).stdout == b"h1\n"


class TestSshd:
    def test_a_restart_leaves_sessions_alone(self, host: LabHost, shared_lab: Lab) -> None:
        with session(shared_lab, host) as process:
            listener = host.pids(r"\[listener\]")
            host.restart_sshd()
            assert host.pids(r"\[listener\]") != listener
            assert process.communicate(b"after\n", timeout=5)[0] == b"after\n"

    def test_killed_sessions_leave_what_they_started(self, host: LabHost, shared_lab: Lab) -> None:
        with session(shared_lab, host, "exec sleep 4321") as process:
            host.kill_sshd_sessions()
            assert process.wait(5) == 255
        assert host.pids("sleep 4321")
        assert answers(host, timeout=5)

    def test_stopped_it_refuses(self, host: LabHost) -> None:
        host.stop_sshd()
        with pytest.raises(ConnectionRefusedError):
            answers(host)
        host.start_sshd()
        assert answers(host)

    def test_max_startups(self, host: LabHost) -> None:
        host.sshd(MaxStartups="1")
        with connection(host), closing(socket.create_connection((host.address, host.port), timeout=5)) as second:
            assert not second.recv(4).startswith(b"SSH-")

    def test_forced_command_and_banner(self, host: LabHost, ssh: Ssh) -> None:
        host.write("/etc/banner", "keep out\n", root=True)
        host.sshd({"ForceCommand": "echo forced", "Banner": "/etc/banner"})
        done = ssh(host, "echo asked")
        assert (done.stdout, done.stderr) == ("forced\n", "keep out\n")
        host.sshd()
        assert ssh(host, "echo asked").stdout == "asked\n"

    def test_a_wrong_option_is_told(self, host: LabHost) -> None:
        with pytest.raises(LabError, match="Bad configuration option: Nonsense"):
            host.sshd(Nonsense="1")

    def test_another_host_key_is_refused(self, host: LabHost, ssh: Ssh) -> None:
        host.new_host_key()
        assert "HOST IDENTIFICATION HAS CHANGED" in ssh(host, "true").stderr


class TestProxy:
    def test_counts_and_delays(self, host: LabHost, shared_lab: Lab) -> None:
        proxy = shared_lab.proxy(host, delay=0.1)
        began = time.monotonic()
        with connection(proxy) as sock:
            assert time.monotonic() - began >= 0.1
            sock.sendall(b"SSH-2.0-test\r\n")
            sock.recv(4096)
            assert time.monotonic() - began >= 0.3
        assert proxy.connections == 1
        assert proxy.up.count == 14
        assert proxy.down.count > 500

    def test_its_key_is_known(self, host: LabHost, shared_lab: Lab) -> None:
        proxy = shared_lab.proxy(host)
        command = shared_lab.ssh(host, "-o", f"HostName={proxy.host}", "-p", str(proxy.port), "head", "-c", "3000000")
        done = subprocess.run(command[:-3] + command[-3:] + ["/dev/zero"], capture_output=True, check=False)
        assert done.stdout == bytes(3000000), done.stderr
        assert proxy.down.count > 3000000

    def test_cuts_after_exactly_so_many_bytes(self, host: LabHost, shared_lab: Lab) -> None:
        proxy = shared_lab.proxy(host)
        proxy.down.cut_after = 7
        with closing(socket.create_connection((proxy.host, proxy.port), timeout=5)) as sock:
            got = b""
            with pytest.raises(ConnectionResetError):
                while True:
                    got += sock.recv(1) or b"EOF"
            assert got == b"SSH-2.0"
        with connection(proxy):  # once
            pass

    def test_corrupts_one_bit(self, host: LabHost, shared_lab: Lab) -> None:
        proxy = shared_lab.proxy(host)
        proxy.down.corrupt_at = 1
        with closing(socket.create_connection((proxy.host, proxy.port), timeout=5)) as sock:
            assert sock.recv(4) == b"SRH-"

    def test_dribbles(self, host: LabHost, shared_lab: Lab) -> None:
        proxy = shared_lab.proxy(host)
        proxy.down.rate = 40
        began = time.monotonic()
        with closing(socket.create_connection((proxy.host, proxy.port), timeout=5)) as sock:
            assert b"".join(sock.recv(1) for _ in range(8)) == b"SSH-2.0-"
        assert 0.15 < time.monotonic() - began < 2

    @pytest.mark.parametrize("fault", ["held", "blackhole"])
    def test_swallows_or_holds(self, host: LabHost, shared_lab: Lab, fault: str) -> None:
        proxy = shared_lab.proxy(host)
        setattr(proxy.down, fault, True)
        with closing(socket.create_connection((proxy.host, proxy.port), timeout=5)) as sock:
            assert is_silent(sock)
            setattr(proxy.down, fault, False)
            if fault == "held":
                assert sock.recv(4) == b"SSH-"

    def test_cut(self, host: LabHost, shared_lab: Lab) -> None:
        proxy = shared_lab.proxy(host)
        with connection(proxy) as sock:
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
