"""The machines under the instances: their power and what follows from it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sshlab import Lab, LabError
from sshlab.namespace_host import NamespaceHost

from .cloudinit import write_boot
from .instance import GONE, ITSELF, SPOT, USER, Instance, Reason
from .timekeeper import Timekeeper
from .userdata import parse_user_data


@dataclass
class Delays:
    """Seconds; for all instances, from now on."""

    pending: float = 0.2
    boot: float = 0.1
    """From running to the first process of the machine."""
    stopping: float = 0.1
    ending: float = 0.1
    """Shutting down, after the machine has gone."""


class Fleet:
    """`forget` is called when an instance has ended, to remove what was its own elsewhere."""

    def __init__(self, lab: Lab, time: Timekeeper, forget: Callable[[Instance], None]) -> None:
        self._lab, self._time, self._forget = lab, time, forget
        self.instances: dict[str, Instance] = {}
        self.delays = Delays()
        self.lingering: set[str] = set()  # ids that stay shutting-down; "*" is all
        self.environ: dict[str, str] = {}  # of logins on machines that are made from now on, beside the usual
        self.apply_firewall: Callable[[Instance], None] = lambda instance: None

    def __getitem__(self, instance_id: str) -> Instance:
        return self.instances[instance_id]

    def of_address(self, address: str) -> Instance | None:
        for one in list(self.instances.values()):
            host = one.host
            if host is not None and address in (host.address, host.private_address):
                return one
        return None

    # Launch

    def launch(self, one: Instance, fails: Reason | None = None) -> None:
        """Its record is there at once, pending; the rest happens behind the reply."""
        number = self._lab.take_number()
        one.number = number
        one.enter("pending", self._address(number) if one.wants_public else None)
        one.history[0].since = one.launched
        self.instances[one.id] = one
        if fails is None:
            self._time.do(self._make, one)
        self._time.after(self.delays.pending, self._run_or_fail, one, fails)

    def _address(self, number: int) -> str:
        return f"{self._prefix}.{number}"

    @property
    def _prefix(self) -> str:
        made: Any = self._lab._level
        return str(made.router.address(0)).rpartition(".")[0]

    def _make(self, one: Instance) -> None:
        with one.work:
            if one.host is not None or one.state in GONE or one.broken == "no machine":
                return
            options = {"SetEnv": " ".join(f'"{name}={value}"' for name, value in self.environ.items())}
            sshd = options if self.environ else {}
            made = self._lab.make(user=one.user, own_uptime=True, private_address=True, sshd=sshd)
            assert isinstance(made, NamespaceHost) and one.number is not None
            made.set_address(self._address(one.number))
            one.private = made.private_address
            write_boot(made.disk, one.id, one.user, one.public_key, parse_user_data(one.user_data))
            if one.broken == "no sshd":
                (made.disk / "etc/ssh/lab-down").touch()
            elif one.broken == "no cloud-init":
                (made.disk / "etc/ssh/lab-down").touch()
                (made.disk / "etc/lab/before-sshd").unlink()
                (made.disk / "etc/lab/after-sshd").unlink()
            one.host = made

    def _run_or_fail(self, one: Instance, fails: Reason | None) -> None:
        if one.state != "pending":
            return
        if fails is not None:
            self.terminate(one, fails)
            return
        one.enter("running", one.public)
        self._time.after(self.delays.boot, self._boot, one)

    def _boot(self, one: Instance) -> None:
        self._make(one)  # unless it has been made meanwhile
        with one.work:
            if one.state != "running" or one.host is None or one.host.is_up:
                return
            if not one.wants_public:
                one.host.hide_from_client()
            self.apply_firewall(one)
            try:
                one.host.boot()
            except LabError as error:
                one.impaired = True
                one.old_console = f"{one.host.console}\n{error}"
                return
            one.boots += 1
            booted = one.host.booted
            self._time.when_ended(booted.pid, lambda: self._ended_itself(one, booted.pid))

    # The machine ends itself

    def _ended_itself(self, one: Instance, pid: int) -> None:
        with one.work:
            host = one.host
            if host is None or one.state != "running" or host.last_pid != pid:
                return
            how = host.wait_down()
            host.power_off()
        if how == "reboot":
            self._time.after(self.delays.boot, self._boot, one)
        elif how == "off" and one.shutdown == "terminate":
            self.terminate(one, ITSELF)
        elif how == "off":
            self.stop(one, ITSELF)

    # What is asked for

    def terminate(self, one: Instance, reason: Reason = USER, *, silent: bool = False) -> None:
        with one.changed:
            if one.state in GONE:
                return
            one.enter("shutting-down", one.public, reason)
        self._time.do(self._end, one, reason, silent)

    def _end(self, one: Instance, reason: Reason, silent: bool) -> None:
        self._power_off(one, silent)
        self._time.after(self.delays.ending, self.finish, one)

    def finish(self, one: Instance) -> None:
        """The last step, unless it is to linger before it."""
        if self.lingering & {"*", one.id}:
            return
        with one.work:
            if one.state == "terminated":
                return
            if one.host is not None:
                one.old_console = one.host.console
                self._lab.discard(one.host)
                one.host = None
            if one.number is not None:
                self._give_number(one)
            self._forget(one)
            one.enter("terminated", None, one.reason)

    def _give_number(self, one: Instance) -> None:
        assert one.number is not None
        self._lab.give_number(one.number)
        one.number = None

    def _power_off(self, one: Instance, silent: bool) -> None:
        with one.work:
            if one.host is not None:
                with contextlib.suppress(LabError):
                    one.host.power_off(clean=not silent)
                one.host.power_off()

    def stop(self, one: Instance, reason: Reason = USER, *, force: bool = False) -> None:
        with one.changed:
            if one.state not in {"running", "pending"}:
                return
            one.enter("stopping", one.public, reason)
        self._time.do(self._stop, one, reason, force)

    def _stop(self, one: Instance, reason: Reason, force: bool) -> None:
        self._power_off(one, force)
        with one.work:
            if one.number is not None:
                self._give_number(one)
        self._time.after(self.delays.stopping, self._stopped, one, reason)

    def _stopped(self, one: Instance, reason: Reason) -> None:
        with one.changed:
            if one.state == "stopping":
                one.enter("stopped", None, reason)

    def start(self, one: Instance) -> None:
        """A new address and boot id, the old disk."""
        with one.work:
            if one.state != "stopped":
                return
            one.number = self._lab.take_number()
            if one.host is not None:
                one.host.set_address(self._address(one.number))
            one.launched = time.time()
            one.enter("pending", self._address(one.number) if one.wants_public else None)
        self._time.after(self.delays.pending, self._run_or_fail, one, None)

    def reboot(self, one: Instance) -> None:
        self._time.do(self._reboot, one)

    def _reboot(self, one: Instance) -> None:
        with one.work:
            if one.state == "running":
                self._power_off(one, silent=False)
                self._time.after(self.delays.boot, self._boot, one)

    # Spot

    def notice(self, one: Instance, seconds: float, action: str = "terminate") -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        one.reports["spot/instance-action"] = {"action": action, "time": at}
        one.reports["spot/termination-time"] = at
        self._time.after(seconds, self._reclaim, one, one.reports["spot/instance-action"], action)

    def withdraw(self, one: Instance) -> None:
        one.reports.clear()

    def _reclaim(self, one: Instance, notice: Mapping[str, str], action: str) -> None:
        if one.reports.get("spot/instance-action") is not notice:
            return  # withdrawn
        one.reports.clear()
        if action == "stop":
            self.stop(one, SPOT)
        else:
            self.terminate(one, SPOT)

    def close(self) -> None:
        """Forget them all; the lab ends their machines."""
        self.instances.clear()
