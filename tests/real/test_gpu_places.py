"""GPUs that hosts declare and do not have: what jobs see in their environment proves that no index is shared."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ssh_cluster import Cluster
from timed_tasks import most_at_once, read_tasks

MakeCluster = Callable[..., Cluster]
# Its begin, its end and what it may use, in one line.
SEES = 'b=$(date +%s.%N); sleep 0.3; echo "$b $(date +%s.%N) gpus $CUDA_VISIBLE_DEVICES" >> "$HOME/ledger"'


def test_no_index_of_a_gpu_is_given_twice_at_one_time(cluster: MakeCluster) -> None:
    stack = cluster(2, settings={"gpus": 3, "cpus": 8})
    one = {"name": "one", "run": SEES, "gpu": 1, "cpus": 0.1, "repeat": 12}
    two = {"name": "two", "run": SEES, "gpu": 2, "cpus": 0.1, "repeat": 4}
    none = {"name": "none", "run": 'test -z "${CUDA_VISIBLE_DEVICES+set}"', "cpus": 0.1}
    run = stack.run(one, two, none)
    assert stack.client.find_run(run).counts == {"succeeded": 17}
    for host in stack.hosts:
        tasks = read_tasks(stack.ledger(host))
        assert tasks
        held = [(task, gpu) for task in tasks for gpu in task.arguments[0].split(",")]
        assert {gpu for _, gpu in held} <= {"0", "1", "2"}
        for (a, gpu), (b, other) in itertools.combinations(held, 2):
            assert gpu != other or a.ended <= b.begun or b.ended <= a.begun, (a, b)
    assert (
        sorted(len(task.arguments[0].split(",")) for host in stack.hosts for task in read_tasks(stack.ledger(host)))
        == [1] * 12 + [2] * 4
    )


def test_slots_share_a_gpu_only_where_values_repeat(cluster: MakeCluster) -> None:
    stack = cluster(1)
    groups = {
        "apart": {"Call": f"sh -c '{SEES}'", "Param": {"--seed": list(range(8))}, "Async": {"gpu": [0, 1]}},
        "shared": {"Call": f"sh -c '{SEES}'", "Param": {"--seed": list(range(8))}, "Async": {"--gpu": [2, 2]}},
        "pairs": {"Call": f"sh -c '{SEES}'", "Param": {"--seed": [1, 2]}, "Async": {"--gpu": ["4,5"]}},
    }
    run = stack.submit(sections={"GPUs": groups})
    stack.settle(run)
    assert stack.client.find_run(run).counts == {"succeeded": 18}
    tasks = read_tasks(stack.ledger(stack.hosts[0]))
    by_gpu = {seen: [task for task in tasks if task.arguments == (seen,)] for seen in ("0", "1", "2", "4,5")}
    assert {seen: most_at_once(some) for seen, some in by_gpu.items()} == {"0": 1, "1": 1, "2": 2, "4,5": 1}
    assert (len(by_gpu["0"]) + len(by_gpu["1"]), len(by_gpu["2"]), len(by_gpu["4,5"])) == (8, 8, 2)
