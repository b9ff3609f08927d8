"""Why a job is where it is, in user words, and the seeds' word for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudsend_cli.core.explain import (
    PHASES,
    describe,
    describe_bytes,
    environment_is_ready,
    explain,
    phase_word,
)
from cloudsend_cli.core.model import (
    UNBOUNDED,
    EnvironmentBuild,
    HostView,
    JobGroup,
    JobSpec,
    Offer,
    Resources,
    RunSpec,
    Vitals,
)
from cloudsend_cli.core.plan import NodePlan, plan_run
from cloudsend_cli.core.state import BuildRecord, Changes, JobRecord, RunState

UP = HostView(True, "b1", 0.0, Resources(2.0))
SILENT = HostView(False, "b1", 90.0, Resources(2.0), error="no route")
SPECS = tuple(JobSpec(f"j{i}", ("true",), "true") for i in range(1, 9))


def make(*specs: JobSpec, machine: str = "running", **job: Any) -> RunState:
    environments = (EnvironmentBuild("e1", "tools", "true"),)
    spec = RunSpec("p", "/c.yml", specs or SPECS[:2], environments)
    state = plan_run(spec, [NodePlan("n-0", "fake", (Offer("{}", Resources(2.0, 4 << 30)),))], "rtest1", 0.0)
    state.apply(
        Changes(nodes={"n-0": replace(state.nodes["n-0"], state=machine, reason="quota" * (machine == "failed"))})
    )
    state.apply(Changes(jobs={1: replace(state.jobs[1], **job)}))
    return state


HANDED = {"state": "running", "node": "n-0", "attempt": 1}


def test_word_of_the_seeds() -> None:
    def word(state: str, connected: bool | None = None, *, started: bool = False, ready: bool = False) -> str:
        return phase_word(state, started=started, connected=connected, ready=ready)

    assert (word("pending"), word("pending", ready=True)) == ("WAIT", "QUEUE")
    assert (word("running"), word("running", True), word("running", started=True)) == ("IDLE", "IDLE", "RUNNING")
    assert (word("running", False), word("succeeded", False)) == ("UNKNOWN", "DONE")
    assert (word("failed"), word("cancelled")) == ("ABORTED", "ABORTED")


def test_words_and_values_are_the_seeds() -> None:
    assert [(w, v) for w, (v, _) in PHASES.items()] == [
        ("UNKNOWN", 0), ("WAIT", 1), ("QUEUE", 2), ("IDLE", 4), ("RUNNING", 8), ("DONE", 16), ("ABORTED", 32),
    ]  # fmt: skip
    assert phase_word("running", started=False, connected=None, ready=False) == "IDLE"


def test_environment_is_ready_where_a_machine_has_it() -> None:
    assert not environment_is_ready(make(machine="creating"), "")
    state = make()
    assert environment_is_ready(state, "") and not environment_is_ready(state, "e1")
    state.apply(Changes(builds={("n-0", "e1"): BuildRecord("n-0", "e1", state="succeeded")}))
    assert environment_is_ready(state, "e1")


def why(state: RunState, number: int = 1, view: HostView | None = UP, now: float = 100.0) -> list[str]:
    return list(explain(state, state.jobs[number], {"n-0": view} if view else {}, now).reasons)


def test_each_reason_to_wait() -> None:
    assert why(make(machine="failed")) == ["n-0 is failed: quota"]
    assert why(make(machine="creating"), view=None) == ["n-0 is creating"]
    assert why(make(not_before=130.0, reason="retry after exit 3")) == ["retry after exit 3: not before 30 s from now"]
    assert why(make(not_before=130.0)) == ["retry: not before 30 s from now"]
    assert why(make(), number=2) == ["all places are taken; 1 jobs of its kind are before it"]
    full = make(**HANDED)
    full.apply(Changes(replace(full.run, max_parallel=1)))
    assert why(full, number=2) == ["max_parallel is 1, and so many are running"]
    full.apply(Changes(replace(full.run, max_parallel=0)))
    assert why(full, number=2) == [
        "this run was rebuilt from its machines: run its config again to start what is left"
    ]


@pytest.mark.parametrize(("count", "more"), [(3, ""), (7, " and 2 more")])
def test_job_waits_for_others(count: int, more: str) -> None:
    state = make(*SPECS[:count], replace(SPECS[7], after=("j*",)))
    names = ", ".join(f"j{i}" for i in range(1, min(count, 5) + 1))
    assert why(state, count + 1) == [f"waits for {count} of {count} jobs before it: {names}{more}"]


def test_environment_that_is_not_ready() -> None:
    state = make(replace(SPECS[0], environment="e1"))
    state.apply(
        Changes(
            builds={
                ("n-0", "e1"): BuildRecord("n-0", "e1", state="failed", reason="exit 1"),
                ("n-1", "e1"): BuildRecord("n-1", "e1"),
                ("n-2", "e1"): BuildRecord("n-2", "e1", state="succeeded"),
                ("n-0", "e2"): BuildRecord("n-0", "e2"),
            }
        )
    )
    assert why(state) == [
        "its environment is not ready on n-0: failed (exit 1)",
        "its environment is not ready on n-1: running",
    ]
    assert explain(state, state.jobs[1], {}, 0.0).asks == "1 CPU, environment tools"
    unknown = replace(state.jobs[1], spec=replace(state.jobs[1].spec, environment="e9"))
    assert explain(state, unknown, {}, 0.0).asks == "1 CPU, environment e9"


def explained(state: RunState, job: JobRecord, view: HostView | None = UP) -> tuple[str, str]:
    found = explain(state, job, {"n-0": view} if view else {}, 100.0)
    return found.headline, " ".join(found.reasons)


def test_running_and_ended_jobs() -> None:
    handed = make(**HANDED)
    started = make(**HANDED, started_at=1.0)
    assert explained(handed, handed.jobs[1]) == ("handed over", "in the queue of n-0, which starts it in turn")
    held = replace(UP, vitals=Vitals(held="its load is above max_load"))
    assert explained(handed, handed.jobs[1], held)[1].endswith("n-0: its load is above max_load")
    assert explained(started, started.jobs[1], None) == ("running", "attempt 1 on n-0")
    headline, text = explained(started, started.jobs[1], SILENT)
    assert headline == "unknown"
    assert text.startswith("n-0: no answer since 00:01:30Z: no route")
    assert "the job may be running" in text
    for state, reason, text in (("failed", "exit 3", "exit 3"), ("succeeded", "", "it ended well")):
        ended = make(state=state, reason=reason)
        assert explained(ended, ended.jobs[1]) == (state, text)


@pytest.mark.parametrize(
    ("node", "view", "cpus", "remark"),
    [
        ("creating", None, 1.0, "creating"),
        ("failed", None, 1.0, "failed: quota"),
        ("running", SILENT, 1.0, "no answer since 00:01:30Z: no route"),
        ("running", replace(SILENT, error=""), 1.0, "no answer since 00:01:30Z"),
        ("running", UP, 9.0, "too small"),
        ("running", UP, 2.0, "full"),
        ("running", replace(UP, vitals=Vitals(held="its load is above max_load")), 1.0, "its load is above max_load"),
        ("running", UP, 1.0, "has room"),
        ("running", None, 1.0, "has room"),
    ],
)
def test_what_each_machine_has(node: str, view: HostView | None, cpus: float, remark: str) -> None:
    state = make(machine=node, **HANDED)
    asking = replace(state.jobs[2], spec=replace(SPECS[1], resources=Resources(cpus)))
    ((name, has, free, said),) = explain(state, asking, {"n-0": view} if view else {}, 0.0).nodes
    memory = "" if view else ", 4.0 GiB"
    assert (name, has, free, said) == ("n-0", f"2 CPUs{memory}", f"1 CPU{memory}", remark)


def test_idle_machine_is_all_free() -> None:
    state = make()
    assert explain(state, state.jobs[1], {}, 0.0).nodes == (("n-0", "2 CPUs, 4.0 GiB", "2 CPUs, 4.0 GiB", "has room"),)


def test_resources_in_words() -> None:
    assert describe(Resources(1.0, 0, 1)) == "1 CPU, 1 GPU"
    assert describe(replace(UNBOUNDED, cpus=4.0)) == "4 CPUs"
    assert describe(replace(UNBOUNDED, memory=1 << 20)) == "1.0 MiB"
    assert describe(Resources(0.5, 1 << 20, 2)) == "0.5 CPUs, 1.0 MiB, 2 GPUs"
    assert [describe_bytes(1 << n) for n in (3, 13, 33, 43)] == ["8 B", "8.0 KiB", "8.0 GiB", "8.0 TiB"]


def test_jobs_of_other_runs_on_the_machine_are_told() -> None:
    state = make()
    for others, said in (({}, "has room"), ({"n-0": 1}, "has room; it executes 1 job of other runs")):
        assert explain(state, state.jobs[1], {}, 0.0, others).nodes[0][3] == said
    assert explain(state, state.jobs[1], {}, 0.0, {"n-0": 2}).nodes[0][3].endswith("executes 2 jobs of other runs")


def test_what_others_have_taken_is_not_free() -> None:
    state = make()
    taken = replace(UP, vitals=Vitals(free=Resources(0.5)))
    ((_, has, free, said),) = explain(state, state.jobs[2], {"n-0": taken}, 0.0).nodes
    assert (has, free, said) == ("2 CPUs", "0.5 CPUs", "full")


def test_job_waits_for_a_machine_that_is_silent() -> None:
    state = make()
    reasons = explain(state, state.jobs[1], {"n-0": SILENT}, 100.0).reasons
    assert reasons == ("n-0: no answer since 00:01:30Z: no route",)


# ---- sections, groups, any end ---------------------------------------------------------------------------------


def make_sections(*groups: JobGroup, running: int = 0) -> RunState:
    first = [replace(SPECS[n], name=f"prepare/a/{n}", stage=1, group="prepare/a") for n in range(3)]
    last = replace(SPECS[3], name="train/b/0", stage=2, group="train/b")
    plans = [NodePlan("n-0", "fake", (Offer("{}", Resources(4.0)),))]
    state = plan_run(RunSpec("p", "/c.yml", (*first, last), groups=groups), plans, "rtest1", 0.0)
    state.apply(Changes(nodes={"n-0": replace(state.nodes["n-0"], state="running")}))
    for n in range(running):
        state.apply(Changes(jobs={n + 1: replace(state.jobs[n + 1], **HANDED, slot=n)}))
    return state


def test_section_that_has_not_begun() -> None:
    state = make_sections()
    assert why(state, 4) == ["waits for section prepare: 3 jobs of it have not ended"]
    for number in (1, 2):
        state.apply(Changes(jobs={number: replace(state.jobs[number], state="failed")}))
    assert why(state, 4) == ["waits for section prepare: 1 job of it has not ended"]
    state.apply(Changes(jobs={3: replace(state.jobs[3], state="failed")}))
    assert why(state, 4) == ["all places are taken; 0 jobs of its kind are before it"]
    bare = make(SPECS[0], replace(SPECS[1], stage=2))
    bare.apply(Changes(jobs={1: replace(bare.jobs[1], spec=replace(SPECS[0], stage=1))}))
    assert why(bare, 2) == ["waits for section 1: 1 job of it has not ended"]


def test_superseded_job_tells_what_has_its_name() -> None:
    state = make(SPECS[0], SPECS[1])
    done = replace(state.jobs[1], state="succeeded", superseded_by=2)
    assert explain(state, done, {}, 0.0).reasons[-1] == "superseded: rtest1.2 has its name now, with other content"
    gone = replace(done, superseded_by=-1)
    assert explain(state, gone, {}, 0.0).reasons[-1] == "superseded: it is no longer in the config"


@pytest.mark.parametrize(
    ("group", "running", "told"),
    [
        (JobGroup("prepare/a", ((),)), 1, ["the only place of group prepare/a is taken: prepare/a/0"]),
        (
            JobGroup("prepare/a", ((("--machine", "0"), ("--gpu", "1")), (("", "x"),))),
            2,
            [
                "all 2 places of group prepare/a are taken: prepare/a/0 has --machine 0 --gpu 1, prepare/a/1 has x",
            ],
        ),
        (JobGroup("prepare/a", max_parallel=2), 2, ["max_parallel of group prepare/a is 2, and so many are running"]),
        (JobGroup("prepare/a", ((),) * 3), 2, ["all places are taken; 0 jobs of its kind are before it"]),
        (JobGroup("prepare/a", ((),)), 0, ["all places are taken; 2 jobs of its kind are before it"]),
    ],
)
def test_group_that_is_full(group: JobGroup, running: int, told: list[str]) -> None:
    assert why(make_sections(group, running=running), 3) == told


def test_running_job_tells_its_place() -> None:
    state = make_sections(JobGroup("prepare/a", ((("--gpu", "7"),), ())), running=2)
    for number, told in ((1, "attempt 1 on n-0, with --gpu 7"), (2, "attempt 1 on n-0")):
        state.apply(Changes(jobs={number: replace(state.jobs[number], started_at=1.0)}))
        assert explained(state, state.jobs[number]) == ("running", told)


def test_places_of_a_large_group_are_not_all_told() -> None:
    specs = [replace(SPECS[0], name=f"s/g/{n}", stage=1, group="s/g") for n in range(10)]
    spec = RunSpec("p", "/c.yml", tuple(specs), groups=(JobGroup("s/g", tuple((("", str(n)),) for n in range(8))),))
    state = plan_run(spec, [NodePlan("n-0", "fake", (Offer("{}", Resources(4.0)),))], "rtest1", 0.0)
    state.apply(Changes(nodes={"n-0": replace(state.nodes["n-0"], state="running")}))
    slots = [*range(8), 255]
    state.apply(Changes(jobs={n: replace(state.jobs[n], **HANDED, slot=s) for n, s in enumerate(slots, 1)}))
    (told,) = why(state, 10)
    assert told.startswith("all 8 places of group s/g are taken: s/g/0 has 0, s/g/1 has 1")
    assert told.endswith("s/g/4 has 4 and 4 more")
    for n in range(2, 9):
        state.apply(Changes(jobs={n: replace(state.jobs[n], state="failed")}))
    groups = (JobGroup("s/g", ((("", "0"),),)),)
    state.apply(Changes(replace(state.run, groups=groups)))
    assert why(state, 10) == ["the only place of group s/g is taken: s/g/0 has 0, s/g/8"]


def test_job_that_waits_for_any_end() -> None:
    state = make(*SPECS[:2], replace(SPECS[7], after_any=("j*",)))
    assert why(state, 3) == ["waits for the end, good or bad, of 2 of 2 jobs: j1, j2"]
    state.apply(Changes(jobs={1: replace(state.jobs[1], state="failed")}))
    assert why(state, 3) == ["waits for the end, good or bad, of 1 of 2 jobs: j2"]


def test_machine_has_room_for_what_takes_no_cpus_beside_a_queue() -> None:
    state = make_sections()
    for n in (1, 2, 3):
        taken = replace(state.jobs[n].spec, resources=Resources(2.0))
        state.apply(Changes(jobs={n: replace(state.jobs[n], spec=taken, **HANDED)}))
    for cpus, said in ((0.0, "has room"), (1.0, "full")):
        asking = replace(state.jobs[4], spec=replace(state.jobs[4].spec, resources=Resources(cpus)))
        ((*_, remark),) = explain(state, asking, {}, 0.0).nodes
        assert remark == said
