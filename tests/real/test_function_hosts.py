"""Functions over two SSH hosts: many points, of which three end badly, each in its own way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest
from campaigns import pick
from ssh_cluster import Cluster

MakeCluster = Callable[..., Cluster]
POINTS = pick(100, 1000)

SWEEP = """
    import os, sys, time
    from cloudsend_cli import Client
    from cloudsend_cli.errors import FunctionError

    def point(n):
        if n == 10:
            raise ValueError("the tenth")
        if n == 20:
            data = [b"x" * (1 << 20) for _ in range(1000)]
        if n == 30:
            time.sleep(3600)
        return n * n, os.uname().nodename

    if __name__ == "__main__":
        count = int(sys.argv[1])
        run = Client().map(
            point, [{"n": n} for n in range(count)], cpus=0.5, timeout="12s", grace="1s", config={"provider": "lab"}
        )
        results = run.wait(280)
        bad = {result.params["n"]: result.reason for result in results if not result.succeeded}
        assert bad == {"10": "exit 1", "20": "oom", "30": "timeout"}, bad
        assert results[10].error == "ValueError: the tenth"
        for n in (10, 20, 30):
            try:
                results[n].value()
            except (ValueError, FunctionError) as problem:
                assert type(problem) is (ValueError if n == 10 else FunctionError), (n, problem)
            else:
                raise AssertionError(n)
        good = [(n, result.value()) for n, result in enumerate(results) if result.succeeded]
        assert len(good) == count - 3 and all(value[0] == n * n for n, value in good)
        print(run.run, *sorted({value[1] for _, value in good}))
"""


@pytest.mark.campaign("functions")
@pytest.mark.timeout(400)
def test_a_thousand_points_on_two_hosts_of_which_three_end_badly(
    cluster: MakeCluster, summary_line: Callable[[str], None]
) -> None:
    stack = cluster(2, memory="400m")
    script = stack.files / "sweep.py"
    script.write_text(textwrap.dedent(SWEEP))
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), str(POINTS)],
        cwd=stack.files,
        env={**os.environ, "CLOUDSEND_HOME": str(stack.state)},
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    summary_line(f"{POINTS:,} calls of a function over two hosts came home in {time.monotonic() - begun:.0f} s")
    run, *hosts = done.stdout.split()
    assert len(hosts) == 2, "each host had some of it"
    used = {job.instance for job in stack.client.list_jobs(run)}
    assert used == {stack.node(host) for host in stack.hosts}
    command = [sys.executable, "-m", "cloudsend_cli", "--state-dir", str(stack.state), "wait", run]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1


SECTIONS = """
    import os, sys, time
    import local_part
    from cloudsend_cli import TaskRunner

    class Seen:
        def __init__(self, *facts):
            self.facts = facts

    def work(x, gpu):
        began = time.time()
        time.sleep(0.2)
        host, seen = os.uname().nodename, os.environ["CUDA_VISIBLE_DEVICES"]
        return Seen(local_part.double(x), gpu, seen, host, began, time.time())

    if __name__ == "__main__":
        sections = {"s": {"g": {"Call": work, "Param": {"x": list(range(12))}, "Async": {"gpu": [0, 1, 2, 3]}}}}
        jobs = TaskRunner(sections, provider="lab").run().jobs
        seen = [job.value() for job in jobs]
        assert all(type(s) is Seen for s in seen) and [s.facts[0] for s in seen] == [2 * x for x in range(12)]
        assert all(str(s.facts[1]) == s.facts[2] for s in seen)
        for gpu in range(4):
            times = sorted(s.facts[4:] for s in seen if s.facts[1] == gpu)
            assert all(one[1] <= two[0] for one, two in zip(times, times[1:])), times
        print(len({s.facts[3] for s in seen}))
"""


def test_functions_of_sections_share_one_pool_over_two_hosts(cluster: MakeCluster) -> None:
    stack = cluster(2)
    (stack.files / "local_part.py").write_text("def double(x):\n    return 2 * x\n")
    script = stack.files / "sections.py"
    script.write_text(textwrap.dedent(SECTIONS))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=stack.files,
        env={**os.environ, "CLOUDSEND_HOME": str(stack.state)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", ""), done.stdout + done.stderr
