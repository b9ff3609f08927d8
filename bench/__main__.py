"""`python -m bench [NAME…] [--rounds N] [--sizes N…] [--many N] [--limit SECONDS] [--page]`."""

import argparse
import sys
import tempfile

from bench import hosts, jobs, latency, many, packing, page, startup, transfers
from bench.measuring import RESULTS, describe_machine, save

NAMES = ("startup", "latency", "packing", "jobs", "many", "hosts", "transfers")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Time cloudsend, alone and beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; without one, all")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of `jobs` (from 10,000 jobs on: 3)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000], help="numbers of jobs of `jobs`")
    parser.add_argument("--many", type=int, default=100_000, help="number of jobs of `many`")
    parser.add_argument("--hosts", type=int, default=8, help="number of sshd hosts of `hosts`")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which no new round is begun")
    parser.add_argument("--dir", help="where to work: the file system matters (default: that of temporary files)")
    parser.add_argument("--page", action="store_true", help="afterwards, put all results into docs/performance.md")
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")

    tempfile.tempdir = args.dir
    for name in args.names or NAMES:
        machine = describe_machine()
        print(f"\n{name}: {machine['text']}, load {machine['load']}, {machine['inode_us']} µs a file", flush=True)
        if name == "jobs":
            found = [
                jobs.measure(n, min(args.rounds, 3) if n >= 10_000 else args.rounds, args.limit) for n in args.sizes
            ]
        elif name == "many":
            found = [many.measure(args.many)]
        elif name == "hosts":
            found = [hosts.measure(args.hosts, 4000, min(args.rounds, 3))]
        elif name == "transfers":
            found = [transfers.measure(args.rounds), transfers.measure_latency()]
        elif name == "packing":
            found = packing.measure(min(args.rounds, 3))
        elif name == "startup":
            found = [startup.measure()]
        else:
            found = [latency.measure()]
        for table in found:
            print(f"\n{table.render()}", flush=True)
        save(name, machine, found)
    print(f"\nresults are in {RESULTS}")
    if args.page:
        page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
