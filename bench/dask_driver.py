"""Run in Dask's own environment: seconds for N subprocesses of `true` over an SSHCluster of the given hosts."""

import os
import subprocess
import sys
import time

import distributed


def run_one(_: int) -> int:
    return subprocess.run(["true"], check=False).returncode


def main() -> None:
    jobs, places, key, user, known, *hosts = sys.argv[1:]
    options = {"username": user, "client_keys": [key], "known_hosts": known}
    with (
        distributed.SSHCluster(
            [hosts[0], *hosts],
            connect_options=options,
            worker_options={"nthreads": int(places)},
            scheduler_options={"port": 0, "dashboard": False},
            remote_python=f"env PYTHONPATH={os.environ['PYTHONPATH']} {sys.executable}",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(len(hosts), timeout=60)
        client.gather(client.map(run_one, range(-len(hosts), 0), pure=False))
        begun = time.monotonic()
        codes = client.gather(client.map(run_one, range(int(jobs)), pure=False))
        seconds = time.monotonic() - begun
    if any(codes):
        sys.exit("some failed")
    print(seconds)


if __name__ == "__main__":
    main()
