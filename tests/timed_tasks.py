"""The TaskRunner config of the seed README, with tasks that write down when they ran, and what must hold of that."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DECAYS, EPOCHS, SIZES = ("exp", "anneal", "static"), (100, 1000, 10000), (1000, 2000, 3000)
FLAGS = ("-l", "-a", "-la")
GPU_GROUP, CPU_GROUP, DUMMY = "GTX 2080", "CPU", "A dummy group"
SEARCH, ANOTHER = "Section: Search for Decay, Epoch, and Dataset Size", "Another Section"
# In one short write, so that tasks which end together do not mix their lines.
_STAMP = 'b=$(date +%s.%N); sleep {seconds}; echo "$b $(date +%s.%N) {group} $*" >> {ledger}'


def timed_call(group: str, ledger: str, seconds: float) -> str:
    """A command line that writes its begin, its end, its group and its arguments to `ledger`."""
    stamp = _STAMP.format(seconds=seconds, group=group.replace(" ", "_"), ledger=ledger)
    return f"sh -c '{stamp}' task"


def seed_sections(ledger: str, seconds: float = 0.15) -> dict[str, dict[str, dict[str, object]]]:
    """27 tasks on four slots beside 3 one after another; then 1."""
    return {
        SEARCH: {
            GPU_GROUP: {
                "Call": timed_call(GPU_GROUP, ledger, seconds),
                "Param": {"--decay": list(DECAYS), "--epoch": list(EPOCHS), "--dataset_size": list(SIZES)},
                "Async": {"--machine": [0, 1], "--gpu": [0, 1]},
            },
            CPU_GROUP: {
                "Call": timed_call(CPU_GROUP, ledger, seconds),
                "Param": {"": list(FLAGS)},
                "Async": {"": []},
            },
        },
        ANOTHER: {DUMMY: {"Call": timed_call(DUMMY, ledger, seconds), "Param": {"": ["-a"]}}},
    }


@dataclass(frozen=True, slots=True)
class Task:
    """One line of a ledger."""

    begun: float
    ended: float
    group: str
    arguments: tuple[str, ...]


def read_tasks(lines: Iterable[str]) -> list[Task]:
    """In the order in which they began."""
    tasks = []
    for line in lines:
        begun, ended, group, *arguments = line.split()
        tasks.append(Task(float(begun), float(ended), group.replace("_", " "), tuple(arguments)))
    return sorted(tasks, key=lambda task: task.begun)


def most_at_once(tasks: Sequence[Task]) -> int:
    """How many ran at the same time at most; one that begins when another ends does not overlap it."""
    moments = sorted([(t.begun, 1) for t in tasks] + [(t.ended, -1) for t in tasks])
    return max(itertools.accumulate(step for _, step in moments))


def check_seed_run(tasks: Sequence[Task]) -> None:
    """Exact counts, order and concurrency, by the tasks' own clocks."""
    by_group = {name: [t for t in tasks if t.group == name] for name in (GPU_GROUP, CPU_GROUP, DUMMY)}
    search, cpu, dummy = by_group.values()
    assert len(tasks) == 31 and (len(search), len(cpu), len(dummy)) == (27, 3, 1)
    points = [task.arguments[:6] for task in search]
    wanted = [
        ("--decay", d, "--epoch", str(e), "--dataset_size", str(s))
        for d, e, s in itertools.product(DECAYS, EPOCHS, SIZES)
    ]
    assert sorted(points) == sorted(wanted)
    assert {frozenset(points[:4])} == {frozenset(wanted[:4])}, "the first four are the first of the product"
    slots = {task.arguments[6:] for task in search}
    assert slots == {("--machine", str(m), "--gpu", str(g)) for m in (0, 1) for g in (0, 1)}
    assert most_at_once(search) == 4
    for slot in slots:
        assert most_at_once([task for task in search if task.arguments[6:] == slot]) == 1, slot
    assert [task.arguments for task in cpu] == [(flag,) for flag in FLAGS]
    assert most_at_once(cpu) == 1
    assert most_at_once([*search, *cpu]) == 5, "the groups of a section run at the same time"
    assert dummy[0].arguments == ("-a",)
    assert dummy[0].begun >= max(task.ended for task in (*search, *cpu)), "a section waits for the one before"
