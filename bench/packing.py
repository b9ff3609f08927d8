"""Packing jobs onto machines: CPU seconds and number of machines, beside plain first fit decreasing.

One thread computes and nothing else: its CPU time is what it takes where nothing else runs.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping

from bench.measuring import Table, verdict
from cloudsend_cli.core.model import Resources
from cloudsend_cli.core.packing import count_machines, plan_packing

MACHINE = Resources(64.0, 256 << 30, 8)
SIZES = ((10_000, 500, 1.0), (100_000, 5_000, 15.0))  # jobs, machines, target in seconds
GIB = 1 << 30
PLAIN_MOST = 50_000  # jobs with which the textbook's way is tried: its time grows with jobs times machines


def make_needs(jobs: int, kinds: int, seed: int = 1) -> Counter[Resources]:
    """A mixed workload of so many different needs: most small, some large, some with GPUs."""
    rng = random.Random(seed)
    sizes = []
    for _ in range(kinds):
        cpus = min(64.0, round(rng.lognormvariate(0.6, 0.9), 2) + 0.1)
        memory = min(256.0, rng.lognormvariate(1.7, 1.0))
        sizes.append(Resources(cpus, int(memory * GIB), rng.choices((0, 1, 2), (16, 3, 1))[0]))
    return Counter(sizes[rng.randrange(kinds)] for _ in range(jobs))


def first_fit_decreasing(needs: Mapping[Resources, int], machine: Resources) -> int:
    """As in a textbook: each need, by CPUs, into the first machine with room."""
    free: list[Resources] = []
    for need in sorted(needs, key=lambda n: (-n.cpus, -n.memory, -n.gpus)):
        for _ in range(needs[need]):
            for number, room in enumerate(free):
                if need.fits_in(room):
                    free[number] = room.minus(need)
                    break
            else:
                free.append(machine.minus(need))
    return len(free)


def bound(needs: Mapping[Resources, int], machine: Resources) -> int:
    """No fewer machines hold all of it: the sum in the dimension that is scarcest."""
    sums, capacity = [0.0, 0.0, 0.0], (machine.cpus, machine.memory, machine.gpus)
    for need, count in needs.items():
        for at, value in enumerate((need.cpus, need.memory, need.gpus)):
            sums[at] += value * count
    return max(-int(-total // most) for total, most in zip(sums, capacity, strict=True))


def measure(rounds: int) -> list[Table]:
    onto = Table("packing", ["jobs", "different", "onto", "CPU seconds", "most", "placed", "target", ""])
    count = Table(
        "packing-count",
        ["jobs", "different", "machines", "at the least", "CPU seconds", "first fit decreasing", "its CPU seconds"],
    )
    for jobs, machines, target in SIZES:
        for kinds in (20, jobs):
            needs = make_needs(jobs, kinds)
            times = []
            for _ in range(rounds):
                begun = time.process_time()
                packing = plan_packing(needs, [MACHINE] * machines)
                times.append(time.process_time() - begun)
            placed = jobs - sum(packing.left.values())
            what = [f"{jobs:,}", f"{len(needs):,}"]
            took = [f"{min(times):.2f}", f"{max(times):.2f}", f"{placed:,}", f"{target:.0f} s"]
            onto.rows.append([*what, f"{machines:,} machines", *took, verdict(max(times), target)])
            onto.raw[f"{jobs}-{kinds}"] = times
            count.rows.append([*what, *_count(needs, plain=jobs < PLAIN_MOST)])
    return [onto, count]


def _count(needs: Mapping[Resources, int], *, plain: bool) -> list[object]:
    begun = time.process_time()
    found = count_machines(needs, MACHINE)
    took = time.process_time() - begun
    row: list[object] = [found, bound(needs, MACHINE), f"{took:.2f}"]
    if not plain:
        return [*row, "not tried", ""]
    begun = time.process_time()
    other = first_fit_decreasing(needs, MACHINE)
    return [*row, other, f"{time.process_time() - begun:.2f}"]
