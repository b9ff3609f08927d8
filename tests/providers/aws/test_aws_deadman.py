"""The dead man's switch as a machine executes it: when it ends the machine, and that nothing ends the switch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
from deadman_machine import Machine, until

from cloudsend_cli.providers.aws.identity import render_key_pair
from cloudsend_cli.providers.aws.userdata import Limits, read_script, render_user_data


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


@pytest.mark.parametrize(("life", "lead"), [(5000, 120), (600, 60), (100, 15)])
def test_end_of_its_life_is_announced_before(machine: Machine, life: int, lead: int) -> None:
    """In the form of a provider's notice, so that the agent ends what is there and brings home what it left."""
    machine.start(life=life, idle=9999, unadopted=9999)
    notice = machine.rented / "notice"
    begun = machine.uptime
    machine.pass_time(life - lead - 1)
    assert not notice.exists()
    machine.pass_time(1)
    told = json.loads(notice.read_text())
    assert (told["action"], told["uptime"]) == ("life", int(begun) + life)
    assert 0 < datetime.fromisoformat(told["time"].replace("Z", "+00:00")).timestamp() - time.time() <= lead
    machine.pass_time(lead - 1)
    assert json.loads(notice.read_text()) == told, "it says the same for as long as it stands"
    assert not machine.ended
    machine.pass_time(1)
    assert "lived for" in machine.ended


def test_end_is_announced_in_the_name_of_the_setting(machine: Machine) -> None:
    machine.start(life=300, setting="eco_life")
    machine.pass_time(280)
    assert json.loads((machine.rented / "notice").read_text())["action"] == "eco_life"


def test_end_stays_announced_although_the_switch_is_killed_and_the_notice_removed(machine: Machine) -> None:
    machine.start(life=1000)
    machine.pass_time(950)
    notice = machine.rented / "notice"
    until_then = json.loads(notice.read_text())["uptime"]
    machine.kill()
    notice.unlink()
    machine.watch()
    machine.await_look()
    assert json.loads(notice.read_text())["uptime"] == until_then


@pytest.mark.parametrize("stand", ["a directory", "a link"])
def test_life_ends_although_its_end_cannot_be_announced(machine: Machine, stand: str) -> None:
    machine.start(life=1000)
    notice = machine.rented / "notice"
    if stand == "a directory":
        (notice / "full").mkdir(parents=True)
        notice.chmod(0o500)
    else:
        notice.symlink_to("/proc/self/nothing/there")
    machine.fake("date", 1)
    machine.pass_time(950)
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


# ---- the text -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_script_is_clean(tmp_path: Path) -> None:
    path = tmp_path / "deadman.sh"
    path.write_text(read_script())
    done = subprocess.run(["shellcheck", "-s", "sh", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
