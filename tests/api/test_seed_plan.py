"""From a plan to the seeds' objects: ranks, entries of the config, places. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cloudsend_cli.api.seeds.opening import Source
from cloudsend_cli.api.seeds.planned import Objects, assign_jobs, make_objects, see_jobs, see_machines
from cloudsend_cli.api.seeds.printed import make_safe
from cloudsend_cli.api.seeds.states import CloudSendInstanceState, CloudSendJobState
from cloudsend_cli.core.machine_views import InstanceView
from cloudsend_cli.core.model import JobSpec, Offer, Resources, RunSpec
from cloudsend_cli.core.plan import NodePlan
from cloudsend_cli.core.submission import PlanView
from cloudsend_cli.core.views import JobView

DONE, ABORTED = CloudSendJobState.DONE, CloudSendJobState.ABORTED


def planned(cpus: Sequence[float], machines: Sequence[float | None], **document: Any) -> Objects:
    jobs = tuple(JobSpec(f"j{n}", ("true",), "true", resources=Resources(c)) for n, c in enumerate(cpus))
    nodes = tuple(
        NodePlan(f"m-{n}", "m", (Offer("{}", None if size is None else Resources(size)),))
        for n, size in enumerate(machines)
    )
    source = Source(document, "/")
    return make_objects(
        PlanView(RunSpec("p", "", jobs), nodes, None, None, ()), source, lambda name: None, lambda job: None
    )


def places(objects: Objects) -> list[str | None]:
    found = [job.get_instance() for job in objects.jobs.values()]
    return [instance.get_name() if instance is not None else None for instance in found]


@pytest.mark.parametrize(
    ("cpus", "machines", "expected"),
    [
        ([1, 1], [4, 4], ["m-0", "m-0"]),  # as few machines as will do
        ([4, 1, 3], [4, 4], ["m-0", "m-1", "m-1"]),
        ([2, 2, 2, 2, 2], [4, 4], ["m-0", "m-0", "m-1", "m-1", "m-0"]),  # what does not fit at once comes later
        ([8, 1], [4, 4], [None, "m-0"]),  # what fits nowhere is nowhere
        ([1, 1, 1], [None, None], ["m-0", "m-1", "m-0"]),  # of machines whose size nobody knows
        ([1], [], [None]),
        ([], [4], []),
    ],
)
def test_jobs_are_placed(cpus: list[float], machines: list[float | None], expected: list[str | None]) -> None:
    objects = planned(cpus, machines)
    assign_jobs(objects)
    assert places(objects) == expected
    told = {name: [job.get_name() for job in machine.get_jobs()] for name, machine in objects.instances.items()}
    assert told == {f"m-{n}": [f"j{i}" for i, p in enumerate(expected) if p == f"m-{n}"] for n in range(len(machines))}
    assign_jobs(objects)
    assert places(objects) == expected


def test_each_object_knows_its_entry_and_its_rank() -> None:
    kinds = [{"type": "a", "number": 2}, {"type": "b", "number": None}]
    jobs = [{"run_command": "true", "repeat": 2, "tag": "first"}, "true"]
    objects = planned([1, 1, 1], [1, 1, 1], instances=kinds, jobs=jobs)
    assert [m.get_rank() for m in objects.instances.values()] == ["1.1", "1.2", "2.1"]
    assert [m.get_config("type") for m in objects.instances.values()] == ["a", "a", "b"]
    assert [j.get_config("tag") for j in objects.jobs.values()] == ["first", "first", None]
    assert [j.get_config("run_command") for j in objects.jobs.values()] == ["true"] * 3
    assert objects.entry_of == {"j0": 0, "j1": 0, "j2": 1}


def test_of_jobs_and_machines_that_entries_do_not_count_nothing_is_said() -> None:
    objects = planned([1, 1], [1, 1, 1], instances=[{"type": "a"}, {"type": "b"}], jobs={"matrix": {"a": [1, 2]}})
    assert [m.get_rank() for m in objects.instances.values()] == ["1", "2", "3"]
    assert {m.get_config("type") for m in objects.instances.values()} == {None} and objects.entry_of == {}


def view(attempt: int, state: str, phase: str, run: str = "r1", reason: str = "") -> JobView:
    uid = f"{run}.1.{attempt}" if attempt else None
    return JobView(
        f"{run}.1",
        "j0",
        run,
        1,
        state,
        phase,
        reason,
        None,
        attempt,
        uid,
        "m-0",
        "m",
        "h",
        "true",
        0.0,
        None,
        None,
        {},
    )


def test_a_process_for_each_attempt_whatever_was_seen_of_them() -> None:
    objects = planned([1], [1])
    job = objects.jobs["j0"]

    def see(*views: JobView) -> list[tuple[str, CloudSendJobState]]:
        list(see_jobs(objects, {"r1.1": job, "r2.1": job}, views, "b"))
        return [(p.get_uid(), p.get_state()) for p in job.get_processes()]

    assert see(view(0, "pending", "WAIT")) == [("r1.1.1", CloudSendJobState.WAIT)]
    assert see(view(1, "running", "RUNNING")) == [("r1.1.1", CloudSendJobState.RUNNING)]
    assert see(view(1, "pending", "QUEUE")) == [("r1.1.1", ABORTED), ("r1.1.2", CloudSendJobState.QUEUE)]
    first = job.get_processes()[0]
    assert first.get_aborted_reason() == "a newer attempt follows" and not first.is_active()
    # It is cancelled before its second attempt was handed out: that one has ended, not the first once more.
    assert see(view(1, "cancelled", "ABORTED", reason="")) == [("r1.1.1", ABORTED), ("r1.1.2", ABORTED)]
    assert see(view(4, "succeeded", "DONE"))[-1] == ("r1.1.4", DONE)
    assert see(view(1, "running", "UNKNOWN", run="r2"))[-1] == ("r2.1.1", CloudSendJobState.UNKNOWN)
    assert [p.get_state() for p in job.get_active_processes()] == [CloudSendJobState.UNKNOWN]
    job.put_last(job.get_processes()[0])
    assert job.get_last_process() is first and first.get_instance() is objects.instances["m-0"]


def test_a_machine_that_stands_in_is_an_instance_and_an_id_is_kept() -> None:
    objects = planned([1], [1], instances=[{"type": "a"}])
    see_machines(objects, [InstanceView("m-0", "m", "i-1", "running"), InstanceView("m-0b", "m", "", "creating")])
    first, second = objects.instances.values()
    assert (second.get_name(), second.get_config("type"), second.get_rank()) == ("m-0b", "a", "1.1")
    assert (first.get_state(), second.get_state()) == (CloudSendInstanceState.RUNNING, CloudSendInstanceState.STARTING)
    see_machines(objects, [InstanceView("m-0", "m", "", "released"), InstanceView("other", "m", "", "running")])
    assert (first.get_id(), first.get_state()) == ("i-1", CloudSendInstanceState.TERMINATED)
    see_machines(objects, [InstanceView("m-0", "m", "", "a word that is not known")])
    assert first.get_state() == CloudSendInstanceState.UNKNOWN and list(objects.instances) == ["m-0", "m-0b"]


def test_nothing_that_is_printed_is_obeyed() -> None:
    assert make_safe("a\x1b[2J\r\u202eb\x9bc\ud800") == "a\\x1b[2J\\r\\u202eb\\x9bc\\ud800"
    assert make_safe("größer") == "größer"
