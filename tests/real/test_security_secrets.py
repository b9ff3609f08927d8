"""Rows 10 to 12: a secret is seen by its job and by nothing else; private keys stay where they are."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_stack import wait_for
from ssh_cluster import Cluster
from sshlab import LabHost

from cloudsend_cli.core.submission import SubmitOptions

MakeCluster = Callable[..., Cluster]
COMMANDS = (
    "list jobs", "list runs", "list instances", "list providers", "list environments", "info run {run}",
    "info job {run}.1", "info job {run}.2", "info instance lab-{host}", "info provider lab", "explain {run}.1",
    "explain {run}.2", "getstate {run}.1", "maestro status", "maestro logs", "config show jobs.json",
    "config show --origin jobs.json", "validate jobs.json", "run --dry-run jobs.json", "check lab-{host}",
    "tail {run}.1", "list jobs --history", "rebuild --dry-run",
)  # fmt: skip


class Canaries:
    """Words that may be nowhere: as they are, and as base64 in any position."""

    def __init__(self, *words: str) -> None:
        self.words = [word.encode() for word in words]
        self.marks = {mark for word in self.words for mark in (word, *self._encoded(word))}

    @staticmethod
    def _encoded(word: bytes) -> Iterator[bytes]:
        for shift in range(3):
            yield base64.b64encode(b"x" * shift + word)[4:-4]

    def found_in(self, data: bytes) -> bool:
        return any(mark in data for mark in self.marks)

    def files(self, root: Path) -> dict[str, int]:
        """{path: mode} of the files below `root` that have one, their names included."""
        found = {}
        for path in root.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and self.found_in(path.read_bytes()):
                    found[str(path.relative_to(root))] = path.stat().st_mode & 0o777
            if self.found_in(os.fsencode(path)):
                found[str(path.relative_to(root))] = 0
        return found

    def files_of_host(self, host: LabHost) -> dict[str, int]:
        """The same of all that was written on a host since its home was: not what lies in its system."""
        lines = host.sh(SEARCH, self._pattern(), f"{host.home}/.since", *WRITTEN, root=True).splitlines()
        return {line.partition(" ")[2]: int(line.partition(" ")[0], 8) for line in lines}

    def environments_of_host(self, host: LabHost) -> list[str]:
        """The commands of the host's processes that have a canary in their environment."""
        return sorted(host.sh(ENVIRONMENTS, self._pattern(), root=True).splitlines())

    def _pattern(self) -> str:
        return "\n".join(sorted(mark.decode() for mark in self.marks))


WRITTEN = ("/home", "/tmp", "/var", "/dev/shm", "/run", "/etc", "/root")
SEARCH = """
marks=$1; since=$2; shift 2
find "$@" -type f -cnewer "$since" -exec grep -aFl -e "$marks" {} + |
    while IFS= read -r f; do stat -c "%a %n" -- "$f"; done
"""
ENVIRONMENTS = """
for p in /proc/[0-9]*; do
    if grep -aqF -e "$1" $p/environ 2>/dev/null; then tr "\\0" " " <$p/cmdline; echo; fi
done
"""


def commands_here() -> bytes:
    """The command lines of all processes of this machine, those of the lab's hosts among them."""
    found = b""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found += Path("/proc", name, "cmdline").read_bytes() + b"\n"
    return found


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> str:
    word = f"cAnArY{secrets.token_hex(16)}"
    monkeypatch.setenv("TOKEN", word)
    return word


# One process for many commands, as each start would take a third of a second.
MANY = "import json, sys; from cloudsend_cli.cli.execute import execute; [execute(w) for w in json.load(sys.stdin)]"


