"""What is sent to a host: what it lacks, once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from ssh_cluster import Cluster
from sshlab import LabHost


def received(host: LabHost) -> int:
    """Bytes that the host's interface has taken in since it was made."""
    lines = host.sh("cat /proc/net/dev").splitlines()
    return sum(int(line.split()[1]) for line in lines if ":" in line and not line.strip().startswith("lo:"))


def test_an_edited_file_is_sent_again_and_an_unchanged_one_never(
    cluster: Callable[..., Cluster], summary_line: Callable[[str], None]
) -> None:
    lab = cluster(1)
    (host,) = lab.hosts
    data = lab.files / "data.bin"
    size = 5_000_000
    counts = []

    def bytes_of_a_run(step: str) -> int:
        before = received(host)
        job = {"name": "sum", "run": f"sha256sum data.bin; : {step}", "upload": "data.bin"}
        lab.run(job)
        digest = lab.tail("sum").split()[0].decode()
        assert digest == hashlib.sha256(data.read_bytes()).hexdigest()
        counts.append(received(host) - before)
        return counts[-1]

    data.write_bytes(os.urandom(size))
    assert bytes_of_a_run("first") > size
    assert bytes_of_a_run("another job, the same file") < size / 10
    data.write_bytes(os.urandom(size))
    assert bytes_of_a_run("an edited file") > size
    summary_line(f"a file of {size} bytes: {counts[0]} sent, {counts[1]} when unchanged, {counts[2]} when edited")
