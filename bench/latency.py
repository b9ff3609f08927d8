"""How long it takes until something is seen: the first log line, the start of a job, its end; and idle memory."""

import subprocess
import time

from bench.measuring import Cloudsend, Table, cloudsend_command, median, ms, scratch, verdict

REPEATS = 15
STAMP = "date +%s%N"


def measure() -> Table:
    with scratch() as directory, Cloudsend(directory) as cloudsend:
        cloudsend.run_jobs(1)
        asked = [_first_line(cloudsend) for _ in range(REPEATS + 1)][1:]
        first_line = [seconds for seconds in asked if seconds is not None] or [float("inf")]
        starts = [_start(cloudsend) for _ in range(REPEATS + 1)][1:]
        follows = [_end(cloudsend, follow=True) for _ in range(REPEATS + 1)][1:]
        waits = [_end(cloudsend, follow=False) for _ in range(REPEATS + 1)][1:]
        time.sleep(2.0)  # everything has ended
        idle = cloudsend.memory("VmRSS")
    table = Table("latency", [f"warm, {REPEATS} times", "median", "least", "most", "target", ""])
    rows = {
        "`cloudsend run --follow -- echo hi` to the first log line": (first_line, 0.4),
        "`Client.submit` to the job's first instruction": ([s[1] for s in starts], 0.02),
        "of it, until `Client.submit` returns": ([s[0] for s in starts], None),
        "end of a job to `Client.follow`": (follows, 0.02),
        "end of a job to `Client.wait`": (waits, 0.02),
    }
    for name, (times, limit) in rows.items():
        middle = median(times)
        aim = ["", ""] if limit is None else [f"{ms(limit, 0)} ms", verdict(middle, limit)]
        table.rows.append([name, *(f"{ms(t)} ms" for t in (middle, min(times), max(times))), *aim])
    lost = asked.count(None)
    table.rows.insert(1, ["of these, without any log line", f"{lost} of {REPEATS}", "", "", "0", verdict(lost, 0)])
    for role, limit in (("maestro", 60.0), ("agent", None)):
        aim = ["", ""] if limit is None else [f"{limit:.0f} MB", verdict(idle[role], limit)]
        table.rows.append([f"memory of the idle {role}", f"{idle[role]:.0f} MB", "", "", *aim])
    table.raw = {"first_line": asked, "start": starts, "follow": follows, "wait": waits, "idle_mb": idle}
    return table


def _first_line(cloudsend: Cloudsend) -> float | None:
    """None: the run succeeded and its log line was not shown."""
    command = cloudsend_command(cloudsend.state_dir, "run", "--follow", "--fresh", "--", "echo", "hi")
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        seen = next((time.monotonic() for line in process.stdout if line.rstrip().endswith("hi")), None)
        process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}")
    return None if seen is None else seen - begun


def _start(cloudsend: Cloudsend) -> tuple[float, float]:
    """(until submit returns, until the job looks at the clock); a program that does so takes 1 ms to begin."""
    begun = time.time_ns()
    run = cloudsend.client.submit(None, STAMP.split()).run
    returned = time.time_ns()
    _settle(cloudsend, run)
    return (returned - begun) / 1e9, (_stamp(cloudsend, run) - begun) / 1e9


def _end(cloudsend: Cloudsend, *, follow: bool) -> float:
    """From the job's last look at the clock until the caller knows that it has ended."""
    run = cloudsend.client.submit(None, ["sh", "-c", f"sleep 0.3; exec {STAMP}"]).run
    if follow:
        _settle(cloudsend, run)
    else:
        cloudsend.client.wait([run], timeout=30)
    noticed = time.time_ns()
    return (noticed - _stamp(cloudsend, run)) / 1e9


def _settle(cloudsend: Cloudsend, run: str) -> None:
    for _ in cloudsend.client.follow(run, timeout=30):
        pass


def _stamp(cloudsend: Cloudsend, run: str) -> int:
    return int(b"".join(cloudsend.client.read_log(f"{run}.1")))
