"""Files to and from an sshd host beside rsync and scp, and the first log line over 20 ms of round trip."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.measuring import Cloudsend, Table, cloudsend_command, median, ms, scratch, verdict
from bench.peers import need
from bench.ssh_hosts import HostsCloudsend, Lab, LabHost, make_lab

FILES, FILE_SIZE, LARGE = 1000, 1024, 200 << 20
TARGET_TIMES = 1.3
ROUND_TRIP, REPEATS, TARGET_LINE = 0.020, 7, 1.5

Way = Callable[[str], float]


class Peer:
    """rsync or scp with OpenSSH's client, to directories that are new each time."""

    def __init__(self, lab: Lab, host: LabHost, work: Path) -> None:
        self.ssh = f"ssh -F {work}/ssh_config"
        self.config = work / "ssh_config"
        self.config.write_text(lab.ssh_config())
        self.host = host.name
        self.work = work
        self.count = 0

    def new_name(self) -> str:
        self.count += 1
        return f"peer-{self.count}"

    def rsync_up(self, source: Path) -> float:
        return timed(["rsync", "-a", "-e", self.ssh, f"{source}/", f"{self.host}:{self.new_name()}/"])

    def rsync_down(self, source: str) -> float:
        return timed(["rsync", "-a", "-e", self.ssh, f"{self.host}:{source}/", f"{self.work}/{self.new_name()}/"])

    def scp_up(self, source: Path) -> float:
        return timed(["scp", "-q", "-r", "-F", str(self.config), str(source), f"{self.host}:{self.new_name()}"])

    def scp_down(self, source: str) -> float:
        name = f"{self.work}/{self.new_name()}"
        return timed(["scp", "-q", "-r", "-F", str(self.config), f"{self.host}:{source}", name])


def timed(command: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=120)
    return time.monotonic() - begun


def put(cloudsend: Cloudsend, source: Path) -> float:
    """From the submission of a job that is given these files until it has ended; a bare job's time is in it."""
    config = cloudsend.directory / "put.yml"
    config.write_text(
        f"project: put\nprovider: lab\nrecover: false\njobs:\n  - run: 'true'\n    upload: {source}/\n    workdir: .\n"
    )
    begun = time.monotonic()
    run = cloudsend.client.submit(str(config)).run
    settle(cloudsend, run)
    return time.monotonic() - begun


def get(cloudsend: Cloudsend, source: str) -> float:
    """From the end of a job that leaves these files (it links them) until they are home, verified."""
    config = cloudsend.directory / "get.yml"
    config.write_text(
        "project: get\nprovider: lab\nrecover: false\n"
        f"jobs:\n  - run: 'cp -al ~/{source} out; date +%s%N'\n    output: out/\n"
    )
    run = cloudsend.client.submit(str(config)).run
    settle(cloudsend, run)
    ended = int(b"".join(cloudsend.client.read_log(f"{run}.1"))) / 1e9
    return time.time() - ended


def settle(cloudsend: Cloudsend, run: str) -> None:
    for _ in cloudsend.client.follow(run, timeout=300):
        pass
    job = cloudsend.client.list_jobs(run)[0]
    if job.state != "succeeded" or job.outputs not in {"", "home"}:
        raise RuntimeError(f"{job.state}: {job.reason} {job.outputs}")


def fill(folder: Path, kind: str) -> None:
    """New content each time: what is there already would not be sent again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if kind == "large":
        (folder / "large").write_bytes(os.urandom(LARGE))
    else:
        for number in range(FILES):
            (folder / f"f{number}").write_bytes(os.urandom(FILE_SIZE))


def measure(rounds: int) -> Table:
    need("rsync", "rsync")
    found: dict[str, dict[str, list[float]]] = {}
    with make_lab(1) as lab, scratch() as work:
        host = lab.hosts[0]
        peer = Peer(lab, host, work)
        with HostsCloudsend(work, lab, [host]) as cloudsend:
            cloudsend.run_jobs(1)
            for done in range(rounds):
                for kind, what in (("small", f"{FILES:,} files of 1 KiB"), ("large", "one file of 200 MB")):
                    folder = work / kind
                    fill(folder, kind)
                    there = peer.new_name()
                    timed(["scp", "-q", "-r", "-F", str(peer.config), str(folder), f"{host.name}:{there}"])
                    ways = {
                        "up": {"cloudsend": put, "rsync": peer.rsync_up, "scp": peer.scp_up},
                        "down": {"cloudsend": get, "rsync": peer.rsync_down, "scp": peer.scp_down},
                    }
                    for direction, systems in ways.items():
                        row = found.setdefault(f"{what}, {direction}", {})
                        names = list(systems)
                        for name in names[done % 3 :] + names[: done % 3]:
                            source: object = folder if direction == "up" else there
                            way = systems[name]
                            seconds = way(cloudsend, source) if name == "cloudsend" else way(source)  # type: ignore
                            row.setdefault(name, []).append(seconds)
                            print(f"  round {done + 1}: {what} {direction}: {name} {seconds:.2f} s", file=sys.stderr)
                    host.exec(["rm", "-rf", "--", there])
    table = Table("transfers", [f"{rounds} rounds", "cloudsend", "rsync", "scp", "times the better", "target", ""])
    table.raw = dict(found)
    for what, row in found.items():
        better = min(("rsync", "scp"), key=lambda name, row=row: median(row[name]))
        times = median([a / b for a, b in zip(row["cloudsend"], row[better], strict=True)])
        cells = [f"{ms(median(row[name]), 0)} ms" for name in ("cloudsend", "rsync", "scp")]
        table.rows.append([what, *cells, f"{times:.2f}", f"{TARGET_TIMES}", verdict(times, TARGET_TIMES)])
    return table


def measure_latency() -> Table:
    """From the command line to the first line that a job prints, over a link of 20 ms, the connection being open."""
    with make_lab(1) as lab, scratch() as directory:
        host = lab.hosts[0]
        proxy = lab.proxy(host, delay=ROUND_TRIP / 2)
        with HostsCloudsend(directory, lab, [host], [(proxy.host, proxy.port)]) as cloudsend:
            cloudsend.run_jobs(1)
            seconds = [first_line(cloudsend) for _ in range(REPEATS)]
    middle = median(seconds)
    table = Table(
        "far", [f"over {1000 * ROUND_TRIP:.0f} ms of round trip, warm, {REPEATS} times", "median", "target", ""]
    )
    what = "`cloudsend run --follow -- echo hi` to the first log line"
    table.rows.append([what, f"{ms(middle, 0)} ms", f"{ms(TARGET_LINE, 0)} ms", verdict(middle, TARGET_LINE)])
    table.raw = {"seconds": seconds}
    return table


def first_line(cloudsend: Cloudsend) -> float:
    words = ["run", "--provider", "lab", "--follow", "--fresh", "--", "echo", "hi"]
    begun = time.monotonic()
    command = cloudsend_command(cloudsend.state_dir, *words)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cloudsend.directory
    ) as process:
        assert process.stdout is not None
        killer = threading.Timer(60, process.kill)
        killer.start()
        seen = next((time.monotonic() for line in process.stdout if line.rstrip().endswith("hi")), None)
        process.stdout.read()
        killer.cancel()
    if seen is None or process.returncode:
        raise RuntimeError(f"exit {process.returncode}, no line seen")
    return seen - begun
