"""H12 and H14: whatever login shell and Python a host has, it works, or is refused in words that say why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ssh_cluster import Cluster
from ssh_faults import LEDGER, check_host
from sshlab import LabHost, NotHere

from cloudsend_cli.core.views import JobView

pytestmark = pytest.mark.usefixtures("namespaces")
MakeCluster = Callable[..., Cluster]
MakeHosts = Callable[..., list[LabHost]]
Tell = Callable[[str], None]
NOISE = "printf '\\033[31mWelcome!\\007 \\377\\n'; seq 200000; echo oops >&2"  # 1.3 MB


def run_on_each(stack: Cluster, hosts: Mapping[str, LabHost], **settings: Mapping[str, object]) -> dict[str, JobView]:
    """A run of one job for each host, all at the same time; the job has an upload and an output."""
    stack.hosts = list(hosts.values())
    stack.trust()
    stack.write_providers({hosts[name].name: entry for name, entry in settings.items()})
    (stack.files / "given").write_text("given\n")
    job = {"run": f"{LEDGER}cat given >made; echo well", "upload": "given", "output": "made"}
    runs = {
        name: stack.submit(name=f"{name}.json", instances={"labels": host.name}, jobs=[{"name": name, **job}])
        for name, host in hosts.items()
    }
    for run in runs.values():
        stack.settle(run)
    return {name: stack.jobs(run)[name] for name, run in runs.items()}


def check_worked(stack: Cluster, host: LabHost, job: JobView) -> None:
    assert (job.state, job.reason, job.attempt, job.outputs) == ("succeeded", "", 1, "home")
    assert stack.ledger(host) == [job.uid]
    assert stack.tail(job.id) == b"well\n"
    (made,) = [path / "made" for path in stack.client.fetch(job.id)]
    assert made.read_text() == "given\n"


def check_refused(stack: Cluster, host: LabHost, job: JobView, words: str, hint: str) -> None:
    assert (job.state, job.attempt, stack.ledger(host)) == ("failed", 0, [])
    assert job.reason.startswith(f"no-capacity: {stack.node(host)}: refused: ") and words in job.reason
    said = check_host(stack, host)
    assert words in said and hint in said


def make_each(lab_hosts: MakeHosts, specs: Mapping[str, Mapping[str, Any]], tell: Tell) -> dict[str, LabHost]:
    """A host of each kind, but for what this machine does not have."""
    hosts: dict[str, LabHost] = {}
    for name, spec in specs.items():
        shell = spec.get("shell", "/bin/sh")
        try:
            if not Path(shell).exists():
                raise NotHere(f"no {shell} on this machine")
            (hosts[name],) = lab_hosts(1, **spec)
        except NotHere as reason:
            tell(f"left out: {reason}")
    return hosts


def test_h12_every_login_shell_and_rc_file_works_or_is_refused_with_the_reason(
    cluster: MakeCluster, lab_hosts: MakeHosts, summary_line: Tell
) -> None:
    noisy = {
        "dash": (".profile", NOISE),
        "bash": (".bashrc", NOISE),
        "zsh": (".zshenv", NOISE),
        "csh": (".cshrc", "seq 200000; set noclobber"),
        "tcsh": (".tcshrc", "seq 200000; set noclobber"),
        "fish": (".config/fish/config.fish", "seq 200000; echo oops >&2"),
    }
    refused = {
        "exits": ("(exit status 1: not for you)", "no `exit` in its rc files"),
        "forced": ("(exit status 0: only this)", "no ForceCommand"),
        "sftp": ("(exit status 1: This service allows sftp connections only.)", "no ForceCommand"),
        "nologin": ("(exit status 1: This account is currently not available.)", "no nologin"),
        "endless": ("prints without end at login", "make its login files silent"),
    }
    odd: dict[str, dict[str, Any]] = {
        "banner": {"sshd": {"Banner": "/etc/banner"}},
        "exits": {},
        "forced": {"sshd": {"ForceCommand": "/bin/echo only this"}},
        "sftp": {"sshd": {"ForceCommand": "internal-sftp"}},
        "nologin": {"shell": "/usr/sbin/nologin"},
        "endless": {},
    }
    specs: dict[str, dict[str, Any]] = {**{name: {"shell": f"/bin/{name}"} for name in noisy}, **odd}
    hosts = make_each(lab_hosts, specs, summary_line)
    for name, (path, text) in noisy.items():
        if name in hosts:
            hosts[name].write(path, text + "\n")
    hosts["banner"].write("/etc/banner", "Authorised use only!\n" * 1500, root=True)
    hosts["exits"].write(".bashrc", "echo not for you\nexit 1\n")
    hosts["endless"].write(".bashrc", "yes\n")
    stack = cluster(0)
    jobs = run_on_each(stack, hosts)
    for name, job in jobs.items():
        if name in refused:
            check_refused(stack, hosts[name], job, *refused[name])
        else:
            check_worked(stack, hosts[name], job)


def test_h14_whatever_python_a_host_has_it_works_or_is_refused_with_what_to_do(
    cluster: MakeCluster, lab_hosts: MakeHosts, summary_line: Tell
) -> None:
    refused = {
        "2.7": "; python there is older or does not start",
        "none": "no Python 3.6 or later on ",
        "broken": "; python3 there is older or does not start",
        "named": "/usr/bin/nothing on ",
    }
    pythons = {name: name for name in ("3.6", "2.7", "none", "broken")}
    pythons |= dict.fromkeys(("named", "venv", "link"), "machine")
    hosts = make_each(lab_hosts, {name: {"python": python} for name, python in pythons.items()}, summary_line)
    hosts["venv"].write("venv/bin/python3", "#!/bin/sh\nexit 1\n", mode=0o755)
    hosts["link"].sh("mkdir -p venv/bin; ln -s /nowhere venv/bin/python3")
    for name in ("venv", "link"):
        hosts[name].write(".bashrc", "PATH=~/venv/bin:$PATH\n")
    stack = cluster(0)
    jobs = run_on_each(stack, hosts, named={"python": "/usr/bin/nothing"})
    for name, job in jobs.items():
        if name in refused:
            check_refused(stack, hosts[name], job, refused[name], "`python:`")
        else:
            check_worked(stack, hosts[name], job)
