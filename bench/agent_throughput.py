"""Milliseconds a job through one agent: `python bench/agent_throughput.py [JOBS] [PLACES]`, jobs of /bin/sh -c true.

Starts an agent of its own in a temporary directory, through `attach`, as the maestro does; sends batches of 256,
acknowledges every end. Prints wall time and the CPU time of everything below this process that has ended.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cloudsend_cli.agent import client

BATCH = 256


def start_agent(home: str, agent: Path) -> tuple["subprocess.Popen[bytes]", client.AgentChannel]:
    near, far = socket.socketpair()
    command = [sys.executable, "-I", "-S", "-B", str(agent), "attach", home]
    process = subprocess.Popen(command, stdin=far, stdout=far)
    far.close()
    near.setblocking(False)
    return process, client.AgentChannel(near)


def run(jobs: int, places: float) -> dict[str, float]:
    home = tempfile.mkdtemp(prefix="cs-bench-")
    agent = Path(home, "agent.pyz")
    agent.write_bytes(client.agent_source())
    begun = time.monotonic()
    process, channel = start_agent(home, agent)
    while channel.hello is None:
        select.select([channel], [], [], 10)
        channel.receive()
    ready = time.monotonic()
    channel.request("hello", owner="bench", epoch=1, resources={"cpus": places})
    sent = ended = failed = 0
    specs = [{"id": f"bench.{i}.1", "argv": ["/bin/sh", "-c", "true"]} for i in range(jobs)]
    try:
        while ended < jobs:
            while sent < jobs and sent - ended < 4 * BATCH:
                channel.request("start", boot=channel.hello["boot"], attempts=specs[sent : sent + BATCH])
                sent = min(jobs, sent + BATCH)
            blocked = not channel.flush()
            select.select([channel], [channel] if blocked else [], [], 10)
            for frame in channel.receive():
                if frame.event == "changes":
                    ends = {i: s for i, s in frame["items"].items() if s["state"] not in ("queued", "running")}
                    failed += sum(1 for status in ends.values() if status.get("exit_code") != 0)
                    ended += len(ends)
                    if ends:
                        channel.tell("ack", attempts=list(ends))
        channel.flush()
        wall = time.monotonic() - ready
        rss = int(Path(f"/proc/{channel.hello['pid']}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "jobs": jobs,
            "places": places,
            "ms_per_job": round(1000 * wall / jobs, 3),
            "start_ms": round(1000 * (ready - begun), 1),
            "failed": failed,
            "daemon_rss_mb": round(rss / 1e6, 1),
        }
    finally:
        channel.request("handover")  # the daemon leaves
        channel.flush()
        process.wait(10)
        channel.close()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(json.dumps(run(count, float(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1)))
