"""The dead man's switch as a machine executes it: a real shell and real processes, with a clock that the tests set.

`shutdown`, `poweroff` and `systemctl` are found first in PATH and only write down that they were called.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloudsend_cli.providers.aws.identity import render_key_pair
from cloudsend_cli.providers.aws.userdata import Limits, read_script, render_user_data

# What /bin/sh is on Debian and on Amazon's Linux. Not busybox: it may take its own `poweroff` for the one in PATH.
SHELLS = [words for words in (("dash",), ("bash", "--posix")) if shutil.which(words[0])]
PATIENCE = 30.0

# A process that looks like our agent's: `python3 .../agent-<hash>.pyz serve HOME`, with or without a child.
AGENT = """
import os, subprocess, sys, time
if sys.argv[3:] and sys.argv[3] == "leader":
    os.setsid()
if sys.argv[4:] and sys.argv[4] == "busy":
    subprocess.Popen(["sleep", "600"])
print("up", flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], object], what: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited in vain{': ' + what if what else ''}")
        time.sleep(0.01)


def parent_of(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


class Machine:
    """Directories in the place of a machine's, and what it executes at a boot."""

    def __init__(self, root: Path, shell: tuple[str, ...]) -> None:
        self.root, self.shell = root, shell
        self.state, self.run, self.proc, self.units = (root / n for n in ("state", "run", "proc", "units"))
        self.rented, self.mine = self.run / "cloudsend", self.run / "cloudsend-deadman"
        self.bin = root / "bin"
        self.uptime, self.boots = 0.0, 0
        self.switch: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[bytes]] = []
        self.children: list[int] = []
        self.settings: dict[str, object] = {"idle": 600, "life": 86400, "unadopted": 1200}
        self.env = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CLOUDSEND_DEADMAN_STATE": str(self.state),
            "CLOUDSEND_DEADMAN_RUN": str(self.run),
            "CLOUDSEND_DEADMAN_PROC": str(self.proc),
            "CLOUDSEND_DEADMAN_UNITS": str(self.units),
            "CLOUDSEND_DEADMAN_CONSOLE": str(root / "console"),
        }
        self.bin.mkdir(parents=True)
        self.state.mkdir()
        for name in ("shutdown", "poweroff", "systemctl", "reboot", "halt", "logger"):
            self.fake(name)

    def fake(self, name: str, status: int = 0) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.root}/called"\nexit {status}\n')
        path.chmod(0o755)

    def called(self, name: str) -> list[str]:
        try:
            lines = (self.root / "called").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if line.split(" ")[0] == name]

    @property
    def ended(self) -> str:
        """Why it ended itself; "" while it has not."""
        path = self.state / "ended"
        return path.read_text().strip() if path.exists() and self.called("shutdown") else ""

    # ---- the clock ------------------------------------------------------------------------------------------------

    def set_uptime(self, seconds: float) -> None:
        self.uptime = seconds
        new = self.root / "uptime.new"
        new.write_text(f"{seconds:.2f} 123.45\n")
        new.rename(self.proc / "uptime")

    def pass_time(self, seconds: float) -> None:
        """... and let the switch look twice: the second look began when all was as it is now."""
        self.set_uptime(self.uptime + seconds)
        for _ in range(2):
            self.await_look()

    def await_look(self) -> None:
        looks = self.root / "looks"
        before = looks.stat().st_size if looks.exists() else 0
        until(lambda: looks.exists() and looks.stat().st_size > before, "the switch does not look")

    # ---- boots ----------------------------------------------------------------------------------------------------

    def power_on(self, *, clear: bool = True) -> None:
        """What a kernel has at a boot: an empty /run and another boot id."""
        self.boots += 1
        if clear:
            shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.proc, ignore_errors=True)
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "sys/kernel/random/boot_id").write_text(f"boot-{self.boots}\n")
        self.run.mkdir(exist_ok=True)
        self.set_uptime(3.0)

    def write_script(self) -> None:
        (self.state / "deadman").write_text(read_script())
        settings = {**self.settings, "tick": 0.02}
        (self.state / "deadman.conf").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        sleep = self.bin / "sleep"  # tells when the switch has looked
        real = shutil.which("sleep", path="/usr/bin:/bin")
        sleep.write_text(f'#!/bin/sh\necho >>"{self.root}/looks"\nexec {real} "$@"\n')
        sleep.chmod(0o755)

    def start(self, **settings: object) -> None:
        """A boot as far as the switch that watches."""
        self.settings.update(settings)
        self.power_on()
        self.write_script()
        self.watch()

    def watch(self) -> None:
        self.switch = subprocess.Popen([*self.shell, str(self.state / "deadman"), "watch"], env=self.env)
        until((self.rented / "armed").exists, "it is not armed")
        self.await_look()

    def kill(self) -> None:
        if self.switch is not None:
            self.switch.kill()
            self.switch.wait()
            self.switch = None

    def close(self) -> None:
        self.kill()
        for process in self.started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for pid in [*self.loops(), *self.children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def loops(self) -> list[int]:
        """The processes, whoever started them, that execute the switch of this machine; not what it forks."""
        wanted = f"{self.state}/deadman".encode()
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                if wanted in words and b"watch" in words:
                    found[int(path.parent.name)] = parent_of(path.parent)
            except (OSError, IndexError):
                continue
        return [pid for pid, parent in found.items() if parent not in found]

    # ---- what the agent does --------------------------------------------------------------------------------------

    def adopt(self) -> None:
        (self.rented / "adopted").touch()
        self.touch()

    def touch(self) -> None:
        (self.rented / "active").touch()
        os.utime(self.rented / "active", ns=(time.time_ns(), time.time_ns()))

    def start_agent(self, *words: str, verb: str = "serve") -> subprocess.Popen[bytes]:
        """One whose command line, session and child are those of our agent, a runner or a busy runner."""
        path = self.root / "agent-0123456789abcdef.pyz"
        path.write_text(AGENT)
        command = [sys.executable, "-I", "-S", "-B", str(path), verb, str(self.root / "home"), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.started.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        self.show(process.pid)
        for other in Path("/proc").glob("[0-9]*"):
            try:
                if parent_of(other) == process.pid:
                    self.children.append(int(other.name))
            except (OSError, IndexError):
                continue
        for child in self.children:
            self.show(child)
        return process

    def show(self, pid: int) -> None:
        """In the machine's /proc, where the test's other processes are not."""
        (self.proc / str(pid)).symlink_to(f"/proc/{pid}")


@pytest.fixture(params=SHELLS, ids=lambda words: words[0])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine", request.param)
    yield made
    made.close()


def test_it_says_that_it_is_armed(machine: Machine) -> None:
    machine.start(idle=700, life=5000, unadopted=300)
    assert (machine.rented / "armed").read_text() == "idle=700 life=5000 unadopted=300\n"
    assert machine.rented.stat().st_mode & 0o777 == 0o700


def test_machine_that_nobody_adopts_ends_itself(machine: Machine) -> None:
    machine.start()
    machine.pass_time(1199)
    assert not machine.ended
    machine.pass_time(2)
    assert "nobody has used it for 1200 seconds" in machine.ended
    assert machine.called("shutdown")[0] == "shutdown -h now"


def test_idle_limit_does_not_hold_before_it_is_adopted(machine: Machine) -> None:
    machine.start(idle=10)
    machine.pass_time(1000)
    assert not machine.ended


def test_idle_machine_ends_itself(machine: Machine) -> None:
    machine.start()
    machine.adopt()
    machine.pass_time(10)
    machine.pass_time(599)
    assert not machine.ended
    machine.pass_time(2)
    assert "idle for 600 seconds" in machine.ended


def test_machine_in_use_lives_on(machine: Machine) -> None:
    machine.start()
    machine.adopt()
    for _ in range(5):
        machine.pass_time(590)
        machine.touch()
        machine.pass_time(1)
    assert not machine.ended
    machine.pass_time(601)
    assert "idle" in machine.ended


def test_setting_the_date_neither_ends_nor_keeps_it(machine: Machine) -> None:
    """A touch counts, whichever time it leaves behind."""
    machine.start()
    machine.adopt()
    machine.pass_time(500)
    os.utime(machine.rented / "active", (1, 1))
    machine.pass_time(500)
    assert not machine.ended
    os.utime(machine.rented / "active", (4e9, 4e9))
    machine.pass_time(500)
    assert not machine.ended
    machine.pass_time(700)
    assert "idle" in machine.ended


def test_life_ends_however_busy_it_is(machine: Machine) -> None:
    machine.start(life=5000)
    machine.adopt()
    for _ in range(9):
        machine.pass_time(550)
        machine.touch()
        machine.pass_time(1)
    assert not machine.ended
    machine.pass_time(60)
    assert "lived for" in machine.ended


def test_life_counts_over_boots(machine: Machine) -> None:
    machine.start(life=3000)
    for boot in range(1, 3):
        machine.adopt()
        machine.pass_time(599)
        machine.touch()
        machine.pass_time(599)
        assert not machine.ended
        until(lambda boot=boot: int((machine.state / "lived").read_text()) >= 1190 * boot)  # type: ignore[misc]
        machine.kill()
        machine.start()
    machine.adopt()
    machine.pass_time(500)
    assert not machine.ended
    machine.touch()
    machine.pass_time(200)
    assert "lived for" in machine.ended


def test_damaged_count_of_its_life_is_a_new_life(machine: Machine) -> None:
    (machine.state / "lived").write_text("\0\0\0")
    machine.start(life=3000)
    machine.adopt()
    machine.pass_time(500)
    assert not machine.ended


def test_lease_ends_it(machine: Machine) -> None:
    machine.start()
    machine.adopt()
    (machine.rented / "lease").write_text("450.75\n")
    machine.pass_time(440)
    assert not machine.ended
    machine.pass_time(10)
    assert "lease" in machine.ended


@pytest.mark.parametrize("words", ["", "soon\n", "-5\n", "$(reboot)\n"])
def test_lease_that_is_no_number_is_none(machine: Machine, words: str) -> None:
    machine.start()
    machine.adopt()
    (machine.rented / "lease").write_text(words)
    machine.pass_time(100)
    assert not machine.ended
    assert not machine.called("reboot")


def test_agent_dead_and_runner_at_work_is_not_idle(machine: Machine) -> None:
    machine.start()
    machine.adopt()
    runner = machine.start_agent("leader", "busy")
    machine.pass_time(10)
    for _ in range(3):
        machine.pass_time(700)
        assert not machine.ended
    for pid in [runner.pid, *machine.children]:
        os.kill(pid, signal.SIGKILL)
    runner.wait()
    machine.pass_time(100)
    assert not machine.ended, "whoever comes for the results has time to"
    machine.pass_time(700)
    assert "idle" in machine.ended


@pytest.mark.parametrize("words", [("leader", "free"), ("child", "busy"), ("child", "free"), ()])
def test_agent_without_work_is_idle(machine: Machine, words: tuple[str, ...]) -> None:
    """A runner that waits for an order; an agent, which leads no session, with runners or without; nothing at all."""
    machine.start()
    machine.adopt()
    if words:
        machine.start_agent(*words)
    machine.pass_time(10)
    machine.pass_time(700)
    assert "idle" in machine.ended


def test_client_that_is_attached_is_no_work(machine: Machine) -> None:
    """What it does keeps the machine by way of `active`; left behind by a dead connection it does not."""
    machine.start()
    machine.adopt()
    machine.start_agent("leader", "busy", verb="attach")
    machine.pass_time(10)
    machine.pass_time(700)
    assert "idle" in machine.ended


def test_it_asks_again_until_the_machine_is_off(machine: Machine) -> None:
    machine.fake("shutdown", 1)
    machine.start()
    machine.pass_time(1300)
    until(lambda: len(machine.called("shutdown")) > 2 and len(machine.called("poweroff")) > 2)


# ---- deaths of the switch -----------------------------------------------------------------------------------------


def test_killed_and_started_again_it_knows_what_it_knew(machine: Machine) -> None:
    """As systemd does within one boot."""
    machine.start()
    machine.adopt()
    machine.pass_time(10)
    machine.pass_time(400)
    machine.kill()
    machine.watch()
    machine.pass_time(150)
    assert not machine.ended
    machine.pass_time(51)
    assert "idle" in machine.ended


def test_killed_unadopted_it_does_not_begin_anew(machine: Machine) -> None:
    machine.start()
    machine.pass_time(1000)
    machine.kill()
    machine.watch()
    machine.pass_time(201)
    assert "nobody has used it" in machine.ended


def test_new_boot_counts_anew_although_run_was_not_cleared(machine: Machine) -> None:
    machine.start()
    machine.adopt()
    machine.pass_time(10)
    machine.kill()
    machine.power_on(clear=False)
    machine.watch()
    machine.await_look()
    assert not (machine.rented / "adopted").exists()
    machine.pass_time(1100)
    assert not machine.ended
    machine.pass_time(110)
    assert "nobody has used it" in machine.ended


def boot(machine: Machine, *, systemd: bool = False) -> None:
    """The boothook of the user-data, executed as cloud-init does."""
    machine.power_on()
    if systemd:
        (machine.run / "systemd/system").mkdir(parents=True)
    text = render_user_data(
        "nobody", Limits(600, 86400, 1200), spot=False, host_key=render_key_pair(b"k" * 32, "h"), login_public="ssh-x"
    )
    hook = machine.root / "boothook"
    hook.write_text(text.split('charset="us-ascii"\nMIME-Version: 1.0\n\n')[1].split("\n--==cloudsend==")[0])
    hook.chmod(0o755)
    subprocess.run([str(hook)], env=machine.env, check=True)


def test_boothook_starts_one_switch_without_systemd(machine: Machine) -> None:
    boot(machine)
    until((machine.rented / "armed").exists)
    (loop,) = machine.loops()
    machine.show(loop)
    subprocess.run(["sh", str(machine.state / "deadman"), "boot"], env=machine.env, check=True)
    assert machine.loops() == [loop]


def test_killed_loop_is_repaired_by_the_next_boot(machine: Machine) -> None:
    boot(machine)
    until(lambda: (machine.mine / "pid").exists() and machine.loops())
    (loop,) = machine.loops()
    os.kill(loop, signal.SIGKILL)
    until(lambda: not machine.loops())
    boot(machine)
    until(lambda: machine.loops() and (machine.rented / "armed").exists())
    assert loop not in machine.loops()


def test_systemd_keeps_it_running(machine: Machine) -> None:
    boot(machine, systemd=True)
    assert machine.called("systemctl") == [
        "systemctl daemon-reload",
        "systemctl start --no-block cloudsend-deadman.service",
    ]
    assert machine.loops() == []
    unit = (machine.units / "cloudsend-deadman.service").read_text()
    assert f"ExecStart=/bin/sh {machine.state}/deadman watch\n" in unit
    assert "Restart=always\n" in unit and "StartLimitIntervalSec=0\n" in unit and "DefaultDependencies=no\n" in unit
    wants = machine.units / "sysinit.target.wants/cloudsend-deadman.service"
    assert wants.resolve() == (machine.units / "cloudsend-deadman.service").resolve()
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", str(machine.units / "cloudsend-deadman.service")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "cloudsend-deadman" not in done.stderr, done.stderr


def test_switch_starts_itself_where_systemd_will_not(machine: Machine) -> None:
    machine.fake("systemctl", 1)
    boot(machine, systemd=True)
    until(machine.loops)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_directory_is_given_to_the_login_user_once_there_is_one(machine: Machine) -> None:
    """The user of the image comes into being after the boothook."""
    users = machine.root / "users"
    (machine.bin / "id").write_text(f'#!/bin/sh\n[ -e "{users}" ] || exit 1\nexec /usr/bin/id "$@"\n')
    (machine.bin / "id").chmod(0o755)
    machine.start(user="nobody")
    machine.await_look()
    assert machine.rented.stat().st_uid == 0
    users.touch()
    until(lambda: machine.rented.stat().st_uid != 0)


def test_link_in_its_directory_is_replaced_and_not_followed(machine: Machine) -> None:
    machine.start()
    victim = machine.root / "victim"
    victim.write_text("precious")
    (machine.rented / "armed").unlink()
    (machine.rented / "armed").symlink_to(machine.root / "nothing")
    until(lambda: not (machine.rented / "armed").is_symlink())
    assert not (machine.root / "nothing").exists()
    assert victim.read_text() == "precious"


# ---- notice -------------------------------------------------------------------------------------------------------


class Imds(ThreadingHTTPServer):
    """IMDSv2: a token by PUT, then answers to those who show it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.token, self.tokens, self.asked = "token-0", 0, 0
        self.notice: dict[str, str] | None = None


class _Answer(BaseHTTPRequestHandler):
    server: Imds

    def do_PUT(self) -> None:
        good = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.server.tokens += 1
        self.reply(200 if good else 400, self.server.token)

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.headers.get("X-aws-ec2-metadata-token") != self.server.token:
            self.reply(401, "")
        elif self.server.notice is None or self.path != "/latest/meta-data/spot/instance-action":
            self.reply(404, "not found")
        else:
            self.reply(200, json.dumps(self.server.notice))

    def reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def imds(machine: Machine) -> Iterator[Imds]:
    server = Imds()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    machine.env["CLOUDSEND_DEADMAN_IMDS"] = f"http://127.0.0.1:{server.server_port}"
    yield server
    machine.kill()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_notice_comes_and_goes(machine: Machine, imds: Imds) -> None:
    machine.start(spot=1)
    notice = machine.rented / "notice"
    until(lambda: imds.asked > 2)
    assert not notice.exists()
    imds.notice = {"action": "terminate", "time": "2026-11-21T12:00:00Z"}
    until(notice.exists)
    assert json.loads(notice.read_text()) == imds.notice
    imds.notice = None
    until(lambda: not notice.exists())
    assert imds.tokens == 1


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_token_that_ran_out_is_asked_for_again(machine: Machine, imds: Imds) -> None:
    machine.start(spot=1)
    until(lambda: imds.asked > 1)
    imds.token = "token-1"
    imds.notice = {"action": "terminate", "time": "2026-11-21T12:00:00Z"}
    until((machine.rented / "notice").exists)
    assert imds.tokens >= 2


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_silent_metadata_service_neither_hides_nor_makes_a_notice(machine: Machine, imds: Imds) -> None:
    machine.start(spot=1)
    imds.notice = {"action": "stop", "time": "2026-11-21T12:00:00Z"}
    notice = machine.rented / "notice"
    until(notice.exists)
    imds.shutdown()
    imds.server_close()
    machine.pass_time(10)
    assert notice.exists()
    machine.pass_time(1200)
    assert machine.ended, "it goes on watching"


def test_machine_on_demand_asks_for_no_notice(machine: Machine, imds: Imds) -> None:
    machine.start(spot=0)
    machine.pass_time(10)
    assert imds.asked == imds.tokens == 0


# ---- the text -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_script_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "deadman.sh"
    path.write_text(read_script())
    done = subprocess.run(["shellcheck", "-s", "sh", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
