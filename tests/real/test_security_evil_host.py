"""Rows 6 and 21: hosts that want to wear the user's machine out, or to draw on the user's terminal."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from network_faults import FaultyCluster
from real_stack import wait_for
from ssh_cluster import Cluster
from sshlab import Lab, LabHost

MakeCluster = Callable[..., Cluster]
MakeHosts = Callable[..., list[LabHost]]
LIAR = (Path(__file__).parents[1] / "lying_host.py").read_text(encoding="utf-8")
MEMORY_MOST = 200 << 20
JOBS = 40


# ---- row 21 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(state_dir: Path, shared_lab: Lab, lab_hosts: MakeHosts) -> Iterator[FaultyCluster]:
    made = FaultyCluster(state_dir, shared_lab, lab_hosts(5))
    yield made
    made.close()


def peak(made: Cluster) -> int:
    """The most memory that the maestro had."""
    status = Path(f"/proc/{made.maestro()}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def work(made: FaultyCluster, good: LabHost, name: str, *more: dict[str, object]) -> float:
    """Seconds in which the good host has done its jobs, whatever becomes of the others."""
    jobs = [made.job(good, f"{name}-{number}", "echo good; date") for number in range(JOBS)]
    begun = time.monotonic()
    run = made.submit(jobs=[*more, *jobs], name=f"{name}.json")
    made.until(run, lambda progress: progress.counts["succeeded"] >= JOBS)
    took = time.monotonic() - begun
    for number in (0, JOBS - 1):
        assert made.tail(f"{name}-{number}").startswith(b"good\n")
    return took


def written_by(host: LabHost, pattern: str) -> int:
    """Bytes that these processes of a host have written."""
    script = "for p in $1; do grep wchar /proc/$p/io; done"
    lines = host.sh(script, " ".join(map(str, host.pids(pattern))), root=True).splitlines()
    return sum(int(line.split()[1]) for line in lines)


FLOODER = r"""
import os, subprocess, threading

child = subprocess.Popen(["/bin/sh", "-c", os.environ["SSH_ORIGINAL_COMMAND"]], stdin=-1, stdout=-1, bufsize=0)


def upwards():
    while data := os.read(0, 1 << 16):
        child.stdin.write(data)
    os._exit(0)


threading.Thread(target=upwards, daemon=True).start()
frames = 0
while data := os.read(child.stdout.fileno(), 1 << 16):
    os.write(1, data)
    frames += data.count(b'{"re":') + data.count(b'{"ev":')
    while frames > 2 and data.endswith(b"\n"):  # from here on there is no end to what the agent says
        os.write(1, b'{"ev":"changes","items":{"zzzzzz.1.1":{"state":"lost"},"zzzzzz.2.1":{}}}\n' * 800)