def say_all(made: Cluster, run: str) -> bytes:
    """All that commands say, as JSON and as text, whatever their status."""
    words = [command.format(run=run, host=made.hosts[0].name).split() for command in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps([[*w, "-o", form] for w in words for form in ("json", "table")]).encode(),
        cwd=made.files,
        env={**os.environ, "CLOUDSEND_HOME": str(made.state)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"a bug in cloudsend" not in done.stderr
    assert done.stdout.count(run.encode()) > len(COMMANDS)
    return done.stdout + done.stderr


TELL = 'printf %s "$TOKEN" | sha256sum | tee out'
WAIT = f"touch ~/{{0}}; until [ -e ~/go ]; do sleep 0.05; done; {TELL}"


def test_a_secret_is_nowhere_but_in_its_job(
    cluster: MakeCluster, canary: str, summary_line: Callable[[str], None]
) -> None:
    made = cluster(1, settings={"cpus": 1})
    host = made.hosts[0]
    canaries = Canaries(canary)
    host.write(".since", b"")
    secret = {"vars": {"TOKEN": None}, "output": "out"}
    jobs = [
        {"name": "runs", "run": WAIT.format("runs"), **secret},
        {"name": "waits", "run": WAIT.format("waits"), **secret},
        {"name": "fails", "run": "exit 3", "vars": {"TOKEN": None}},
        {"name": "cancelled", "run": "true", "vars": {"TOKEN": None}},
        {"name": "is not there", "run": "no-such-program", "vars": {"TOKEN": None}},
    ]
    run = made.submit(jobs=jobs, debug=3)
    here = json.dumps({"jobs": [{**jobs[0], "run": TELL}], "provider": "local"})
    (made.files / "here.json").write_text(here)
    local = made.client.submit(str(made.files / "here.json"), options=SubmitOptions()).run
    made.settle(local)
    wait_for(lambda: host.exists("runs"))

    # While jobs run and wait.
    assert not canaries.found_in(say_all(made, run))
    assert not canaries.found_in(commands_here())
    assert not canaries.found_in(host.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", root=True).encode())
    holders = canaries.environments_of_host(host)
    jobs_alone = [line for line in holders if line]  # a process may have ended meanwhile
    assert jobs_alone and all("go ]" in line or line.startswith("sleep ") for line in jobs_alone), holders
    waiting = canaries.files_of_host(host)
    assert set(waiting.values()) == {0o600}
    assert all(Path(path).name == "secrets" for path in waiting), waiting
    kept = canaries.files(made.state)
    assert kept == {f"secrets/{run}": 0o600}
    assert canaries.files(made.files) == {}

    # After the end of all of them, one of which never ran.
    made.client.cancel([f"{run}.4"])
    host.write("go", b"")
    made.settle(run)
    digest = hashlib.sha256(canary.encode()).hexdigest()
    results = Path(made.client.find_run(run).results_dir)
    assert (results / "runs" / "out").read_text().split()[0] == digest
    assert (results / "waits" / "out").read_text().split()[0] == digest
    ended = [job.state for job in made.jobs(run).values()]
    assert ended == ["succeeded", "succeeded", "failed", "cancelled", "failed"]
    wait_for(lambda: not (made.state / "secrets" / run).exists())
    crash = "import cloudsend_cli.api.reading as r, sys; r.list_jobs = None; import cloudsend_cli.__main__ as m; "
    subprocess.run(
        [sys.executable, "-c", crash + "sys.argv = ['cloudsend', 'list', 'jobs']; m.main()"],
        env={**os.environ, "CLOUDSEND_HOME": str(made.state)},
        capture_output=True,
        check=False,
    )
    assert list(made.state.glob("crash-*.txt"))
    assert canaries.files(made.state) == {}
    assert canaries.files(made.files) == {}
    assert canaries.files_of_host(host) == {}
    assert not canaries.found_in(host.sshd_log().encode())
    assert not canaries.found_in(say_all(made, run))
    made.kill_maestro()
    assert canaries.files(made.state) == {}
    outputs = 4 * len(COMMANDS)
    summary_line(f"canary: nowhere in {outputs} outputs, the state directory, the host, command lines and logs")


def test_no_private_key_and_no_agent_reaches_a_host(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The project holds a key, and an ssh-agent runs: neither is to be had for a job."""
    made = cluster(1)
    host = made.hosts[0]
    host.write(".since", b"")
    body = made.lab.key_path.read_text().splitlines()[2]
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent.sock"))
    host.sshd(AllowAgentForwarding="yes")
    run = made.run({"name": "a", "run": "env; ls -l /tmp/ssh-* 2>/dev/null; ssh-add -l; true"})
    log = made.tail("a")
    assert b"SSH_AUTH_SOCK" not in log
    assert b"/tmp/ssh-" not in log
    assert made.jobs(run)["a"].state == "succeeded"
    canaries = Canaries(body)
    assert canaries.files_of_host(host) == {}
    assert canaries.files(made.state) == {}
    assert not canaries.found_in(made.log_of_maestro().encode())
