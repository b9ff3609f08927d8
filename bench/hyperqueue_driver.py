"""Runs in HyperQueue's own virtual environment: a server and one worker in this process, N tasks of `true`.

    python hyperqueue_driver.py JOBS CORES DIRECTORY

Prints {"seconds", "told", "logs"}: until the last task opened its log, and until the client, which asks once a second,
knew of the end. The first is what is compared.
"""

import glob
import json
import os
import sys
import time

from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.job import Job

LEFT_BEHIND = "/tmp/hq-lc-*"  # the worker's socket


def main() -> None:
    jobs, cores, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    work = os.path.join(directory, "work")
    os.mkdir(work)
    before = set(glob.glob(LEFT_BEHIND))
    with LocalCluster(os.path.join(directory, "server"), WorkerConfig(cores=cores)) as cluster:
        client = cluster.client()
        job = Job(default_workdir=work)
        for _ in range(jobs):
            job.program(["true"])  # stdout and stderr go to files of their own
        begun = time.time()
        submitted = client.submit(job)
        client.wait_for_jobs([submitted])
        told = time.time() - begun
        logs = [entry.stat().st_mtime for entry in os.scandir(work)]
    for path in set(glob.glob(LEFT_BEHIND)) - before:
        os.unlink(path)
    print(json.dumps({"seconds": max(logs) - begun, "told": told, "logs": len(logs)}))


if __name__ == "__main__":
    main()