"""
ENDLESS = "exec python3 -c 'import time\nwhile True: print(\"x\" * 50000, flush=True); time.sleep(0.01)'"
MANY = "seq 3000 | xargs touch; touch made; sleep 1000"


def test_four_evil_hosts_of_five_neither_stop_the_fifth_nor_fill_the_maestro(
    five: FaultyCluster, summary_line: Callable[[str], None]
) -> None:
    flood, endless, silent, many, good = five.hosts
    alone = work(five, good, "alone")
    flood.write("/usr/local/bin/flooder", FLOODER, mode=0o755, root=True)
    flood.sshd(ForceCommand="/usr/bin/python3 /usr/local/bin/flooder")
    silent.pause()
    five.kill_maestro()  # the next one has to connect to all of them
    evil = [
        five.job(flood, "floods", "sleep 1000"),
        five.job(endless, "endless", ENDLESS),
        five.job(silent, "silent", "sleep 1000"),
        five.job(many, "many", MANY, output="*"),
    ]
    reader = None
    try:
        five.submit(jobs=evil, name="evil.json")
        wait_for(
            lambda: five.phase(five.client.find_job("many").run, "many") == "RUNNING" and many.exists(".cloudsend")
        )
        wait_for(lambda: five.phase(five.client.find_job("endless").run, "endless") == "RUNNING")
        wait_for(lambda: five.tail("endless"))
        reader = five.command("tail", "-f", "endless")
        beside = work(five, good, "beside")
        with_time = [work(five, good, f"again{turn}") for turn in range(2)]
        wait_for(lambda: len(reader.data) > 1 << 20)
        assert written_by(flood, "flooder") > 1 << 20
        assert peak(five) < MEMORY_MOST
        summary_line(
            f"four evil hosts of five: {JOBS} jobs of the good one in {alone:.1f} s alone, "
            f"{', '.join(f'{t:.1f}' for t in (beside, *with_time))} s beside them; "
            f"flood of {written_by(flood, 'flooder') >> 20} MiB taken, maestro at {peak(five) >> 20} MiB"
        )
    finally:
        if reader is not None:
            reader.process.kill()
            reader.process.wait()
        silent.resume()


# ---- row 6 ---------------------------------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31mRED\x1b]8;;http://evil\x1b\\\x9b1m\u202e\x08\x7f"
# What we draw ourselves: colours, and the block of a run that is redrawn.
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|\d*A|J|K|\?25[hl])")
OBEYED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def draws(made: Cluster, *words: str) -> str:
    """What a command writes to a terminal."""
    environ = {**os.environ, "CLOUDSEND_HOME": str(made.state), "TERM": "xterm-256color"}
    environ.pop("NO_COLOR", None)
    child = pexpect.spawn(
        sys.executable, ["-m", "cloudsend_cli", *words], cwd=made.files, env=environ, timeout=60, dimensions=(40, 200)
    )
    data: bytes = child.read()
    child.wait()
    return data.decode("utf-8", "surrogateescape")


def assert_tame(text: str, words: object) -> None:
    rest = OURS.sub("", text)
    assert not OBEYED.search(rest), (words, rest)
    assert "\x1b[31mRED" not in text, words


def test_nothing_that_a_host_says_is_obeyed_by_the_terminal(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    made = cluster(3)
    talks, refuses, lies = made.hosts
    for host in made.hosts:
        host.write("/etc/banner", EVIL, root=True)
        host.write("/etc/motd", EVIL, root=True)
        host.exec(["hostname", "h\x1b]0;o\x07"], root=True, check=False)
    talks.sshd(Banner="/etc/banner", PrintMotd="yes")
    talks.write(".bashrc", f"printf '%s\\n' '{EVIL}'; printf '%s\\n' '{EVIL}' >&2")
    refuses.sshd(Banner="/etc/banner")
    refuses.write(".bashrc", f"printf '%s\\n' '{EVIL}'; exit 3")
    error = {"re": 1, "ok": False, "error": {"code": EVIL, "message": EVIL}}
    lies.write("/usr/local/bin/liar", LIAR, mode=0o755, root=True)
    lies.sshd(ForceCommand="/usr/bin/python3 /usr/local/bin/liar")
    lies.write("lies.json", json.dumps({"next": [{"kind": "text", "text": json.dumps(error) + "\n"}] * 99}))
    name = "a;b 'c'"
    script = f"printf '%s\\n' '{EVIL}'; printf '%s\\n' '{EVIL}' >&2; touch \"$(printf '{EVIL}' | tr / _)\"; exit 3"
    config = made.config(jobs=[{"name": name, "run": script, "output": ["*", "missing"]}])
    seen = {("run",): draws(made, "run", config)}
    run = made.client.list_runs()[0].id
    lines = (
        f"run --follow --fresh {config}", "check -p lab", "list jobs", "list jobs -o wide", "list runs",
        "list instances -o wide", "list providers", f"info run {run}", f"info job {run}.1", f"explain {run}.1",
        f"getstate {run}.1", f"tail {run}.1", f"tail --stderr {run}.1", "maestro logs",
        f"info instance lab-{talks.name}", "info provider lab", f"fetch {run}.1",
    )  # fmt: skip
    for line in lines:
        seen[tuple(line.split()[:3])] = draws(made, *line.split(" "))
    for words, text in seen.items():
        assert text, words
        assert_tame(text, words)
    assert "RED" in seen["tail", f"{run}.1"]
    results = Path(made.client.find_run(run).results_dir)
    assert any("owned" in path.name for path in results.rglob("*"))
    log = made.log_of_maestro()
    assert not OBEYED.search(log)
    assert "owned" in log + seen["check", "-p", "lab"]
    summary_line(f"escape sequences of hosts: {len(seen)} commands on a terminal, none obeyed")
